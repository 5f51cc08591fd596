"""What happens to a machine, and what it wants done about it.

Time is in the events (seconds since the epoch, as the driver read its clock), so that a machine
that is given the same events again has the same effects.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as _quote
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


# ---------------------------------------------------------------- the encoding

_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (Entered, Answered, Informed, Elapsed, Lost, Send, SetTimer, CancelTimer, Finish)
}
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in _KINDS.values()}
_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode(happened: Event | Effect) -> str:
    """Return an event or an effect as a line of JSON in ASCII, always the same for the same.

    This is what the journal keeps: kinds and fields may be added to, never changed.
    """
    kind = type(happened)
    if kind is Send:  # by far the most frequent two
        return f'["send",{_quote(happened.command)}]'  # type: ignore[union-attr, arg-type]
    if kind is Answered:
        said: Any = happened
        return f'["answered",{said.at!r},{_quote(said.text)},{said.command}]'
    return _dump([kind.__name__.lower(), *(getattr(happened, name) for name in _FIELDS[kind])])


def decode(line: str) -> Any:
    """Return the event or effect of a line. Raises ValueError."""
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{line[:80]!r} is no event or effect: {error}") from None
    return from_json(values)


def from_json(values: Any) -> Any:
    """Return the event or effect of a line that was parsed. Raises ValueError."""
    try:
        kind, *rest = values
        return _KINDS[kind](*rest)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{values!r:.80} is no event or effect: {error}") from None


def digest(effects: Iterable[Effect]) -> str:
    """Return what tells these effects from others: 16 hexadecimal digits."""
    told = "\n".join([encode(effect) for effect in effects]).encode("ascii")
    return blake2b(told, digest_size=8).hexdigest()
