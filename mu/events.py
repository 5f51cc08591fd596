"""What happens to a machine (events), and what it wants done in response (effects).

Events carry the time (seconds since the epoch, read from the driver's clock), so a machine that
receives the same events again produces the same effects.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as _quote
from typing import Any, ClassVar

__all__ = [
    "Answered",
    "CancelTimer",
    "Effect",
    "Elapsed",
    "Entered",
    "Event",
    "Finish",
    "Informed",
    "Lost",
    "Send",
    "SetTimer",
]


@dataclass(frozen=True, slots=True)
class Entered:
    """A worker was assigned to this actor: the machine begins."""

    kind: ClassVar[str] = "entered"
    at: float
    numbered: bool = False
    """Whether the worker says which command a reply answers. Workers of the original mu do not."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The worker replied; `command` is the number of the command it answers (0: unknown)."""

    kind: ClassVar[str] = "answered"
    at: float
    text: str
    command: int = 0


@dataclass(frozen=True, slots=True)
class Informed:
    """The worker sent INFO:key:value."""

    kind: ClassVar[str] = "informed"
    at: float
    key: str
    value: str
    command: int = 0


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The timer of that name expired."""

    kind: ClassVar[str] = "elapsed"
    at: float
    timer: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker was lost or given up; `reason` is a readable sentence."""

    kind: ClassVar[str] = "lost"
    at: float
    reason: str


Event = Entered | Answered | Informed | Elapsed | Lost


@dataclass(frozen=True, slots=True)
class Send:
    """Send this command to the worker."""

    kind: ClassVar[str] = "send"
    command: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Deliver an Elapsed of this name after `seconds`; replaces a timer of the same name."""

    kind: ClassVar[str] = "settimer"
    timer: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Cancel the timer of this name."""

    kind: ClassVar[str] = "canceltimer"
    timer: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The actor has ended: it failed if `error` (a readable sentence) is set."""

    kind: ClassVar[str] = "finish"
    error: str | None = None
    result: Any = None
    """A JSON value."""
    final: bool = field(default=False, kw_only=True, repr=False)
    """Whether no retry can mend the error. It is no part of the encoding."""


Effect = Send | SetTimer | CancelTimer | Finish


# ---------------------------------------------------------------- the encoding

_EVENTS = {one.kind: one for one in Event.__args__}
_FIELDS = {
    kind: tuple(one.name for one in fields(kind) if not one.kw_only)
    for kind in (Event | Effect).__args__
}
_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode(happened: Event | Effect) -> str:
    """Return an event or an effect as one line of JSON in ASCII; equal values give equal lines.

    The journal stores these lines: new kinds and new last fields may be added, but existing ones
    never change.
    """
    if isinstance(happened, Send):  # by far the most frequent two
        return f'["send",{_quote(happened.command)}]'
    if isinstance(happened, Answered):
        return f'["answered",{happened.at!r},{_quote(happened.text)},{happened.command}]'
    if isinstance(happened, Entered) and not happened.numbered:  # as before there was this field
        return f'["entered",{happened.at!r}]'
    return _dump([happened.kind, *(getattr(happened, name) for name in _FIELDS[type(happened)])])


def read_event(values: Sequence[Any]) -> Event:
    """Return the event from a line that is already parsed as JSON. Raises ValueError."""
    try:
        kind, *rest = values
        event: Event = _EVENTS[kind](*rest)
        return event
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{values!r:.80} is not an event: {error}") from None


def digest(effects: Iterable[Effect]) -> str:
    """Return a digest of these effects: 16 hexadecimal digits."""
    lines = "\n".join([encode(effect) for effect in effects]).encode("ascii")
    return blake2b(lines, digest_size=8).hexdigest()
