"""A coordinator and its workers in memory, driven through random schedules that a seed determines.

The code under test is real: Conductor, Job, Session, its driver, WorkerProtocol and recovery on one
side, the worker's session on the other. Everything between and around them is simulated: connections
that lose the end of what is in flight, a disk that loses the end of what is not synced, time, an
engine, and the body of a worker. The steps are those of an exhaustive model of the rules, and more.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from kit.journal import HeldJournal
from kit.model.session_ends import Body, Breach, Pipe, Port
from kit.model.session_machines import MACHINES, UNSOUND
from kit.model.session_properties import Mix, OfMix, Properties
from kit.parts import Reactor, make_spec
from mu.config import Config, JobsSection, LaunchSection, WorkerSection
from mu.invocations import Accepted, Answer, Invocation, Size, Unknown, Unreached
from mu.jobs.book import JobBook, PastJob
from mu.jobs.conductor import Conductor
from mu.jobs.job import Job
from mu.jobs.recovery import find
from mu.jobs.summary import OF_NOW
from mu.journal.ledger import NoJournal
from mu.plugins import Engine
from mu.protocol import WorkerFactory
from mu.wire import HEADER_BYTES, frame

NEVER_S = 1e9
LONG_S = 30.0
"""All time limits in schedules that lose workers, in seconds."""
CALM_ROUNDS = 400
MOST_STEPS = 3000


WEIGHTS = {
    "resume": 10,
    "sync": 5,
    "engine": 8,
    "start": 10,
    "connect": 8,
    "read": 20,
    "hear": 20,
    "hear late": 2,
    "notice": 4,
    "miss": 4,
    "work": 6,
    "inform": 4,
    "time": 6,
    "cut": 6,
    "crash": 6,
    "stop": 3,
    "cancel": 1,
    "fail": 3,
    "kill": 3,
    "wait": 2,
    "twin": 2,
}
"""The relative frequency of each kind of step; a factor that changes now and then is applied."""
STEADY_STEPS = 16
FAULTS = ("cuts", "crashes", "kills", "waits", "twins", "infos", "fails", "stops", "cancels")
SPANS = (40, 80)
"""All faults become possible within this many steps."""
PACES = (0.1, 0.3, 1.0, 3.0)

Step = tuple[str, str, Callable[..., str | None], tuple[Any, ...]]
"""Its kind, its description in the trace, the function to call and its arguments."""


class Steady:
    """Replaces Random in schedules that are written down: nothing is random."""

    def randrange(self, end: int) -> int:
        return 0

    def choices(self, what: Any, weights: Any) -> Any:
        return what[:1]

    def randint(self, least: int, most: int) -> int:
        return most

    def random(self) -> float:
        return 1.0

    def choice(self, what: Any) -> Any:
        return what[0]


class MadeUp(Engine):
    """An engine whose launches are the world's."""

    name = "made up"

    def __init__(self, launch: Callable[[Invocation], Deferred[Answer]]) -> None:
        self._launch = launch

    def launch(self, invocation: Invocation) -> Deferred[Answer]:
        return self._launch(invocation)

    def size(self, function: str, region: str) -> Deferred[Size | Unreached | str]:
        return succeed(Size(1024, timeout_s=60.0))


class SessionWorld:
    """One job, the successive coordinators that run it, its workers, and a trace of all steps."""

    def __init__(self, machine: str, mix: Mix, seed: int | None = None, steps: int = 120) -> None:
        self.trace: list[str] = []
        self._name, self._mix, self._seed = machine, mix, seed
        self._random: Any = Steady() if seed is None else Random(f"{machine} {seed}")
        random = self._random
        begin = (MACHINES | UNSOUND)[machine]
        self._steps = steps
        span = random.choice(SPANS)
        self._plan = sorted(
            (
                (random.randrange(span), fault)
                for fault in FAULTS
                for _ in range(getattr(mix, fault))
            ),
            reverse=True,
        )
        """When each fault becomes possible (again); the next one is last."""
        self._left = dict.fromkeys(FAULTS, 0)
        self._weights: dict[str, float] = {}
        long_s = LONG_S if mix.loses_workers else NEVER_S
        self._config = Config(
            worker=WorkerSection(hold_s=long_s, silence_s=NEVER_S, heartbeat_s=7.0),
            launch=LaunchSection(
                hello_timeout_s=long_s, accept_timeout_s=long_s, ahead_s=mix.ahead_s
            ),
            jobs=JobsSection(retry_pause_s=0.5),
        )
        self._spec = make_spec(
            begin,
            mix.actors,
            engine="made up",
            deadline_s=NEVER_S,
            worker_timeout_s=4 * LONG_S if mix.loses_workers else NEVER_S,
            retries=mix.retries,
            on_failure=mix.on_failure,
            spares=mix.spares,
            stragglers=mix.stragglers,
            tolerate=mix.tolerate,
            pipeline=OfMix(begin, mix),
        )
        self._bodies: dict[str, Body] = {}
        self._properties = Properties(mix, begin, self._bodies)
        self._pipes: list[Pipe] = []
        self._unborn: list[str] = []  # launches, by id, that the engine was asked for
        self._unanswered: deque[Deferred[Any]] = deque()
        self._connections = 0
        self._time = "time", "time passes", self._pass, ()
        self._told_to_stop = False
        self._resuming = False
        self._job_id = ""
        self._start(
            HeldJournal([], self._properties.see_record) if mix.journal else NoJournal(), 0.0
        )
        self._conductor.start(self._spec).addCallback(lambda job: setattr(self, "_job_id", job.id))
        self._job_id or self._disk.sync(self._disk.written)

    # ------------------------------------------------ a run

    def run(self) -> None:
        """Run the schedule, then let the job end without faults. Raises Breach with the trace."""
        try:
            while len(self.trace) < self._steps and not self.over:
                self._do_any(self._time)
            self.calm_down()
        except Breach as error:
            raise Breach(f"{error}\n{self}") from error
        except Exception as error:
            raise Breach(f"{type(error).__name__}: {error}\n{self}") from error

    def __str__(self) -> str:
        steps = "\n".join(f"  {place:3} {words}" for place, words in enumerate(self.trace, 1))
        return f"SessionWorld({self._name!r}, {self._mix}, {self._seed}):\n{steps}"

    @property
    def _job(self) -> Any:
        return self._book.get(self._job_id)

    @property
    def over(self) -> bool:
        """Whether the job has ended and no worker is left."""
        return (
            self._job.ended
            and all(body.gone for body in self._bodies.values())
            and not self._unborn
        )

    def play(self, *schedule: str) -> None:
        """Take possible steps whose descriptions begin with these words, in this order."""
        for words in schedule:
            self._make_possible()
            possible = {step[1]: step for step in [self._time, *self._possible()]}
            fitting = [step for name, step in possible.items() if name.startswith(words)]
            assert fitting, f"{words!r} is not possible; {', '.join(possible)} would be\n{self}"
            self._do(fitting[0])

    def _do_any(self, *more: Step) -> bool:
        """Take a possible step, or one of these; return whether there was any."""
        if len(self.trace) % STEADY_STEPS == 0 or not self._weights:
            choice = self._random.choice
            self._weights = {kind: weight * choice(PACES) for kind, weight in WEIGHTS.items()}
        self._make_possible()
        steps = [*self._possible(), *more]
        if steps:
            self._do(self._random.choices(steps, [self._weights[kind] for kind, *_ in steps])[0])
        return bool(steps)

    def _make_possible(self) -> None:
        while self._plan and self._plan[-1][0] <= len(self.trace):
            self._left[self._plan.pop()[1]] += 1

    def _do(self, step: Step) -> None:
        _, words, call, args = step
        self.trace.append(words)
        details = call(*args)
        if details:
            self.trace[-1] += f": {details}"
        self._properties.look(self._job, self._resuming)

    def calm_down(self) -> None:
        """Without further faults, the job must end."""
        self.trace.append("calm")
        self._plan.clear()
        self._left = dict.fromkeys(FAULTS, 0)
        for hour in range(CALM_ROUNDS):
            while self._do_any():
                if len(self.trace) > MOST_STEPS:
                    raise Breach("P4 it never ends")
            if self.over:
                break
            self._do_any(("time", "time passes", self._pass, (1.0 if hour < 20 else LONG_S / 4,)))
        else:
            raise Breach(f"P4 no end: {self._job.describe()} {self._job.workers()}")
        ends = {"cancelled"} if self._told_to_stop else {"done"}
        if self._mix.fails and not self._told_to_stop:
            ends.add("failed")
        if self._mix.cancels:
            ends.add("cancelled")
        if self._job.describe()["state"] not in ends:
            raise Breach(f"P4 a bad end: {self._job.describe()}")
        if self._mix.journal:
            self._look_back()

    def _look_back(self) -> None:
        """The next coordinator must find the job as it was."""
        job, disk = self._job, self._disk
        self._properties.look_back(job, disk, self._spec)
        disk.sync(disk.written)
        self.crash(0)
        self._properties.look(self._job, self._resuming)

    # ------------------------------------------------ what may happen next

    def _possible(self) -> Iterator[Step]:
        """Yield the steps that are possible now, except for time passing."""
        left = self._left
        if self._resuming:
            yield "resume", "the coordinator resumes", self._resume, ()
        if self._disk.written > self._disk.synced:
            yield "sync", "sync", self._sync, ()
        if self._unanswered:
            yield "engine", "the engine answers", self._answer, ()
        for launch in self._unborn:
            yield "start", "a worker starts", self._give_birth, (launch,)
        for body in self._bodies.values():
            if not body.gone:
                yield from self._possible_of(body)
        for pipe in self._pipes:
            if pipe.up:
                yield (
                    "hear late" if pipe.late else "hear",
                    f"coordinator reads {pipe.name}",
                    self._hear,
                    (pipe,),
                )
            if pipe.broken:
                yield "miss", f"coordinator notices the end of {pipe.name}", self._miss, (pipe,)
            elif left["cuts"]:
                yield "cut", f"CUT {pipe.name}", self._cut, (pipe,)
        if left["crashes"]:
            yield "crash", "CRASH", self._crash, ()
        if left["stops"] and not self._resuming:
            yield "stop", "STOP", self._stop, ()
        if left["cancels"] and not self._resuming:
            yield "cancel", "CANCEL", self._cancel, ()
        if left["waits"]:
            yield "wait", "MUCH time passes", self._wait, ()
        if left["twins"] and self._bodies:
            yield "twin", "TWIN", self._double, ()

    def _possible_of(self, body: Body) -> Iterator[Step]:
        pipe, name = body.pipe, body.name
        if pipe is None:
            yield "connect", f"{name} connects", self._connect, (body,)
        elif pipe.down:
            yield "read", f"{name} reads", self._read, (body,)
        if pipe is not None and pipe.broken:
            yield "notice", f"{name} notices the end of {pipe.name}", body.notice, ()
        if body.slow:
            yield "work", f"{name} ends a slow command", body.finish_slow, ()
            if self._left["fails"]:
                yield "fail", f"{name} FAILS", self._fail, (body,)
        for number in body.background:
            yield "work", f"{name} ends run {number}", body.finish_background, (number,)
        if self._left["infos"]:
            yield "inform", f"{name} says INFO", self._inform, (body,)
        if self._left["kills"]:
            yield "kill", f"KILL {name}", self._kill, (body,)

    def _pass(self, seconds: float = 0.0) -> str:
        seconds = seconds or self._random.choice((4.0, 1.0, 0.3))
        self._clock.advance(seconds)
        return f"{seconds:g} s"

    def _sync(self) -> str:
        disk = self._disk
        upto = disk.written
        if self._random.random() < 0.3:
            upto = self._random.randint(disk.synced + 1, disk.written)
        behind = disk.written - upto
        disk.sync(upto)
        return f"{behind} records are not in it" if behind else ""

    def _answer(self) -> str:
        answer = self._unanswered.popleft()
        said = self._random.choice((Accepted(), Unknown("no word")))
        answer.callback(said)
        return type(said).__name__

    def _give_birth(self, launch: str) -> str:
        self._unborn.remove(launch)
        name = f"{len(self._bodies) + 1:x}"
        self._bodies[name] = Body(self._properties, name, launch)
        return name

    def _connect(self, body: Body) -> None:
        options = self._config.worker
        port = Port(self._job_id, self._book, options, self._clock, self._factory)
        self._connections += 1
        pipe = Pipe(f"{body.name}/{self._connections}", port, self._random.random() < 0.3)
        self._pipes.append(pipe)
        body.connect(pipe)

    def _read(self, body: Body) -> str:
        assert body.pipe is not None
        down = body.pipe.down
        count = self._random.randint(1, len(down))
        words = shown_frames(down, count)
        body.read(count)
        return words

    def _hear(self, pipe: Pipe) -> str:
        """Frames arrive at the coordinator; on a broken connection the last may be incomplete."""
        count = self._random.randint(1, len(pipe.up))
        words = shown_frames(pipe.up, count)
        data = b"".join(frame(pipe.up.popleft()) for _ in range(count))
        if pipe.broken and self._random.random() < 0.2:
            pipe.up.clear()
            data, words = data[: -self._random.randint(1, HEADER_BYTES)], f"{words}, in part"
        pipe.port.dataReceived(data)
        return words

    def _miss(self, pipe: Pipe) -> None:
        pipe.end_of_coordinator()
        self._pipes.remove(pipe)
        pipe.port.connectionLost(Failure(ConnectionLost()))

    def _cut(self, pipe: Pipe) -> None:
        self._left["cuts"] -= 1
        pipe.broken = True

    def _fail(self, body: Body) -> None:
        self._left["fails"] -= 1
        body.finish_slow("FAIL(it)")

    def _inform(self, body: Body) -> None:
        self._left["infos"] -= 1
        body.inform()

    def _kill(self, body: Body) -> None:
        self._left["kills"] -= 1
        body.end()

    def _wait(self) -> None:
        self._left["waits"] -= 1
        self._clock.advance(self._random.choice((1.1, 4.1)) * LONG_S)

    def _double(self) -> str:
        self._left["twins"] -= 1
        body = self._random.choice(list(self._bodies.values()))
        self._unborn.append(body.launch)
        return f"another worker with the launch of {body.name} will start"

    # ------------------------------------------------ the coordinator's lives

    def _start(self, disk: Any, now: float) -> None:
        self._clock = Reactor()
        self._clock.rightNow = now
        self._disk = disk
        self._book = JobBook()
        self._factory = WorkerFactory(self._book, self._config.worker, self._clock)
        authority = SimpleNamespace(
            pem="", mint_job=lambda *_: SimpleNamespace(certificate="", key="")
        )
        self._conductor = Conductor(
            self._config,
            self._book,
            self._disk,
            authority,
            {"made up": MadeUp(self._launch)},
            maybeDeferred,
            self._clock,
        )

    def _restore(self, disk: HeldJournal) -> None:
        for _, past in disk.ended():
            self._book.add(PastJob(past.told, past.identity, lambda _, past=past: past.workers))
        found, lost, stopped_at = find(disk, lambda ordered: self._spec)
        if lost:
            raise Breach(f"the journal cannot be read: {lost}")
        self._conductor.restore(found, stopped_at)
        self._resuming = True

    def _resume(self) -> None:
        self._resuming = False
        self._conductor.resume()

    def _launch(self, invocation: Any) -> Deferred[Any]:
        launch = invocation.launch
        if self._mix.journal and launch not in self._disk.launches():
            self._properties.accuse("P9 a launch is made that is not on disk")
        self._unborn.append(launch)
        self._unanswered.append(Deferred())
        return self._unanswered[-1]

    def _crash(self) -> str:
        self._left["crashes"] -= 1
        lost = self._random.randint(0, self._disk.written - self._disk.synced)
        self.crash(lost)
        return f"{lost} records are lost"

    def _stop(self) -> None:
        self._left["stops"] -= 1
        self._conductor.stop(keep=True)
        for connection in list(self._factory.connections):
            connection.stop("the coordinator was stopped", keep=True)
        self._disk.sync(self._disk.written)
        self.crash(0)

    def _cancel(self) -> None:
        self._left["cancels"] -= 1
        if not self._job.ended:
            self._conductor.cancel(self._job).addCallback(self._cancelled, self._job)

    def _cancelled(self, _: None, job: Job) -> None:
        """DELETE was answered."""
        self._told_to_stop = self._told_to_stop or job.stopped is not None

    def _shown(self) -> dict[str, Any]:
        """Return what GET /jobs/ID says, without fields that a restart may change."""
        job = json.loads(json.dumps(self._job.describe()))
        return {name: value for name, value in job.items() if name not in OF_NOW}

    def _shown_when_synced(self) -> dict[str, Any] | None:
        while self._disk.synced < self._disk.written:
            self._disk.sync(self._disk.written)
        return self._shown() if self._job and self._job.recorded else None

    def crash(self, lost: int) -> None:
        """Kill the coordinator and start another, without the last `lost` records.

        If none are lost, the next one shows the job as this one did once all was on disk.
        """
        shown = None if lost else self._shown_when_synced()
        disk = self._disk.after_crash(lost)
        self._properties.see_crash(disk)
        for pipe in self._pipes:
            pipe.end_of_coordinator()
        self._pipes.clear()
        self._unanswered.clear()
        self._start(disk, self._clock.seconds() + self._random.choice((0.0, 1.0, 20.0)))
        self._restore(disk)
        if shown is not None and (now := self._shown()) != shown and not self._mix.diverges:
            raise Breach(f"the job was shown as {shown}, and after a restart as {now}")
        if self._random.random() < 0.7:
            self._resume()


def shown_frames(frames: deque[bytes], count: int) -> str:
    """Return the first frames as text for the trace."""
    named = [bytes(payload[:48]).decode("utf-8", "replace") for payload in list(frames)[:count]]
    return json.dumps(named)[1:-1]
