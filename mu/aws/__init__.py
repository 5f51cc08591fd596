"""What mu knows about AWS: what its errors mean, its limits, endpoints and credentials."""
