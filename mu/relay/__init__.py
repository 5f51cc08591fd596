"""The relay, through which workers exchange data without the coordinator.

The switchboard decides, without I/O; the spool keeps frames on disk; protocol and outbox move
bytes; the hub connects them.
"""
