"""A job's course, from its records: what each of its actors did, and when.

It needs neither a replay nor the job's pipeline, and is the same for a job that runs and one that
ended long ago. All times are in seconds since the epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mu.journal.records import (
    Arrived,
    Assigned,
    AttemptEnded,
    CommandUsed,
    Disconnected,
    Launched,
    Launching,
    NobodyCame,
    Ordered,
    Planned,
    Reconnected,
    Record,
    Resumed,
    Skipped,
    Stopped,
    read_record,
    refuse_gaps,
    time_of,
)
from mu.strict_json import loads
from mu.timeline.attempts import AttemptCourse, LaunchCourse, Segment
from mu.timeline.gates import Openings

BLOCKED = "blocked"
WAITING = "waiting"
LAUNCHING = "launching"
STARTING = "starting"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
LATE = "late"  # as in mu.jobs.launches
STOPPED = "the coordinator was not running"

_HAPPENED = '["happened",'
_USED = '["commandused",'
WAIT_S = "wait_s"  # as in mu.jobs.usage


@dataclass(slots=True)
class ActorCourse:
    """What was done for one actor."""

    number: int
    attempts: list[AttemptCourse] = field(default_factory=list)
    spent: int = 0
    """How many failures count against the order's `retries`."""
    running: int = 0
    ended: float | None = None
    state: str = WAITING
    """How it ended: done, failed or cancelled; waiting: it has not."""

    def segments(self, until: float, opened: float | None = 0.0) -> list[Segment]:
        """Return what it did, one after the other, until its end or until now.

        `opened` is when it could begin; None: others that it waits for have not ended.
        """
        found = self._segments(until)
        if opened == 0.0:
            return found
        if not self.attempts and self.ended is not None:
            found.insert(0, (0.0, WAITING))
        early = [one for one in found if opened is None or one[0] < opened]
        before = [(at, BLOCKED if name == WAITING else name) for at, name in early]
        if opened is not None and before and before[-1][1] == BLOCKED:
            before.append((opened, WAITING))
        return before + found[len(early) :]

    def _segments(self, until: float) -> list[Segment]:
        found: list[Segment] = []
        at = 0.0
        for attempt in self.attempts:
            if attempt.straggler:
                beside = attempt.ended is None and self.running > 1
                if beside or attempt.error is not None:
                    continue  # the first attempt is shown, unless the second one won
                found = [segment for segment in found if segment[0] < attempt.began]
            elif attempt.number:
                found += _before(attempt, at)
            else:
                found.append((at, WAITING))
            if attempt.number:
                found += attempt.segments(until if self.ended is None else self.ended)
            at = attempt.ended or until
        if not self.running and self.state == WAITING:
            found.append((at, WAITING))
        elif self.ended is not None:
            found.append((self.ended, self.state))
        return found


def _before(attempt: AttemptCourse, at: float) -> list[Segment]:
    """Return how its actor waited for the worker of an attempt, since then."""
    found, launch = [(at, WAITING)], attempt.launch
    if attempt.spare or launch is None:
        return found
    if launch.launched > at:
        found.append((launch.launched, LAUNCHING))
    if launch.accepted is not None and at < launch.accepted <= attempt.began:
        found.append((launch.accepted, STARTING))
    return found


class JobCourse:
    """Collects the course of a job from its records, in their order.

    With `after` or `most`, only the actors of one page are collected: the first `most` of those
    with a number over `after`.
    """

    def __init__(self, after: int | None = None, most: int | None = None) -> None:
        self.created = 0.0
        self.retries = 0
        self.actors: dict[int, ActorCourse] = {}
        """By number, in the order of the numbers."""
        self.launches: dict[str, LaunchCourse] = {}
        self.last = 0.0
        """When something happened last."""
        self._openings: Openings | None = None  # if actors wait for others
        self._after, self._most = -1 if after is None else after, most
        self._is_page = (after, most) != (None, None)
        self._attempts: dict[tuple[int, int], AttemptCourse] = {}  # those that run
        self._chosen: list[int] | None = None  # the actors that the order names
        self._stopped: Stopped | None = None
        self._waiting: set[str] = set()  # the sessions of spares

    def read(self, lines: Iterable[str]) -> "JobCourse":
        """Take the lines of records. Raises ValueError for a damaged one."""
        for line in lines:
            if line.startswith(_HAPPENED):
                if not self._is_page or int(line[12 : line.index(",", 12)]) in self.actors:
                    self._take_event(line)
            elif not line.startswith(_USED) or f'"{WAIT_S}"' in line:
                self._take(line)
        return self

    @property
    def told(self) -> bool:
        """Whether its records tell which commands were sent, and when."""
        attempts = [one for actor in self.actors.values() for one in actor.attempts]
        return all(one.told for one in attempts if one.commands)

    def _take_event(self, line: str) -> None:
        """Take an event of a machine: by far the most frequent record."""
        try:
            values: list[Any] = loads(line)
            event = values[4]
            self.last = at = event[1]
            attempt = self._attempts[values[1], values[2]]
            if event[0] == "answered":
                attempt.answer(event[2], event[3], at)
            if len(values) > 6:
                sent, states = values[6:8]
                if sent:
                    attempt.send(sent, at)
                if states:
                    attempt.enter(states, at)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{line[:80]!r} is not a record: {error}") from None

    def _take(self, line: str) -> None:
        record = read_record(line)
        refuse_gaps([record])
        self.last = max(self.last, time_of(record))
        try:
            self._apply(record)
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"{line[:80]!r} does not fit the records before it: {error}") from None

    def opened(self, actor: int) -> float | None:
        """Return when an actor could begin; 0: at once, None: it cannot yet."""
        return 0.0 if self._openings is None else self._openings.opened.get(actor, 0.0)

    def _apply(self, record: Record) -> None:
        if self._openings is not None:
            self._openings.take(record)
        match record:
            case Ordered(at=at, order=order):
                self.created = at
                self.retries = order.get("retries", 0)
                self._chosen = order.get("actors")
            case Planned():
                self._plan(record)
            case Launching(at=at, launch=launch):
                self.launches[launch] = LaunchCourse(at)
            case Launched():
                self._answer(record)
            case Arrived(at=at, session=session, launch=launch, waits=waits):
                self._greet(launch, at)
                if waits:
                    self._waiting.add(session)
            case Assigned():
                self._begin(record)
            case Disconnected(at=at, actor=actor, attempt=attempt, reason=reason):
                if (actor, attempt) in self._attempts:
                    self._attempts[actor, attempt].lose(at, reason)
            case Reconnected(at=at, actor=actor, attempt=attempt):
                if (actor, attempt) in self._attempts:
                    self._attempts[actor, attempt].come_back(at)
            case CommandUsed(actor=actor, attempt=attempt, command=command, told=told):
                if (actor, attempt) in self._attempts and WAIT_S in told:
                    self._attempts[actor, attempt].wait(command, told[WAIT_S])
            case Resumed(stopped_at=stopped_at):
                for one in self._attempts.values():
                    one.lose(stopped_at, STOPPED)
            case AttemptEnded():
                self._end(record)
            case NobodyCame(at=at, actor=actor, error=error):
                if actor in self.actors:
                    came = AttemptCourse(actor, 0, began=at, ended=at, error=error)
                    self.actors[actor].attempts.append(came)
                    self._fail(self.actors[actor], at, charged=True)
            case Skipped(at=at, actor=actor):
                if actor in self.actors:
                    self.actors[actor].ended, self.actors[actor].state = at, FAILED
            case Stopped():
                self._stop(record)

    def _plan(self, record: Planned) -> None:
        chosen = self._chosen or range(len(record.inputs))
        numbers = sorted(set(chosen if record.actors is None else record.actors))
        numbers = [number for number in numbers if number > self._after][: self._most]
        self.actors = {number: ActorCourse(number) for number in numbers}
        if record.after:
            self._openings = Openings(record, self.retries)

    def _answer(self, record: Launched) -> None:
        launch = self.launches[record.launch]
        launch.answer = record.answer
        if record.answer != LATE:
            launch.accepted = record.at or None
            launch.launched = record.invoked or launch.launched

    def _greet(self, launch: str, at: float) -> LaunchCourse | None:
        """Note that the worker of a launch connected, if it had not before."""
        one = self.launches.get(launch)
        if one is not None and one.hello is None:
            one.hello = at
        return one

    def _begin(self, record: Assigned) -> None:
        launch = self._greet(record.launch, record.at)
        if launch is not None:
            launch.used = True
        actor = self.actors.get(record.actor)
        if actor is None:
            return
        attempt = AttemptCourse(record.actor, record.attempt, record.session, record.at)
        attempt.launch = launch
        attempt.spare = record.session in self._waiting
        attempt.straggler = actor.running > 0
        actor.running += 1
        actor.attempts.append(attempt)
        self._attempts[record.actor, record.attempt] = attempt

    def _end(self, record: AttemptEnded) -> None:
        attempt = self._attempts.pop((record.actor, record.attempt), None)
        if attempt is None:
            return
        attempt.ended = record.at
        attempt.error = record.error
        actor = self.actors[record.actor]
        actor.running -= 1
        if actor.ended is not None:
            return  # another attempt finished first
        if record.error is None:
            actor.ended, actor.state = record.at, DONE
        else:
            self._fail(actor, record.at, record.charged)

    def _fail(self, actor: ActorCourse, at: float, charged: bool) -> None:
        """Apply a failed attempt: the actor waits for the next one, or has failed for good."""
        actor.spent += charged
        if actor.ended is None and not actor.running:
            if self._stopped is not None:
                cancelled = self._stopped.state == CANCELLED
                actor.ended, actor.state = at, CANCELLED if cancelled else FAILED
            elif actor.spent > self.retries:
                actor.ended, actor.state = at, FAILED

    def _stop(self, record: Stopped) -> None:
        self._stopped = record
        for actor in self.actors.values():
            if actor.ended is None and not actor.running:
                actor.ended, actor.state = record.at, CANCELLED
