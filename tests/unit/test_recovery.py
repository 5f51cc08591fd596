"""A job, back from its records, wherever they end."""

import sqlite3

import pytest
from kit.journal import HeldJournal
from kit.parts import Port, make_spec, recorded_job
from kit.recovery import again, run
from kit.states import Late, Two, hello

from mu.engines.cost import GB_S_USD
from mu.events import digest
from mu.invocations import Size
from mu.jobs.recovery import find, recover
from mu.journal.archive import Archive
from mu.journal.records import (
    Counted,
    Happened,
    Launched,
    Ordered,
    Planned,
    Resumed,
    write_record,
)
from mu.messages import Hello
from mu.states import CommandListState, MachineState


class Other(CommandListState):
    """What Two became in a newer version of its plugin."""

    commandlist = (("OK:HELLO", "echo:1"), ("OK:ECHO(1)", "echo:two"))


def test_a_job_goes_on_from_wherever_its_records_end():
    job, journal, _ = run(Two, b"RE:1:OK:ECHO(1)")
    for kept in range(1, len(journal.records) + 1):
        found, port = again(job, journal.records[:kept], Two)
        line = port.join(hello=hello(received=[b"echo:1", b"echo:2"], sent=1))
        found.ledger.sync()
        replies = kept > 3  # the assignment, the beginning and the hello go to disk together
        assert line.heard[0] == b"welcome:0:1:%d" % replies
        if not replies:
            line.say(b"RE:1:OK:ECHO(1)")
        line.say(b"RE:2:OK:ECHO(2)")
        found.ledger.sync()
        assert line.heard[-1] == b"quit:"
        assert (found.actors[0].state, found.actors[0].tried) == ("done", 1)


def test_nothing_is_sent_before_the_worker_and_the_machine_agree():
    job, journal, _ = run(Two)
    found, port = again(job, journal.records, Two)
    line = port.join(hello=hello(received=[b"echo:1", b"echo:2"], sent=1))
    assert line.heard == [b"welcome:0:1:0"]
    assert line.say(b"RE:1:OK:ECHO(1)") == [b"welcome:0:1:0"]
    assert line.say(b"RE:2:OK:ECHO(2)") == [b"welcome:0:1:0"]  # quit: waits for the disk
    found.ledger.sync()
    assert line.heard[-1] == b"quit:"


@pytest.mark.parametrize(
    "claim",
    [
        hello(received=[b"echo:1", b"echo:?"], sent=1),
        hello(received=[b"echo:1", b"echo:2", b"echo:3"], sent=1),
    ],
)
def test_a_worker_that_was_driven_otherwise_is_told_to_quit_and_its_actor_begins_anew(claim):
    job, journal, _ = run(Two)
    found, port = again(job, journal.records, Two)
    line = port.join(hello=claim)
    line.say(b"RE:1:OK:ECHO(1)")
    found.ledger.sync()
    assert line.heard[-1] == b"quit:"
    assert found.actors[0].state == "waiting"
    assert "do not match the" in found.actors[0].failures[0].error
    fresh = port.join(hello=hello("bb"))
    found.ledger.sync()
    assert fresh.heard == [b"welcome:0:2:0", b"echo:1"]


def test_an_actor_whose_plugin_was_changed_begins_anew_and_says_so():
    job, journal, _ = run(Two, b"RE:1:OK:ECHO(1)")
    found, port = again(job, journal.records, Other)
    (failure,) = found.actors[0].failures
    assert failure.error.startswith("it cannot resume after the restart: event 2, ")
    assert '["send","echo:two"]' in failure.error
    assert found.actors[0].state == "waiting"
    old = port.join(hello=hello(received=[b"echo:1", b"echo:2"], sent=1))
    found.ledger.sync()
    assert old.heard == [b"quit:"]
    fresh = port.join(hello=hello("bb"))
    found.ledger.sync()
    assert fresh.say(b"RE:1:OK:ECHO(1)")[-1] == b"echo:two"


def test_what_had_ended_stands_even_if_its_plugin_was_changed():
    job, journal, _ = run(Two, b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)", workers=2)
    found, _ = again(job, journal.records, Other)
    assert [actor.state for actor in found.actors] == ["done", "waiting"]
    assert found.counts["done"] == 1


def test_timers_stand_still_until_the_worker_has_agreed_and_go_on_with_what_was_left():
    job, journal, _ = run(Late)
    found, port = again(job, journal.records, Late, stopped_at=50.0)
    found.clock.advance(5)
    line = port.join(hello=hello())
    line.let_pass(9)
    found.ledger.sync()
    assert line.heard == [b"welcome:0:1:0"]
    line.let_pass(1)
    found.ledger.sync()
    assert line.heard[-1] == b"echo:late"


def test_the_time_without_a_coordinator_does_not_count_twice():
    job, journal, _ = run(Late)
    records = [*journal.records, Resumed(500.0, 20.0)]
    found, port = again(job, records, Late, stopped_at=530.0)  # 20 s, and 30 s of the second
    line = port.join(hello=hello())
    line.let_pass(9)
    found.ledger.sync()
    assert line.heard == [b"welcome:0:1:0"]
    line.let_pass(1)
    found.ledger.sync()
    assert line.heard[-1] == b"echo:late"
    assert found.downtime == 480.0


def test_a_worker_that_does_not_come_back_after_a_restart_is_replaced():
    job, journal, _ = run(Two)
    found, port = again(job, journal.records, Two, retries=1)
    found.clock.advance(10)
    assert found.actors[0].state == "waiting"
    late = port.join(hello=hello(received=[b"echo:1"]))
    found.ledger.sync()
    assert late.heard == [b"quit:"]
    fresh = port.join(hello=hello("bb"))
    found.ledger.sync()
    assert fresh.heard[0] == b"welcome:0:2:0"


def test_failed_attempts_are_remembered():
    job, journal, port = run(Two, b"RE:1:FAIL(no)", retries=2)
    line = port.join(hello=hello("bb"))
    journal.sync()
    line.say(b"RE:1:FAIL(no)")
    journal.sync()
    found, port = again(job, journal.records, Two, retries=2)
    assert [failure.attempt for failure in found.actors[0].failures] == [1, 2]
    line = port.join(hello=hello("cc"))
    found.ledger.sync()
    line.say(b"RE:1:FAIL(no)")
    found.ledger.sync()
    assert found.actors[0].state == "failed"
    assert found.actors[0].error.endswith("(after 3 attempts)")


def test_a_job_that_was_stopped_stays_so():
    job, journal, _ = run(Two)
    job.stop("cancelled", "enough")
    for kept in range(len(journal.records) - 2, len(journal.records) + 1):
        found, _ = again(job, journal.records[:kept], Two)
        if found.stopped:
            assert (found.stopped.state, found.stopped.reason) == ("cancelled", "enough")
            assert found.actors[0].attempts == []


# ---------------------------------------------------------------- launches, spares, cost


def launched(workers=1, sizes=None, **spec):
    """Return a job whose launches were all accepted at 0 s, and its journal."""
    job = recorded_job(make_spec(MachineState, workers, engine="made up", **spec))
    job.ledger = journal = HeldJournal()
    job.record(Planned([{} for _ in range(workers)], list(range(workers))))
    if sizes:
        job.measure(sizes, dict.fromkeys(sizes, 100.0))
    job.begin()
    for launch in job.launches:
        job.answered(launch, "accepted")
    journal.sync()
    return job, journal


def restarted(job, journal, downtime_s=10.0):
    """Return the job as a new coordinator goes on with it, after some seconds without one."""
    stopped_at = job.clock.seconds()
    found = recorded_job(job.spec)
    found.clock.advance(stopped_at + downtime_s)  # type: ignore[attr-defined]
    found.ledger = HeldJournal([(found.id, write_record(one)) for one in journal.records])
    recover(found, journal.records, stopped_at)
    found.record(Resumed(found.clock.seconds(), stopped_at))
    found.restart()
    found.begin()
    return found, Port(found, heartbeat_s=1000, silence_s=1000)


def test_a_spare_that_comes_back_after_a_restart_is_not_waited_for():
    job, journal = launched(spares=1, retries=9)
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    first, second = job.launches
    port.join(hello=Hello("aa", first))
    port.join(hello=Hello("bb", second))
    found, port = restarted(job, journal)
    assert found.launches.coming == 1
    spare = port.join(hello=Hello("bb", second))
    assert (spare.heard, found.launches.coming) == ([b"welcome:-:0:0"], 0)
    port.join(hello=Hello("aa", first)).hang_up()
    found.clock.advance(10)  # the spare gets the actor
    assert found.actors[0].tried == 2
    assert len(found.launches) == 2
    found.clock.advance(200)
    found.check("no worker connected")
    assert all(one.answer != "late" for one in found.ledger.records if isinstance(one, Launched))
    spare.hang_up()
    found.clock.pump([10, 1])  # the hold, then the pause before a third attempt
    assert found.actors[0].state == "waiting"
    assert len(found.launches) == 3


def test_a_launch_whose_spare_died_with_the_coordinator_is_open_to_another_worker():
    job, journal = launched(spares=1, retries=1)
    first, second = job.launches
    port = Port(job)
    port.join(hello=Hello("aa", first))
    port.join(hello=Hello("bb", second))
    found, port = restarted(job, journal)
    assert found.launches.coming == 1
    found.clock.advance(10)  # the first worker is lost, too
    found.ledger.sync()
    port.join(hello=Hello("cc", second))
    assert (found.actors[0].tried, found.launches.coming) == (2, 0)
    seen = found.describe()
    again, _ = restarted(found, found.ledger)
    assert again.describe() == seen
    assert again.launches.coming == 0


def test_workers_without_an_actor_cost_nothing_from_the_restart_on_unless_they_come_back():
    job, journal = launched(sizes={"us-east-1": Size(1024)}, spares=1, workers=1)
    first, second = job.launches
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    port.join(hello=Hello("aa", first))
    port.join(hello=Hello("bb", second))
    late = port.join(hello=Hello("cc"))  # one too many
    assert job.dismissed == 1
    late.hang_up()
    job.clock.advance(100)
    requests = 2 * job.bill._prices.request
    price = GB_S_USD["x86_64"]
    assert job.cost_usd == pytest.approx(requests + 200 * price)
    journal.sync()
    found, port = restarted(job, journal, 1000.0)
    found.clock.advance(1)
    assert found.cost_usd == pytest.approx(
        requests + (161 + 100) * price
    )  # away for at most reconnect_s
    port.join(hello=Hello("bb", second))
    assert found.cost_usd == pytest.approx(requests + (161 + 161) * price)


def test_what_nobody_saw_is_bounded_after_a_restart_as_before():
    job, journal = launched(sizes={"us-east-1": Size(1024)}, workers=4, retries=9)
    first, second, *_ = job.launches
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    job.clock.advance(7)
    port.join(hello=Hello("aa", first)).say(b'USED:0:{"init_s": 0.5, "hello_s": 0.25}')
    port.join(hello=Hello("bb", second))  # it tells nothing
    journal.sync()
    job.clock.advance(20)
    price, most = GB_S_USD["x86_64"], job.bill.usd_at_most(job.clock.seconds())
    assert job.cost_usd == pytest.approx(4 * job.bill._prices.request + (40 + 0.75) * price)
    assert most == pytest.approx(job.cost_usd + (7 + 27 + 27) * price)
    found, _ = restarted(job, journal, 0.0)
    assert found.bill.usd_at_most(found.clock.seconds()) == pytest.approx(most)
    found.clock.advance(300)
    found.check("no worker connected")
    assert found.bill.usd_at_most(999.0) - found.bill.usd(999.0) == pytest.approx(
        (7 + 100 + 100) * price
    )


def test_a_worker_that_is_faster_than_its_engines_answer_was_seen():
    job = recorded_job(make_spec(MachineState, engine="made up"))
    job.record(Planned([{}], [0]))
    job.measure({"us-east-1": Size(1024)}, {"us-east-1": 100.0})
    job.begin()
    (launch,) = job.launches
    port = Port(job)
    port.join(hello=Hello("aa", launch)).say(b'USED:0:{"hello_s": 0}')
    job.answered(launch, "accepted")
    port.clock.advance(50)
    assert job.bill.absent == 0
    assert job.bill.usd_at_most(50.0) == pytest.approx(job.bill.usd(50.0))


def test_what_users_see_of_launches_survives_a_restart_exactly():
    job, journal = launched(workers=3)
    first, second, _ = job.launches
    for _ in range(5):
        job.count("throttled")
    job.count("unreached")
    job.clock.advance(1)
    Port(job).join(hello=Hello("aa", first))
    job.clock.advance(1)
    Port(job).join(hello=Hello("bb", second))
    job.keep_records()
    journal.sync()
    seen = job.describe()
    assert seen["launches"] == {"accepted": 3, "throttled": 5, "unreached": 1}
    counted = [one for one in journal.records if isinstance(one, Counted)]
    assert counted == [Counted(2.0, {"throttled": 5, "unreached": 1}, 0)]
    assert (seen["first_hello"], seen["last_hello"]) == (1.0, 2.0)
    found, _ = restarted(job, journal)
    assert found.describe() == seen
    again, _ = restarted(found, found.ledger)
    assert again.describe() == seen


def test_when_the_launches_were_answered_survives_a_restart():
    job = recorded_job(make_spec(MachineState, 2, engine="made up"), created=5.0)
    job.ledger = journal = HeldJournal()
    job.record(Planned([{}, {}], [0, 1]))
    job.begin()
    first, second = job.launches
    job.clock.advance(7)  # type: ignore[attr-defined]
    job.answered(first, "accepted")
    assert job.describe()["launched"] is None
    job.clock.advance(1)  # type: ignore[attr-defined]
    job.answered(second, "unknown")
    assert job.describe()["launched"] == 8.0
    found, _ = restarted(job, journal)
    assert (found.describe()["launched"], found.state) == (8.0, "running")


@pytest.mark.parametrize("broken", [5, None, {}])
def test_a_broken_record_costs_an_attempt_and_leaves_no_timer(broken):
    job, journal, _ = run(MachineState, workers=2)
    Port(job).join(hello=hello("bb"))
    journal.sync()
    records = journal.records
    records.append(Happened(1, 1, digest([]), ["answered", 2.0, broken, 0]))
    found, _ = again(job, records, MachineState, retries=1)
    assert [len(actor.attempts) for actor in found.actors] == [1, 0]
    (failure,) = found.actors[1].failures
    assert failure.error.startswith("it cannot resume after the restart: ")
    found.stop("cancelled", "enough")
    assert not found.clock.getDelayedCalls()


@pytest.mark.parametrize(
    "line",
    ['["happened",0,1,"",null]', '["happened",0,1,"",[]]', '["alive",null]', '["alive",1', "[]"],
)
def test_a_broken_record_loses_its_job_and_no_other(line):
    ordered = write_record(Ordered(1.0, "uniq", {}, "", ""))
    archive = HeldJournal([("broken", ordered), ("broken", line), ("whole", ordered)])
    found, lost, _ = find(archive, lambda ordered: make_spec(MachineState))
    assert ([one.id for one in found], list(lost)) == (["whole"], ["broken"])


@pytest.mark.parametrize(
    "row",
    [
        "text in place of a blob",
        5,
        b"",
        b"\xff\xfe",
        b'["ordered",1.0,"uniq",{},"',
        b'["alive",1.0]',
        b'["ordered",null,"uniq",{},"",""]',
        b'["ordered",1.0,"uniq",{},"",""]\nnull',
    ],
)
def test_a_bad_row_in_the_database_loses_its_job_and_no_other(tmp_path, row):
    path = tmp_path / "journal.db"
    Archive(path).close()
    database = sqlite3.connect(path)
    whole = write_record(Ordered(1.0, "uniq", {}, "", "")).encode()
    rows = [("broken", row), ("whole", whole)]
    database.executemany("insert into records (job, lines) values (?, ?)", rows)
    database.commit()
    database.close()
    archive = Archive(path)
    found, lost, _ = find(archive, lambda ordered: make_spec(MachineState))
    archive.close()
    assert ([one.id for one in found], list(lost)) == (["whole"], ["broken"])


@pytest.mark.parametrize("noted", ["garbage", "[]", '{"worker": "x"}', '{"worker": 99999}', "null"])
def test_ports_that_are_none_are_refused_by_name(tmp_path, noted):
    archive = Archive(tmp_path / "journal.db")
    archive.note("ports", noted)
    with pytest.raises(ValueError, match="Expecting value|must map each name to a port"):
        archive.ports()
    archive.note("ports", '{"worker": 13579}')
    assert archive.ports() == {"worker": 13579}
    archive.close()


def test_actors_of_a_cancelled_job_are_cancelled_and_stay_so_after_a_restart():
    job, journal = launched(workers=4, retries=0)
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    first, second, *_ = job.launches
    port.join(hello=Hello("aa", first))
    port.join(hello=Hello("bb", second))
    journal.sync()
    job.actors[0].attempts[0].session.give_up("too slow")
    journal.sync()
    job.stop("cancelled", "enough")
    assert [actor.state for actor in job.actors] == ["failed", "running", "waiting", "waiting"]
    journal.sync()
    states = ["failed", "cancelled", "cancelled", "cancelled"]
    assert [actor.state for actor in job.actors] == states
    assert (job.counts["failed"], job.counts["cancelled"], job.counts["waiting"]) == (1, 3, 0)
    assert job.actors[0].error.endswith("too slow")
    assert all(actor.error.endswith("enough") for actor in job.actors[1:])
    found, _ = restarted(job, journal)
    assert found.workers() == job.workers()
    assert found.summary(0.0).counts == job.summary(0.0).counts
