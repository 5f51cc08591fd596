"""Code that all ports share: TLS and certificates, HTTP, and how connections end."""
