"""mu starts thousands of short-lived cloud-function workers and drives each with a machine."""

__version__ = "0.1.0"
