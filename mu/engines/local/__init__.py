"""The embedded local engine: AWS Lambda's API, and sandboxes on this machine."""
