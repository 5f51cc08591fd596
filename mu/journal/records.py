"""The journal's records of a job: one per line, each a JSON array that starts with its kind.

Journals outlive versions of mu: new kinds, and new last fields with defaults, may be added, but
existing ones never change.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from json.encoder import encode_basestring_ascii as _quote
from typing import Any, ClassVar

from mu.events import Effect, Event, Finish, Send, digest, encode
from mu.strict_json import loads, pack


@dataclass(frozen=True, slots=True)
class Ordered:
    """The job's first record."""

    kind: ClassVar[str] = "ordered"
    at: float
    """Seconds since the epoch, here and below."""
    uniq: str
    order: Any
    """The body of POST /jobs, with all defaults filled in."""
    key: str
    digest: str
    relay: str = ""
    """HOST:PORT of the relay, as the pipeline's states see it; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The pipeline's plan: the input of each actor, and the order in which actors get workers."""

    kind: ClassVar[str] = "planned"
    inputs: list[dict[str, Any]]
    order: list[int]
    actors: list[int] | None = None
    """In a rerun: the actors that run again. None: those that the order chose."""
    earlier: list[list[Any]] = field(default_factory=list)
    """In a rerun: outcomes of the earlier job that stay, each [actor, error, result, input]."""
    sizes: list[int] = field(default_factory=list)
    """How many inputs each actor has, for users; empty: one each."""
    after: list[list[list[int]]] = field(default_factory=list)
    """Rows of actors, and of those that begin when they have ended; all numbers are sorted."""
    stages: list[list[Any]] = field(default_factory=list)
    """Rows of the name of a stage, and the sorted numbers of its actors."""


@dataclass(frozen=True, slots=True)
class Launching:
    """A worker with this one-time launch id is about to be invoked; `number` replaces ##ID##."""

    kind: ClassVar[str] = "launching"
    at: float
    launch: str
    number: int


@dataclass(frozen=True, slots=True)
class Launched:
    """An engine accepted a launch, or may have, or its worker did not connect in time."""

    kind: ClassVar[str] = "launched"
    launch: str
    answer: str
    at: float = 0.0
    """0: written by a version that did not record it."""
    ran: bool = True
    """Of a late worker: whether it can have run. It cannot if all places were taken."""
    invoked: float = 0.0
    """When the engine was first asked; 0: written by a version that did not record it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The sums of answers and dismissals since the last such record."""

    kind: ClassVar[str] = "counted"
    at: float
    answers: dict[str, int]
    """Engines' answers: throttled, unreached, refused."""
    dismissed: int
    """Workers that were told to quit."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A worker connected and got no actor: it waits as a spare, or was told to quit."""

    kind: ClassVar[str] = "arrived"
    at: float
    session: str
    launch: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Assigned:
    """A worker, identified by its session, was assigned to an actor."""

    kind: ClassVar[str] = "assigned"
    at: float
    actor: int
    attempt: int
    session: str
    launch: str


@dataclass(frozen=True, slots=True)
class Happened:
    """An event that an attempt's machine received, and the digest of its effects."""

    kind: ClassVar[str] = "happened"
    actor: int
    attempt: int
    effects: str
    event: Any
    """As in mu.events.encode."""
    error: str | None = None
    """The error of the Finish among the effects, if it has one.

    A replay needs it: a newer version may word the same error differently. Journals written
    before this field existed have the text in AttemptEnded only.
    """
    sent: str = ""
    """The names of the commands among the effects, such as `set,run`, for users."""
    states: str = ""
    """The classes of the states that it constructed, separated by commas, for users."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection of an attempt's worker was lost; its actor is held for it."""

    kind: ClassVar[str] = "disconnected"
    at: float
    actor: int
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The worker of an attempt has said hello again, on a new connection."""

    kind: ClassVar[str] = "reconnected"
    at: float
    actor: int
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """How an attempt ended; nothing from it counts after this."""

    kind: ClassVar[str] = "attemptended"
    at: float
    actor: int
    attempt: int
    error: str | None
    result: object
    label: str
    last_reply: str
    charged: bool
    """Whether it counts towards the actor's retries."""
    progress: list[int] | None = None
    """The numbers of its mu.states.Progress, if it had one."""
    final: bool = False
    """Whether no retry can mend the error, so that there is none."""
    passed: list[int] | None = None
    """The numbers of the states that it has passed on; None: written by a version without this."""


@dataclass(frozen=True, slots=True)
class NobodyCame:
    """No worker connected in time for an actor that was waiting for one."""

    kind: ClassVar[str] = "nobodycame"
    at: float
    actor: int
    error: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """An actor failed without another attempt, because others that it waits for failed."""

    kind: ClassVar[str] = "skipped"
    at: float
    actor: int
    error: str


@dataclass(frozen=True, slots=True)
class Ahead:
    """The workers of these actors are launched before others that they wait for have ended."""

    kind: ClassVar[str] = "ahead"
    at: float
    actors: list[int]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The job was stopped before all its actors had ended."""

    kind: ClassVar[str] = "stopped"
    at: float
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """A coordinator resumed the job; from `stopped_at` to `at` none was running."""

    kind: ClassVar[str] = "resumed"
    at: float
    stopped_at: float


@dataclass(frozen=True, slots=True)
class Sized:
    """The memory in MB and the architecture of a job's functions, by region, for its cost."""

    kind: ClassVar[str] = "sized"
    sizes: dict[str, list[Any]]
    longest: dict[str, float] = field(default_factory=dict)
    """How long a worker that cannot reach the coordinator can run, in seconds, by region."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a worker ran before its hello, as it told itself: INIT, and the time to connect."""

    kind: ClassVar[str] = "used"
    at: float
    session: str
    before_s: float
    init_s: float | None = None
    """The duration of INIT alone, if it was the sandbox's first event; None: it did not say."""
    memory_mb: float | None = None
    """The function's memory, as the worker sees it; None: it did not say."""
    request: str = ""
    """The id of its invocation, with which an engine's log names it; empty: it did not say."""


@dataclass(frozen=True, slots=True)
class CommandUsed:
    """What a command used, as its worker told; command 0: the worker, at its end.

    No machine ever sees it, so a replay does not need it.
    """

    kind: ClassVar[str] = "commandused"
    at: float
    actor: int
    attempt: int
    command: int
    """The number of the command, from 1."""
    told: dict[str, float]
    """Figures by name, as in mu.jobs.usage.FIGURES."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The coordinator was running at that time, even if nothing else happened."""

    kind: ClassVar[str] = "alive"
    at: float


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Records of this job were lost in a damaged journal, so that it cannot resume."""

    kind: ClassVar[str] = "incomplete"
    reason: str


Record = (
    Ordered
    | Planned
    | Launching
    | Launched
    | Counted
    | Arrived
    | Assigned
    | Happened
    | Disconnected
    | Reconnected
    | AttemptEnded
    | NobodyCame
    | Skipped
    | Ahead
    | Stopped
    | Resumed
    | Sized
    | Used
    | CommandUsed
    | Alive
    | Incomplete
)

_KINDS = {one.kind: one for one in Record.__args__}
_FIELDS = {kind: tuple(one.name for one in fields(kind)) for kind in _KINDS.values()}
_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def write_record(record: Record) -> str:
    """Return a record as one line of ASCII. A Happened is written by write_event."""
    if type(record) is CommandUsed:  # the most frequent one that is no event
        return _write_use(record)
    return _dump([record.kind, *(getattr(record, name) for name in _FIELDS[type(record)])])


def _write_use(record: CommandUsed) -> str:
    """Return the line of a CommandUsed, whose figures are finite."""
    where = f"{record.at!r},{record.actor},{record.attempt},{record.command}"
    return f'["commandused",{where},{pack(record.told).decode("ascii")}]'


def write_event(
    actor: int,
    attempt: int,
    event: Event,
    effects: list[Effect],
    states: Sequence[tuple[float, str]] = (),
) -> str:
    """Return the line of a Happened. This is a hot path, so it joins text already encoded.

    `states` are those that the event constructed, as in mu.states.context.Context.stateinfo.
    """
    line = f'["happened",{actor},{attempt},"{digest(effects)}",{encode(event)}'
    error, sent = None, ""
    for effect in effects:
        if type(effect) is Send:
            name = name_of(effect.command)
            sent = f"{sent},{name}" if sent else name
        elif type(effect) is Finish:
            error = effect.error
    if states:
        names = states[0][1] if len(states) == 1 else ",".join([name for _, name in states])
        return f'{line},{"null" if error is None else _quote(error)},"{sent}",{_quote(names)}]'
    if sent:
        return f'{line},{"null" if error is None else _quote(error)},"{sent}",""]'
    return f"{line}]" if error is None else f"{line},{_quote(error)}]"


def name_of(command: str) -> str:
    """Return the name of a command, such as `run`; `?` if it has none that is a short word."""
    name = command.partition(":")[0]
    return name if len(name) <= 20 and name.isascii() and name.isidentifier() else "?"


def read_record(line: str) -> Record:
    """Return the record of a line. Raises ValueError."""
    try:
        kind, *values = loads(line)
        record: Record = _KINDS[kind](*values)
        return record
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{line[:80]!r} is not a record: {error}") from None


def refuse_gaps(records: Iterable[Record]) -> None:
    """Raise ValueError if records of the job were lost."""
    for record in records:
        if isinstance(record, Incomplete):
            raise ValueError(record.reason)


def time_of(record: Record) -> float:
    """Return when something happened, in seconds since the epoch; 0: the record does not say.

    Raises ValueError.
    """
    try:
        if isinstance(record, Happened):
            return float(record.event[1])
        return float(getattr(record, "at", 0.0))
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"{record!r:.80} has no time") from None
