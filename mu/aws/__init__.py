"""What mu knows about AWS: what its answers mean. Needs nothing else of mu."""
