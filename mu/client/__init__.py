"""The client of a daemon: orders, jobs, and functions of Python."""
