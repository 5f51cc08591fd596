"""What happens to a machine (events), and what it wants done in response (effects).

Events carry the time (seconds since the epoch, read from the driver's clock), so a machine that
receives the same events again produces the same effects.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as _quote
from typing import Any
from zlib import crc32

from msgspec import Struct
from msgspec.structs import astuple

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


class Row(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A value that the journal has as a JSON array: its kind, which is its `tag`, then its fields.

    The kinds are in journals, so they never change, even if a class gets another name.
    """


class Entered(Row, frozen=True, gc=False, tag="entered"):
    """A worker was assigned to this actor: the machine begins."""

    at: float
    numbered: bool = False
    """Whether the worker says which command a reply answers. Workers of the original mu do not."""


class Answered(Row, frozen=True, gc=False, tag="answered"):
    """The worker replied; `command` is the number of the command it answers (0: unknown)."""

    at: float
    text: str
    command: int = 0


class Informed(Row, frozen=True, gc=False, tag="informed"):
    """The worker sent INFO:key:value."""

    at: float
    key: str
    value: str
    command: int = 0


class Elapsed(Row, frozen=True, gc=False, tag="elapsed"):
    """The timer of that name expired."""

    at: float
    timer: str


class Lost(Row, frozen=True, gc=False, tag="lost"):
    """The worker was lost or given up; `reason` is a readable sentence."""

    at: float
    reason: str


Event = Entered | Answered | Informed | Elapsed | Lost


class Send(Row, frozen=True, gc=False, tag="send"):
    """Send this command to the worker."""

    command: str


class SetTimer(Row, frozen=True, gc=False, tag="settimer"):
    """Deliver an Elapsed of this name after `seconds`; replaces a timer of the same name."""

    timer: str
    seconds: float


class CancelTimer(Row, frozen=True, gc=False, tag="canceltimer"):
    """Cancel the timer of this name."""

    timer: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The actor has ended: it failed if `error` (a readable sentence) is set."""

    error: str | None = None
    result: Any = None
    """A JSON value."""
    final: bool = field(default=False, kw_only=True, repr=False)
    """Whether no retry can mend the error. It is no part of the encoding."""


Effect = Send | SetTimer | CancelTimer | Finish


# ---------------------------------------------------------------- the encoding


def kind_of(row: type[Row]) -> str:
    """Return the kind of a class of rows, as the journal has it."""
    return str(row.__struct_config__.tag)


_EVENTS: dict[str, type[Event]] = {kind_of(one): one for one in Event.__args__}
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
    if isinstance(happened, Finish):
        return _dump(["finish", happened.error, happened.result])
    return _dump(values_of(happened))


def values_of(row: Row) -> list[Any]:
    """Return the JSON array of a row."""
    return [type(row).__struct_config__.tag, *astuple(row)]


def read_event(values: Event | Sequence[Any]) -> Event:
    """Return the event from a JSON array, unless it is one already. Raises ValueError."""
    if isinstance(values, Row):
        return values
    try:
        kind, *rest = values
        event: Event = _EVENTS[kind](*rest)
        return event
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{values!r:.80} is not an event: {error}") from None


def digest(effects: Iterable[Effect]) -> int:
    """Return a digest of these effects: a CRC-32 that also depends on where each one ends."""
    crc = 0
    for effect in effects:
        if type(effect) is Send:
            crc = crc32(effect.command.encode("utf-8", "surrogatepass"), crc + 1)
        else:
            crc = crc32(encode(effect).encode("ascii"), crc + 2)
    return crc


def old_digest(effects: Iterable[Effect]) -> str:
    """Return the digest that older journals have: 16 hexadecimal digits."""
    lines = "\n".join([encode(effect) for effect in effects]).encode("ascii")
    return blake2b(lines, digest_size=8).hexdigest()
