"""What a session wants done: values that its driver performs, in order.

A machine's SetTimer and CancelTimer are effects of its session, too. Append and Write occur for
almost every reply; they are not frozen, because that would double the cost of creating one.
"""

from dataclasses import dataclass
from typing import Literal

from mu.events import CancelTimer, Event, Finish, SetTimer


@dataclass(slots=True)
class Append:
    """Append this line to the job's journal."""

    line: str


@dataclass(slots=True)
class Write:
    """Write these bytes to the current connection."""

    data: bytes


DiskStep = Literal["welcome", "send", "ack", "leave"]


@dataclass(frozen=True, slots=True)
class AwaitDisk:
    """Call `on_disk(step, value)` once everything written so far is on disk."""

    step: DiskStep
    value: int = 0


@dataclass(frozen=True, slots=True)
class Supersede:
    """End this connection, which is not the current one."""

    line: object
    reason: str


@dataclass(frozen=True, slots=True)
class ReadOn:
    """The session takes frames again: see `full`."""


@dataclass(frozen=True, slots=True)
class End:
    """The attempt has ended; all its timers are cancelled. `charged`: whether it counts."""

    finish: Finish
    at: float
    charged: bool


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The worker was told to quit: it should close its connection soon."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """Log that a state or script raised this."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Fault:
    """Log a fault in mu: this was raised while the event was handled."""

    error: Exception
    event: Event


SessionEffect = (
    Append
    | Write
    | AwaitDisk
    | SetTimer
    | CancelTimer
    | Supersede
    | ReadOn
    | End
    | Goodbye
    | Crashed
    | Fault
)
