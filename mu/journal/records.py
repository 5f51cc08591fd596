"""The journal's records of a job: one per line, each a JSON array that starts with its kind.

Journals outlive versions of mu: new kinds, and new last fields with defaults, may be added, but
existing ones never change.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import field
from msgspec.json import Decoder, Encoder

from mu.events import Effect, Event, Finish, Row, Send, digest, kind_of, read_event, values_of


class Ordered(Row, frozen=True, tag="ordered"):
    """The job's first record."""

    at: float
    """Seconds since the epoch, here and below."""
    uniq: str
    order: Any
    """The body of POST /jobs, with all defaults filled in."""
    key: str
    digest: str
    relay: str = ""
    """HOST:PORT of the relay, as the pipeline's states see it; empty: there is none."""


class Planned(Row, frozen=True, tag="planned"):
    """The pipeline's plan: the input of each actor, and the order in which actors get workers."""

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


class Launching(Row, frozen=True, tag="launching"):
    """A worker with this one-time launch id is about to be invoked; `number` replaces ##ID##."""

    at: float
    launch: str
    number: int


class Launched(Row, frozen=True, tag="launched"):
    """An engine accepted a launch, or may have, or its worker did not connect in time."""

    launch: str
    answer: str
    at: float = 0.0
    """0: written by a version that did not record it."""
    ran: bool = True
    """Of a late worker: whether it can have run. It cannot if all places were taken."""
    invoked: float = 0.0
    """When the engine was first asked; 0: written by a version that did not record it."""


class Counted(Row, frozen=True, tag="counted"):
    """The sums of answers and dismissals since the last such record."""

    at: float
    answers: dict[str, int]
    """Engines' answers: throttled, unreached, refused."""
    dismissed: int
    """Workers that were told to quit."""


class Arrived(Row, frozen=True, tag="arrived"):
    """A worker connected and got no actor: it waits as a spare, or was told to quit."""

    at: float
    session: str
    launch: str
    waits: bool


class Assigned(Row, frozen=True, tag="assigned"):
    """A worker, identified by its session, was assigned to an actor."""

    at: float
    actor: int
    attempt: int
    session: str
    launch: str


class Happened(Row, frozen=True, tag="happened"):
    """An event that an attempt's machine received, and the digest of its effects."""

    actor: int
    attempt: int
    effects: int | str
    """Their digest; a text is an `old_digest`."""
    event: Event
    """Take it by mu.events.read_event: one with unusual values is still a JSON array."""
    error: str | None = None
    """The error of the Finish among the effects, if it has one.

    A replay needs it: a newer version may word the same error differently. Journals written
    before this field existed have the text in AttemptEnded only.
    """
    sent: str = ""
    """The names of the commands among the effects, such as `set,run`, for users."""
    states: str = ""
    """The classes of the states that it constructed, separated by commas, for users."""


class Disconnected(Row, frozen=True, tag="disconnected"):
    """The connection of an attempt's worker was lost; its actor is held for it."""

    at: float
    actor: int
    attempt: int
    reason: str


class Reconnected(Row, frozen=True, tag="reconnected"):
    """The worker of an attempt has said hello again, on a new connection."""

    at: float
    actor: int
    attempt: int


class AttemptEnded(Row, frozen=True, tag="attemptended"):
    """How an attempt ended; nothing from it counts after this."""

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


class NobodyCame(Row, frozen=True, tag="nobodycame"):
    """No worker connected in time for an actor that was waiting for one."""

    at: float
    actor: int
    error: str


class Skipped(Row, frozen=True, tag="skipped"):
    """An actor failed without another attempt, because others that it waits for failed."""

    at: float
    actor: int
    error: str


class Ahead(Row, frozen=True, tag="ahead"):
    """The workers of these actors are launched before others that they wait for have ended."""

    at: float
    actors: list[int]


class Stopped(Row, frozen=True, tag="stopped"):
    """The job was stopped before all its actors had ended."""

    at: float
    state: str
    reason: str


class Resumed(Row, frozen=True, tag="resumed"):
    """A coordinator resumed the job; from `stopped_at` to `at` none was running."""

    at: float
    stopped_at: float


class Sized(Row, frozen=True, tag="sized"):
    """The memory in MB and the architecture of a job's functions, by region, for its cost."""

    sizes: dict[str, list[Any]]
    longest: dict[str, float] = field(default_factory=dict)
    """How long a worker that cannot reach the coordinator can run, in seconds, by region."""


class Used(Row, frozen=True, tag="used"):
    """What a worker ran before its hello, as it told itself: INIT, and the time to connect."""

    at: float
    session: str
    before_s: float
    init_s: float | None = None
    """The duration of INIT alone, if it was the sandbox's first event; None: it did not say."""
    memory_mb: float | None = None
    """The function's memory, as the worker sees it; None: it did not say."""
    request: str = ""
    """The id of its invocation, with which an engine's log names it; empty: it did not say."""


class CommandUsed(Row, frozen=True, tag="commandused"):
    """What a command used, as its worker told; command 0: the worker, at its end.

    No machine ever sees it, so a replay does not need it.
    """

    at: float
    actor: int
    attempt: int
    command: int
    """The number of the command, from 1."""
    told: dict[str, float]
    """Figures by name, as in mu.jobs.usage.FIGURES."""


class Alive(Row, frozen=True, tag="alive"):
    """The coordinator was running at that time, even if nothing else happened."""

    at: float


class Incomplete(Row, frozen=True, tag="incomplete"):
    """Records of this job were lost in a damaged journal, so that it cannot resume."""

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

_KINDS: dict[str, type[Record]] = {kind_of(one): one for one in Record.__args__}
_decoder: Decoder[Record] = Decoder(Record)
_encode = Encoder().encode
_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=values_of).encode


def write_record(record: Record) -> str:
    """Return a record as one line of ASCII. A Happened is written by write_event."""
    if type(record) is CommandUsed:  # the most frequent one that is no event
        return _write(record)
    return _dump(record)


def write_event(
    actor: int,
    attempt: int,
    event: Event,
    effects: list[Effect],
    states: Sequence[tuple[float, str]] = (),
) -> str:
    """Return the line of a Happened. This is a hot path.

    `states` are those that the event constructed, as in mu.states.context.Context.stateinfo.
    """
    error, sent = None, ""
    for effect in effects:
        if type(effect) is Send:
            name = name_of(effect.command)
            sent = f"{sent},{name}" if sent else name
        elif type(effect) is Finish:
            error = effect.error
    names = ",".join([name for _, name in states]) if states else ""
    return _write(Happened(actor, attempt, digest(effects), event, error, sent, names))


def _write(record: Record) -> str:
    """Return the line of a record whose numbers are finite."""
    try:
        line = _encode(record)
        if line.isascii():
            return line.decode()
    except UnicodeEncodeError:  # it has half of a surrogate pair
        pass
    return _dump(record)


def name_of(command: str) -> str:
    """Return the name of a command, such as `run`; `?` if it has none that is a short word."""
    name = command.partition(":")[0]
    return name if len(name) <= 20 and name.isascii() and name.isidentifier() else "?"


def read_record(line: str) -> Record:
    """Return the record of a line. Raises ValueError."""
    try:
        return _decoder.decode(line)
    except ValueError:
        return _read_unusual(line)


def _read_unusual(line: str) -> Record:
    """Return a record that has half of a surrogate pair, NaN, or values of unexpected types."""
    try:
        kind, *values = json.loads(line)
        return _KINDS[kind](*values)
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
            event = record.event
            return float((event if isinstance(event, Row) else read_event(event)).at)
        return float(getattr(record, "at", 0.0))
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"{record!r:.80} has no time") from None
