"""A job's launches: which were answered, and whose workers may still come."""

from dataclasses import dataclass

LATE = "late"
"""Stands for an engine's answer where the worker has not come in time."""


@dataclass(slots=True)
class Launch:
    """An invocation, until its worker has come."""

    number: int
    due: float
    """When it counts as late."""
    answer: str = ""
    """The engine's; empty: none yet."""
    session: str | None = None
    """The worker that came with it."""
