"""One job: its actors, its workers and its life.

What happens to a job is a record. `apply` takes a record in, live and after a restart alike, and
nothing else changes what users see. `go_on` then does what has become due.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mu.engines.cost import Prices
from mu.events import Finish
from mu.invocations import Size
from mu.jobs.actors import Actor, Attempt
from mu.jobs.bill import Bill, sized
from mu.jobs.driver import SessionDriver, WorkerLine
from mu.jobs.launches import LATE, Launches
from mu.jobs.life import ACTIVE, OVER, SHOWN, JobState, Step, follow
from mu.jobs.spares import Spares, stragglers
from mu.jobs.spec import EXTERNAL, JobSpec, Limits, new_machine
from mu.jobs.summary import COUNTED, JSON, JobSummary, readable
from mu.journal.ledger import Ledger, NoJournal, Past
from mu.journal.records import (
    Alive,
    Arrived,
    Assigned,
    AttemptEnded,
    Counted,
    Launched,
    Launching,
    NobodyCame,
    Planned,
    Record,
    Resumed,
    Sized,
    Stopped,
)
from mu.machine import Machine
from mu.messages import Hello
from mu.states.context import JobFacts

ALIVE_S = 10.0
"""How often a job records that its coordinator is alive, which bounds what a restart loses of time."""
T = TypeVar("T")

LONGEST_PAUSE_S = 60.0
"""Between two attempts at an actor."""


class Owner(Protocol):
    """What a job asks of the one who runs it (a mu.jobs.run.Run)."""

    def changed(self) -> None:
        """Something happened: call `go_on` if the job has begun."""

    def launch(self, launches: Sequence[str]) -> None:
        """Make these launches, which are on disk."""

    def settled(self) -> None:
        """No actor runs any more, or the job was stopped: find out how it ended, call `end`."""

    def over(self) -> None:
        """The end is on disk."""


class Job:
    """A pipeline's work, from the order to done, failed or cancelled.

    Nothing but the job writes its fields. Raises LookupError or ValueError where a record does not
    fit those before it.
    """

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        uniq: str,
        clock: IReactorTime,
        owner: Owner,
        ledger: Ledger | None = None,
        limits: Limits | None = None,
        created: float | None = None,
        relay: str = "",
        prices: Prices | None = None,
    ) -> None:
        self.id = job_id
        self.spec = spec
        self.uniq = uniq
        self.clock = clock
        self.ledger: Ledger = ledger or NoJournal()
        self.limits = limits or Limits()
        self.created: float = clock.seconds() if created is None else created
        self.relay = relay
        """HOST:PORT of the relay; empty: there is none."""
        self.life = JobState.ORDERED
        self.state = "launching"
        """What users see of `life`."""
        self.first_hello: float | None = None
        self.last_hello: float | None = None
        self.finished: float | None = None
        """When it ended, in seconds since the epoch, as all times here."""
        self.error: str | None = None
        self.result: Any = None
        self.downtime = 0.0
        """How many seconds no coordinator was there."""
        self.planned = 0
        """How many actors the plan has; those that run are `actors`."""
        self.actors: list[Actor] = []
        self.counts: Counter[str] = Counter()
        self.launches = Launches(self.limits.accept_s, self.limits.hello_s)
        self.bill = Bill(prices or Prices(), spec.regions)
        self.stopped: Stopped | None = None
        """Why it was stopped, if it was."""
        self._owner = owner
        self._by_number: dict[int, Actor] = {}
        self._order: Sequence[int] = ()  # in which actors get workers
        self._queue: dict[int, Actor] = {}  # those that could begin now, in this order
        self._failed: list[Actor] = []  # those that are to be retried
        self._unfinished = 0  # actors without an outcome
        self._untried: set[int] = set()  # actors that have not had a worker
        self._spares = Spares()
        self._sessions: dict[str, SessionDriver] = {}  # that run
        self._past_sessions: set[str] = set()
        self._pauses: dict[int, IDelayedCall] = {}
        self._dismissed = 0
        self._uncounted: Counter[str] = Counter()  # answers that are not recorded yet
        self._dismissed_since = 0  # likewise
        self._recorded_alive = self.created
        self._going_on = False
        self._waiting: list[Deferred[None]] = []  # for its end

    # ------------------------------------------------ what others ask

    @property
    def facts(self) -> JobFacts:
        """What its states may know."""
        return JobFacts(self.id, self.spec.params, self.planned, self.relay, self.uniq)

    @property
    def relay_keep(self) -> bool:
        """Whether the relay keeps what it delivered: the event's switch, or else the pipeline's."""
        switch = self.spec.event.get("relay_keep")
        if switch is None:
            switch = self.spec.pipeline.relay_keep
        return switch not in (0, "0", "")

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
    def ended(self) -> bool:
        return self.life in OVER

    @property
    def ending(self) -> bool:
        """Whether it is known how it ended, so that nothing more counts."""
        return self.life is JobState.ENDING or self.ended

    @property
    def dismissed(self) -> int:
        """How many workers were told to quit: duplicates, latecomers, too many."""
        return self._dismissed + self._dismissed_since

    @property
    def cost_usd(self) -> float | None:
        """The cost so far in US dollars, if it is known."""
        return self.bill.usd(self.finished or self.clock.seconds())

    def actor(self, number: int) -> Actor | None:
        """Return the actor of that number."""
        return self._by_number.get(number)

    def machine(self, actor: Actor) -> Machine:
        """Return a new machine for an attempt at that actor."""
        return new_machine(self.spec.pipeline, self.facts, actor.number, actor.input, self.limits)

    def when_over(self) -> Deferred[None]:
        """Return a Deferred that fires once the end is on disk."""
        waiting: Deferred[None] = Deferred()
        if self.ended:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def failures(self) -> str | None:
        """Return a sentence on the actors that failed, or None."""
        failed = [actor for actor in self.actors if actor.outcome and actor.outcome.error]
        if not failed:
            return None
        named = "; ".join(
            f"actor {actor.number}: {actor.outcome.error}" for actor in failed[:5] if actor.outcome
        )
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        return f"{len(failed)} of {len(self.actors)} actors failed: {named}{more}"

    def describe(self) -> JSON:
        """Return what users see of it, as JSON."""
        spec, launches = self.spec, self.launches
        usd, gb_s = self.cost_usd, self.bill.gb_s
        return JobSummary(
            id=self.id,
            pipeline=spec.pipeline.name,
            workers=len(self.actors) or spec.workers,
            state=self.state,
            counts={state: self.counts[state] for state in COUNTED},
            created=self.created,
            launched=launches.answered,
            first_hello=self.first_hello,
            last_hello=self.last_hello,
            finished=self.finished,
            params={name: value for name, value in spec.params.items() if name != "workers"},
            engine=spec.engine,
            function=spec.function,
            spares=spec.spares,
            retries=spec.retries,
            launches=dict(launches.counts),
            dismissed=self.dismissed,
            error=self.error and readable(self.error),
            cost_usd=None if usd is None else round(usd, 6),
            gb_s=None if gb_s is None else round(gb_s, 3),
            result=self.result,
        ).json()

    def workers(self) -> list[JSON]:
        """Return what users see of each actor, as JSON."""
        return [actor.describe() for actor in self.actors]

    # ------------------------------------------------ records

    def record(self, record: Record) -> None:
        """Write a record, and take it in."""
        self.ledger.record(self.id, record)
        self.apply(record)

    def apply(self, record: Record) -> None:
        """Take in what happened: live, or as the journal has it after a restart."""
        match record:
            case Planned():
                self._apply_plan(record)
            case Sized():
                self.bill.measure(record)
            case Launching():
                self.launches.begin(record)
            case Launched(answer=answer):
                if self.launches.answer(record):
                    self._staffed()
                if answer != LATE:
                    self.bill.invoked()
            case Counted(answers=answers, dismissed=dismissed):
                self.launches.counts.update(answers)
                self._dismissed += dismissed
            case Arrived(at=at, session=session, launch=launch, waits=waits):
                self._apply_arrival(session, launch, at)
                if session and not waits:
                    self._past_sessions.add(session)
            case Assigned():
                self._apply_assignment(record)
            case AttemptEnded():
                self._apply_end(record)
            case NobodyCame():
                actor = self._by_number[record.actor]
                self._queue.pop(actor.number, None)
                self._change(actor, lambda: actor.take_absence(record))
            case Stopped():
                self.stopped = record
                self._step(Step.STOPPED)
            case Resumed(at=at, stopped_at=stopped_at):
                self.downtime += at - stopped_at
            case Alive(at=at):
                self._recorded_alive = at

    def order_recorded(self) -> None:
        """Take in that the order is on disk."""
        self._step(Step.RECORDED)

    def _step(self, step: Step) -> None:
        self.life = follow(self.life, step)
        self.state = SHOWN.get(self.life, self.state)

    def _staffed(self) -> None:
        if self.life is JobState.LAUNCHING:
            self._step(Step.STAFFED)

    def _apply_plan(self, record: Planned) -> None:
        self.planned = len(record.inputs)
        wanted = set(self.spec.actors or range(self.planned))
        log_bytes, inputs = self.limits.log_bytes, record.inputs
        now = self.clock.seconds()
        self.actors = [Actor(self, n, inputs[n], now, log_bytes) for n in sorted(wanted)]
        self._by_number = {actor.number: actor for actor in self.actors}
        self._order = [number for number in record.order if number in wanted]
        self._queue = {number: self._by_number[number] for number in self._order}
        self.counts["waiting"] += len(self.actors)
        self._unfinished = len(self.actors)
        self._untried = wanted
        self._step(Step.PLANNED)
        if self.spec.engine == EXTERNAL:
            self._staffed()

    def _apply_arrival(self, session: str, launch: str, at: float) -> None:
        """A worker has come that was not there before."""
        self.first_hello = self.first_hello or at
        self.last_hello = at
        number = self.launches.arrive(launch, session)
        if session:
            self.bill.began(session, number, at)

    def _apply_assignment(self, record: Assigned) -> None:
        actor = self._by_number[record.actor]
        self._queue.pop(actor.number, None)
        launch = self.launches.get(record.launch)
        if launch is None or launch.session is None:
            self._apply_arrival(record.session, record.launch, record.at)
        attempt = self._change(actor, lambda: actor.begin(record.attempt, record.at))
        attempt.session = SessionDriver(
            attempt, record.session, self.ledger, self.clock, self.limits.hold_s
        )
        if record.session:
            self._sessions[record.session] = attempt.session
        self._untried.discard(actor.number)
        if not self._untried:
            self._staffed()

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

    def _change(self, actor: Actor, change: Callable[[], T]) -> T:
        """Change an actor, and keep account of it."""
        before, over = actor.state, actor.outcome is not None
        result = change()
        self._count(actor, before)
        if actor.outcome is not None:
            self._unfinished -= not over
        elif actor.free:
            self._failed.append(actor)
        return result

    def _count(self, actor: Actor, before: str) -> None:
        if actor.state != before:
            self.counts[before] -= 1
            self.counts[actor.state] += 1

    # ------------------------------------------------ after a restart

    def restored(self) -> None:
        """All records were applied: show what is on disk, wait for workers again."""
        self._failed.clear()
        self._queue = {n: self._by_number[n] for n in self._order if self._by_number[n].free}
        for actor in self.actors:
            if actor.outcome is not None:
                self._show(actor)

    def restart(self) -> list[str]:
        """Wait anew for the workers that may still come; return the launches to be made again."""
        known = self._past_sessions | self._sessions.keys()
        return self.launches.restart(self.clock.seconds(), known)

    # ------------------------------------------------ planning and launching

    def begin(self) -> None:
        """Have workers launched for all actors that wait and for spares, once it is planned."""
        self._conclude()  # a coordinator that was killed may not have come to it
        if self.active:
            self._supply(0 if self.launches else self.spec.spares)
            self.go_on()

    def measure(self, sizes: Mapping[str, Size]) -> None:
        """Count the cost from now on; sizes are by region."""
        self.record(sized(sizes))

    def answered(self, launch_id: str, answer: str) -> None:
        """Note that an engine took a launch: its worker may come, but not for ever."""
        if not self.ending:
            self.record(Launched(launch_id, answer, self.clock.seconds()))

    def count(self, answer: str) -> None:
        """Count an engine's answer that left nothing behind; the journal gets sums."""
        self._uncounted[answer] += 1

    def check(self, late: str) -> None:
        """Look for overdue launches, stragglers and the cost; to be called about once a second.

        `late` tells users what it may mean that a worker did not come.
        """
        if not self.active:
            return
        now = self.clock.seconds()
        self._record_counts(now)
        if now - self._recorded_alive >= ALIVE_S:
            self.record(Alive(now))
        self._give_up_launches(late, now)
        self._help_stragglers(now)
        self.go_on()
        most, usd = self.spec.max_cost_usd, self.cost_usd
        if most and usd is not None and usd >= most:
            self.stop("failed", f"it has cost ${usd:.4f}; max_cost_usd is {most:g}")

    def _record_counts(self, now: float) -> None:
        answers, dismissed = dict(self._uncounted), self._dismissed_since
        if answers or dismissed:
            self._uncounted.clear()
            self._dismissed_since = 0
            self.record(Counted(now, answers, dismissed))

    def _give_up_launches(self, late: str, now: float) -> None:
        """Fail as many waiting actors as workers are overdue and no other is coming for them."""
        overdue = self.launches.overdue(now)
        accepted = [bool(launch.answer) for launch in overdue.values()]
        for launch_id in overdue:
            self.record(Launched(launch_id, LATE, now))
        missing = max(0, len(self._queue) - self.launches.coming)
        for was_accepted in accepted[:missing]:
            number = next(iter(self._queue))
            why = late if was_accepted else self._not_accepted
            self.record(NobodyCame(now, number, why))
            self._after_end(self._by_number[number])

    @property
    def _not_accepted(self) -> str:
        return (
            f"engine {self.spec.engine} did not accept a launch within {self.limits.accept_s:g} s"
        )

    def _help_stragglers(self, now: float) -> None:
        """Start the slowest actors a second time on spares; the first attempt to finish wins."""
        factor = self.spec.stragglers
        if not (factor and self._spares and self.spec.pipeline.may_run_twice):
            return
        for actor in list(stragglers(self.actors, factor, now)):
            if not self._spares:
                return
            self._assign(actor, *self._spares.take())

    def go_on(self) -> None:
        """Do what has become due: retry, give workers to actors, launch more, or settle."""
        if self._going_on:  # an actor may end while it gets its worker; the loop below sees it
            return
        self._going_on = True
        try:
            while self.active and (self._failed or (self._queue and self._spares)):
                self._retry_failed()
                if self._queue and self._spares:
                    self._assign(self._next_actor(), *self._spares.take())
            if self.active:
                self._supply()
                self._let_spares_go()
        finally:
            self._going_on = False
        self._conclude()

    def _retry_failed(self) -> None:
        """Queue actors after a pause: none before the second attempt, then doubling ones."""
        failed, self._failed = self._failed, []
        for actor in failed:
            if not actor.free:
                continue
            pause = min(self.limits.retry_pause_s * 2 ** (actor.spent - 2), LONGEST_PAUSE_S)
            if actor.spent < 2 or pause <= 0:
                self._queue[actor.number] = actor
            else:
                actor.pause_until = self.clock.seconds() + pause
                self._pauses[actor.number] = self.clock.callLater(pause, self._resume, actor)

    def _resume(self, actor: Actor) -> None:
        """Its pause is over."""
        del self._pauses[actor.number]
        actor.pause_until = None
        if actor.free:
            self._queue[actor.number] = actor
            self.go_on()

    def _supply(self, more: int = 0) -> None:
        """Have workers launched for the actors that wait, as far as none are coming."""
        count = max(0, len(self._queue) - self.launches.coming) + more
        if not count or self.spec.engine == EXTERNAL:
            return
        launches = self.launches.plan(count, self.clock.seconds())
        for record in launches:
            self.record(record)
        self.ledger.on_disk(self._owner.launch, [record.launch for record in launches])

    def _conclude(self) -> None:
        """See whether all actors have ended, or more have failed than the order allows."""
        if self.life not in (JobState.LAUNCHING, JobState.RUNNING):
            return
        failed = self.counts["failed"]
        if self.counts["done"] + failed == len(self.actors):
            self._step(Step.SETTLED)
            self._owner.settled()
        elif self.spec.on_failure == "stop" and failed > self.spec.tolerate:
            self.stop("failed", self.failures() or "")

    # ------------------------------------------------ workers

    def join(self, hello: Hello, line: WorkerLine) -> None:
        """Give a worker its attempt back, an actor, a place among the spares, or dismiss it."""
        session = self._sessions.get(hello.session)
        launch = self.launches.get(hello.launch)
        if not self.active:
            self._dismiss(line, f"job {self.id} has ended")
        elif session is not None:
            self._count_worker(hello, line)
            line.adopt(session)
            session.attach(line, hello)
        elif hello.session in self._past_sessions:
            self._dismiss(line, f"the attempt of session {hello.session} has ended")
        elif hello.received:
            self._dismiss(line, f"session {hello.session} is not known")
        elif hello.launch and launch is None:
            self._dismiss(line, f"job {self.id} did not launch {hello.launch!r}")
        elif launch is not None and launch.session not in (None, hello.session):
            self._dismiss(line, f"launch {hello.launch} of job {self.id} has a worker already")
        else:
            self._spares.replace(hello)
            self._place(line, hello)

    def leave(self, line: WorkerLine, hello: Hello) -> None:
        """Take in that a connection is gone."""
        self._spares.leave(line)
        self.bill.ended(hello.session or line.peer, self.clock.seconds())

    def _place(self, line: WorkerLine, hello: Hello) -> None:
        """Give a worker an actor, or let it wait, or dismiss it."""
        room = min(self.spec.spares, self._unfinished) if self.actors else math.inf
        if self._queue:
            self._assign(self._next_actor(), line, hello)
        elif len(self._spares) < room:
            self._arrive(line, hello, waits=True)
            self._spares.add(line, hello)
        else:
            self._arrive(line, hello, waits=False)
            self._dismiss(line, f"job {self.id} has no actor without a worker")

    def _arrive(self, line: WorkerLine, hello: Hello, waits: bool) -> None:
        """Note that a worker has come, unless it was here before."""
        launch = self.launches.get(hello.launch)
        if launch is None or launch.session is None:
            self.record(Arrived(self.clock.seconds(), hello.session, hello.launch, waits))
        self._count_worker(hello, line)

    def _count_worker(self, hello: Hello, line: WorkerLine) -> None:
        """Count the cost of a worker; an original one has no session to know it by."""
        worker, number = hello.session or line.peer, self.launches.number(hello.launch)
        self.bill.began(worker, number, self.clock.seconds())

    def _next_actor(self) -> Actor:
        return next(iter(self._queue.values()))

    def _assign(self, actor: Actor, line: WorkerLine, hello: Hello) -> None:
        now = self.clock.seconds()
        self.record(Assigned(now, actor.number, actor.tried + 1, hello.session, hello.launch))
        self._count_worker(hello, line)
        session = actor.attempts[-1].session
        assert session is not None
        line.adopt(session)
        session.attach(line, hello)
        session.begin()

    def attempt_ended(self, attempt: Attempt, finish: Finish, at: float, charged: bool) -> None:
        """Note how an attempt ended, and do what follows."""
        actor = attempt.actor
        over = actor.outcome is not None
        self.record(
            AttemptEnded(
                at,
                actor.number,
                attempt.number,
                finish.error,
                finish.result,
                attempt.machine.last_label,
                attempt.last_reply,
                charged,
            )
        )
        if not over:
            self._after_end(actor)

    def _after_end(self, actor: Actor) -> None:
        """An attempt has ended, or none began: show the actor's end once it is on disk, or go on."""
        if actor.outcome is None:
            self._owner.changed()
            return
        for other in list(actor.attempts):
            if other.session is not None:
                other.session.fence("another attempt at its actor was first")
        self.ledger.on_disk(self._show_and_go_on, actor)

    def _show_and_go_on(self, actor: Actor) -> None:
        self._show(actor)
        self._owner.changed()

    def _show(self, actor: Actor) -> None:
        before = actor.state
        actor.show_end()
        self._count(actor, before)

    def _let_spares_go(self) -> None:
        """Keep no more spares than there are actors that may need one."""
        while len(self._spares) > self._unfinished:
            line, _ = self._spares.take()
            self._dismiss(line, f"job {self.id} needs no spare any more")

    def _dismiss(self, line: WorkerLine, reason: str) -> None:
        """Tell a worker to quit, once everything that led to it is on disk."""
        self._dismissed_since += 1
        self.ledger.on_disk(line.dismiss, reason)

    # ------------------------------------------------ the end

    def stop(self, state: str, reason: str) -> None:
        """End all attempts: running workers are told to quit, nothing more begins.

        A job whose pipeline is in its finish does not wait for that any longer.
        """
        if not self.active and self.life is not JobState.FINISHING:
            return
        self.record(Stopped(self.clock.seconds(), state, reason))
        for actor in self.actors:
            for attempt in list(actor.attempts):
                if attempt.session is not None:
                    attempt.session.give_up(reason)
        self._dismiss_waiting(reason)
        self._owner.settled()

    def _dismiss_waiting(self, reason: str) -> None:
        for call in self._pauses.values():
            call.cancel()
        self._pauses.clear()
        for line, _ in self._spares.take_all():
            self._dismiss(line, reason)

    def end(self, state: str, error: str | None = None, result: Any = None) -> None:
        """Note how the job ended, done, failed or cancelled; the first to say so counts."""
        if self.life not in (JobState.FINISHING, JobState.STOPPING):
            return
        at = self.clock.seconds()
        self._dismiss_waiting(f"job {self.id} has ended")
        self._record_counts(at)
        self._step(Step.CONCLUDED)
        self.ledger.on_disk(self._write_end, state, at, error, result)

    def _write_end(self, state: str, at: float, error: str | None, result: Any) -> None:
        """All actors' ends are shown: write the job's."""
        self.bill.close(at)
        if self.ledger.keeps:
            ending = {"error": error and readable(error), "result": result}
            told = self.describe() | {"state": state, "finished": at} | ending
            self.ledger.end(self.id, Past.of(at, told, self.workers(), self.key, self.digest))
        self.ledger.on_disk(self._show_end, state, at, error, result)

    def _show_end(self, state: str, at: float, error: str | None, result: Any) -> None:
        self.finished, self.error, self.result = at, error, result
        self._step(Step[state.upper()])
        self._sessions.clear()
        self._owner.over()
        for waiting in self._waiting:
            waiting.callback(None)
