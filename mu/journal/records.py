"""What the journal keeps of a job: one record a line, each a JSON array that begins with its kind."""

import json
from dataclasses import dataclass, fields
from typing import Any

from mu.events import Effect, Event, digest, encode


@dataclass(frozen=True, slots=True)
class Ordered:
    """The job's first record."""

    at: float
    """Seconds since the epoch, here and below."""
    uniq: str
    order: Any
    """What POST /jobs said, with all defaults filled in."""
    key: str
    digest: str
    relay: str = ""
    """HOST:PORT, as its pipeline's states were told."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The pipeline's plan: each actor's input, and the order in which they get workers."""

    inputs: list[dict[str, Any]]
    order: list[int]


@dataclass(frozen=True, slots=True)
class Launching:
    """An invocation with this one-time id is to be made; `number` is what ##ID## becomes."""

    at: float
    launch: str
    number: int


@dataclass(frozen=True, slots=True)
class Launched:
    """An engine took a launch, or its worker did not come in time."""

    launch: str
    answer: str
    at: float = 0.0
    """0: written by a version that did not record it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What came since the last such record and left nothing behind, as sums."""

    at: float
    answers: dict[str, int]
    """Engines' answers: throttled, unreached, refused."""
    dismissed: int
    """Workers that were told to quit."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A worker came and got no actor: it waits as a spare, or was dismissed."""

    at: float
    session: str
    launch: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Assigned:
    """A worker, known by its session, got an actor."""

    at: float
    actor: int
    attempt: int
    session: str
    launch: str


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of an attempt's machine, and the digest of its effects."""

    actor: int
    attempt: int
    effects: str
    event: Any
    """As in mu.events.encode."""


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """How an attempt ended; nothing of it counts any more."""

    at: float
    actor: int
    attempt: int
    error: str | None
    result: Any
    label: str
    last_reply: str
    charged: bool
    """Whether it counts among the attempts that an actor has."""


@dataclass(frozen=True, slots=True)
class NobodyCame:
    """An actor waited for a worker that did not come."""

    at: float
    actor: int
    error: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The job was stopped before its actors had ended."""

    at: float
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """A coordinator went on with the job; from `stopped_at` to `at` there was none."""

    at: float
    stopped_at: float


@dataclass(frozen=True, slots=True)
class Sized:
    """What the job's workers cost depends on: memory in MB and architecture, by region."""

    sizes: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Alive:
    """The coordinator was there at that time, even if nothing else happened."""

    at: float


Record = (
    Ordered
    | Planned
    | Launching
    | Launched
    | Counted
    | Arrived
    | Assigned
    | Happened
    | AttemptEnded
    | NobodyCame
    | Stopped
    | Resumed
    | Sized
    | Alive
)

_KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in Record.__args__}
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in _KINDS.values()}
_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def write_record(record: Record) -> str:
    """Return a record as a line of ASCII. Kinds and fields may be added to, never changed."""
    kind = type(record)
    return _dump([kind.__name__.lower(), *(getattr(record, name) for name in _FIELDS[kind])])


def write_event(actor: int, attempt: int, event: Event, effects: list[Effect]) -> str:
    """Return the line of a Happened. On the hot path, so it joins what is encoded already."""
    return f'["happened",{actor},{attempt},"{digest(effects)}",{encode(event)}]'


def read_record(line: str) -> Any:
    """Return the record of a line. Raises ValueError."""
    try:
        kind, *values = json.loads(line)
        return _KINDS[kind](*values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{line[:80]!r} is no record: {error}") from None
