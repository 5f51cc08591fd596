"""A session's effects, which its driver performs in order.

A machine's SetTimer and CancelTimer are also effects of its session. Append and Write occur for
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
    """Deliver frames to the session again: it is no longer `full`."""


@dataclass(frozen=True, slots=True)
class End:
    """The attempt has ended; all its timers are cancelled. `charged`: whether it counts."""

    finish: Finish
    at: float
    charged: bool


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Wait a short time for the worker to close its connection: it was told to quit."""


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
