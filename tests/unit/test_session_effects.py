"""A session without a driver: what happens goes in, lists of effects come out."""

import zlib
from types import SimpleNamespace
from typing import Any

import pytest

from mu.events import Answered, CancelTimer, Elapsed, Entered, Finish, Informed, Lost, SetTimer
from mu.journal.allowance import JobAllowance
from mu.journal.records import (
    Disconnected,
    Reconnected,
    Resumed,
    read_record,
    write_event,
)
from mu.journal.replay import Diverged
from mu.messages import BadMessage, Hello
from mu.session import (
    ACK_REPLIES,
    ACK_S,
    ACK_TIMER,
    HOLD_TIMER,
    MOST_HELD_COMMANDS,
    WORKER_TIMER,
    Session,
)
from mu.session_effects import (
    Append,
    AwaitDisk,
    Crashed,
    End,
    Fault,
    Goodbye,
    ReadOn,
    Supersede,
    Write,
)
from mu.states import CommandListState, MachineState, OnePassState, TerminalState
from mu.testing import machine
from mu.wire import frame

OLD, NEW = "the first connection", "the second connection"
ACKS = SetTimer(ACK_TIMER, ACK_S)


class Leave(OnePassState):
    expect = "OK:ECHO(2)"
    command = "quit:"


class Two(CommandListState):
    commandlist = (("OK:HELLO", "echo:1"), ("OK:ECHO(1)", "echo:2"))
    nextState = Leave


class Patient(MachineState):
    """Waits for ever."""


class Timed(MachineState):
    """Does what replies and timers say."""

    timeout = None

    def receive(self, event, send):
        match event:
            case Entered():
                self.worker.set_timer("minute", 60)
            case Elapsed():
                send("echo:late")
            case Answered(text="OK:CANCEL"):
                self.worker.cancel_timer("minute")
            case Answered(text="OK:AGAIN"):
                self.worker.set_timer("minute", 60)
            case Answered(text="OK:MANY"):
                for number in range(MOST_HELD_COMMANDS + 1):
                    send(f"echo:{number}")
            case Lost():
                return super().receive(event, send)
        return self


class Slow(MachineState):
    """Runs a program in the background, then asks for an echo."""

    timeout = None

    def receive(self, event, send):
        match event:
            case Answered(text="OK:HELLO"):
                send("run:1")
            case Answered(text="OK:RETVAL(0)"):
                send("echo:2")
        return self


class Attempt:
    """What a session plays."""

    number, job_id, actor_number, timeout_s = 1, "j1", 0, 300.0
    pipeline_name = "one"

    def __init__(self, first):
        self.machine = machine(first)
        self.last = ""
        self.output: list[bytes] = []
        self.answers: list[tuple[str, str, float]] = []
        self.replies: list[tuple[int, str]] = []
        self.reconnections: list[int] = []

    def used(self, use):
        pass

    def answered(self, command, reply, seconds):
        self.answers.append((command, reply, seconds))

    def heard(self, text, at):
        self.last = text

    def printed(self, command, output, at):
        self.output.append(output)

    def replied(self, command, text, at, kind):
        self.replies.append((command, text))

    def reconnected(self, received, at):
        self.reconnections.append(received)


def plenty():
    return JobAllowance(2**32, 2**28).attempt()


class Live:
    """A session whose records and effects are kept; the disk is the test's."""

    def __init__(self, first, name="aa", hold_s=10.0, keeps=True, allowance=None):
        allowance = allowance or plenty()
        self.disk = SimpleNamespace(keeps=keeps, written=0, synced=0)
        self.attempt = Attempt(first)
        self.session = Session(self.attempt, name, self.disk, hold_s, allowance)
        self.records = []
        self.effects: list[Any] = []
        self.now = 0.0

    def __getattr__(self, name):
        """Return a method of the session, which takes the time from here and returns its effects.

        Records are written, and left out.
        """
        method = getattr(self.session, name)
        if not callable(method):
            return method

        def call(*args, **kwargs):
            effects = method(*args, now=self.now, **kwargs)
            for effect in effects:
                if isinstance(effect, Append):
                    self.records.append(read_record(effect.line))
                    self.disk.written += 1
            return [effect for effect in effects if not isinstance(effect, Append)]

        return call

    def sync(self):
        self.disk.synced = self.disk.written

    def events(self):
        return [type(record.event) for record in self.records]


def begun(first, **options):
    """Return a session that has begun over a first connection, everything on disk."""
    live = Live(first, **options)
    live.attach(OLD, Hello(live.session.name))
    live.begin()
    live.sync()
    live.on_disk("send", live.session._outbox.produced)
    return live


def write(*payloads):
    return Write(b"".join(map(frame, payloads)))


def hello(*received, sent=0, name="aa"):
    return Hello(name, "", len(received), zlib.crc32(b"".join(map(frame, received))), sent)


# ---------------------------------------------------------------- beginning


def test_a_worker_is_welcomed_and_gets_its_first_command_once_both_are_on_disk():
    live = Live(Two)
    live.disk.written = 1  # the assignment
    live.session = Session(live.attempt, "aa", live.disk, 10.0, plenty())
    assert live.attach(OLD, hello()) == [AwaitDisk("welcome", 1)]
    assert live.full
    assert live.begin() == [SetTimer(WORKER_TIMER, 300.0), AwaitDisk("send", 1)]
    assert live.events() == [Entered, Answered]
    assert live.on_disk("welcome", 1) == [write(b"welcome:0:1:0"), ReadOn()]
    assert not live.full
    assert live.on_disk("send", 1) == [write(b"echo:1"), ReadOn()]


def test_without_a_journal_nothing_waits_and_nothing_is_recorded():
    live = Live(Two, keeps=False)
    live.attach(OLD, hello())
    assert live.begin() == [SetTimer(WORKER_TIMER, 300.0), write(b"echo:1")]
    assert live.receive(b"RE:1:OK:ECHO(1)") == [write(b"echo:2"), ACKS]
    end = End(Finish(), 0.0, True)
    assert live.receive(b"RE:2:OK:ECHO(2)") == [write(b"quit:"), end, AwaitDisk("leave")]
    assert live.on_disk("leave", 0) == [Goodbye(), ReadOn()]
    assert live.records == []


def test_an_original_worker_is_not_welcomed_and_confirms_nothing():
    live = begun(Two, name="")
    assert live.receive(b"OK:ECHO(1)") == [write(b"echo:2")]
    assert live.session._outbox.confirmed == 2


# ---------------------------------------------------------------- connections


def test_a_second_connection_supersedes_the_first_and_gets_what_is_missing():
    live = begun(Two)
    assert live.attach(NEW, hello()) == [
        Supersede(OLD, "its worker has a newer connection"),
        write(b"welcome:0:1:0", b"echo:1"),
        ReadOn(),
    ]
    assert live.line == NEW
    assert live.detach(OLD, "gone") == []
    assert live.line == NEW


def test_an_out_of_date_hello_changes_nothing():
    live = begun(Two)
    live.receive(b"RE:1:OK:ECHO(1)")
    assert live.attach(NEW, hello()) == [Supersede(NEW, "its hello is out of date")]
    assert live.line == OLD


def test_the_same_connection_is_not_superseded_by_itself():
    live = begun(Two)
    assert live.attach(OLD, hello()) == [write(b"welcome:0:1:0", b"echo:1"), ReadOn()]


def test_a_welcome_for_a_connection_that_is_gone_is_not_sent():
    live = Live(Two)
    live.disk.written = 1
    live.session = Session(live.attempt, "aa", live.disk, 10.0, plenty())
    live.attach(OLD, hello())
    live.begin()
    assert live.detach(OLD, "gone") == [SetTimer(HOLD_TIMER, 10.0)]
    assert live.on_disk("welcome", 1) == []
    live.attach(NEW, hello())
    assert live.on_disk("welcome", 1) == []
    live.fence("enough")
    assert live.on_disk("welcome", 2) == []


def test_a_worker_that_comes_back_in_time_is_not_given_up():
    live = begun(Patient)
    live.now = 3.0
    assert live.detach(OLD, "gone") == [SetTimer(HOLD_TIMER, 10.0)]
    assert live.away_since == 3.0
    assert live.attach(NEW, hello())[0] == CancelTimer(HOLD_TIMER)
    assert live.away_since is None
    assert live.attempt.reconnections == [0]


def test_a_worker_that_stays_away_is_given_up():
    live = begun(Patient)
    live.detach(OLD, "gone")
    *_, end, leave = live.elapsed(HOLD_TIMER)
    error = "Patient: gone; it did not come back within 10 s"
    assert (end, leave) == (End(Finish(error), 0.0, True), AwaitDisk("leave"))
    assert live.on_disk("leave", 0) == []
    assert (live.away_since, live.full) == (None, False)


@pytest.mark.parametrize("options", [{"name": ""}, {"hold_s": 0.0}])
def test_a_worker_that_cannot_come_back_is_given_up_at_once(options):
    live = begun(Patient, **options)
    assert live.detach(OLD, "gone") == [
        End(Finish("Patient: gone"), 0.0, True),
        AwaitDisk("leave"),
    ]


def test_the_connection_of_an_attempt_that_is_over_may_end():
    live = begun(Patient)
    live.fence("enough")
    assert live.detach(OLD, "gone") == []


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize("claim", [hello(b"echo:other"), hello(b"echo:1", b"echo:2")])
def test_a_worker_that_received_something_else_ends_its_attempt(claim):
    live = begun(Two)
    end, leave, read_on = live.attach(NEW, claim)[1:]
    assert (end.charged, leave, read_on) == (False, AwaitDisk("leave"), ReadOn())
    assert end.finish.error == (
        f"its worker received {claim.received} commands that do not match the 1 that the machine sent"
    )
    assert live.on_disk("leave", 0) == [write(b"quit:"), Goodbye(), ReadOn()]


def restored(events, first=Two, now=100.0, began=0.0, stopped_at=50.0):
    """Return a session that was restored from what a machine did with these events."""
    live = Live(first)
    driven = machine(first)
    records = [
        event
        if isinstance(event, Resumed)
        else read_record(write_event(0, 1, event, driven.receive(event)))
        for event in events
    ]
    live.now = now
    live.effects = live.restore(records, began, stopped_at)
    return live


BEGINNING = [Entered(0.0), Answered(0.0, "OK:HELLO")]
LATE = "its worker did not come back within 10 s of the coordinator's restart"


def test_a_machine_that_lacks_replies_is_judged_when_it_has_made_as_many_commands():
    live = restored(BEGINNING)
    assert live.effects == [SetTimer(HOLD_TIMER, 10.0)]
    assert live.attach(NEW, hello(b"echo:1", b"echo:2", sent=1)) == [
        CancelTimer(HOLD_TIMER),
        write(b"welcome:0:1:0"),
        ReadOn(),
    ]
    left = SetTimer(WORKER_TIMER, 250.0)
    assert live.receive(b"RE:1:OK:ECHO(1)") == [left, ACKS]
    assert live.receive(b"RE:2:OK:ECHO(2)")[-1] == AwaitDisk("leave")


def test_a_reply_without_effects_may_settle_the_agreement():
    live = restored([Entered(0.0), Answered(0.0, "OK:HELLO")], Timed)
    claim = hello(b"echo:x", sent=1)
    live.attach(NEW, claim)
    effects = live.receive(b"RE:0:OK:NOTHING")
    assert isinstance(effects[0], End)
    assert "received 1 commands that do not match the 0" in effects[0].finish.error


def test_nothing_finishes_before_the_agreement():
    live = restored([*BEGINNING, Answered(1.0, "OK:ECHO(1)", 1)])
    live.attach(NEW, hello(*[b"echo:1", b"echo:2", b"quit:", b"echo:?"], sent=2))
    *_, end, _, _ = [*live.receive(b"RE:2:OK:ECHO(2)"), None][-4:]
    assert end.finish.error.startswith("its worker received 4 commands")
    assert not end.charged


def test_a_worker_that_is_given_up_before_the_agreement_is_not_judged():
    live = restored(BEGINNING)
    live.attach(NEW, hello(b"echo:1", b"echo:2", sent=1))
    assert live.give_up("enough") == [End(Finish("Two: enough"), 100.0, True), AwaitDisk("leave")]
    assert live.on_disk("leave", 0) == [write(b"quit:"), Goodbye(), ReadOn()]


# ---------------------------------------------------------------- after a restart


def test_the_first_record_says_whether_the_worker_numbers_its_replies():
    for name, numbered in (("aa", True), ("", False)):
        live = Live(Patient, name)
        live.begin()
        assert live.records[0].event == Entered(0.0, numbered)
        assert live.attempt.machine.worker.numbered == bool(numbered)
    older = restored(BEGINNING, Patient)  # by a version that did not record it
    assert not older.attempt.machine.worker.numbered


def test_the_beginning_may_be_lost_in_whole_or_in_part():
    for events in ([], [Entered(0.0)]):
        live = restored(events)
        assert AwaitDisk("send", 1) in live.effects
        assert live.effects[-1] == SetTimer(HOLD_TIMER, 10.0)
        assert live.events() == [Entered, Answered][len(events) :]


def test_a_machine_that_ends_as_soon_as_it_begins_does_not_wait_for_its_worker():
    effects = restored([], TerminalState).effects
    assert effects == [End(Finish(), 100.0, True), AwaitDisk("leave")]


def test_a_finish_whose_record_of_the_end_was_lost_ends_the_attempt_with_the_recorded_words():
    events = [*BEGINNING, Lost(20.0, "gone")]
    assert restored(events).effects == [
        End(Finish("Two: gone"), 50.0, True),
        AwaitDisk("leave"),
    ]


def test_what_was_heard_before_counts_and_is_acknowledged_in_the_welcome():
    live = restored([*BEGINNING, Informed(1.0, "k", "v"), Answered(2.0, "OK:ECHO(1)", 1)])
    assert live.attempt.last == "OK:ECHO(1)"
    assert live.attach(NEW, hello(b"echo:1", sent=2))[1:3] == [
        SetTimer(WORKER_TIMER, 250.0),
        write(b"welcome:0:1:2", b"ack:2", b"echo:2"),
    ]


def test_the_last_replies_before_a_crash_may_have_output_that_the_log_lacks():
    replies = [Answered(at, f"OK:ECHO({at:g})", 1) for at in (44.0, 45.0, 50.0)]
    live = restored([*BEGINNING, *replies], Patient)
    assert live.attempt.replies == [(1, "OK:ECHO(45)"), (1, "OK:ECHO(50)")]
    live.attach(NEW, hello(sent=3))
    assert live.attempt.reconnections == [0]
    live.receive(b"RE:1:OK:ECHO(2)")
    assert live.attempt.replies[2:] == [(1, "OK:ECHO(2)")]


def test_timers_resume_with_the_time_they_had_left():
    events = [*BEGINNING, Resumed(30.0, 10.0), Answered(40.0, "OK:AGAIN")]
    live = restored(events, Timed)
    assert live.attach(NEW, hello())[1:-2] == [
        SetTimer(WORKER_TIMER, 300.0 - (50 - 20)),
        SetTimer("minute", 50.0),
    ]


def test_timers_that_are_over_do_not_resume():
    for over in (Elapsed(40.0, "minute"), Answered(40.0, "OK:CANCEL")):
        live = restored([*BEGINNING, over], Timed)
        assert live.attach(NEW, hello())[1:-2] == [SetTimer(WORKER_TIMER, 250.0)]


def test_a_timer_that_is_set_before_the_agreement_has_all_of_its_time():
    live = restored([], Timed)
    assert live.attach(NEW, hello())[1:-2] == [
        SetTimer(WORKER_TIMER, 300.0),
        SetTimer("minute", 60),
    ]


def test_a_machine_that_does_something_else_diverges():
    record = read_record(write_event(0, 1, Entered(0.0), [CancelTimer("?")]))
    with pytest.raises(Diverged):
        Live(Two).restore([record], 0.0, 0.0)


# ---------------------------------------------------------------- what the worker says


def test_pings_are_answered_while_there_is_a_connection():
    live = begun(Patient)
    assert live.receive(b"ping:7") == [write(b"pong:7")]
    assert live.receive(b"pong:7") == []
    live.detach(OLD, "gone")
    assert live.receive(b"ping:7") == []


def test_output_and_replies_are_taken_until_the_attempt_is_over():
    live = begun(Patient)
    assert live.receive(b"LOG:1:half a line") == []
    live.fence("enough")
    assert live.receive(b"LOG:1:and more") == live.receive(b"RE:1:OK") == []
    assert live.attempt.output == [b"half a line"]
    assert live.received == 0


def test_info_is_an_event_and_a_malformed_one_ends_the_attempt():
    live = begun(Patient)
    assert live.receive(b"RE:0:INFO:k:v") == [ACKS]
    assert live.attempt.machine.worker.info == {"k": "v"}
    assert isinstance(live.receive(b"RE:0:INFO:k")[0], End)


def test_a_malformed_frame_is_refused():
    with pytest.raises(BadMessage):
        begun(Patient).receive(b"OK")


def test_an_ack_waits_for_the_disk_and_is_repeated_in_the_next_welcome():
    live = begun(Patient)
    said = [live.receive(b"RE:0:OK:X") for _ in range(ACK_REPLIES)]
    assert said[0] == [ACKS]
    assert said[1:-1] == [[]] * (ACK_REPLIES - 2)
    assert said[-1] == [CancelTimer(ACK_TIMER), AwaitDisk("ack", ACK_REPLIES)]
    assert live.on_disk("ack", ACK_REPLIES) == [write(b"ack:%d" % ACK_REPLIES)]
    live.detach(OLD, "gone")
    assert live.on_disk("ack", ACK_REPLIES) == []
    welcome = write(b"welcome:0:1:%d" % ACK_REPLIES, b"ack:%d" % ACK_REPLIES)
    assert welcome in live.attach(NEW, hello(sent=ACK_REPLIES))


def test_an_ack_is_due_after_a_while_and_after_many_bytes():
    live = begun(Patient)
    live.receive(b"RE:0:OK:X")
    assert live.elapsed(ACK_TIMER) == [AwaitDisk("ack", 1, soon=False)]
    assert live.receive(b"RE:0:OK:" + b"x" * 2**20) == [AwaitDisk("ack", 2)]


# ---------------------------------------------------------------- timers, and the disk


def test_what_a_timer_causes_waits_and_so_does_what_comes_after_it():
    live = begun(Timed)
    assert live.elapsed("minute") == [AwaitDisk("send", 1)]
    assert live.receive(b"RE:0:OK:MANY") == [AwaitDisk("send", MOST_HELD_COMMANDS + 2), ACKS]
    assert live.full
    assert live.on_disk("send", 1) == [write(b"echo:late"), ReadOn()]
    live.sync()
    live.detach(OLD, "gone")
    assert live.on_disk("send", MOST_HELD_COMMANDS + 2) == [ReadOn()]


def test_a_machines_timers_are_the_sessions():
    live = begun(Timed)
    assert live.receive(b"RE:0:OK:AGAIN") == [SetTimer("minute", 60), ACKS]
    assert live.receive(b"RE:0:OK:CANCEL") == [CancelTimer("minute")]


def test_an_attempt_that_takes_too_long_ends():
    end = begun(Patient).elapsed(WORKER_TIMER)[0]
    assert end.finish.error == "Patient: its worker took longer than 300 s"


def test_quit_waits_for_the_disk_and_is_not_repeated():
    live = begun(Two)
    live.receive(b"RE:1:OK:ECHO(1)")
    waits, end, leave = live.receive(b"RE:2:OK:ECHO(2)")
    assert (waits, end.finish, leave) == (AwaitDisk("send", 3), Finish(), AwaitDisk("leave"))
    live.sync()
    assert live.on_disk("send", 3) == [write(b"quit:"), ReadOn()]
    assert live.on_disk("leave", 0) == [Goodbye(), ReadOn()]


def test_what_still_waits_is_sent_with_the_goodbye():
    live = begun(Two)
    live.receive(b"RE:1:OK:ECHO(1)")
    live.receive(b"RE:2:OK:ECHO(2)")
    assert live.on_disk("leave", 0) == [write(b"quit:"), Goodbye(), ReadOn()]


# ---------------------------------------------------------------- the end


def test_an_attempt_ends_once():
    live = begun(Patient)
    assert live.fence("enough", charged=False) == [
        End(Finish("enough"), 0.0, False),
        AwaitDisk("leave"),
    ]
    assert live.fence("again") == live.give_up("again") == live.elapsed("minute") == []


def test_a_state_that_raises_is_logged_and_ends_the_attempt():
    class Broken(OnePassState):
        expect = "OK:HELLO"

        def post_transition(self):
            raise LookupError("where is it")

    live = Live(Broken)
    live.attach(OLD, hello())
    crashed, end, leave = live.begin()[-3:]
    assert isinstance(crashed, Crashed)
    assert str(crashed.error) == "where is it"
    assert end.finish.error.startswith("Broken: LookupError: where is it (")
    assert leave == AwaitDisk("leave")


@pytest.mark.interpreted
def test_a_bug_in_mu_is_logged_and_ends_the_attempt():
    class Odd:
        crash = None
        worker = SimpleNamespace(stateinfo=[])

        def receive(self, event):
            raise RuntimeError("out of coal")

    live = Live(lambda worker, actor: TerminalState(worker))
    live.attempt.machine = Odd()
    live.session = Session(live.attempt, "aa", live.disk, 10.0, plenty())
    fault, end, _ = live.begin()[-3:]
    assert isinstance(fault, Fault)
    assert fault.event == Entered(0.0, numbered=True)
    assert end.finish.error == "a fault in mu: RuntimeError: out of coal"


# ---------------------------------------------------------------- what its events take on disk


def info(size):
    return b"RE:0:INFO:k:" + b"x" * size


def test_the_same_info_again_and_again_ends_the_attempt_before_it_fills_the_disk():
    live = Live(Patient, allowance=JobAllowance(2**20, 10_000).attempt())
    live.attach(OLD, hello())
    live.begin()
    live.on_disk("welcome", 1)
    live.receive(info(4000))
    live.receive(info(4000))
    end, leave = live.receive(info(4000))
    assert end.finish.error == (
        "the replies of its worker take more than 10000 bytes in the journal"
        " (max_attempt_bytes in mu.conf)"
    )
    assert (end.charged, leave) == (True, AwaitDisk("leave"))
    assert live.events() == [Entered, Answered, Informed, Informed]
    live.receive(info(4000))
    assert len(live.events()) == 4, "nothing of it counts any more"


def test_lost_and_resumed_connections_are_recorded():
    live = Live(Patient)
    live.attach(OLD, hello())
    live.begin()
    live.now = 3.0
    live.detach(OLD, "reset")
    live.now = 5.0
    live.attach(NEW, hello())
    assert live.records[-2:] == [Disconnected(3.0, 0, 1, "reset"), Reconnected(5.0, 0, 1)]
    again = Live(Patient)
    again.restore(live.records[:2], 0.0, 5.0)
    again.now = 9.0
    again.attach(OLD, hello())
    assert again.records == [Reconnected(9.0, 0, 1)], "a restart has lost the connection"


def test_nothing_is_recorded_of_the_connections_of_an_attempt_that_is_over():
    live = Live(Patient)
    live.attach(OLD, hello())
    live.begin()
    live.give_up("enough")
    before = len(live.records)
    live.attach(NEW, hello())
    live.detach(NEW, "reset")
    assert len(live.records) == before


def test_a_worker_that_reconnects_again_and_again_cannot_fill_the_disk():
    live = Live(Patient, allowance=JobAllowance(2**20, 1_000).attempt())
    live.attach(OLD, hello())
    live.begin()
    for _ in range(60):
        live.attach(OLD, hello())
    assert live.over
    assert 0 < live.records.count(Reconnected(0.0, 0, 1)) < 60


def test_a_lost_connection_for_which_the_disk_has_no_room_holds_nothing():
    live = Live(Patient, allowance=JobAllowance(2**20, 1_000).attempt())
    live.attach(OLD, hello())
    live.begin()
    effects = live.detach(OLD, "reset " * 200)
    assert [type(one) for one in effects[-2:]] == [End, AwaitDisk]
    assert live.over
    assert live.session.away_since is None


def test_all_attempts_of_a_job_share_the_limit_of_the_job():
    job = JobAllowance(10_000, 8_000)
    first, second = (Live(Patient, allowance=job.attempt()) for _ in range(2))
    for live in (first, second):
        live.attach(OLD, hello())
        live.begin()
        live.on_disk("welcome", 1)
    first.receive(info(6000))
    end, _ = second.receive(info(6000))
    assert end.finish.error == (
        "the replies of this job's workers take more than 10000 bytes in the journal"
        " (max_job_bytes in mu.conf)"
    )
    assert not first.over
    first.receive(b"RE:0:INFO:k:y")
    assert first.over, "the job has nothing left for it either"


def test_a_restored_attempt_has_what_it_had_left():
    live = Live(Patient)
    live.attach(OLD, hello())
    live.begin()
    live.on_disk("welcome", 1)
    live.receive(info(4000))
    live.receive(info(4000))
    again = Live(Patient, allowance=JobAllowance(2**20, 10_000).attempt())
    again.restore(live.records, 0.0, 0.0)
    again.attach(OLD, hello(sent=2))
    again.receive(info(1000))
    assert not again.over
    end, _ = again.receive(info(1000))
    assert "more than 10000 bytes" in end.finish.error


def test_without_a_journal_there_is_no_such_limit():
    live = Live(Patient, keeps=False, allowance=JobAllowance(0, 0).attempt())
    live.attach(OLD, hello())
    live.begin()
    live.receive(info(4000))
    assert not live.over


# ---------------------------------------------------------------- times of commands


def test_the_time_of_a_command_is_from_its_effect_to_its_last_reply():
    live = begun(Slow)
    live.now = 1.5
    live.receive(b"RE:1:OK:RUNNING(1)")
    live.receive(b"RE:1:INFO:key:value")
    live.now = 2.0
    live.receive(b"RE:1:OK:RETVAL(0)")
    live.receive(b"RE:1:OK:RETVAL(0)")
    live.receive(b"RE:7:OK:ECHO(1)")
    live.now = 2.25
    live.receive(b"RE:2:FAIL(2)")
    assert live.attempt.answers == [
        ("run:1", "OK:RETVAL(0)", 2.0),
        ("echo:2", "FAIL(2)", 0.25),
    ]


def test_original_workers_do_not_say_which_command_they_answer_so_none_is_timed():
    live = begun(Two, name="")
    live.now = 1.0
    live.receive(b"OK:ECHO(1)")
    assert live.attempt.answers == []
    assert not live.session._asked
