"""What happens to a machine, and what it wants done about it.

Time is in the events (seconds since the epoch, as the driver read its clock), so that a machine
that is given the same events again has the same effects.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entered:
    """A worker was given this actor: the machine begins."""

    at: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The worker replied; `command` is the number of the command it answers (0: not said)."""

    at: float
    text: str
    command: int = 0


@dataclass(frozen=True, slots=True)
class Informed:
    """The worker said INFO:key:value."""

    at: float
    key: str
    value: str
    command: int = 0


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The timer of that name ran out."""

    at: float
    timer: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker was given up, for a reason that is a sentence for people."""

    at: float
    reason: str


Event = Entered | Answered | Informed | Elapsed | Lost


@dataclass(frozen=True, slots=True)
class Send:
    """Send the worker this command."""

    command: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Bring an Elapsed of this name after so many seconds; one of the name is replaced."""

    timer: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Let the timer of this name not elapse."""

    timer: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The actor is done: failed with an error, a sentence for people, or else with a result."""

    error: str | None = None
    result: Any = None
    """A JSON value."""


Effect = Send | SetTimer | CancelTimer | Finish
