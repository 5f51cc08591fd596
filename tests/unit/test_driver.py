"""A session's effects, performed: on a connection, a clock, a journal and the log."""

from types import SimpleNamespace

import pytest
from kit.journal import HeldJournal
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from mu.jobs.driver import SessionDriver
from mu.journal.allowance import JobAllowance
from mu.journal.ledger import NoJournal
from mu.journal.records import Happened
from mu.messages import BadMessage, Hello
from mu.states import CommandListState, MachineState
from mu.testing import machine
from mu.wire import Framer


class Two(CommandListState):
    commandlist = (("OK:HELLO", "echo:1"), ("OK:ECHO(1)", "quit:"), None)


class Patient(MachineState):
    """Waits for ever."""


class Attempt:
    """What a session plays; keeps how it ended."""

    number, job_id, actor_number, timeout_s = 1, "j1", 0, 300.0
    pipeline_name = "one"

    def __init__(self, first):
        self.machine = machine(first)
        self.printed = self.replied = lambda *said: None
        self.reconnected = lambda received, at: None
        self.ends = []

    def touched(self):
        pass

    def used(self, use):
        pass

    def answered(self, command, reply, seconds):
        pass

    def heard(self, text, at):
        pass

    def ended(self, finish, at, charged):
        self.ends.append((finish.error, at, charged))


class Line:
    """A connection that keeps what it is told."""

    peer = "10.0.0.1:2"

    def __init__(self):
        self.told = []

    def write(self, data):
        self.told += Framer().feed(data)

    def goodbye(self):
        self.told.append("goodbye")

    def read_on(self):
        self.told.append("read on")

    def supersede(self, reason):
        self.told.append(reason)


def session_of(part, ledger, clock, name="aa", blocked_s=1.0):
    allowance = JobAllowance(2**32, 2**28).attempt()
    return SessionDriver(part, name, ledger, clock, 10.0, blocked_s, allowance)


def drive(first, ledger=None, **more):
    """Return a session that has begun over a connection: that, its part, clock and connection."""
    part, clock, line = Attempt(first), Clock(), Line()
    session = session_of(part, ledger or NoJournal(), clock, **more)
    session.attach(line, Hello("aa"))
    session.begin()
    return session, part, clock, line


def test_without_a_journal_all_is_performed_at_once_and_in_order():
    session, part, clock, line = drive(Two)
    session.receive(b"RE:1:OK:ECHO(1)")
    session.receive(b"RE:2:OK")
    assert line.told == [b"welcome:0:1:0", "read on", b"echo:1", b"quit:", "goodbye", "read on"]
    assert part.ends == [(None, 0.0, True)]
    assert session.over
    assert clock.getDelayedCalls() == []


def test_what_waits_for_the_disk_is_performed_when_it_is_there():
    journal = HeldJournal()
    *_, line = drive(Two, journal)
    assert line.told == [b"welcome:0:1:0", "read on"]
    journal.sync()
    assert line.told[2:] == [b"echo:1", "read on"]
    assert [type(record) for record in journal.records] == [Happened, Happened]


def test_a_worker_that_stays_away_is_given_up_and_says_from_where_it_was():
    session, part, clock, line = drive(Patient)
    clock.advance(1)
    session.detach(line, "it closed the connection")
    assert (session.away_since, session.line) == (1.0, None)
    clock.advance(9.5)
    assert part.ends == []
    clock.advance(0.5)
    gone = "Patient: its worker at 10.0.0.1:2 is gone: it closed the connection"
    assert part.ends == [(f"{gone}; it did not come back within 10 s", 11.0, True)]


def test_a_newer_connection_ends_the_older_one():
    session, _, _, older = drive(Patient)
    newer = Line()
    session.attach(newer, Hello("aa"))
    assert older.told[-1] == "its worker has a newer connection"
    assert newer.told == [b"welcome:0:1:0", "read on"]
    assert session.line is newer


def test_a_restored_session_waits_for_its_worker():
    part, clock = Attempt(Patient), Clock()
    session = session_of(part, NoJournal(), clock)
    session.restore([], 0.0, 0.0)
    clock.advance(10)
    assert "coordinator's restart" in part.ends[0][0]


def test_a_bad_frame_is_the_connections_affair():
    session, part, *_ = drive(Patient)
    with pytest.raises(BadMessage):
        session.receive(b"OK")
    assert part.ends == []


def test_an_effect_that_fails_is_logged_and_ends_the_attempt():
    session, part, _, line = drive(Two)

    def broken(data):
        raise OSError("out of coal")

    line.write = broken
    with capturedLogs() as logs:
        session.receive(b"RE:1:OK:ECHO(1)")
    assert part.ends == [("a fault in mu: OSError: out of coal", 0.0, True)]
    assert any("actor 0: a fault in mu" in formatEvent(event) for event in logs)


@pytest.mark.interpreted
def test_a_fault_in_a_session_is_logged_with_its_event():
    part, ledger = Attempt(Patient), NoJournal()
    part.machine = SimpleNamespace(
        receive=lambda event: 1 / 0, crash=None, state=None, worker=part.machine.worker
    )
    session = session_of(part, ledger, Clock(), name="")
    with capturedLogs() as logs:
        session.begin()
    assert part.ends == [("a fault in mu: ZeroDivisionError: division by zero", 0.0, True)]
    assert any(
        "a fault in mu: Entered(at=0.0, numbered=False)" in formatEvent(event) for event in logs
    )


@pytest.mark.parametrize("blocked_s", [1.0, 3.0])
def test_a_state_that_blocks_the_daemon_for_too_long_is_named_in_the_log(blocked_s):
    clocks = []

    class Sleepy(CommandListState):
        commandlist = (("OK:HELLO", "echo:1"), "quit:", None)

        def str_extra(self):
            return "(dreaming)"

        def transition(self, msg):
            if clocks and msg.startswith("OK:ECHO"):
                clocks[0].advance(2.5)
            return super().transition(msg)

    session, _, clock, _ = drive(Sleepy, blocked_s=blocked_s)
    clocks.append(clock)
    with capturedLogs() as logs:
        session.receive(b"RE:1:OK:ECHO(1)")
        session.receive(b"RE:2:OK")
    said = [formatEvent(event) for event in logs if "blocked" in event["log_format"]]
    assert [one.partition(": states")[0] for one in said] == [
        "job j1, actor 0: one blocked the daemon for 2.5 s, in the state Sleepy (dreaming)"
    ][: blocked_s < 2.5]


def test_a_state_that_waits_in_vain_is_named_in_the_log_once():
    class Forgetful(CommandListState):
        commandlist = (("OK:HELLO", "echo:1"), ("OK:ECHO", None), ("OK:UPLOAD", None))

    session, *_ = drive(Forgetful)
    with capturedLogs() as logs:
        session.receive(b"RE:1:OK:ECHO(1)")
        session.receive(b"RE:0:INFO:a:b")
    (said,) = [formatEvent(event) for event in logs if "outstanding" in event["log_format"]]
    assert said.startswith("job j1, actor 0: Forgetful of one waits for OK:UPLOAD, which no")
