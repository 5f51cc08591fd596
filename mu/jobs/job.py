"""A live job: launches workers, assigns them to its actors, and ends.

Every change is a record, which `record` writes and applies. `advance` then does whatever is due.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mu.engines.cost import Prices
from mu.events import Finish
from mu.invocations import BadEnding, Size
from mu.jobs import uses
from mu.jobs.absences import ENDED_S, Absences
from mu.jobs.actors import Actor, Attempt
from mu.jobs.ahead import opening
from mu.jobs.bill import sized
from mu.jobs.driver import SessionDriver, WorkerLine
from mu.jobs.launches import LATE, Launch
from mu.jobs.life import JobState, Step
from mu.jobs.overview import overview
from mu.jobs.owner import Owner
from mu.jobs.pauses import RetryPauses
from mu.jobs.queue import ActorQueue
from mu.jobs.recorded import RecordedJob
from mu.jobs.spares import Spares, stragglers
from mu.jobs.spec import EXTERNAL, JobSpec, Limits
from mu.jobs.summary import JSON, readable
from mu.journal.allowance import JobAllowance
from mu.journal.ledger import Ledger, NoJournal, Past
from mu.journal.records import (
    Ahead,
    Alive,
    Arrived,
    Assigned,
    AttemptEnded,
    CommandUsed,
    Counted,
    Launched,
    NobodyCame,
    Record,
    Skipped,
    Stopped,
)
from mu.messages import Hello, Use
from mu.output.pieces import NoOutput, OutputSink
from mu.states.context import Progress
from mu.totals import Totals

ALIVE_S = 10.0
"""How often a job records that its daemon is running: the most time that a restart miscounts."""


def _numbers(progress: Progress | None) -> list[int] | None:
    return None if progress is None else [progress.done, progress.of, progress.failed]


class Job(RecordedJob):
    """A job, from its order to done, failed or cancelled."""

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
        totals: Totals | None = None,
        output: OutputSink | None = None,
    ) -> None:
        created = clock.seconds() if created is None else created
        super().__init__(
            job_id,
            spec,
            uniq,
            limits or Limits(),
            created,
            relay,
            prices or Prices(),
            totals or Totals(),
            output or NoOutput(),
        )
        self.clock = clock
        self.ledger: Ledger = ledger or NoJournal()
        self.allowance = JobAllowance(self.limits.job_bytes, self.limits.attempt_bytes)
        self.function_timeout_s = 0.0
        """How long its function may run, in seconds; 0: unknown."""
        self._owner = owner
        self._spares = Spares()
        self._originals: dict[WorkerLine, str] = {}  # original workers, and their launches
        self._absences = Absences(self._sessions, self.launches, clock)
        self._pauses = RetryPauses(clock, self.limits.retry_pause_s, self._end_pause)
        self._uncounted: Counter[str] = Counter()  # answers that are not recorded yet
        self._advancing = False
        self._waiting: list[Deferred[None]] = []  # for its end

    # ------------------------------------------------ queries

    def describe(self) -> JSON:
        """Return its JSON for users."""
        return self.summary(self.clock.seconds()).json()

    def overview(self) -> JSON:
        """Return its JSON, and what its actors wait for, at this moment."""
        return overview(self.describe(), self.glances())

    def staff(self) -> Counter[str]:
        """Count its workers: `starting`, `working`, `away` and `spare`."""
        counted = Counter(starting=self.launches.coming, spare=len(self._spares))
        for actor in self.actors:
            for attempt in actor.attempts:
                session = attempt.session
                here = session is not None and session.line is not None
                counted["working" if here else "away"] += 1
        return counted

    @property
    def cost_usd(self) -> float | None:
        """The cost so far in US dollars, if it is known."""
        return self.bill.usd(self.finished or self.clock.seconds())

    def when_over(self) -> Deferred[None]:
        """Return a Deferred that fires once the end is on disk."""
        waiting: Deferred[None] = Deferred()
        if self.ended:
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    # ------------------------------------------------ records

    def record(self, record: Record) -> None:
        """Write a record, and apply it."""
        self.ledger.record(self.id, record)
        self.apply(record)

    def new_session(self, attempt: Attempt, name: str) -> SessionDriver:
        """Return the session of an attempt that begins."""
        limits, allowance = self.limits, self.allowance.attempt()
        return SessionDriver(
            attempt, name, self.ledger, self.clock, limits.hold_s, limits.blocked_s, allowance
        )

    def used(self, session: str, use: Use) -> None:
        """Record what a worker ran before its hello, if it tells that for the first time."""
        launch = self.launches.get(self.launches.of_session(session))
        if use.command or launch is None or launch.used or self.ending:
            return
        self.record(uses.before_hello(use, session, launch, self.clock.seconds()))

    def command_used(self, attempt: Attempt, use: Use) -> None:
        """Record what a command used, or at its end the worker, if it is told for the first time."""
        told = None if self.ending else uses.of_command(use, attempt, self.clock.seconds())
        if told is not None:
            self.record(told)

    def workers_expected(self) -> Iterator[tuple[str, bool]]:
        """Yield the launches whose worker runs or may still start, and whether it has connected."""
        for launch_id, launch in self.launches.holding():
            if launch.session is None or launch.session in self._sessions:
                yield launch_id, launch.session is not None

    def restart(self) -> list[str]:
        """Queue actors, and wait for workers again; return the ids of launches to repeat."""
        self._skip_doomed()
        free = [actor for actor in self._startable(self.actors) if actor.free]
        self._queue = ActorQueue(self._order, [actor for actor in free if not actor.failures])
        for actor in free:
            if actor.failures:
                self._queue.retry(actor)
        self._failed.clear()
        return self.launches.restart(self.clock.seconds())

    # ------------------------------------------------ planning and launching

    def begin(self) -> None:
        """Assign or launch workers for all actors, and launch spares. It must be planned."""
        self._skip_doomed()
        self._conclude()  # a daemon that was killed may not have got to this
        self.advance(0 if self.launches else self.spec.spares)

    def measure(self, sizes: Mapping[str, Size], longest: Mapping[str, float]) -> None:
        """Count the cost from now on, using these sizes, by region.

        `longest` says how long a worker that nobody sees can run, in seconds.
        """
        self.record(sized(sizes, longest))

    def answered(self, launch_id: str, answer: str) -> None:
        """Record that an engine accepted a launch, or may have: a worker is expected."""
        if not self.ending:
            invoked = self.launches[launch_id].invoked
            self.record(Launched(launch_id, answer, self.clock.seconds(), invoked=invoked))

    def invoked(self, launch_id: str) -> None:
        """Note that an invocation is made; the engine's time to accept it begins."""
        self.launches.invoked(launch_id, self.clock.seconds())

    def urgency(self) -> int:
        """Return what the next launch is for: RETRY, FIRST or SPARE of mu.places."""
        return self._queue.urgency(self.launches.invoked_coming)

    @property
    def worker_awaited(self) -> str:
        """Describe for users what an actor without a worker waits for."""
        pending = self.launches.pending
        return self._owner.waits_for_place() or (f"a place: {pending}" if pending else "a worker")

    def count(self, answer: str) -> None:
        """Count an answer of an engine that started nothing; the journal gets sums."""
        self._uncounted[answer] += 1

    def keep_records(self) -> None:
        """Record that the daemon is running, and what is recorded in sums; call this once a second."""
        if not self.active:
            return
        now = self.clock.seconds()
        self._record_counts(now)
        if now - self._recorded_alive >= ALIVE_S:
            self.record(Alive(now))

    def check(self, late: str) -> None:
        """Check for overdue launches, stragglers and the cost limit; call this about once a second.

        It launches what is missing, so that it must not be called before `begin`.

        `late` tells users what to check when a worker did not connect in time.
        """
        if not self.active:
            return
        now = self.clock.seconds()
        self._give_up_launches(late, now)
        self._help_stragglers(now)
        self._fail_orphans()
        self._look_ahead(now)
        self.advance()
        if over := self.bill.over(self.spec.max_cost_usd, now):
            self.stop("failed", over)

    def _record_counts(self, now: float) -> None:
        answers, dismissed = dict(self._uncounted), self._dismissed_since
        if answers or dismissed:
            self._uncounted.clear()
            self._dismissed_since = 0
            self.record(Counted(now, answers, dismissed))

    def _give_up_launches(self, late: str, now: float) -> None:
        """For each overdue worker, fail one waiting actor, unless other workers are expected."""
        overdue = self.launches.overdue(now)
        placeless = {one for one in overdue if self._owner.had_no_place(one)}
        blamed = [
            self._why_nobody_came(launch, late)
            for launch_id, launch in overdue.items()
            if launch.ended or not (launch.answer and self._owner.missed(launch_id))
        ]
        for launch_id in overdue:
            self.record(Launched(launch_id, LATE, now, launch_id not in placeless))
            self.totals.launches[LATE] += 1
            self._owner.freed(launch_id)
        missing = max(0, len(self._queue) - self.launches.coming)
        for actor, why in zip(self._queue.next(missing), blamed, strict=False):
            if not self.active:  # an actor has failed, which stopped the job
                return
            self.record(NobodyCame(now, actor.number, why))
            self._after_end(actor)

    def _why_nobody_came(self, launch: Launch, late: str) -> str:
        if launch.ended:
            return f"its worker did not connect: it {launch.ended}"
        if launch.answer:
            return late
        return (
            f"engine {self.spec.engine} did not accept a launch within {self.limits.accept_s:g} s"
        )

    def _help_stragglers(self, now: float) -> None:
        """Start the slowest actors again on spares; the first attempt to finish wins."""
        factor = self.spec.stragglers
        if not (factor and self._spares and self.spec.pipeline.may_run_twice):
            return
        peers = self.stages.peers
        for actor in list(stragglers(self.actors, factor, now, lambda one: peers(one.number))):
            if not self._spares:
                return
            self.totals.stragglers += 1
            self._assign(actor, *self._spares.take())

    def _help_held(self) -> None:
        """Start actors whose worker is away again on spares; the first attempt to finish wins.

        A worker that was killed and one that lost its connection look the same.
        """
        if not (self._spares and self.spec.pipeline.may_run_twice):
            return
        for session in self._absences.sessions():
            if not self._spares:
                return
            actor = self._by_number[session.part.actor_number]
            if len(actor.attempts) == 1 and actor.outcome is None:
                self.totals.spares_used += 1
                self._assign(actor, *self._spares.take())

    def _look_ahead(self, now: float) -> None:
        """Launch workers for actors that can begin soon; replace those that have waited too long."""
        if not self.limits.ahead_s or self.spec.engine == EXTERNAL or not self.stages:
            return
        for gate in opening(self.stages, self.actors, self.limits.ahead_s, now):
            behind = [actor for one in gate.behind if (actor := self.actor(one)) is not None]
            soon = [one.number for one in behind if one.free and one.number not in self._ahead]
            if soon:
                self.record(Ahead(now, soon))
        if self._ahead and self.function_timeout_s:
            longest = self.function_timeout_s / 2
            for line, hello in self._spares.all():
                launch = self.launches.get(hello.launch)
                if launch is not None and now - launch.begun > longest:
                    self._spares.leave(line)
                    self._dismiss(line, f"it has waited for half of {self.function_timeout_s:g} s")

    def advance(self, spares: int = 0) -> None:
        """Do whatever is due: retry, assign workers to actors, launch more, or settle.

        `spares` is how many additional workers to launch.
        """
        if self._advancing:  # an actor may end while it gets its worker; the loop below handles it
            return
        if self.active and self.allowance.spent:
            self.stop("failed", self.allowance.excess)
        self._advancing = True
        try:
            while self.active and (self._failed or (self._queue and self._spares)):
                self._retry_failed()
                if self._queue and self._spares:
                    first = self._queue.first
                    self.totals.spares_used += bool(first.failures)
                    self._assign(first, *self._spares.take())
            if self.active:
                self._help_held()
                self._supply(spares)
                self._let_spares_go()
        finally:
            self._advancing = False
        self._conclude()

    def _retry_failed(self) -> None:
        """Queue failed actors again: the first time at once, then after a pause that doubles.

        There is no pause where others may wait for the actor, and would meanwhile take its place.
        """
        failed, self._failed = self._failed, []
        for actor in failed:
            if not actor.free:
                continue
            self.totals.retries += 1
            if self.relay_keep or not self._pauses.begin(actor):
                self._queue.retry(actor)
            else:
                self.changes.touch(actor.number)

    def _end_pause(self, actor: Actor) -> None:
        """Queue an actor whose pause is over."""
        self.changes.touch(actor.number)
        if actor.free:
            self._queue.retry(actor)
            self._owner.changed()

    def _supply(self, more: int) -> None:
        """Launch workers for waiting actors that have no launch under way, and `more` others."""
        if self.spec.engine == EXTERNAL:
            return
        wanted = len(self._queue)
        if self._ahead:  # their workers wait with the spares
            wanted += len(self._ahead) - max(0, len(self._spares) - self.spec.spares)
        missing = max(0, wanted - self.launches.coming)
        launches = self.launches.plan(missing + more, self.clock.seconds())
        for record in launches:
            self.record(record)
        if launches:
            self.ledger.on_disk(self._owner.launch, [record.launch for record in launches])

    def _conclude(self) -> None:
        """Check whether all actors have ended, or more have failed than the order tolerates."""
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
        """Reattach a worker to its attempt, give it an actor, keep it as a spare or dismiss it."""
        if not hello.session:  # an original worker cannot say which launch started it
            hello = Hello(launch=self.launches.outstanding())
            self._originals[line] = hello.launch
        session = self._sessions.get(hello.session)
        launch = self.launches.get(hello.launch)
        if not self.active:
            self.bill.connected(hello.launch, self.clock.seconds())
            self._dismiss(line, f"job {self.id} has ended")
        elif session is not None:
            self.totals.resumed += 1
            self._count_worker(hello, line)
            line.adopt(session)
            session.attach(line, hello)
        elif hello.session in self._past_sessions:
            self._dismiss(line, f"the attempt of session {hello.session} has ended")
        elif hello.received:
            self._dismiss(line, f"session {hello.session} is not known")
        elif not hello.launch and self.spec.engine != EXTERNAL:
            self._dismiss(line, f"job {self.id} has no launch that this worker could be from")
        elif hello.launch and launch is None:
            self._dismiss(line, f"job {self.id} did not launch {hello.launch!r}")
        elif launch is not None and launch.session not in (None, hello.session):
            self._dismiss(line, f"launch {hello.launch} of job {self.id} already has a worker")
        else:
            self._spares.replace(hello)
            self._place(line, hello)

    def leave(self, line: WorkerLine, hello: Hello) -> None:
        """Note that a worker's connection is lost."""
        self._spares.leave(line)
        if self._is_back(hello.session):  # this is its former connection
            return
        if hello.session not in self._sessions:
            self._free(hello.launch or self._originals.pop(line, ""))
        elif self.active:
            self._owner.lost(hello.session)
            self._absences.begin(hello.session)
            self._owner.changed()
        self.bill.ended(hello.session or line.peer, self.clock.seconds())

    def is_away(self, name: str) -> bool:
        """Return whether a worker with an actor has lost its connection and has no newer one."""
        return self._absences.is_away(name)

    def launch_pending(self, launch_id: str, why: str) -> None:
        """Note that a launch waits in its engine."""
        self.launches.wait(launch_id, why, self.clock.seconds())
        self.bill.never_ran(launch_id)  # it has cost nothing so far

    def launch_ended(self, launch_id: str, why: str) -> None:
        """Note that the worker of a launch has ended: its actor is not held for it."""
        self.launches.give_up(launch_id, why, self.clock.seconds() + ENDED_S)
        self._absences.end_soon(launch_id)

    def worker_ended(self, name: str, ending: BadEnding) -> None:
        """Give up a worker that will not come back: its engine says how it ended."""
        if not self.is_away(name):
            return
        part, now = self._sessions[name].part, self.clock.seconds()
        peak = {"peak_mb": ending.peak_mb}
        self.record(CommandUsed(now, part.actor_number, part.number, 0, peak))
        self._absences.end(name, ending.how)

    def _is_back(self, name: str) -> bool:
        """Return whether a worker that lost a connection has a newer one."""
        session = self._sessions.get(name)
        return (session is not None and session.line is not None) or self._spares.has(name)

    def _place(self, line: WorkerLine, hello: Hello) -> None:
        """Assign a worker an actor, keep it as a spare, or dismiss it."""
        if self._queue:
            self._assign(self._queue.first, line, hello)
        elif not self.actors or len(self._spares) < self._most_spares:
            self._arrive(line, hello, waits=True)
            self._spares.add(line, hello)
        else:
            if hello.launch:  # without one, any number may come: only their sum is recorded
                self._arrive(line, hello, waits=False)
            self._dismiss(line, f"job {self.id} has no actor without a worker")

    def _arrive(self, line: WorkerLine, hello: Hello, waits: bool) -> None:
        """Record that a worker connected, unless it did before."""
        launch = self.launches.get(hello.launch)
        if launch is None or launch.session is None:
            self.record(Arrived(self.clock.seconds(), hello.session, hello.launch, waits))
        self._count_worker(hello, line)

    def _count_worker(self, hello: Hello, line: WorkerLine) -> None:
        """Count a worker's cost; an original one has no session, so its address identifies it."""
        self._owner.connected(hello.launch)
        worker, number = hello.session or line.peer, self.launches.number(hello.launch)
        self.bill.began(worker, number, self.clock.seconds())

    @property
    def _most_spares(self) -> int:
        """How many workers may wait, once the job is planned: spares, and those launched ahead.

        Nobody launches others for a job whose workers are started by hand: so as many as it needs.
        """
        ahead = len(self._ahead)
        if self.stages and self.spec.engine == EXTERNAL:
            ahead = self.counts["waiting"]
        return min(self.spec.spares + ahead, self._unfinished)

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
        """Record how an attempt ended, and do what follows from it."""
        actor, session = attempt.actor, attempt.session
        over = actor.outcome is not None
        if finish.error is None:
            self.totals.attempts["done"] += 1
        else:
            self.totals.attempts["cancelled" if self.cancelled else "failed"] += 1
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
                _numbers(attempt.machine.worker.progressed),
                finish.final,
                sorted(attempt.passed) if self.spec.pipeline.uses_relay else None,
            )
        )
        freed = ""
        if session is not None and session.line is None:
            freed = self.launches.of_session(session.name)
        if not over:
            self._after_end(actor)
        if freed:
            self._free(freed)

    def _free(self, launch_id: str) -> None:
        """Free a launch's place, but not before a retry that was just recorded waits for it."""
        self.ledger.on_disk(self._owner.freed, launch_id)

    def _after_end(self, actor: Actor) -> None:
        """Show the actor's end once it is on disk, or let the job retry it."""
        if actor.outcome is None:
            self._owner.changed()
            return
        for other in list(actor.attempts):
            if other.session is not None:
                other.session.fence("another attempt at its actor finished first")
        self._skip_doomed()
        self.ledger.on_disk(self._show_and_advance, [actor])

    def _skip_doomed(self) -> None:
        """Fail the actors that can no longer begin, because others that they wait for failed."""
        skipped: list[Actor] = []
        for number, gate in self.stages.doomed() if self.active else ():
            actor = self.actor(number)
            if actor is not None and actor.free and not actor.tried:
                self.record(Skipped(self.clock.seconds(), number, gate.failure))
                skipped.append(actor)
        if skipped:
            self.ledger.on_disk(self._show_and_advance, skipped)

    def _show_and_advance(self, actors: Sequence[Actor]) -> None:
        for actor in actors:
            self._show(actor)
        self._fail_orphans()
        self._owner.changed()

    def _fail_orphans(self) -> None:
        """Fail the actors that wait for a state of an actor that has failed for good."""
        if not (self._failed_neighbours and self.active):
            return
        waiting = [
            (actor, neighbour)
            for neighbour in self._failed_neighbours.values()
            for actor in self._needing[neighbour.number]
            if actor.outcome is None
        ]
        self._failed_neighbours = {neighbour.number: neighbour for _, neighbour in waiting}
        for actor, neighbour in waiting:
            if not actor.orphaned_by(neighbour):
                continue
            why = f"it waits for the state of actor {neighbour.number}, which has failed"
            for attempt in list(actor.attempts):
                if attempt.session is not None:
                    attempt.session.fence(why, final=True)
            if actor.free:
                self.record(Skipped(self.clock.seconds(), actor.number, why))
                self._after_end(actor)
            if not self.active:
                return

    def _let_spares_go(self) -> None:
        """Dismiss spares that can no longer be needed."""
        while len(self._spares) > self._most_spares:
            line, _ = self._spares.take()
            self._dismiss(line, f"job {self.id} no longer needs a spare")

    def _dismiss(self, line: WorkerLine, reason: str) -> None:
        """Tell a worker to quit, once everything recorded so far is on disk."""
        self._dismissed_since += 1
        self.totals.dismissed += 1
        self.ledger.on_disk(line.dismiss, reason)

    # ------------------------------------------------ the end

    def stop(self, state: str, reason: str) -> None:
        """End all attempts: running workers are told to quit, and nothing more begins.

        If the pipeline's `finish` is running, the job does not wait for it.
        """
        if not self.active and self.life is not JobState.FINISHING:
            return
        waiting = [actor for actor in self.actors if actor.free]
        self.record(Stopped(self.clock.seconds(), state, reason))
        for actor in waiting:
            if actor.outcome is not None:
                self.ledger.on_disk(self._show, actor)
        for actor in self.actors:
            for attempt in list(actor.attempts):
                if attempt.session is not None:
                    attempt.session.give_up(reason)
        self._dismiss_waiting(reason)
        self._owner.settled()

    def _dismiss_waiting(self, reason: str) -> None:
        self._pauses.cancel()
        for line, _ in self._spares.take_all():
            self._dismiss(line, reason)

    def end(self, state: str, error: str | None = None, result: object = None) -> None:
        """End the job as done, failed or cancelled; only the first call counts."""
        if self.life not in (JobState.FINISHING, JobState.STOPPING):
            return
        at = self.clock.seconds()
        self._dismiss_waiting(f"job {self.id} has ended")
        self._step(Step.CONCLUDED)
        self.ledger.on_disk(self._write_end, state, at, error, result)

    def _write_end(self, state: str, at: float, error: str | None, result: object) -> None:
        """Write the job's end: those of its actors are on disk."""
        self._record_counts(at)
        self.bill.close(at)
        if self.ledger.keeps:
            ending = {"error": error and readable(error), "result": result}
            told = self.describe() | {"state": state, "finished": at} | ending
            identity = self.key, self.digest
            past = Past.of(at, told, self.workers(), *identity, self.spec.notify_url)
            self.ledger.end(self.id, past)
        self.ledger.on_disk(self._show_end, state, at, error, result)

    def _show_end(self, state: str, at: float, error: str | None, result: object) -> None:
        self.finished, self.error, self.result = at, error, result
        self._step(Step[state.upper()])
        self._sessions.clear()
        self._owner.over()
        self.ends.close()
        for waiting in self._waiting:
            waiting.callback(None)
