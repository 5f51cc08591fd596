"""What all ports share: TLS and its certificates, HTTP, and how connections end."""
