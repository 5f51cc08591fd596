"""The worker: what runs inside a function and obeys the coordinator.

Standard library only, up to the first words to the coordinator, and little of that: each
millisecond of import is paid for by every worker of every job.
"""
