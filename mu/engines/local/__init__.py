"""The embedded local engine: the AWS Lambda API, with sandboxes on this machine."""
