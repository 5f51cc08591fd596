"""A job as its records describe it: what the journal holds, users see and states may know.

This code has no clock and no side effects; mu.jobs.job has both.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from mu.engines.cost import Prices
from mu.events import Finish
from mu.jobs.actors import Actor, Attempt
from mu.jobs.bill import Bill
from mu.jobs.changes import Changes
from mu.jobs.driver import SessionDriver
from mu.jobs.ends import ShownEnds
from mu.jobs.launches import LATE, Launch, Launches
from mu.jobs.life import ACTIVE, OVER, SHOWN, JobState, Step, follow
from mu.jobs.overview import Glance
from mu.jobs.queue import ActorQueue
from mu.jobs.rerun import merged, read_outcomes
from mu.jobs.spec import EXTERNAL, JobSpec, Limits, new_machine
from mu.jobs.stages import Gate, Results, Stages
from mu.jobs.summary import COUNTED, JSON, JobSummary, Tally, readable, tally_json
from mu.jobs.usage import Usage
from mu.journal.records import (
    Ahead,
    Alive,
    Arrived,
    Assigned,
    AttemptEnded,
    CommandUsed,
    Counted,
    Launched,
    Launching,
    NobodyCame,
    Planned,
    Record,
    Resumed,
    Sized,
    Skipped,
    Stopped,
    Used,
)
from mu.machine import Machine
from mu.messages import Use
from mu.output.pieces import OutputSink
from mu.plugins import Outcome
from mu.states.context import JobFacts
from mu.totals import Totals

T = TypeVar("T")


MOST_ERRORS = 5
"""How many different errors of its actors a job's error has, and how many actors of each."""


def _named(actors: Sequence[int]) -> str:
    """Return `actor 3`, or `actors 0, 1, 2, 3, 4 and 7 more`."""
    if len(actors) == 1:
        return f"actor {actors[0]}"
    more = f" and {len(actors) - MOST_ERRORS} more" if len(actors) > MOST_ERRORS else ""
    return f"actors {', '.join(map(str, actors[:MOST_ERRORS]))}{more}"


class RecordedJob(ABC):
    """A job's fields, which `apply` alone changes, and what follows from them.

    All times are in seconds since the epoch.
    """

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        uniq: str,
        limits: Limits,
        created: float,
        relay: str,
        prices: Prices,
        totals: Totals,
        output: OutputSink,
    ) -> None:
        self.id = job_id
        self.totals = totals
        self.output = output
        self.spec = spec
        self.uniq = uniq
        self.limits = limits
        self.created = created
        self.relay = relay
        """HOST:PORT of the relay; empty: there is none."""
        self.life = JobState.ORDERED
        self.state = "launching"
        """`life` as users see it."""
        self.first_hello: float | None = None
        self.last_hello: float | None = None
        self.finished: float | None = None
        self.error: str | None = None
        self.result: object = None
        self.downtime = 0.0
        """How long no daemon was running, in seconds."""
        self.planned = 0
        """How many actors the plan has; `actors` has those that the order chose."""
        self.actors: list[Actor] = []
        self.counts: Counter[str] = Counter()
        self.changes = Changes()
        """Which actors look different to users since when."""
        self.ends = ShownEnds()
        """The ends of actors that users may see."""
        self.launches = Launches(limits.accept_s, limits.hello_s)
        self.bill = Bill(prices, spec.regions)
        self.usage = Usage()
        """What its workers used, as they told."""
        self.stopped: Stopped | None = None
        """Why it was stopped, if it was."""
        self.stages = Stages()
        """Which of its actors wait for which."""
        self._ahead: set[int] = set()  # actors that wait for others, but have workers launched
        self._before: dict[Gate, Mapping[int, object]] = {}  # results of those before an open gate
        self._by_number: dict[int, Actor] = {}
        self._earlier: list[Outcome] = []  # of the job that this one reruns
        self._kept: dict[int, Outcome] = {}  # the last of those, of actors that do not run again
        self._order: Sequence[int] = ()  # the order in which actors get workers
        self._queue = ActorQueue()  # actors that could begin now
        self._failed: list[Actor] = []  # actors to retry
        self._needing: dict[int, list[Actor]] = {}  # by the number of their neighbour
        self._failed_neighbours: dict[int, Actor] = {}  # others may wait for their states
        self._unfinished = 0  # actors without an outcome
        self._untried: set[int] = set()  # actors that have not had a worker
        self._sessions: dict[str, SessionDriver] = {}  # the running ones, by name
        self._past_sessions: set[str] = set()
        self._recorded_alive = created
        self._tallies: dict[int, Tally] = {}  # by actor, as of the version below
        self._tallied = (0, 0, 0)  # their sums
        self._tally_version = 0
        self._dismissed = 0
        self._dismissed_since = 0  # not recorded yet

    @abstractmethod
    def new_session(self, attempt: Attempt, name: str) -> SessionDriver:
        """Return the session for a new attempt."""

    @property
    @abstractmethod
    def worker_awaited(self) -> str:
        """Describe for users what an actor without a worker waits for."""

    @abstractmethod
    def used(self, session: str, use: Use) -> None:
        """Record what a worker tells that it has used."""

    @abstractmethod
    def command_used(self, attempt: Attempt, use: Use) -> None:
        """Record what a worker tells that a command has used."""

    @abstractmethod
    def attempt_ended(self, attempt: Attempt, finish: Finish, at: float, charged: bool) -> None:
        """Record how an attempt ended; `charged`: whether it counts against `retries`."""

    # ------------------------------------------------ queries

    @property
    def facts(self) -> JobFacts:
        """The facts that its states may use."""
        return JobFacts(self.id, self.spec.params, self.planned, self.relay, self.uniq)

    @property
    def relay_keep(self) -> bool:
        """Whether the relay keeps delivered frames: the event's switch, or else the pipeline's."""
        switch = self.spec.event.get("relay_keep")
        if switch is None:
            switch = self.spec.pipeline.relay_keep
        return switch not in (0, "0", "")

    @property
    def pipeline_name(self) -> str:
        return self.spec.pipeline.name

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def key(self) -> str:
        return self.spec.key

    @property
    def digest(self) -> str:
        return self.spec.digest

    @property
    def worker_timeout_s(self) -> float:
        return self.spec.worker_timeout_s

    @property
    def retries(self) -> int:
        return self.spec.retries

    @property
    def active(self) -> bool:
        """Whether it may still begin something."""
        return self.life in ACTIVE

    @property
    def recorded(self) -> bool:
        """Whether its order is on disk, so that users may see it."""
        return self.life is not JobState.ORDERED

    @property
    def cancelled(self) -> bool:
        """Whether it was stopped by a request, not because something failed."""
        return self.stopped is not None and self.stopped.state == JobState.CANCELLED.value

    @property
    def ended(self) -> bool:
        return self.life in OVER

    @property
    def ending(self) -> bool:
        """Whether its end is decided, so that nothing more counts."""
        return self.life is JobState.ENDING or self.ended

    @property
    def dismissed(self) -> int:
        """How many workers were told to quit: duplicates, late or surplus ones."""
        return self._dismissed + self._dismissed_since

    def actor(self, number: int) -> Actor | None:
        """Return the actor with that number."""
        return self._by_number.get(number)

    def having(self, part: str) -> dict[str, list[Actor]]:
        """Return the inputs with this name, and the actors that have them.

        If there is none, return those whose names end with it; if there is none, those that have it
        somewhere in their names.
        """
        inputs = self.spec.pipeline.inputs
        same: dict[str, list[Actor]] = {}
        ending: dict[str, list[Actor]] = {}
        having: dict[str, list[Actor]] = {}
        for actor in self.actors:
            for name in dict.fromkeys(inputs(dict(actor.input))):
                if part == name:
                    same.setdefault(name, []).append(actor)
                elif part and name.endswith(part):
                    ending.setdefault(name, []).append(actor)
                elif part and part in name:
                    having.setdefault(name, []).append(actor)
        return same or ending or having

    def machine(self, actor: Actor) -> Machine:
        """Return a new machine for an attempt at an actor."""
        gate = self.stages.gate(actor.number)
        before = None if gate is None else self._results_before(gate)
        return new_machine(
            self.spec.pipeline, self.facts, actor.number, actor.input, self.limits, before
        )

    def _results_before(self, gate: Gate) -> Mapping[int, object]:
        """Return the results of the actors before an open gate, which all behind it share."""
        if gate not in self._before:
            self._before[gate] = Results(gate, self._end_of)
        return self._before[gate]

    def _end_of(self, number: int) -> Finish | None:
        """Return how an actor ended, in this job or in the one that it reruns; None: it has not."""
        actor = self.actor(number)
        return self._kept.get(number) if actor is None else actor.outcome

    def neighbour(self, actor: Actor) -> Actor | None:
        """Return the actor whose states this one waits for; None: it needs none."""
        number = self.spec.pipeline.neighbour(self.spec.params, actor.number)
        return None if number is None else self._by_number.get(number)

    def outcomes(self) -> list[Outcome]:
        """Return how its actors ended, as far as they have, and what stays of an earlier job."""
        own = [
            Outcome(actor.outcome.error, actor.outcome.result, actor.number, dict(actor.input))
            for actor in self.actors
            if actor.outcome is not None
        ]
        return merged(self._earlier, own)

    def failures(self) -> str | None:
        """Return a sentence about the actors that failed, if they are more than it tolerates."""
        failed = [outcome for outcome in self.outcomes() if outcome.error]
        if len(failed) <= self.spec.tolerate:
            return None
        alike: dict[str, list[int]] = {}
        for one in failed:
            alike.setdefault(one.error or "", []).append(one.actor)
        shown = list(alike.items())[:MOST_ERRORS]
        named = "; ".join(f"{_named(numbers)}: {error}" for error, numbers in shown)
        left = len(failed) - sum(len(numbers) for _, numbers in shown)
        more = f"; and {left} more" if left else ""
        actors = {actor.number for actor in self.actors} | {one.actor for one in self._earlier}
        return f"{len(failed)} of {len(actors)} actors failed: {named}{more}"

    def summary(self, now: float) -> JobSummary:
        """Return what users see."""
        spec, launches = self.spec, self.launches
        at = self.finished or now
        usd, at_most, gb_s = self.bill.usd(at), self.bill.usd_at_most(at), self.bill.gb_s
        return JobSummary(
            id=self.id,
            name=spec.name,
            pipeline=spec.pipeline.name,
            workers=len(self.actors) if self.planned else spec.workers,
            state=self.state,
            counts={state: self.counts[state] for state in COUNTED},
            inputs=tally_json(self.tally()),
            created=self.created,
            launched=launches.answered,
            first_hello=self.first_hello,
            last_hello=self.last_hello,
            finished=self.finished,
            params={name: value for name, value in dict(spec.params).items() if name != "workers"},
            engine=spec.engine,
            function=spec.function,
            functions=spec.functions,
            regions=list(spec.regions),
            spares=spec.spares,
            retries=spec.retries,
            rerun=spec.rerun or None,
            launches=dict(launches.counts),
            dismissed=self.dismissed,
            error=self.error and readable(self.error),
            cost_usd=None if usd is None else round(usd, 6),
            cost_usd_at_most=None if at_most is None else round(at_most, 6),
            max_cost_usd=spec.max_cost_usd,
            gb_s=None if gb_s is None else round(gb_s, 3),
            used=self.usage.json(),
            result=self.result,
        )

    def tally(self) -> Tally:
        """Count the inputs of all actors."""
        total, done, failed = self._tallied
        for number in self.changes.since(self._tally_version):
            old, new = self._tallies.get(number, (0, 0, 0)), self._by_number[number].tally()
            total, done, failed = (
                total + new[0] - old[0],
                done + new[1] - old[1],
                failed + new[2] - old[2],
            )
            self._tallies[number] = new
        self._tallied, self._tally_version = (total, done, failed), self.changes.version
        return self._tallied

    def workers(self) -> list[JSON]:
        """Return the JSON of each actor for users."""
        return list(self.workers_after(-1))

    def workers_after(self, number: int) -> Iterator[JSON]:
        """Yield the JSON of each actor with a number above this."""
        return (actor.describe() for actor in self.actors if actor.number > number)

    def glances(self) -> Iterator[Glance]:
        """Yield what an overview needs of each actor."""
        return (actor.glance() for actor in self.actors)

    # ------------------------------------------------ records

    def apply(self, record: Record) -> None:
        """Apply a record: of a change that happens now, or from the journal after a restart.

        Raises LookupError or ValueError for a record that does not fit the previous ones.
        """
        match record:
            case CommandUsed():  # by far the most frequent one
                self._apply_command_use(record)
            case Planned():
                self._apply_plan(record)
            case Sized():
                self.bill.measure(record)
            case Launching():
                self.launches.begin(record)
            case Launched(launch=launch, answer=answer, at=at, ran=ran):
                if self.launches.answer(record):
                    self._staffed()
                if answer != LATE:
                    one = self.launches[launch]  # its worker may be faster than the answer
                    self.bill.invoked(launch, one.number, at, one.session is not None)
                elif not ran:
                    self.bill.never_ran(launch)
            case Counted(answers=answers, dismissed=dismissed):
                self.launches.counts.update(answers)
                self._dismissed += dismissed
            case Arrived(at=at, session=session, launch=launch, waits=waits):
                self._apply_arrival(session, launch, at)
                if session and not waits:
                    self._past_sessions.add(session)
                    self.bill.ended(session, at)
            case Used():
                self._apply_use(record)
            case Assigned():
                self._apply_assignment(record)
            case AttemptEnded():
                self._apply_end(record)
            case NobodyCame():
                actor = self._by_number[record.actor]
                self._queue.remove(actor)
                self._change(actor, lambda: actor.take_absence(record))
            case Skipped():
                actor = self._by_number[record.actor]
                self._queue.remove(actor)
                self._change(actor, lambda: actor.skip(record))
            case Ahead(actors=numbers):
                self._ahead.update(numbers)
            case Stopped():
                self.stopped = record
                self._step(Step.STOPPED)
                self._cancel_waiting(record)
            case Resumed(at=at, stopped_at=stopped_at):
                self.launches.lose(self._past_sessions | self._sessions.keys())  # all but spares
                self.bill.lose(self._sessions.keys(), stopped_at)
                self._apply_downtime(at - stopped_at)
            case Alive(at=at):
                self._recorded_alive = at

    def _apply_downtime(self, seconds: float) -> None:
        """Apply that no daemon was running for that long; below 0: the clock was set back."""
        self.downtime += seconds
        self.bill.move(seconds - min(max(0.0, seconds), self.limits.reconnect_s))
        for actor in self.actors:
            for attempt in actor.attempts:
                attempt.downtime += seconds

    def order_recorded(self) -> None:
        """Note that the order is on disk; the job may have been stopped before that."""
        if self.life is JobState.ORDERED:
            self._step(Step.RECORDED)
            if self.planned:  # a rerun has its plan from the start
                self._follow_plan()

    def _step(self, step: Step) -> None:
        self.life = follow(self.life, step)
        self.state = SHOWN.get(self.life, self.state)

    def _staffed(self) -> None:
        if self.life is JobState.LAUNCHING:
            self._step(Step.STAFFED)

    def _apply_plan(self, record: Planned) -> None:
        self.planned = len(record.inputs)
        chosen = self.spec.actors or range(self.planned)
        wanted = set(chosen if record.actors is None else record.actors)
        self._earlier = read_outcomes(record)
        inputs, at = record.inputs, self.created
        sizes = record.sizes or [1] * self.planned
        self.actors = [Actor(self, n, inputs[n], at, sizes[n]) for n in sorted(wanted)]
        self._by_number = {actor.number: actor for actor in self.actors}
        self._order = [number for number in record.order if number in wanted]
        self.stages = Stages(record.after, record.stages, self.spec.tolerate)
        self._kept = {one.actor: one for one in self._earlier if one.actor not in wanted}
        for number, kept in self._kept.items():
            self.stages.end(number, kept.error is not None)
        self._queue = ActorQueue(self._order, self._startable(self.actors))
        self.counts["waiting"] += len(self.actors)
        for actor in self.actors:
            self.changes.touch(actor.number)
            neighbour = self.neighbour(actor) if self.spec.pipeline.uses_relay else None
            if neighbour is not None:
                self._needing.setdefault(neighbour.number, []).append(actor)
        self._unfinished = len(self.actors)
        self._untried = wanted
        if self.recorded:
            self._follow_plan()

    def _startable(self, actors: Iterable[Actor]) -> list[Actor]:
        """Return those that wait for no others."""
        closed = self.stages.closed
        return [actor for actor in actors if closed(actor.number) is None]

    def _follow_plan(self) -> None:
        self._step(Step.PLANNED)
        if self.spec.engine == EXTERNAL:
            self._staffed()

    def _apply_arrival(self, session: str, launch: str, at: float) -> None:
        """Apply that a new worker connected."""
        self.first_hello = self.first_hello or at
        self.last_hello = at
        number = self.launches.arrive(launch, session)
        self.bill.connected(launch, at)
        if session:
            self.bill.began(session, number, at)

    def _apply_assignment(self, record: Assigned) -> None:
        actor = self._by_number[record.actor]
        self._queue.remove(actor)
        launch = self.launches.get(record.launch)
        if launch is None or launch.session is None:
            self._apply_arrival(record.session, record.launch, record.at)
        attempt = self._change(actor, lambda: actor.begin(record.attempt, record.at))
        attempt.session = self.new_session(attempt, record.session)
        if record.session:
            self._sessions[record.session] = attempt.session
        if launch is not None:
            self._apply_memory(actor, launch)
        self._untried.discard(actor.number)
        if not self._untried:
            self._staffed()

    def _apply_use(self, record: Used) -> None:
        launch_id = self.launches.of_session(record.session)
        launch = self.launches[launch_id]
        launch.used, launch.memory_mb, launch.request = True, record.memory_mb, record.request
        self.bill.used_before(record.session, launch_id, record.before_s)
        if record.init_s is not None:
            self.usage.add({"init_s": record.init_s})
        session = self._sessions.get(record.session)
        if session is not None:
            self._apply_memory(self._by_number[session.part.actor_number], launch)

    def _apply_memory(self, actor: Actor, launch: Launch) -> None:
        """Apply that the worker of a launch has an actor, once its function's memory is known."""
        if launch.memory_mb is not None:
            actor.usage.add({"memory_mb": launch.memory_mb})
            self.usage.add({"memory_mb": launch.memory_mb})

    def _apply_command_use(self, record: CommandUsed) -> None:
        actor = self._by_number[record.actor]
        commands = 1 if record.command else 0
        actor.usage.add(record.told, commands)
        self.usage.add(record.told, commands)
        for attempt in actor.attempts:
            if attempt.number == record.attempt:
                attempt.told.add(record.command)

    def _apply_end(self, record: AttemptEnded) -> None:
        actor = self._by_number[record.actor]
        attempt = self._change(actor, lambda: actor.take_end(record))
        if attempt is None or attempt.session is None:
            return
        name, attempt.session = attempt.session.name, None
        if name:
            self._sessions.pop(name, None)
            self._past_sessions.add(name)
            self.bill.ended(name, record.at)

    def _cancel_waiting(self, record: Stopped) -> None:
        for actor in self.actors:
            if actor.free:
                self._change(actor, partial(actor.cancel, record))

    def _change(self, actor: Actor, change: Callable[[], T]) -> T:
        """Change an actor, and update the job's counts and queues."""
        before, over = actor.state, actor.outcome is not None
        result = change()
        self.changes.touch(actor.number)
        self._count(actor, before)
        if actor.outcome is None:
            if actor.free:
                self._failed.append(actor)
        elif not over:
            self._unfinished -= 1
            self._ahead.discard(actor.number)
            opened = self.stages.end(actor.number, actor.outcome.error is not None)
            self._let_begin(opened)
        return result

    def _let_begin(self, numbers: Sequence[int]) -> None:
        """Queue actors that no longer wait for others."""
        actors = [self._by_number[number] for number in numbers if number in self._by_number]
        self._queue.add(actor for actor in actors if actor.free)
        self._ahead.difference_update(numbers)
        for actor in actors:
            self.changes.touch(actor.number)

    def _count(self, actor: Actor, before: str) -> None:
        if actor.state != before:
            self.counts[before] -= 1
            self.counts[actor.state] += 1

    def _show(self, actor: Actor) -> None:
        before = actor.state
        actor.show_end()
        self.changes.touch(actor.number)
        self._count(actor, before)
        if actor.state == "failed" and actor.number in self._needing:
            self._failed_neighbours[actor.number] = actor
        self.ends.add(actor)

    def show_ends(self) -> None:
        """Show the ends of actors to users, after all records on disk were applied."""
        ended = [actor for actor in self.actors if actor.outcome is not None]
        for actor in sorted(ended, key=Actor.since):
            self._show(actor)
