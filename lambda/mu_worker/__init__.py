"""The worker: runs inside a function and executes the coordinator's commands.

Until its hello is sent, it imports only the standard library, and little of that: every worker of
every job pays for each millisecond of import.
"""
