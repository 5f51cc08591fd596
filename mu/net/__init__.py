"""TLS, certificates, HTTP: what every port is made of."""
