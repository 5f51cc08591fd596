"""Small parts for tests: a pipeline, a job, a clock that is advanced, a worker in memory."""

from typing import Any

from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect

from mu.config import WorkerSection
from mu.invocations import Accepted
from mu.jobs.book import JobBook
from mu.jobs.job import Job
from mu.jobs.spec import JobSpec
from mu.journal.records import Planned
from mu.messages import Hello
from mu.net.certificates import SERVER_NAME, Authority, Identity
from mu.net.transport import TLSFactory
from mu.output.pieces import Piece
from mu.parameters import Params
from mu.plugins import Engine, Pipeline
from mu.protocol import WorkerFactory
from mu.wire import Framer, frame


class OneState(Pipeline):
    """A pipeline whose actors begin with one state class."""

    name = "one"
    description = "For tests."

    def __init__(self, first: Any) -> None:
        self._first = first

    def begin(self, worker: Any) -> Any:
        return self._first(worker, worker.actor)

    def finish(self, job: Any, outcomes: Any) -> Any:
        return [outcome.result for outcome in outcomes]


def make_spec(first: Any, workers: int = 1, **spec: Any) -> JobSpec:
    """Return the order of a job whose actors begin with `first`."""
    given = {
        "pipeline": OneState(first),
        "workers": workers,
        "params": Params(workers=workers),
        "engine": "external",
        "function": "one",
        "regions": ("us-east-1",),
        "deadline_s": 600.0,
        "worker_timeout_s": 300.0,
    }
    return JobSpec(**(given | spec))


class Owner:
    """Runs a job without an engine; ends it as soon as its actors have ended, if `ends` is set."""

    job: Job

    def __init__(self, ends: bool = True) -> None:
        self.ends = ends
        self.launched: list[str] = []
        self.freed_launches: list[str] = []
        self.lost_workers: list[str] = []
        self.settlements = 0

    def changed(self) -> None:
        self.job.advance()

    def launch(self, launches: Any) -> None:
        self.launched += launches
        for launch_id in launches:
            self.job.invoked(launch_id)

    def freed(self, launch_id: str) -> None:
        self.freed_launches.append(launch_id)

    def connected(self, launch_id: str) -> None:
        pass

    def lost(self, session: str) -> None:
        self.lost_workers.append(session)

    def missed(self, launch_id: str) -> bool:
        return False

    def had_no_place(self, launch_id: str) -> bool:
        return False

    def waits_for_place(self) -> str:
        return ""

    def settled(self) -> None:
        self.settlements += 1
        stopped = self.job.stopped
        if self.ends:
            self.job.end(*((stopped.state, stopped.reason) if stopped else ("done", None)))

    def over(self) -> None:
        pass


class Printed:
    """Keeps what jobs print, as pieces."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.ended: list[str] = []

    def write(self, job: str, actor: int, piece: Piece) -> None:
        self.pieces.append(piece)

    def end(self, job: str) -> None:
        self.ended.append(job)


def new_job(
    first: Any, workers: int = 1, job_id: str = "j1", ends: bool = True, **spec: Any
) -> Job:
    """Return a job whose order is on disk, and whose plan is still to come."""
    return recorded_job(make_spec(first, workers, **spec), job_id, ends)


def recorded_job(spec: JobSpec, job_id: str = "j1", ends: bool = True, created: float = 0.0) -> Job:
    """Return the job of an order that is on disk."""
    owner = Owner(ends)
    job = owner.job = Job(job_id, spec, "uniq", Reactor(), owner, created=created, output=Printed())
    job.order_recorded()
    return job


def make_job(first: Any, workers: int = 1, job_id: str = "j1", **spec: Any) -> Job:
    """Return a job whose actors are planned; with no workers, one whose plan is still to come."""
    job = new_job(first, workers, job_id, **spec)
    if workers:
        job.record(Planned([{} for _ in range(workers)], list(range(workers))))
        job.begin()
    return job


class MemoryWorker(Protocol):
    """The other end of the wire: says what it is told to, keeps what it hears."""

    def __init__(self) -> None:
        self.framer = Framer()
        self.heard: list[bytes] = []
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += self.framer.feed(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


class Port:
    """A worker port in memory, for one book; `join` connects workers to it over real TLS."""

    def __init__(self, *jobs: Job, clock: Clock | None = None, **options: Any) -> None:
        self.clock = clock or (jobs[0].clock if jobs else Reactor())
        self.authority = Authority.new()
        self.book = JobBook()
        for job in jobs:
            self.book.add(job)
        self.factory = WorkerFactory(self.book, WorkerSection(**options), self.clock)
        server = self.authority.server_context(self.authority.mint_server("127.0.0.1"))
        self.tls = TLSFactory(server, self.factory)

    def connect(self, identity: Identity | None, authority: Authority | None = None) -> "Line":
        """Connect a worker with that certificate; it has said nothing yet."""
        options = client_tls(authority or self.authority, identity)
        worker = MemoryWorker()
        factory = Factory.forProtocol(lambda: worker)
        client = TLSMemoryBIOFactory(options, True, factory, clock=self.clock).buildProtocol(None)
        server = self.tls.buildProtocol(None)
        pump = connect(server, FakeTransport(server, True), client, FakeTransport(client, False))
        return Line(self.clock, worker, pump)

    def join(self, job_id: str = "j1", hello: Hello | None = None) -> "Line":
        """Connect a worker of that job, which says hello (None: as an original worker)."""
        line = self.connect(self.authority.mint_job(job_id, 600))
        line.say((hello or Hello()).payload())
        return line


class Line:
    """One connection, seen from the worker's end."""

    def __init__(self, clock: Clock, worker: MemoryWorker, pump: IOPump) -> None:
        self._clock = clock
        self._worker = worker
        self._pump = pump
        self.server: Any = None
        """The other end's protocol, where a test looks at it."""
        self._settle()

    def say(self, *payloads: bytes) -> list[bytes]:
        """Send frames in one write; return all that was heard on this connection so far."""
        return self.send(b"".join(map(frame, payloads)))

    def send(self, data: bytes) -> list[bytes]:
        self._worker.transport.write(data)
        return self.heard

    @property
    def heard(self) -> list[bytes]:
        self._settle()
        return self._worker.heard

    @property
    def open(self) -> bool:
        self._settle()
        return self._worker.lost is None

    def hang_up(self) -> None:
        self._worker.transport.abortConnection()
        self._settle()

    def let_pass(self, seconds: float) -> None:
        self._settle()
        self._clock.advance(seconds)
        self._settle()

    def _settle(self) -> None:
        """Carry bytes until none move; the TLS layers write on the clock's next turn."""
        moved = True
        while moved:
            self._clock.advance(0)
            moved = self._pump.pump()


def client_tls(authority: Authority, identity: Identity | None) -> Any:
    """Return a worker's TLS options: with that certificate, and trust in that CA."""
    return ssl.optionsForClientTLS(
        SERVER_NAME,
        trustRoot=ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(authority.pem.encode())]),
        clientCertificate=identity and _private(identity),
    )


def _private(identity: Identity) -> ssl.PrivateCertificate:
    key = crypto.load_privatekey(crypto.FILETYPE_PEM, identity.key.encode())
    return ssl.PrivateCertificate.load(
        ssl.Certificate.loadPEM(identity.certificate.encode()).dump(),
        ssl.KeyPair(key),
    )


class Reactor(Clock):
    """A clock that calls from threads at once, for what is otherwise given the reactor."""

    def callFromThread(self, call: Any, *args: Any) -> None:
        call(*args)


class Threads:
    """A thread pool that works at once, in this thread."""

    def callInThreadWithCallback(self, tell: Any, call: Any, *args: Any) -> None:
        try:
            result = call(*args)
        except Exception:
            tell(False, Failure())
        else:
            tell(True, result)


class ScriptedEngine(Engine):
    """An engine that answers each launch with what is next in its script; keeps who asked."""

    name = "scripted"

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[str] = []

    def launch(self, invocation: Any) -> Deferred[Any]:
        self.asked.append(invocation.launch)
        answer = self.script.pop(0) if self.script else Accepted()
        return answer if isinstance(answer, Deferred) else succeed(answer)
