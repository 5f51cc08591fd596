"""Who runs what: jobs, their actors and launches, and the book that gives workers something to do."""

import json
import secrets
import statistics
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from mu.engines.cost import Meter, Prices
from mu.invocations import Size, region_of
from mu.jobs.actors import Actor, Attempt, shown
from mu.jobs.launches import LATE, Launch
from mu.jobs.spec import EXTERNAL, JobSpec, Limits
from mu.journal.ledger import Ledger, NoJournal, Past
from mu.journal.records import (
    Alive,
    Assigned,
    AttemptEnded,
    Launched,
    Launching,
    NobodyCame,
    Sized,
    Stopped,
)
from mu.machine import Machine
from mu.messages import Hello
from mu.session import Session
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state

ALIVE_S = 10.0
"""How often it is recorded that time passes: what a restart does not know to have passed, has not."""
LONGEST_PAUSE_S = 60.0
"""Between two attempts at an actor."""


class Line(Protocol):
    """A worker's connection, once it has said hello."""

    peer: str

    def write(self, data: bytes) -> None: ...
    def goodbye(self) -> None: ...
    def go_on(self) -> None: ...
    def supersede(self, reason: str) -> None: ...
    def adopt(self, session: Session) -> None:
        """Give all that comes from now on to this session."""

    def wait(self) -> None:
        """Stay connected: an actor may come."""

    def dismiss(self, reason: str) -> None:
        """Quit: there is nothing to do here for you."""


class Job:
    """A pipeline's work, from launching over running to done, failed or cancelled.

    `state` and the other attributes that people see are told only once they are on disk.
    """

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        uniq: str,
        clock: Any,
        ledger: Ledger | None = None,
        limits: Limits | None = None,
        created: float | None = None,
        relay: str = "",
    ) -> None:
        self.id = job_id
        self.relay = relay
        """HOST:PORT of the relay; empty: there is none."""
        self.recorded = False
        """Whether it is on disk, so that people may see it."""
        self.downtime = 0.0
        """Seconds for which no coordinator was there."""
        self.spec = spec
        self.uniq = uniq
        self.clock = clock
        self.ledger: Ledger = ledger or NoJournal()
        self.limits = limits or Limits()
        self.created: float = clock.seconds() if created is None else created
        self.on_end: Callable[[Job], None] = lambda job: None
        """Called when the last actor has ended, or the job was stopped before."""
        self.on_need: Callable[[Job, dict[str, Launch]], None] = lambda job, launches: None
        """Called with launches that are on disk, to be made."""
        self.on_over: Callable[[Job], None] = lambda job: None
        """Called when all is over and told."""
        self.state = "launching"
        self.launched: float | None = None
        """When the last launch was answered (times are seconds since the epoch)."""
        self.first_hello: float | None = None
        self.last_hello: float | None = None
        self.finished: float | None = None
        self.error: str | None = None
        self.result: Any = None
        self.planned = 0
        """Actors that the plan has; those that run are `actors`."""
        self.actors: list[Actor] = []
        self.counts: Counter[str] = Counter()
        self.launches: dict[str, Launch] = {}
        self.launch_counts: Counter[str] = Counter()
        self.dismissed = 0
        """Workers that were told to quit: duplicates, latecomers, too many."""
        self.prices = Prices()
        self.meter: Meter | None = None
        """What counts its cost; None: that is not known."""
        self.sizes: dict[str, Size] = {}
        """What its function is like, by region."""
        self.verdict: tuple[str, str] | None = None
        """The state and the reason with which the job was stopped, if it was."""
        self.sessions: dict[str, Session] = {}
        """By name, those that run; what has ended is in `_past_sessions`."""
        self._past_sessions: set[str] = set()
        self._by_number: dict[int, Actor] = {}
        self._queue: deque[Actor] = deque()  # actors that could begin now
        self._idle: dict[Line, Hello] = {}  # workers that wait: spares, or for the plan
        self._coming: dict[str, Launch] = {}  # launches whose worker may still come
        self._pauses: list[Any] = []
        self.restoring = False
        """Whether its records are being taken in, after a restart."""
        self._stopping = False
        self._finishing = False  # all actors have ended, the pipeline's `finish` has not
        self._ending = False  # it has
        self._alive_at = self.created
        self._over: list[Deferred[None]] = []

    # ------------------------------------------------ what its actors need

    @property
    def facts(self) -> JobFacts:
        return JobFacts(self.id, self.spec.params, self.planned, self.relay, self.uniq)

    @property
    def relay_keep(self) -> bool:
        """Whether the relay keeps what it delivered: the event's switch, or else the pipeline's."""
        switch = self.spec.event.get("relay_keep")
        if switch is None:
            switch = getattr(self.spec.pipeline, "relay_keep", False)
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
    def ended(self) -> bool:
        return self.finished is not None

    @property
    def stopping(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._stopping or self._ending or self.verdict is not None

    def machine(self, actor: Actor) -> Machine:
        """Return a machine for an attempt at that actor."""
        worker = ScriptWorker(self.facts, actor.number, actor.input)
        begin = first_state(self.spec.pipeline.begin)
        return Machine(worker, begin, self.limits.max_held, self.limits.max_info)

    def count(self, before: str, after: str) -> None:
        self.counts[before] -= 1
        self.counts[after] += 1

    def try_again(self, actor: Actor) -> None:
        """Queue an actor after its pause: none before the second attempt, longer ones after it."""
        if self.restoring:
            return
        now = self.clock.seconds()
        pause = min(self.limits.retry_pause_s * 2 ** (actor.spent - 2), LONGEST_PAUSE_S)
        if actor.spent < 2 or pause <= 0:
            self._enqueue(actor)
        else:
            actor.pause_until = now + pause
            self._pauses.append(self.clock.callLater(pause, self._enqueue, actor))

    def settled(self, actor: Actor, at: float) -> None:
        """An actor has ended, and that is on disk."""
        if self.restoring:
            return
        self._let_spares_go()
        if self._stopping:
            return
        if self.counts["done"] + self.counts["failed"] == len(self.actors):
            self.settle()
        else:
            self._heed_failures()

    def _heed_failures(self) -> None:
        """Stop, if more have failed than the order says."""
        if self.spec.on_failure == "stop" and self.counts["failed"] > self.spec.tolerate:
            self.stop("failed", self.failures() or "")

    # ------------------------------------------------ planning and launching

    def plan(self, inputs: Sequence[Mapping[str, Any]], order: Sequence[int] | None = None) -> None:
        """Take the inputs of all actors, and the order in which they get workers.

        Of an order's explicit actors each must be planned.
        """
        self.planned = len(inputs)
        wanted = set(self.spec.actors or range(self.planned))
        now, log = self.clock.seconds(), self.limits.log_bytes
        self.actors = [Actor(self, number, inputs[number], now, log) for number in sorted(wanted)]
        self._by_number = {actor.number: actor for actor in self.actors}
        self._queue = deque(
            self._by_number[number] for number in order or range(self.planned) if number in wanted
        )
        self.counts["waiting"] += len(self.actors)

    def begin(self) -> None:
        """Give what waits to who waits, and have workers launched for the others, and spares."""
        self._heed_failures()  # a coordinator that was killed may not have come to it
        for line, hello in list(self._idle.items()):
            del self._idle[line]
            self._place(line, hello)
        spares = 0 if self.launches else self.spec.spares
        self._supply(spares)

    # ------------------------------------------------ after a restart

    def restore_attempt(self, record: Assigned) -> None:
        actor = self._by_number[record.actor]
        actor.tried = record.attempt - 1
        attempt = actor.begin(record.at)
        self.session_of(attempt, record.session)
        if record.launch in self.launches:
            self.launches[record.launch].session = record.session
        self.first_hello = self.first_hello or record.at
        self.last_hello = record.at
        size = self._size(self.launches.get(record.launch))
        if self.meter is not None and size is not None:
            self.meter.began(record.session, record.at, size)

    def restore_sizes(self, record: Sized) -> None:
        self.sizes = {region: Size(*told) for region, told in record.sizes.items()}
        self.meter = Meter(self.prices)

    def restore_end(self, record: AttemptEnded) -> None:
        self._by_number[record.actor].take_end(record)

    def restore_absence(self, record: NobodyCame) -> None:
        self._by_number[record.actor].nobody_came(record.error, record.at)

    def restore_launch(self, record: Launching | Launched) -> None:
        if isinstance(record, Launching):
            self.launches[record.launch] = Launch(record.number, record.at)
        else:
            self.launches[record.launch].answer = record.answer
            if self.meter is not None and record.answer != LATE:
                self.meter.invoked()
            if record.answer != LATE:
                self.launch_counts[record.answer] += 1

    def restored(self) -> dict[str, Launch]:
        """All records were taken in: see what is left to do; return the launches to be made again."""
        self.restoring = False
        self._queue = deque(actor for actor in self._queue if self._is_free(actor))
        now = self.clock.seconds()
        self._coming = {
            name: launch
            for name, launch in self.launches.items()
            if launch.session is None and launch.answer != LATE
        }
        for launch in self._coming.values():
            launch.due = now + (self.limits.hello_s if launch.answer else self.limits.accept_s)
        if self.actors and not self._queue:
            self.state = "running"
        return {name: launch for name, launch in self._coming.items() if not launch.answer}

    def settle(self) -> None:
        """End, all actors having ended already."""
        self._stopping = self._finishing = True
        self.on_end(self)

    @property
    def settling(self) -> bool:
        """Whether all actors have ended, so that only the end itself is left."""
        return bool(self.actors) and not self._unfinished

    def _is_free(self, actor: Actor) -> bool:
        return actor.outcome is None and not actor.attempts

    def _supply(self, more: int = 0) -> None:
        """Have workers launched for the actors that wait, as far as none are on their way."""
        count = max(0, len(self._queue) - len(self._coming)) + more
        if not count or self.stopping or self.spec.engine == EXTERNAL:
            return
        now = self.clock.seconds()
        due = now + self.limits.accept_s
        launches = {
            secrets.token_hex(8): Launch(len(self.launches) + place, due) for place in range(count)
        }
        self.launches |= launches
        self._coming |= launches
        for launch_id, launch in launches.items():
            self.ledger.record(self.id, Launching(now, launch_id, launch.number))
        self.ledger.on_disk(self.on_need, self, launches)

    def answered(self, launch_id: str, answer: str) -> None:
        """An engine answered for a launch: its worker may come, but not for ever."""
        launch = self.launches[launch_id]
        launch.answer = answer
        self.ledger.record(self.id, Launched(launch_id, answer))
        if self.meter is not None:
            self.meter.invoked()
        launch.due = self.clock.seconds() + self.limits.hello_s

    def check(self, late: str) -> None:
        """Look for launches whose worker has not come in time, and for actors that take too long.

        To be called now and then; `late` says for people what the former may mean.
        """
        if self.stopping:
            return
        now = self.clock.seconds()
        if now - self._alive_at >= ALIVE_S:
            self._alive_at = now
            self.ledger.record(self.id, Alive(now))
        overdue = {name: one for name, one in self._coming.items() if one.due <= now}
        for name in overdue:
            del self._coming[name]
            self.ledger.record(self.id, Launched(name, LATE))
        missing = len(self._queue) - len(self._coming)
        for launch in list(overdue.values())[: max(0, missing)]:
            actor = self._queue.popleft()
            reason = late if launch.answer else self._not_accepted
            self.ledger.record(self.id, NobodyCame(now, actor.number, reason))
            actor.nobody_came(reason, now)
        self._supply()
        self._try_stragglers(now)
        most, usd = self.spec.max_cost_usd, self.cost_usd
        if most and usd is not None and usd >= most:
            self.stop("failed", f"it has cost ${usd:.4f}; max_cost_usd is {most:g}")

    def measure(self, sizes: Mapping[str, Size]) -> None:
        """Count what it costs from now on."""
        self.sizes = dict(sizes)
        self.meter = Meter(self.prices)
        told = {region: [size.memory_mb, size.architecture] for region, size in sizes.items()}
        self.ledger.record(self.id, Sized(told))

    @property
    def cost_usd(self) -> float | None:
        """Return what it has cost so far, in US dollars, if that is known."""
        return None if self.meter is None else self.meter.usd(self.finished or self.clock.seconds())

    def _size(self, launch: Launch | None) -> Size | None:
        if launch is None:
            return next(iter(self.sizes.values()), None)
        return self.sizes.get(region_of(launch.number, self.spec.regions))

    @property
    def _not_accepted(self) -> str:
        return (
            f"engine {self.spec.engine} did not accept a launch within {self.limits.accept_s:g} s"
        )

    def _try_stragglers(self, now: float) -> None:
        """Have the slowest tried a second time by spares; the first to finish wins."""
        factor = self.spec.stragglers
        if not (factor and self._idle and getattr(self.spec.pipeline, "may_run_twice", True)):
            return
        times = [actor.took for actor in self.actors if actor.took is not None]
        if len(times) < max(1, len(self.actors) // 2):
            return
        longest = factor * statistics.median(times)
        for actor in self.actors:
            if actor.outcome is not None or len(actor.attempts) != 1:
                continue
            if now - actor.attempts[0].began > longest:
                line, hello = self._take_idle()
                self._assign(actor, line, hello)
                if not self._idle:
                    return

    # ------------------------------------------------ workers

    def actor(self, number: int) -> Actor | None:
        """Return the actor of that number."""
        return self._by_number.get(number)

    def join(self, hello: Hello, line: Line) -> None:
        """Give a worker something to do: its actor, a new one, patience, or leave."""
        now = self.clock.seconds()
        session = self.sessions.get(hello.session)
        launch = self.launches.get(hello.launch)
        if self.stopping:
            self._dismiss(line, f"job {self.id} has ended")
        elif session is not None:
            self.came(hello, line, now)
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
            if launch is not None:
                launch.session = hello.session
                self._coming.pop(hello.launch, None)
            self.first_hello = self.first_hello or now
            self.last_hello = now
            self.came(hello, line, now)
            for other, known in list(self._idle.items()):
                if hello.session and known.session == hello.session:
                    del self._idle[other]
                    other.supersede("its worker has connected anew")
            self._place(line, hello)

    def came(self, hello: Hello, line: Line, at: float) -> None:
        """Note that a worker runs."""
        size = self._size(self.launches.get(hello.launch))
        if self.meter is not None and size is not None:
            self.meter.began(hello.session or line.peer, at, size)

    def leave(self, line: Line, hello: Hello) -> None:
        """A connection is gone."""
        self._idle.pop(line, None)
        if self.meter is not None:
            self.meter.ended(hello.session or line.peer, self.clock.seconds())

    def _place(self, line: Line, hello: Hello) -> None:
        if self._queue:
            self._assign(self._queue.popleft(), line, hello)
        elif not self.actors or len(self._idle) < min(self.spec.spares, self._unfinished):
            self._idle[line] = hello
            line.wait()
        else:
            self._dismiss(line, f"job {self.id} has no actor without a worker")

    def _assign(self, actor: Actor, line: Line, hello: Hello) -> None:
        now = self.clock.seconds()
        attempt = actor.begin(now)
        record = Assigned(now, actor.number, attempt.number, hello.session, hello.launch)
        self.ledger.record(self.id, record)
        if self.state == "launching" and not self._queue:
            self.state = "running"
        session = self.session_of(attempt, hello.session)
        line.adopt(session)
        session.attach(line, hello)
        session.begin()

    def session_of(self, attempt: Attempt, name: str) -> Session:
        """Return the new session that plays an attempt."""
        session = Session(attempt, name, self.ledger, self.clock, self.limits.hold_s)
        attempt.session = session
        if name:
            self.sessions[name] = session
        return session

    def session_ended(self, name: str, at: float) -> None:
        """A session has no part any more; its worker, should it come again, is told to quit."""
        if self.restoring and self.meter is not None:
            self.meter.ended(name, at)
        if name:
            self.sessions.pop(name, None)
            self._past_sessions.add(name)

    def _enqueue(self, actor: Actor) -> None:
        actor.pause_until = None
        if self.stopping or not self._is_free(actor):
            return
        if self._idle:
            line, hello = self._take_idle()
            self._assign(actor, line, hello)
        else:
            self._queue.append(actor)
            self._supply()

    @property
    def _unfinished(self) -> int:
        return sum(actor.outcome is None for actor in self.actors)

    def _take_idle(self) -> tuple[Line, Hello]:
        line = next(iter(self._idle))
        return line, self._idle.pop(line)

    def _let_spares_go(self) -> None:
        """Keep no more spares than there are actors that may need one."""
        if not self._idle:
            return
        unfinished = self._unfinished
        while len(self._idle) > unfinished:
            line, _ = self._take_idle()
            self._dismiss(line, f"job {self.id} needs no spare any more")

    def _dismiss(self, line: Line, reason: str) -> None:
        """Have a worker quit, once all that this follows from is on disk."""
        self.dismissed += 1
        self.ledger.on_disk(line.dismiss, reason)

    # ------------------------------------------------ the end

    def stop(self, state: str, reason: str) -> None:
        """Give up all actors: running workers are told to quit, nothing more begins.

        A job whose pipeline is at its `finish` does not wait for that any longer.
        """
        if self._ending or self.verdict or (self._stopping and not self._finishing):
            return
        self._stopping, self._finishing = True, False
        self.verdict = state, reason
        self.ledger.record(self.id, Stopped(self.clock.seconds(), state, reason))
        for actor in self.actors:
            for attempt in list(actor.attempts):
                if attempt.session is not None:
                    attempt.session.give_up(reason)
        self.dismiss_all(reason)
        self.on_end(self)

    def dismiss_all(self, reason: str) -> None:
        """Let go of all who wait."""
        for call in self._pauses:
            if call.active():
                call.cancel()
        self._pauses.clear()
        while self._idle:
            line, _ = self._take_idle()
            self._dismiss(line, reason)

    def end(self, state: str, error: str | None = None, result: Any = None) -> None:
        """Note how the job ended: done, failed or cancelled. The first to say so counts."""
        if self._ending:
            return
        self._stopping = self._ending = True
        self._finishing = False
        at = self.clock.seconds()
        self.dismiss_all(f"job {self.id} has ended")
        self.ledger.on_disk(self._keep_end, state, at, error, result)

    def _keep_end(self, state: str, at: float, error: str | None, result: Any) -> None:
        """All actors' ends are told: note the job's."""
        if self.meter is not None:
            self.meter.stop(at)
        ending = {"state": state, "finished": at, "error": error and shown(error), "result": result}
        if self.ledger.keeps:
            told = json.dumps(self.describe() | ending)
            workers = json.dumps(self.workers())
            identity = json.dumps({"key": self.key, "digest": self.digest})
            self.ledger.end(self.id, Past(at, told, workers, identity))
        self.ledger.on_disk(self._show_end, state, at, error, result)

    def _show_end(self, state: str, at: float, error: str | None, result: Any) -> None:
        self.state, self.finished, self.error, self.result = state, at, error, result
        self.sessions.clear()
        self.on_over(self)
        for waiting in self._over:
            waiting.callback(None)

    def when_over(self) -> Deferred[None]:
        """Return a Deferred that fires once all is over and told."""
        waiting: Deferred[None] = Deferred()
        if self.ended:
            waiting.callback(None)
        else:
            self._over.append(waiting)
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

    def describe(self) -> dict[str, Any]:
        """Return what is told of it; times are seconds since the epoch."""
        spec = self.spec
        counts = {state: self.counts[state] for state in ("waiting", "running", "done", "failed")}
        return {
            "id": self.id,
            "pipeline": spec.pipeline.name,
            "workers": len(self.actors) or spec.workers,
            "state": self.state,
            "counts": counts,
            "created": self.created,
            "launched": self.launched,
            "first_hello": self.first_hello,
            "last_hello": self.last_hello,
            "finished": self.finished,
            "params": {
                name: value for name, value in dict(spec.params).items() if name != "workers"
            },
            "engine": spec.engine,
            "function": spec.function,
            "spares": spec.spares,
            "retries": spec.retries,
            "launches": dict(self.launch_counts),
            "dismissed": self.dismissed,
            "error": self.error and shown(self.error),
            "cost_usd": None if self.cost_usd is None else round(self.cost_usd, 6),
            "gb_s": None if self.meter is None else round(self.meter.gb_s, 3),
            "result": self.result,
        }

    def workers(self) -> list[dict[str, Any]]:
        """Return what is told of each actor."""
        return [actor.describe() for actor in self.actors]
