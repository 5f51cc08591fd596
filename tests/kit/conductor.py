"""A conductor whose clock, threads and engine are in the test's hands, and engines for it."""

from twisted.internet.defer import succeed
from twisted.internet.threads import deferToThreadPool

from kit.parts import OneState, Port, Reactor, ScriptedEngine, Threads, make_spec
from mu.config import Config
from mu.invocations import ConcurrencyLimit, Size
from mu.jobs.conductor import Conductor
from mu.journal.ledger import NoJournal
from mu.messages import Hello
from mu.states import MachineState, OnePassState


class Leave(OnePassState):
    expect = "OK:HELLO"
    command = "quit:"


class Patient(MachineState):
    """Waits for ever."""


class Bench:
    """A conductor, its engine, and a port for the workers that it launches."""

    def __init__(self, *script, ledger=None, config=None):
        self.reactor = Reactor()
        self.threads = Threads()
        self.port = Port(clock=self.reactor)
        self.engine = ScriptedEngine(*script)
        engines = {"scripted": self.engine}
        self.conductor = Conductor(
            config or Config(),
            self.port.book,
            ledger or NoJournal(),
            self.port.authority,
            engines,
            self.in_thread,
            self.reactor,
        )

    def in_thread(self, call, *args):
        return deferToThreadPool(self.reactor, self.threads, call, *args)

    def start(self, first=Leave, workers=1, engine="scripted", **spec):
        started = []
        spec = make_spec(first, workers, engine=engine, **spec)
        self.conductor.start(spec).addCallback(started.append)
        return started[0]


class Sized(ScriptedEngine):
    """An engine that knows what its functions are like."""

    def size(self, function, region):
        return succeed(Size(1024))


class SmallEngine(ScriptedEngine):
    """An engine that says how many workers it runs at once."""

    def __init__(self, places: int | None) -> None:
        super().__init__()
        self.places = places

    def concurrency(self, function, region):
        return succeed(None if self.places is None else ConcurrencyLimit(self.places))


def bench_with(places):
    bench = Bench()
    bench.engine = SmallEngine(places)
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    return bench


class Together(OneState):
    """All its actors need one another."""

    all_at_once = True


def together(bench, workers, **spec):
    return bench.start(Patient, workers=workers, pipeline=Together(Patient), **spec)


class Dated(ScriptedEngine):
    """An engine that knows its function's size, timeout and version."""

    version = "monday"

    def size(self, function, region):
        return succeed(Size(1024, timeout_s=40.0, version=self.version))

    def log_of(self, function, region, since):
        return succeed(f"its log says: {function} in {region} at {since:g} s")


def dated_bench(*script, **options):
    bench = Bench(**options)
    bench.engine = Dated(*script)
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    return bench


def joined(bench, job, launch):
    return bench.port.join(job.id, Hello(launch[:8], launch))
