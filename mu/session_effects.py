"""A session's effects, which its driver performs in order.

A machine's SetTimer and CancelTimer are also effects of its session.
"""

from typing import Literal

from msgspec import Struct

from mu.events import CancelTimer, Event, Finish, SetTimer


class Append(Struct, frozen=True, gc=False):
    """Append this line to the job's journal."""

    line: str


class Write(Struct, frozen=True, gc=False):
    """Write these bytes to the current connection."""

    data: bytes


DiskStep = Literal["welcome", "send", "ack", "leave"]


class AwaitDisk(Struct, frozen=True):
    """Call `on_disk(step, value)` once everything written so far is on disk.

    `soon`: commit for this; otherwise it can wait for the next commit.
    """

    step: DiskStep
    value: int = 0
    soon: bool = True


class Supersede(Struct, frozen=True):
    """End this connection, which is not the current one."""

    line: object
    reason: str


class ReadOn(Struct, frozen=True):
    """Deliver frames to the session again: it is no longer `full`."""


class End(Struct, frozen=True):
    """The attempt has ended; all its timers are cancelled. `charged`: whether it counts."""

    finish: Finish
    at: float
    charged: bool


class Goodbye(Struct, frozen=True):
    """Wait a short time for the worker to close its connection: it was told to quit."""


class Crashed(Struct, frozen=True):
    """Log that a state or script raised this."""

    error: Exception


class Fault(Struct, frozen=True):
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
