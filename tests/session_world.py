"""Both ends of the session rules in one small world, driven through random schedules by a seed.

The code under test is real: Conductor, Job, Session, WorkerProtocol and recovery on one side, the
worker's Session on the other. What is made up is between and around them: connections that lose any
end of what is in flight, a disk that loses any end of what is not synced, time, an engine, and the
body of a worker. The steps and the properties P1 to P9 are those of the rules' exhaustive model
(session_model.py); here they are asked of the code, as soon as anything is written or received.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from types import SimpleNamespace
from typing import Any

from mu_worker.session import Order, SessionOver
from mu_worker.session import Session as WorkerSession
from parts import OneState, Reactor, Threads, make_spec
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from mu.conductor import Conductor
from mu.config import Config, Jobs, Launch, WorkerPort
from mu.events import (
    Answered,
    CancelTimer,
    Elapsed,
    Entered,
    Event,
    Informed,
    Lost,
    Send,
    SetTimer,
)
from mu.invocations import Accepted, Unknown
from mu.jobs import Job, JobBook, PastJob
from mu.journal import NoJournal
from mu.machine import ErrorState, JobFacts, Machine, MachineState, TerminalState
from mu.messages import BadMessage
from mu.protocol import WorkerFactory, WorkerProtocol
from mu.records import (
    Assigned,
    AttemptEnded,
    Happened,
    Launching,
    NobodyCame,
    read_record,
    write_record,
)
from mu.recovery import find
from mu.replay import Diverged, step
from mu.states.script import ScriptWorker, first_state
from mu.wire import HEADER_BYTES, Framer, frame

NEVER_S = 1e9
LONG_S = 30.0
"""How long a lost, silent or slow worker is waited for, where any may be lost."""
CALM_ROUNDS = 400
MOST_STEPS = 3000


WEIGHTS = {
    "go on": 10,
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
"""How often each kind of step comes beside the others, times a factor of the schedule's own."""
FAULTS = ("cuts", "crashes", "kills", "waits", "twins", "infos", "fails", "stops", "cancels")
SPANS = (40, 80)
"""Within so many steps all that goes wrong becomes possible."""
PACES = (0.1, 0.3, 1.0, 3.0)

Step = tuple[str, str, Callable[..., str | None], tuple[Any, ...]]
"""Its kind, its words for people, and what is called."""


class Breach(AssertionError):
    """A property does not hold."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What may go wrong in a schedule: the most of each."""

    cuts: int = 0
    crashes: int = 0
    kills: int = 0
    waits: int = 0
    """Waits that are long enough for living workers to be given up."""
    twins: int = 0
    """Second workers with the launch id of another."""
    infos: int = 2
    fails: int = 0
    """Commands that the worker answers with FAIL."""
    stops: int = 0
    """Clean stops of the coordinator, and starts."""
    cancels: int = 0
    actors: int = 1
    spares: int = 0
    retries: int = 100
    on_failure: str = "finish"
    stragglers: float = 0.0
    journal: bool = True
    diverges: bool = False
    """Whether a machine may not do again what it did: that costs an attempt, and nothing else."""

    @property
    def loses_workers(self) -> bool:
        return bool(self.kills or self.waits)


# ---------------------------------------------------------------- the machines


def told(past: str, *heard: str) -> str:
    return blake2b("\n".join((past, *heard)).encode(), digest_size=4).hexdigest()


class Puzzle(MachineState):
    """Each command's bytes depend on every event before it, but not on any time.

    Ends when all commands are answered and no timer is set.
    """

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.past = ""
        self.open: set[int] = set()
        self.timer = ""
        self.fired = False

    def receive(self, event: Event, send: Any) -> Any:
        number = 0
        match event:
            case Entered():
                self.past = told(self.past, "entered")
            case Answered(text=text) if text.startswith("FAIL("):
                return ErrorState(self, text)
            case Answered(text=text, command=number):
                self.past = told(self.past, str(number), text)
                if not text.startswith("OK:RUNNING"):
                    self.open.discard(number)
            case Informed(key=key, value=value):
                self.past = told(self.past, key, value)
            case Elapsed(timer=timer):
                self.past = told(self.past, "elapsed", timer)
                if timer == self.timer:
                    self.timer, self.fired = "", True
            case Lost(reason=reason):
                return ErrorState(self, reason)
        self.react(event, number)
        if self.open or self.timer:
            return self
        self.order("quit")
        ending = TerminalState(self)
        ending.result = self.past
        return ending

    def react(self, event: Event, number: int) -> None:
        """Give orders."""

    def order(self, name: str) -> None:
        number = self.worker.sent + 1
        self.open.add(number)
        self.worker.send(f"{name}:{number}:{self.past}")

    def set_timer(self, name: str, seconds: float) -> None:
        self.timer = name
        self.worker.set_timer(name, seconds)

    def cancel_timer(self) -> None:
        if self.timer:
            self.worker.cancel_timer(self.timer)
            self.timer = ""


class Brief(Puzzle):
    """Ends before its worker has said anything."""


class Sending(Puzzle):
    """A timer that sends a command, a program in the background, and a command that blocks."""

    timer_sends = True

    def react(self, event: Event, number: int) -> None:
        match event:
            case Entered():
                self.order("echo")
            case Answered(text=text) if number == 1:
                self.order("run")
                self.order("upload")
                self.set_timer("t", 1.0)
            case Elapsed() if self.timer_sends:
                self.order("echo")
            case Answered(text=text) if text.startswith("OK:RETVAL"):
                self.cancel_timer()
                self.end()

    def end(self) -> None:
        self.order("echo")


class Silent(Sending):
    """The timer changes only what is sent later."""

    timer_sends = False


class Short(Silent):
    """The program's end before the timer's sends two commands, after it none."""

    def end(self) -> None:
        if not self.fired:
            self.order("echo")
            self.order("echo")


class Tiny(Puzzle):
    """One command that blocks, and the timer's."""

    def react(self, event: Event, number: int) -> None:
        match event:
            case Entered():
                self.order("upload")
                self.set_timer("t", 1.0)
            case Elapsed():
                self.order("echo")
            case Answered() if number:
                self.cancel_timer()


class Wild(Puzzle):
    """Does what the past says, as a throw of dice would: any mix of commands and timers."""

    orders = 7

    def react(self, event: Event, number: int) -> None:
        dice = int(self.past, 16)
        if self.timer and dice % 3 == 0:
            self.cancel_timer()
        for name in ("echo", "run", "upload")[: dice // 3 % 4]:
            if self.worker.sent < self.orders and (dice := dice // 7) % 2:
                self.order(name)
        if not self.timer and self.worker.sent < self.orders and dice // 5 % 2:
            self.set_timer(f"t{dice // 11 % 3}", 0.5 + dice // 13 % 3)


class Timely(Wild):
    """What none may be: its commands depend on when it hears a reply."""

    def react(self, event: Event, number: int) -> None:
        self.past = told(self.past, str(event.at))
        super().react(event, number)


async def scripted(worker: Any) -> str:
    """As a script: naps, and time limits, beside programs in the background."""
    seen: list[str] = []

    def next_argument() -> str:
        return f"{worker.sent + 1}:{told('', *seen)}"

    async def ask() -> None:
        seen.append(await worker.ask(f"echo:{next_argument()}"))

    async def run() -> None:
        seen.append(f"ran {await worker.run(next_argument())}")

    async def upload() -> None:
        await worker.upload(next_argument(), "file")
        seen.append("uploaded")

    async def nap() -> None:
        await worker.sleep(1.0)
        seen.append("slept")
        await ask()

    await ask()
    await worker.together(run(), nap(), upload())
    try:
        await worker.within(1.5, run())
    except TimeoutError:
        seen.append("late")
    await ask()
    return told("", *seen)


MACHINES: dict[str, Callable[..., Any]] = {
    "brief": Brief,
    "sending": Sending,
    "silent": Silent,
    "short": Short,
    "tiny": Tiny,
    "wild": Wild,
    "script": lambda worker, actor: scripted(worker),
}
UNSOUND = {"timely": Timely}


# ---------------------------------------------------------------- the disk


class Disk:
    """A journal in memory (a mu.journal.Ledger), and an Archive of what it holds.

    `unheld` names calls that do not wait for the disk: only what is broken on purpose has any.
    """

    keeps = True
    unheld: Any = ()

    def __init__(self, kept: list[tuple[str, Any]], watch: Callable[[Any], None]) -> None:
        self.written = self.synced = 0
        self._entries = kept
        self._before = len(kept)
        self._watch = watch
        self._waiting: deque[tuple[int, Any, Any]] = deque()

    def write(self, job: str, line: str) -> None:
        self._entries.append((job, line))
        self.written += 1
        self._watch(read_record(line))

    def record(self, job: str, record: Any) -> None:
        self.write(job, write_record(record))

    def end(self, job: str, past: Any) -> None:
        self._entries.append((job, past))
        self.written += 1

    def on_disk(self, call: Any, *args: Any) -> None:
        if self.synced == self.written or getattr(call, "__name__", "") in self.unheld:
            call(*args)
        else:
            self._waiting.append((self.written, call, args))

    def sync(self, upto: int) -> None:
        """A commit of what was written up to there is on disk."""
        self.synced = upto
        while self._waiting and self._waiting[0][0] <= upto:
            _, call, args = self._waiting.popleft()
            call(*args)

    def kept(self, upto: int) -> list[tuple[str, Any]]:
        """Return what is there after a crash that spares everything up to there."""
        return self._entries[: self._before + upto]

    def launches(self) -> set[str]:
        """Return the launches that are on disk."""
        lines = (entry for _, entry in self.kept(self.synced) if isinstance(entry, str))
        records = (read_record(line) for line in lines if line.startswith('["launching"'))
        return {record.launch for record in records if isinstance(record, Launching)}

    # ------------------------------------------------ as an archive

    def running(self) -> list[str]:
        over = {job for job, _ in self.ended()}
        return [job for job in dict.fromkeys(job for job, _ in self._entries) if job not in over]

    def lines(self, job: str) -> list[str]:
        return [line for of, line in self._entries if of == job and isinstance(line, str)]

    def ended(self) -> list[tuple[str, Any]]:
        return [(job, past) for job, past in self._entries if not isinstance(past, str)]


# ---------------------------------------------------------------- connections


class Port(WorkerProtocol):
    """The coordinator's end of a connection, where nobody has certificates."""

    def __init__(self, job: str, *args: Any) -> None:
        super().__init__(*args)
        self._job_id = job


class Pipe:
    """A connection, as the coordinator's transport too.

    Once it is broken it takes no more frames; each side goes on reading what was in flight, or
    notices, at any moment.
    """

    def __init__(self, name: str, port: Port, late: bool) -> None:
        self.name = name
        self.port = port
        self.late = late
        """Whether the coordinator is slow to read it."""
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.broken = False
        self.worker_reads = self.coordinator_reads = True
        port.makeConnection(self)

    def write(self, data: bytes) -> None:
        if not self.broken:
            self.down.extend(Framer().feed(data))

    def abortConnection(self) -> None:
        self.broken = True
        self.up.clear()

    loseConnection = abortConnection

    def getPeer(self) -> Any:
        return SimpleNamespace(host=self.name, port=1)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def pauseProducing(self) -> None:
        """What was in flight still comes: the port keeps it until it takes frames again."""

    def resumeProducing(self) -> None:
        pass

    def end_of_worker(self) -> None:
        """The worker forgets it; what the coordinator has not read yet may still arrive."""
        self.broken, self.worker_reads = True, False
        self.down.clear()

    def end_of_coordinator(self) -> None:
        self.broken, self.coordinator_reads = True, False
        self.up.clear()


# ---------------------------------------------------------------- the worker


class Body:
    """A worker: its real session, and commands that end when the schedule says so."""

    def __init__(self, world: "World", name: str, launch: str) -> None:
        self.name = name
        self.launch = launch
        self.session = WorkerSession(name, launch)
        self.said: list[tuple[int, str]] = []
        self.received: list[str] = []
        """The commands, but not a quit that no machine sent."""
        self.slow: Order | None = None
        self.background: list[int] = []
        self.pipe: Pipe | None = None
        self.gone = False
        self._world = world
        self._waiting: deque[Order] = deque()

    def connect(self, pipe: Pipe) -> None:
        self.pipe = pipe
        pipe.up.append(self.session.greet())

    def notice(self) -> None:
        """Its connection is lost."""
        assert self.pipe is not None
        self.pipe.end_of_worker()
        self.pipe = None
        self.session.part()

    def read(self, count: int) -> None:
        for _ in range(count):
            if self.pipe is None:
                return
            payload = self.pipe.down.popleft()
            try:
                order = self.session.receive(payload)
            except (SessionOver, BadMessage) as error:
                raise Breach(f"P6 worker {self.name} ends: {error}") from error
            if self.session.original:
                raise Breach(f"P1 worker {self.name} got {payload!r} without a welcome")
            if order is None:
                self._world.see_welcome(self)
            else:
                self._take(order)
        self._obey()

    def _take(self, order: Order) -> None:
        text = order.command.text
        if text != "quit:":
            self.received.append(text)
            self._world.see_command(self)
        if order.is_quit:
            self._obey()
            self.end()
        else:
            self._waiting.append(order)

    def _obey(self) -> None:
        while self._waiting and not (self.slow or self.session.full or self.gone):
            self._perform(self._waiting.popleft())
        self._send()

    def _perform(self, order: Order) -> None:
        match order.command.name:
            case "upload":
                self.slow = order
            case "run":
                self.background.append(order.number)
                self._reply(order.number, "OK:RUNNING(it)")
            case name:
                self._reply(order.number, f"OK:{name.upper()}({order.command.argument})")

    def finish_slow(self, text: str = "OK:UPLOAD(it)") -> None:
        assert self.slow is not None
        number, self.slow = self.slow.number, None
        self._reply(number, text)
        self._obey()

    def finish_background(self, number: int) -> None:
        self.background.remove(number)
        self._reply(number, "OK:RETVAL(0):OUTPUT():COMMAND(it)")
        self._send()

    def inform(self) -> None:
        self._reply(0, f"INFO:mood:{len(self.said)}")
        self._send()

    def _reply(self, number: int, text: str) -> None:
        self.said.append((number, text))
        self.session.reply(number, text)

    def _send(self) -> None:
        if self.pipe is not None:
            payloads = self.session.outgoing()
            if not self.pipe.broken:
                self.pipe.up.extend(payloads)

    def end(self) -> None:
        if self.pipe is not None:
            self.pipe.end_of_worker()
            self.pipe = None
        self.gone = True


# ---------------------------------------------------------------- what must hold


@dataclass(slots=True)
class Course:
    """An attempt as the journal tells it, replayed as it is written."""

    worker: str
    machine: Machine
    commands: list[str] = field(default_factory=list)
    entered: bool = False
    heard: int = -1
    """Replies; the first is the hello, which does not count."""
    timers: dict[str, float] = field(default_factory=dict)
    """When each may elapse."""
    end: AttemptEnded | None = None


class Steady:
    """Stands in for Random where the schedule is written down: nothing is left to chance."""

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


class World:
    """One job, its coordinator's lives, its workers, and what went on between them."""

    def __init__(self, machine: str, mix: Mix, seed: int | None = None, steps: int = 120) -> None:
        self.trace: list[str] = []
        self._name, self._mix, self._seed = machine, mix, seed
        self._random: Any = Steady() if seed is None else Random(f"{machine} {seed}")
        random = self._random
        self._begin = (MACHINES | UNSOUND)[machine]
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
        """When which fault becomes possible once more, the next one last."""
        self._left = dict.fromkeys(FAULTS, 0)
        self._weights = {kind: weight * random.choice(PACES) for kind, weight in WEIGHTS.items()}
        long_s = LONG_S if mix.loses_workers else NEVER_S
        self._config = Config(
            worker=WorkerPort(hold_s=long_s, silence_s=NEVER_S, heartbeat_s=7.0),
            launch=Launch(hello_timeout_s=long_s, accept_timeout_s=long_s),
            jobs=Jobs(retry_pause_s=0.5),
        )
        self._spec = make_spec(
            self._begin,
            mix.actors,
            engine="made up",
            deadline_s=NEVER_S,
            worker_timeout_s=4 * LONG_S if mix.loses_workers else NEVER_S,
            retries=mix.retries,
            on_failure=mix.on_failure,
            spares=mix.spares,
            stragglers=mix.stragglers,
        )
        self._bodies: dict[str, Body] = {}
        self._pipes: list[Pipe] = []
        self._unborn: list[str] = []  # launches, by id, that the engine was asked for
        self._unanswered: deque[Deferred[Any]] = deque()
        self._connections = 0
        self._courses: dict[tuple[int, int], Course] = {}
        self._players: dict[tuple[int, int], str] = {}  # who was welcomed to an attempt
        self._shown: dict[Any, Any] = {}
        self._time = "time", "time passes", self._pass, ()
        self._breach: Breach | None = None
        self._told_to_stop = False
        self._resuming = False
        self._job_id = ""
        self._start([], 0.0)
        self._conductor.start(self._spec).addCallback(lambda job: setattr(self, "_job_id", job.id))
        self._job_id or self._disk.sync(self._disk.written)

    # ------------------------------------------------ a run

    def run(self) -> None:
        """Do the schedule, then let all be well; raises Breach, with what was done."""
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
        return f"World({self._name!r}, {self._mix}, {self._seed}):\n{steps}"

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
        """Do what is possible and begins so, in this order."""
        for words in schedule:
            self._make_possible()
            possible = {step[1]: step for step in [self._time, *self._possible()]}
            fitting = [step for name, step in possible.items() if name.startswith(words)]
            assert fitting, f"{words!r} is not possible; {', '.join(possible)} would be\n{self}"
            self._do(fitting[0])

    def _do_any(self, *more: Step) -> bool:
        """Do one of the steps that are possible now, or of these; return whether there is any."""
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
        if self._breach is not None:
            raise self._breach
        self._look()

    def calm_down(self) -> None:
        """No more faults: the job must come to its end."""
        self.trace.append("calm")
        self._plan.clear()
        self._left = dict.fromkeys(FAULTS, 0)
        for hour in range(CALM_ROUNDS):
            while self._do_any():
                if len(self.trace) > MOST_STEPS:
                    raise Breach("P4 it goes on for ever")
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
        self._look_back()

    # ------------------------------------------------ what may happen next

    def _possible(self) -> Iterator[Step]:
        """Yield what may happen now besides that time passes."""
        left = self._left
        if self._resuming:
            yield "go on", "the coordinator goes on", self._resume, ()
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
        self._bodies[name] = Body(self, name, launch)
        return name

    def _connect(self, body: Body) -> None:
        port = Port(self._job_id, self._book, self._config.worker, self._clock)
        port.factory = self._factory
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
        """Frames arrive at the coordinator; of a broken connection the last may do so in part."""
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

    def _start(self, kept: list[tuple[str, Any]], now: float) -> None:
        self._clock = Reactor()
        self._clock.rightNow = now
        self._disk: Any = Disk(kept, self._see_record) if self._mix.journal else NoJournal()
        self._book = JobBook()
        self._factory = WorkerFactory(self._book, self._config.worker, self._clock)
        authority = SimpleNamespace(
            pem="", mint_job=lambda *_: SimpleNamespace(certificate="", key="")
        )
        engine = SimpleNamespace(launch=self._launch)
        self._conductor = Conductor(
            self._config,
            self._book,
            self._disk,
            authority,  # type: ignore[arg-type]
            {"made up": engine},  # type: ignore[dict-item]
            Threads(),
            self._clock,
        )
        if kept:
            for job, past in self._disk.ended():
                self._book.add(PastJob(past.told, past.identity, lambda _, past=past: past.workers))
                assert self._job_id == job
            found, lost, stopped_at = find(self._disk, lambda ordered: self._spec)
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
            self._accuse(Breach("P9 a launch is made that is not on disk"))
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
        """DELETE has its answer."""
        self._told_to_stop = self._told_to_stop or job.verdict is not None

    def crash(self, lost: int) -> None:
        """Kill the coordinator, and start another without the last records."""
        disk = self._disk
        kept = disk.kept(disk.written - lost)
        for pipe in self._pipes:
            pipe.end_of_coordinator()
        self._pipes.clear()
        self._unanswered.clear()
        self._courses.clear()
        for _, entry in kept:
            if isinstance(entry, str):
                self._see_record(read_record(entry))
        self._start(kept, self._clock.seconds() + self._random.choice((0.0, 1.0, 20.0)))
        if self._random.random() < 0.7:
            self._resume()

    # ------------------------------------------------ the properties

    def _see_record(self, record: Any) -> None:
        """Look at a record that is written, or found again after a crash."""
        try:
            self._check_record(record)
        except Breach as error:
            self._accuse(error)

    def _accuse(self, error: Breach) -> None:
        """Raise it after this step: here mu would take it for a fault of its own."""
        self._breach = self._breach or error

    def _check_record(self, record: Any) -> None:
        match record:
            case Assigned(actor=actor, attempt=attempt, session=session):
                if any(course.worker == session for course in self._courses.values()):
                    raise Breach(f"P3 worker {session} has a second attempt")
                self._courses[actor, attempt] = Course(session, self._machine(actor))
            case Happened(actor=actor, attempt=attempt):
                self._see_event(self._courses[actor, attempt], record)
            case AttemptEnded(actor=actor, attempt=attempt, error=error):
                course = self._courses[actor, attempt]
                if course.end is not None:
                    raise Breach(f"P3 attempt {attempt} ends again: {course.end}, {record}")
                course.end = record
                self._see_loss(error)
            case NobodyCame(error=error):
                self._see_loss(error)

    def _machine(self, actor: int) -> Machine:
        worker = ScriptWorker(JobFacts("", self._spec.params), actor, {})
        return Machine(worker, first_state(OneState(self._begin).begin))

    def _see_event(self, course: Course, record: Happened) -> None:
        if course.end is not None:
            raise Breach(f"P3 {record} came after the end: {course.end}")
        try:
            event, effects = step(course.machine, record)
        except Diverged as error:
            raise Breach(f"P7 what was written cannot be replayed: {error}") from error
        body = self._bodies[course.worker]
        if isinstance(event, Answered | Informed):
            if course.heard >= 0:
                number, text = (*body.said, (0, "nothing"))[min(course.heard, len(body.said))]
                heard = event.text if isinstance(event, Answered) else f"INFO:{event.key}:"
                if number != event.command or not text.startswith(heard):
                    raise Breach(
                        f"P2 reply {course.heard + 1} of worker {body.name} is {number}: {text},"
                        f" and {event} was heard"
                    )
            course.heard += 1
        elif isinstance(event, Elapsed) and course.timers.pop(event.timer, NEVER_S) > event.at:
            raise Breach(f"{event} came too early, or again, or was not wanted any more")
        elif isinstance(event, Entered):
            if course.entered:
                raise Breach(f"worker {body.name}'s machine begins again")
            course.entered = True
        for effect in effects:
            match effect:
                case Send(command=command):
                    course.commands.append(command)
                    self._compare(course, body, len(course.commands) - 1)
                case SetTimer(timer=timer, seconds=seconds):
                    course.timers[timer] = event.at + seconds
                case CancelTimer(timer=timer):
                    course.timers.pop(timer, None)

    def see_command(self, body: Body) -> None:
        """A worker received a command."""
        place = len(body.received) - 1
        text = body.received[place]
        if text.split(":")[1] != str(place + 1):
            raise Breach(f"P1 worker {body.name} received {text} as its command {place + 1}")
        for course in self._courses.values():
            if course.worker == body.name:
                self._compare(course, body, place)

    def _compare(self, course: Course, body: Body, place: int) -> None:
        """Compare a command, if both know it by now."""
        if self._mix.diverges:
            return
        if place < len(body.received) and place < len(course.commands):
            received, command = body.received[place], course.commands[place]
            if received != command:
                raise Breach(
                    f"P7 worker {body.name} received {received}, and the machine says {command}"
                )

    def see_welcome(self, body: Body) -> None:
        session = body.session
        if session.actor is not None:
            part = session.actor, session.attempt
            if self._players.setdefault(part, body.name) != body.name:
                raise Breach(f"P3 attempt {part} has workers {self._players[part]} and {body.name}")

    def _see_loss(self, error: str | None) -> None:
        words = ["another attempt at its actor was first"]
        if self._mix.loses_workers:
            words += ["did not come back", "took longer than", "no worker came", "did not accept"]
        if self._mix.diverges:
            words.append("its worker has received")
        if self._mix.fails:
            words.append("FAIL(it)")
        if self._mix.cancels:
            words.append("cancelled by request")
        if error is not None and not any(known in error for known in words):
            raise Breach(f"P8 an attempt was lost: {error}")

    def _look(self) -> None:
        """What the outside was shown stays as it was shown."""
        job = self._job
        if job is None:
            raise Breach("P5 the job is gone")
        if job.ended:
            self._show("job", {key: job.describe()[key] for key in ("state", "result", "error")})
        if isinstance(job, Job):
            for actor in job.actors:
                if actor.state in ("done", "failed"):
                    self._show(actor.number, (actor.state, actor.result, actor.error))
                elif actor.number in self._shown and not (
                    actor.outcome and actor.outcome.result == self._shown[actor.number][1]
                ):
                    raise Breach(f"P5 actor {actor.number} was shown to have ended, and has not")
            stops = self._mix.on_failure == "stop" and not self._resuming
            if stops and job.counts["failed"] and not job.stopping:
                raise Breach("an actor has failed, and the job goes on")
        if "job" in self._shown and not job.ended:
            raise Breach("P5 the job was shown to have ended, and has not")

    def _show(self, what: Any, how: Any) -> None:
        if self._shown.setdefault(what, how) != how:
            raise Breach(f"P5 {what} was shown as {self._shown[what]}, and is {how}")

    def _look_back(self) -> None:
        """At the end: the machines that were first did what their workers carried out."""
        if not self._mix.journal:
            return
        winners: dict[int, Course] = {}
        for (actor, _), course in self._courses.items():
            if course.end is not None and course.end.error is None:
                if actor in winners:
                    raise Breach(f"P5 actor {actor} is done by two attempts")
                winners[actor] = course
        result = self._job.describe()["result"]
        for actor, course in winners.items():
            body = self._bodies[course.worker]
            quits = bool(course.commands) and course.commands[-1].startswith("quit:")
            commands = course.commands[: len(body.received)]
            if body.received != commands or len(commands) < len(course.commands) - quits:
                raise Breach(f"P7 {body.received} was received, and {course.commands} was sent")
            if result and course.end is not None and result[actor] != course.end.result:
                raise Breach(f"P5 actor {actor} has another attempt's result")


def shown_frames(frames: deque[bytes], count: int) -> str:
    """Say what they are, for people."""
    named = [bytes(payload[:48]).decode("utf-8", "replace") for payload in list(frames)[:count]]
    return json.dumps(named)[1:-1]
