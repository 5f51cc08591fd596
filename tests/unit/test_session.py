"""A worker's session over several connections, in memory and over real TLS."""

import pytest
from kit.journal import HeldJournal
from kit.parts import Port, make_job
from kit.states import Late, Two, crc, hello

from mu.events import Answered, Entered
from mu.journal.records import AttemptEnded, Happened, Launching
from mu.messages import Hello
from mu.states import CommandListState


def held(first, **spec):
    """Return a job whose journal waits for the test, and its port."""
    job = make_job(first, **spec)
    job.ledger = HeldJournal()
    return job, Port(job, heartbeat_s=1000, silence_s=1000)


# ---------------------------------------------------------------- resume


def test_a_worker_that_comes_back_goes_on_where_it_was():
    job = make_job(Two)
    port = Port(job)
    first = port.join(hello=hello())
    first.say(b"RE:1:OK:ECHO(1)")
    first.hang_up()
    assert job.actors[0].waits_for() == "its worker to come back"
    again = port.join(hello=hello(received=[b"echo:1"], sent=1))
    assert again.heard == [b"welcome:0:1:1", b"echo:2"]
    assert again.say(b"RE:2:OK:ECHO(2)")[-1] == b"quit:"
    assert (job.actors[0].state, job.actors[0].tried) == ("done", 1)


def test_only_the_replies_that_are_missing_are_asked_for():
    job = make_job(Two)
    port = Port(job)
    port.join(hello=hello()).hang_up()
    again = port.join(hello=hello(received=[b"echo:1"], sent=1))
    assert again.heard == [b"welcome:0:1:0"]
    assert again.say(b"RE:1:OK:ECHO(1)")[-1] == b"echo:2"


def test_a_newer_connection_ends_the_older_one():
    job = make_job(Two)
    port = Port(job)
    older = port.join(hello=hello())
    newer = port.join(hello=hello())
    assert not older.open
    assert newer.heard == [b"welcome:0:1:0", b"echo:1"]
    assert job.actors[0].waits_for() == "an echo"


def test_an_old_hello_is_closed_and_changes_nothing():
    job = make_job(Two)
    port = Port(job)
    line = port.join(hello=hello())
    line.say(b"RE:1:OK:ECHO(1)")
    stale = port.join(hello=hello())
    assert not stale.open
    assert stale.heard == []
    assert line.say(b"RE:2:OK:ECHO(2)")[-1] == b"quit:"


@pytest.mark.parametrize(
    "claim",
    [
        Hello("aa", "", 1, crc(b"echo:other"), 0),
        Hello("aa", "", 5, 0, 0),
    ],
)
def test_a_worker_that_received_something_else_is_told_to_quit_and_its_actor_begins_again(claim):
    job = make_job(Two)
    port = Port(job)
    port.join(hello=hello()).hang_up()
    assert port.join(hello=claim).heard == [b"quit:"]
    assert job.actors[0].state == "waiting"
    (failure,) = job.actors[0].failures
    assert "do not match the" in failure.error
    assert port.join(hello=hello("bb")).heard == [b"welcome:0:2:0", b"echo:1"]


def test_a_worker_that_does_not_come_back_is_given_up():
    job = make_job(Two)
    port = Port(job)
    port.join(hello=hello()).hang_up()
    port.clock.advance(9)
    assert job.actors[0].state == "running"
    port.clock.advance(1)
    assert job.actors[0].state == "failed"
    assert "it did not come back within 10 s" in job.actors[0].error
    assert port.join(hello=hello(received=[b"echo:1"])).heard == [b"quit:"]


def test_an_original_worker_cannot_come_back():
    job = make_job(Two)
    Port(job).join().hang_up()
    assert job.actors[0].state == "failed"


def test_timers_go_on_while_a_worker_is_away():
    job = make_job(Late)
    port = Port(job)
    port.join(hello=hello()).let_pass(55)
    line = port.join(hello=hello())
    line.hang_up()
    port.clock.advance(6)
    again = port.join(hello=hello())
    assert again.heard == [b"welcome:0:1:0", b"echo:late"]


# ---------------------------------------------------------------- the disk


def test_a_welcome_waits_until_the_assignment_is_on_disk():
    job, port = held(Two)
    line = port.join(hello=hello())
    assert line.heard == []
    job.ledger.sync()
    assert line.heard == [b"welcome:0:1:0", b"echo:1"]


def test_what_a_reply_causes_does_not_wait():
    job, port = held(Two)
    line = port.join(hello=hello())
    job.ledger.sync()
    assert line.say(b"RE:1:OK:ECHO(1)")[-1] == b"echo:2"


def test_what_a_timer_causes_waits_and_so_does_all_after_it_also_over_a_resume():
    job, port = held(Late)
    line = port.join(hello=hello())
    job.ledger.sync()
    line.let_pass(60)
    assert line.heard == [b"welcome:0:1:0"]
    line.say(b"RE:0:OK:ECHO(now)")
    assert line.heard == [b"welcome:0:1:0"]
    again = port.join(hello=hello(sent=1))
    assert again.heard == [b"welcome:0:1:1"]
    job.ledger.sync()
    assert again.heard == [b"welcome:0:1:1", b"echo:late", b"echo:soon"]


def test_quit_and_the_end_wait_for_the_disk():
    job, port = held(Two)
    line = port.join(hello=hello())
    job.ledger.sync()
    line.say(b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)")
    assert line.heard[-1] == b"echo:2"
    assert job.actors[0].state == "running"
    assert job.actors[0].waits_for() == "the disk"
    job.ledger.sync()
    assert line.heard[-1] == b"quit:"
    assert job.actors[0].state == "done"


def test_only_what_is_on_disk_is_acknowledged():
    job, port = held(Late)
    line = port.join(hello=hello())
    job.ledger.sync()
    line.say(*[b"RE:0:OK:X"] * 64)
    assert line.heard == [b"welcome:0:1:0"]
    job.ledger.sync()
    assert line.heard[-1] == b"ack:64"
    line.say(b"RE:0:OK:X")
    line.let_pass(5)
    job.ledger.sync()
    assert line.heard[-1] == b"ack:65"
    assert port.join(hello=hello(sent=65)).heard == [b"welcome:0:1:65", b"ack:65"]


def test_each_event_is_in_the_journal_with_its_attempts_end():
    job, port = held(Two)
    line = port.join(hello=hello())
    job.ledger.sync()
    line.say(b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)")
    kinds = [type(record).__name__ for record in job.ledger.records]
    assert kinds == ["Assigned", *["Happened"] * 4, "AttemptEnded"]
    events = [type(record.event) for record in job.ledger.records if isinstance(record, Happened)]
    assert events == [Entered, Answered, Answered, Answered]


# ---------------------------------------------------------------- attempts, spares, launches


def test_a_failed_attempt_is_followed_by_another_and_the_job_says_all():
    job = make_job(Two, retries=1)
    port = Port(job)
    assert port.join(hello=hello("aa")).say(b"RE:1:FAIL(no)")[-1] == b"quit:"
    assert (job.actors[0].state, job.actors[0].waits_for()) == ("waiting", "a worker")
    port.join(hello=hello("bb")).say(b"RE:1:FAIL(never)")
    assert job.actors[0].state == "failed"
    told = job.actors[0].describe()
    assert [one["attempt"] for one in told["failures"]] == [1, 2]
    assert [one["last_reply"] for one in told["failures"]] == ["FAIL(no)", "FAIL(never)"]
    assert job.failures().endswith("'FAIL(never)' (after 2 attempts)")


def test_further_attempts_begin_after_growing_pauses():
    job = make_job(Two, retries=3)
    port = Port(job)
    waits = []
    for number in range(4):
        line = port.join(hello=hello(f"{number:02x}"))
        while line.heard == [b"quit:"] or not line.open:
            port.clock.advance(0.5)
            line = port.join(hello=hello(f"{number:02x}{len(waits):02x}"))
            waits.append(number)
        line.say(b"RE:1:FAIL(no)")
    assert job.actors[0].state == "failed"
    assert (waits.count(1), waits.count(2), waits.count(3)) == (0, 2, 4)


def test_a_spare_waits_and_takes_over_at_once():
    job = make_job(Two, spares=1, retries=1)
    port = Port(job)
    line = port.join(hello=hello("aa"))
    spare = port.join(hello=hello("bb"))
    assert spare.heard == [b"welcome:-:0:0"]
    line.say(b"RE:1:FAIL(no)")
    assert spare.heard == [b"welcome:-:0:0", b"welcome:0:2:0", b"echo:1"]
    assert port.join(hello=hello("cc")).heard[0] == b"welcome:-:0:0"
    assert port.join(hello=hello("dd")).heard == [b"quit:"]


def test_spares_are_let_go_when_nobody_can_need_them():
    job = make_job(Two, spares=2, workers=2)
    port = Port(job)
    lines = [port.join(hello=hello(name)) for name in ("aa", "bb", "cc", "dd")]
    lines[0].say(b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)")
    assert [line.heard[-1] for line in lines[2:]].count(b"quit:") == 1
    lines[1].say(b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)")
    assert [line.heard[-1] for line in lines[2:]] == [b"quit:"] * 2


def test_a_spare_that_comes_back_is_still_one():
    job = make_job(Two, spares=1)
    for number, name in enumerate(("l1", "l2")):
        job.record(Launching(0.0, name, number))
    port = Port(job)
    port.join(hello=hello("aa", "l1"))
    spare = port.join(hello=hello("bb", "l2"))
    again = port.join(hello=hello("bb", "l2"))
    assert not spare.open
    assert again.heard == [b"welcome:-:0:0"]


def test_a_worker_that_takes_far_longer_than_its_peers_gets_a_rival_and_the_first_wins():
    job = make_job(Two, workers=3, spares=1, stragglers=3.0)
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    lines = [port.join(hello=hello(name)) for name in ("aa", "bb", "cc", "dd")]
    port.clock.advance(10)
    for line in lines[:2]:
        line.say(b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)")
    port.clock.advance(19)
    job.check("late")
    assert lines[3].heard == [b"welcome:-:0:0"]
    port.clock.advance(2)
    job.check("late")
    assert lines[3].heard[1:] == [b"welcome:2:2:0", b"echo:1"]
    lines[3].say(b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)")
    assert lines[2].heard[-1] == b"quit:"
    assert [actor.state for actor in job.actors] == ["done"] * 3
    assert job.actors[2].failures == []


def test_a_pipeline_that_must_not_run_twice_has_no_rivals():
    job = make_job(Two, workers=2, spares=1, stragglers=3.0)
    job.spec.pipeline.may_run_twice = False
    port = Port(job)
    lines = [port.join(hello=hello(name)) for name in ("aa", "bb", "cc")]
    port.clock.advance(1)
    lines[0].say(b"RE:1:OK:ECHO(1)", b"RE:2:OK:ECHO(2)")
    port.clock.advance(100)
    job.check("late")
    assert lines[2].heard == [b"welcome:-:0:0"]


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        ({"on_failure": "finish"}, "running"),
        ({"on_failure": "stop"}, "failed"),
        ({"on_failure": "stop", "tolerate": 1}, "running"),
    ],
)
def test_a_failure_stops_the_job_if_it_is_to(policy, state):
    job = make_job(Two, workers=3, **policy)
    port = Port(job)
    lines = [port.join(hello=hello(name)) for name in ("aa", "bb", "cc")]
    lines[1].say(b"RE:1:FAIL(no)")
    assert job.state == state
    assert (lines[0].heard[-1] == b"quit:") == (state == "failed")


def test_a_failure_that_stops_the_job_cancels_the_actors_that_have_not_begun():
    job = make_job(Two, workers=3, on_failure="stop")
    Port(job).join(hello=hello()).say(b"RE:1:FAIL(no)")
    assert [actor["state"] for actor in job.workers()] == ["failed", "cancelled", "cancelled"]
    assert job.describe()["counts"]["waiting"] == 0


def test_an_ended_attempts_records_say_how_it_ended():
    job, port = held(Two, retries=1)
    line = port.join(hello=hello())
    job.ledger.sync()
    line.say(b"RE:1:FAIL(no)")
    (end,) = [record for record in job.ledger.records if isinstance(record, AttemptEnded)]
    assert (end.actor, end.attempt, end.last_reply, end.charged) == (0, 1, "FAIL(no)", True)


def test_users_see_that_a_reply_can_no_longer_come():
    class Forgetful(CommandListState):
        commandlist = (("OK:HELLO", "echo:1"), ("OK:ECHO", None), ("OK:UPLOAD", None))

    job = make_job(Forgetful)
    line = Port(job).join(hello=hello())
    assert job.actors[0].waits_for() == "an echo"
    line.say(b"RE:1:OK:ECHO(1)")
    assert job.actors[0].waits_for() == "an upload to end, which no outstanding command can bring"
