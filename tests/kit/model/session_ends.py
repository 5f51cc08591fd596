"""The simulated parts around the session code: connections, and the body of a worker.

A connection may lose the end of what is in flight, in each direction.
"""

from collections import deque
from types import SimpleNamespace
from typing import Any, Protocol

from mu_worker.session import NumberedCommand, SessionOver, WorkerSession

from mu.messages import BadMessage
from mu.protocol import WorkerProtocol
from mu.wire import Framer


class Breach(AssertionError):
    """A property does not hold."""


class Watch(Protocol):
    """Observes what workers receive."""

    def see_command(self, body: "Body") -> None: ...
    def see_welcome(self, body: "Body") -> None: ...


class Port(WorkerProtocol):
    """The coordinator's end of a connection, without certificates."""

    def __init__(self, job: str, *args: Any) -> None:
        super().__init__(*args)
        self._job_id = job

    def connectionMade(self) -> None:
        super().connectionMade()
        self._factory.strangers.discard(self)


class Pipe:
    """A connection, which is also the coordinator's transport.

    A broken one accepts no more frames; each side still reads what was in flight, or notices the
    break, at any moment.
    """

    def __init__(self, name: str, port: Port, late: bool) -> None:
        self.name = name
        self.port = port
        self.late = late
        """Whether the coordinator reads from it slowly."""
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
        """What was in flight still arrives: the port keeps it until it takes frames again."""

    def resumeProducing(self) -> None:
        pass

    def end_of_worker(self) -> None:
        """The worker closes it; what the coordinator has not read yet may still arrive."""
        self.broken, self.worker_reads = True, False
        self.down.clear()

    def end_of_coordinator(self) -> None:
        self.broken, self.coordinator_reads = True, False
        self.up.clear()


class Body:
    """A worker: its session is real, its commands end when the schedule says so."""

    def __init__(self, watch: Watch, name: str, launch: str) -> None:
        self.name = name
        self.launch = launch
        self.session = WorkerSession(name, launch, lambda: {"hello_s": 0.1})
        self.said: list[tuple[int, str]] = []
        self.received: list[str] = []
        """Its commands, except for a quit that no machine sent."""
        self.slow: NumberedCommand | None = None
        self.background: list[int] = []
        self.pipe: Pipe | None = None
        self.gone = False
        self._watch = watch
        self._waiting: deque[NumberedCommand] = deque()

    def connect(self, pipe: Pipe) -> None:
        self.pipe = pipe
        pipe.up.append(self.session.greet())

    def notice(self) -> None:
        """It notices that its connection is lost."""
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
                self._watch.see_welcome(self)
            else:
                self._take(order)
        self._obey()

    def _take(self, order: NumberedCommand) -> None:
        text = order.command.text
        if text != "quit:":
            self.received.append(text)
            self._watch.see_command(self)
        if order.is_quit:
            self._obey()
            self.end()
        else:
            self._waiting.append(order)

    def _obey(self) -> None:
        while self._waiting and not (self.slow or self.session.full or self.gone):
            self._perform(self._waiting.popleft())
        self._send()

    def _perform(self, order: NumberedCommand) -> None:
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
