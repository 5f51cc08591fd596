"""A clock that a change of the system's clock does not disturb."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from kit.journal import HeldJournal
from kit.parts import make_spec, recorded_job
from twisted.internet.base import ReactorBase

from mu.clock import SteadyClock, keep_steady
from mu.engines.cost import Meter, Prices
from mu.invocations import Size
from mu.jobs.recovery import find
from mu.journal.records import Alive, Assigned, Ordered, Planned, Resumed, write_record
from mu.net.certificates import Authority
from mu.states import MachineState

HOUR = 3600.0


class Wall:
    """The system's clock, and the time since the machine's start."""

    def __init__(self):
        self.ahead, self.passed = 0.0, 0.0

    def time(self):
        return 1e9 + self.ahead + self.passed

    def since_boot(self):
        return 500.0 + self.passed


def test_time_passes_as_before_when_the_clock_is_set():
    wall = Wall()
    clock = SteadyClock(wall.time, wall.since_boot)
    assert clock.seconds() == wall.time()
    for ahead in (HOUR, -HOUR):
        wall.passed += 10
        wall.ahead = ahead
        assert clock.seconds() == 1e9 + wall.passed
        assert clock.ahead() == ahead


class StillReactor(ReactorBase):
    """Twisted's timers, without anything that waits."""

    def installWaker(self):
        pass

    def wakeUp(self):
        pass


def test_no_timer_of_a_reactor_elapses_because_the_clock_is_set(monkeypatch):
    wall, told = Wall(), []
    monkeypatch.setattr("mu.clock.log.warn", lambda text, **values: told.append(values))
    reactor = StillReactor()
    keep_steady(reactor, SteadyClock(wall.time, wall.since_boot))
    elapsed = []
    reactor.callLater(60, elapsed.append, 1)
    for wall.ahead in (HOUR, -HOUR, 0):
        wall.passed += 2
        reactor.runUntilCurrent()
    assert elapsed == []
    assert [(one["way"], one["seconds"]) for one in told] == [
        ("forward", HOUR),
        ("back", 2 * HOUR),
        ("forward", HOUR),
    ]
    wall.passed += 60
    reactor.runUntilCurrent()
    assert elapsed == [1]


def stopped_at(*records):
    lines = [("job", write_record(record)) for record in records]
    return find(HeldJournal(lines), lambda ordered: make_spec(MachineState))[2]


def test_the_last_daemon_is_the_one_that_counts_even_if_its_clock_was_behind():
    first = Ordered(HOUR, "uniq", {}, "", ""), Alive(HOUR + 10)
    assert stopped_at(*first) == HOUR + 10
    assert stopped_at(*first, Resumed(20.0, HOUR + 10)) == 20
    assert stopped_at(*first, Resumed(20.0, HOUR + 10), Alive(30.0)) == 30


def test_a_job_has_spent_what_passed_while_a_daemon_ran_whatever_the_clock_said():
    job = recorded_job(make_spec(MachineState, 1), "job")
    job.apply(Planned([{}], [0]))
    job.apply(Assigned(10.0, 0, 1, "aa", ""))
    job.apply(Resumed(20.0 - HOUR, 20.0))
    job.apply(Resumed(50.0 + HOUR, 30.0 - HOUR))
    now = 60.0 + HOUR
    assert now - job.downtime == 40
    (attempt,) = job.actors[0].attempts
    assert now - attempt.began - attempt.downtime == 30


def test_a_worker_costs_what_it_ran_whatever_the_clock_said():
    meter = Meter(Prices())
    size = Size(1024, "x86_64")
    for worker in ("stays", "left"):
        meter.began(worker, 10.0, size)
    meter.ended("left", 20.0)
    meter.move(-HOUR)
    meter.began("left", 30.0 - HOUR, size)  # it ran in between
    meter.stop(40.0 - HOUR)
    assert meter.gb_s == 60


def test_certificates_bear_a_clock_that_is_set_by_hours():
    authority = Authority.new()
    now = datetime.now(UTC)
    minted = [authority.mint_job("j", 60).certificate, authority.mint_server().certificate]
    for pem in (authority.pem, *minted):
        found = x509.load_pem_x509_certificate(pem.encode())
        assert found.not_valid_before_utc < now - timedelta(hours=23)
