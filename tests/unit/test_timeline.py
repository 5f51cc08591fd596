"""A job's timeline: records in, what its actors did and when out."""

import csv
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit.journal import HeldJournal
from kit.parts import Port, make_job
from kit.states import Two, hello

from mu.cli.timeline import trace
from mu.events import Answered, Entered, Lost, Send
from mu.journal.archive import Archive
from mu.journal.records import (
    Arrived,
    Assigned,
    AttemptEnded,
    CommandUsed,
    Disconnected,
    Incomplete,
    Launched,
    Launching,
    NobodyCame,
    Ordered,
    Planned,
    Reconnected,
    Resumed,
    Skipped,
    Stopped,
    write_event,
    write_record,
)
from mu.timeline.answer import timeline_json
from mu.timeline.course import JobCourse
from mu.timeline.trace import chrome_trace, csv_lines

START = 1000.0
ORDERED = Ordered(START, "u", {"retries": 1}, "", "d")


def tupled(told):
    """Return JSON with tuples for lists of plain values."""
    if isinstance(told, dict):
        return {name: tupled(value) for name, value in told.items()}
    if not isinstance(told, list):
        return told
    inside = list(map(tupled, told))
    plain = inside and not any(isinstance(one, dict | list | tuple) for one in inside)
    return tuple(inside) if plain else inside


def told(*records, actors=1, commands=True, until=60.0, ended=True, rows=(), **page):
    """Return the timeline of a job with these records."""
    plan = Planned([{} for _ in range(actors)], list(range(actors)), after=list(rows))
    lines = [one if isinstance(one, str) else write_record(one) for one in records]
    lines = [write_record(ORDERED), write_record(plan), *lines]
    course = JobCourse(**page).read(lines)
    return tupled(json.loads(timeline_json("j1", course, START + until, ended, commands)))


def assigned(at=3.0, actor=0, attempt=1, session="aa", launch="l1"):
    return Assigned(START + at, actor, attempt, session, launch)


def launched(launching=0.5, invoked=1.0, accepted=1.5, launch="l1"):
    yield Launching(START + launching, launch, 0)
    yield Launched(launch, "accepted", START + accepted, invoked=START + invoked)


def entered(*sent, at=3.0, attempt=1):
    return write_event(0, attempt, Entered(START + at, True), [Send(one) for one in sent])


def replied(at, text, number, *sent, states=(), attempt=1):
    event = Answered(START + at, text, number)
    named = [(START + at, state) for state in states]
    return write_event(0, attempt, event, [Send(one) for one in sent], named)


def ended(at, error=None, attempt=1, charged=True, actor=0):
    return AttemptEnded(START + at, actor, attempt, error, None, "", "", charged)


# ---------------------------------------------------------------- one actor


def test_an_actor_waits_starts_works_and_is_done():
    timeline = told(
        *launched(),
        assigned(),
        entered("retrieve:k\0f", "run:"),
        replied(5.0, "OK:RETRIEVE(b/k)", 1),
        replied(9.0, "OK:RETVAL(0):OUTPUT():COMMAND()", 2, "quit:", states=["Over"]),
        ended(9.0),
    )
    (actor,) = timeline["actors"]
    assert actor["states"] == [
        (0.0, "waiting"),
        (1.0, "launching"),
        (1.5, "starting"),
        (3.0, "retrieve"),
        (5.0, "run"),
        (9.0, "done"),
    ]
    (attempt,) = actor["attempts"]
    assert attempt["commands"] == [
        ("retrieve", 3.0, 3.0, 5.0, "ok"),
        ("run", 3.0, 5.0, 9.0, "ok"),
        ("quit", 9.0, None, None, None),
    ]
    assert attempt["states"] == [(9.0, "Over")]
    assert [attempt[name] for name in ("launched", "accepted", "hello")] == [1.0, 1.5, 3.0]
    assert timeline["exact"]


def test_without_commands_only_the_states_are_told():
    (actor,) = told(assigned(), commands=False)["actors"]
    assert set(actor) == {"actor", "attempt", "states"}


def test_a_command_has_an_outcome():
    texts = ["OK:RETVAL(3):OUTPUT(x):COMMAND(y)", "FAIL(no such key)", "OK:ECHO(hi)", "FAIL"]
    replies = [replied(4.0 + n, text, n + 1) for n, text in enumerate(texts)]
    timeline = told(assigned(), entered("run:", "retrieve:", "echo:", "upload:"), *replies)
    commands = timeline["actors"][0]["attempts"][0]["commands"]
    assert [one[4] for one in commands] == ["exit 3", "no such key", "ok", "FAIL"]


def test_a_pause_without_a_command_is_idle():
    timeline = told(
        assigned(),
        entered("echo:a"),
        replied(4.0, "OK:ECHO(a)", 1),
        replied(7.0, "OK:HELLO", 0, "echo:b"),
        replied(8.0, "OK:ECHO(b)", 2),
        ended(8.5),
    )
    states = timeline["actors"][0]["states"]
    assert states[1:] == [(3.0, "echo"), (4.0, "idle"), (7.0, "echo"), (8.0, "idle"), (8.5, "done")]


def test_of_commands_at_the_same_time_the_most_telling_is_shown():
    timeline = told(
        assigned(),
        entered("run:", "upload:a\0b", "echo:x"),
        replied(3.5, "OK:RUNNING(x)", 1),
        replied(4.0, "OK:UPLOADING(a->b)", 2),
        replied(4.5, "OK:ECHO(x)", 3),
        replied(8.0, "OK:RETVAL(0)", 1),
        replied(9.0, "OK:UPLOAD(b)", 2),
        ended(9.0),
    )
    states = timeline["actors"][0]["states"]
    assert states[1:] == [(3.0, "run"), (8.0, "upload"), (9.0, "done")]
    commands = timeline["actors"][0]["attempts"][0]["commands"]
    assert [one[2:4] for one in commands] == [(3.0, 8.0), (3.5, 9.0), (4.0, 4.5)]


def test_a_worker_of_the_original_says_not_which_command_it_answers():
    timeline = told(
        assigned(session=""),
        entered("set:a:b", "run:"),
        replied(4.0, "OK:RUNNING(x)", 0),
        replied(5.0, "OK:SET(a)", 0),
        replied(6.0, "OK:RETVAL(0)", 0),
        replied(7.0, "OK:SURPRISE", 0),
    )
    commands = timeline["actors"][0]["attempts"][0]["commands"]
    assert [(one[0], one[3]) for one in commands] == [("set", 5.0), ("run", 6.0)]


def test_a_worker_may_be_faster_than_the_answer_to_its_launch():
    first, answer = launched(accepted=3.5)
    timeline = told(first, assigned(), entered("run:"), answer, ended(9.0))
    (actor,) = timeline["actors"]
    assert actor["states"] == [(0.0, "waiting"), (1.0, "launching"), (3.0, "run"), (9.0, "done")]
    assert [actor["attempts"][0][name] for name in ("launched", "accepted", "hello")] == [1, 3.5, 3]


@pytest.mark.parametrize("sent", [("run:",), ()])
def test_a_reply_to_a_command_that_was_never_sent_is_left_out(sent):
    timeline = told(assigned(), entered(*sent), replied(4.0, "OK:RETVAL(0)", 10**15))
    commands = timeline["actors"][0]["attempts"][0]["commands"]
    assert [one[3] for one in commands] == [None] * len(sent)


# ---------------------------------------------------------------- what goes wrong


def test_a_lost_connection_is_away_until_the_worker_is_back():
    timeline = told(
        assigned(),
        entered("run:"),
        Disconnected(START + 4.0, 0, 1, "reset by peer"),
        Reconnected(START + 6.0, 0, 1),
        replied(8.0, "OK:RETVAL(0)", 1),
        ended(8.0),
    )
    (actor,) = timeline["actors"]
    assert actor["states"][1:] == [(3.0, "run"), (4.0, "away"), (6.0, "run"), (8.0, "done")]
    assert actor["attempts"][0]["away"] == [(4.0, 6.0, "reset by peer")]


def test_a_program_that_waits_for_a_state_is_shown_apart():
    timeline = told(
        assigned(),
        entered("run:a", "run:b"),
        CommandUsed(START + 7.5, 0, 1, 1, {"cpu_s": 1.0, "wait_s": 2.5}),
        replied(8.0, "OK:RETVAL(0)", 1),
        CommandUsed(START + 9.0, 0, 1, 2, {"cpu_s": 1.0}),
        CommandUsed(START + 9.0, 0, 1, 7, {"wait_s": 1.0}),
        replied(9.0, "OK:RETVAL(0)", 2),
        ended(9.0),
    )
    (actor,) = timeline["actors"]
    assert actor["states"][1:] == [(3.0, "wait"), (5.5, "run"), (9.0, "done")]
    assert actor["attempts"][0]["waits"] == [(3.0, 5.5, "run")]
    rows = csv.DictReader(csv_lines(timeline))
    assert [(row["name"], row["seconds"]) for row in rows if row["what"] == "wait"] == [
        ("run", "2.5")
    ]


def test_a_restart_of_the_coordinator_is_away():
    timeline = told(
        assigned(), entered("run:"), Resumed(START + 9.0, START + 4.0), until=12.0, ended=False
    )
    (actor,) = timeline["actors"]
    assert actor["states"][1:] == [(3.0, "run"), (4.0, "away")]
    assert actor["attempts"][0]["away"] == [(4.0, None, "the coordinator was not running")]


def test_a_journal_of_before_tells_by_the_next_reply_that_a_worker_is_back():
    timeline = told(
        assigned(), Resumed(START + 6.0, START + 4.0), replied(8.0, "OK:RETVAL(0)", 1), ended(9.0)
    )
    states = timeline["actors"][0]["states"]
    assert states[1:] == [(3.0, "run"), (4.0, "away"), (8.0, "idle"), (9.0, "done")]
    assert not timeline["exact"]


def test_a_failed_attempt_is_followed_by_another_until_the_retries_are_used_up():
    lost = write_event(0, 2, Lost(START + 20.0, "gone"), [])
    first = [assigned(), entered("run:"), ended(9.0, "it broke")]
    again = [assigned(10.0, attempt=2, session="bb", launch=""), lost]
    (actor,) = told(*first, *again, ended(20.0, "gone", 2))["actors"]
    assert [state for _, state in actor["states"]] == [
        "waiting",
        "run",
        "waiting",
        "idle",
        "failed",
    ]
    assert [one["error"] for one in actor["attempts"]] == ["it broke", "gone"]
    (actor,) = told(*first, ended=False)["actors"]
    assert actor["states"][-1] == (9.0, "waiting")
    (actor,) = told(*first, *again, ended(20.0, "gone", 2, charged=False), ended=False)["actors"]
    assert actor["states"][-1] == (20.0, "waiting")


def test_a_worker_that_did_not_come_is_attempt_0():
    late = Launched("l1", "late", START + 30.0)
    timeline = told(*launched(), late, *[NobodyCame(START + at, 0, "late") for at in (30.0, 40.0)])
    (actor,) = timeline["actors"]
    assert [one["attempt"] for one in actor["attempts"]] == [0, 0]
    assert actor["states"] == [(0.0, "waiting"), (40.0, "failed")]
    assert timeline["unused"] == [
        {"launched": 1.0, "accepted": 1.5, "hello": None, "answer": "late"}
    ]


def test_a_job_that_is_stopped_cancels_its_actors():
    timeline = told(
        assigned(), Stopped(START + 9.0, "cancelled", "by request"), ended(9.5, "x"), actors=2
    )
    assert [one["states"][-1] for one in timeline["actors"]] == [
        (9.5, "cancelled"),
        (9.0, "cancelled"),
    ]
    stopped = Stopped(START + 9.0, "failed", "too dear")
    timeline = told(assigned(), stopped, ended(9.5, "x"), actors=2)
    assert [one["states"][-1] for one in timeline["actors"]] == [
        (9.5, "failed"),
        (9.0, "cancelled"),
    ]


def test_a_spare_takes_over_without_a_start_of_its_own():
    spare = Arrived(START + 2.0, "bb", "l2", True)
    (actor,) = told(
        *launched(launch="l2"), spare, assigned(5.0, session="bb", launch="l2"), until=7.0
    )["actors"]
    assert actor["states"] == [(0.0, "waiting"), (5.0, "idle")]
    assert (actor["attempts"][0]["spare"], actor["attempts"][0]["hello"]) == (True, 2.0)


@pytest.mark.parametrize("wins", [1, 2])
def test_the_winner_of_a_straggler_and_its_spare_is_shown(wins):
    second = assigned(6.0, attempt=2, session="bb", launch="")
    both = [assigned(), entered("run:"), second, entered("echo:x", at=6.0, attempt=2)]
    beaten = "another attempt at its actor finished first"
    ends = [ended(9.0, attempt=wins), ended(9.0, beaten, attempt=3 - wins)]
    (actor,) = told(*both, *ends)["actors"]
    shown = (
        [(3.0, "run"), (9.0, "done")] if wins == 1 else [(3.0, "run"), (6.0, "echo"), (9.0, "done")]
    )
    assert actor["states"][1:] == shown
    assert [one["straggler"] for one in actor["attempts"]] == [False, True]
    (actor,) = told(*both, ended=False)["actors"]
    assert actor["states"][1:] == [(3.0, "run")]


# ---------------------------------------------------------------- whole jobs


def test_a_page_has_the_actors_after_a_number():
    both = [assigned(actor=n, session=f"s{n}", launch="") for n in range(4)]
    sent = [write_event(n, 1, Entered(START + 3.0), [Send("run:")]) for n in range(4)]
    timeline = told(
        *both, *sent, *[ended(5.0, actor=n) for n in range(4)], actors=5, after=1, most=2
    )
    assert [one["actor"] for one in timeline["actors"]] == [2, 3]
    assert all(one["states"][1:] == [(3.0, "run"), (5.0, "done")] for one in timeline["actors"])


def test_only_the_actors_that_an_order_chose_are_there():
    order = Ordered(START, "u", {"actors": [4, 2]}, "", "d")
    plan = Planned([{}] * 5, [2, 4])
    course = JobCourse().read(map(write_record, [order, plan]))
    assert list(course.actors) == [2, 4]


def test_a_job_that_runs_and_its_journal_tell_the_same():
    """The session writes what the timeline needs, over a connection that is lost and resumed."""
    job = make_job(Two)
    job.ledger = journal = HeldJournal()
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    line = port.join(hello=hello())
    journal.sync()
    port.clock.advance(1)
    line.say(b"RE:1:OK:ECHO(1)")
    line.hang_up()
    port.clock.advance(2)
    again = port.join(hello=hello(received=[b"echo:1", b"echo:2"], sent=1))
    port.clock.advance(1)
    again.say(b"RE:2:OK:ECHO(2)")
    journal.sync()
    records = [write_record(ORDERED), write_record(Planned([{}], [0])), *journal.lines(job.id)]
    course = JobCourse().read(records)
    (attempt,) = course.actors[0].attempts
    assert [(one.name, one.ended - one.sent) for one in attempt.commands[:2]] == [
        ("echo", 1),
        ("echo", 3),
    ]
    assert [(one.ended - one.began, "is gone" in one.reason) for one in attempt.breaks] == [
        (2, True)
    ]
    assert [name for _, name in attempt.states] == ["Two", "Leave", "TerminalState"]
    assert course.actors[0].state == "done"


def test_a_journal_of_an_earlier_version_shows_what_it_has(tmp_path):
    dump = Path(__file__).parents[1] / "real" / "data" / "journal-0.1.0.sql"
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        database.executescript(dump.read_text())
    with closing(Archive(tmp_path / "journal.db", read_only=True)) as archive:
        for job in archive.jobs():
            course = JobCourse().read(archive.lines(job))
            timeline = tupled(json.loads(timeline_json(job, course, course.last, True, True)))
            attempts = [one for actor in timeline["actors"] for one in actor["attempts"]]
            commands = [one for attempt in attempts for one in attempt["commands"]]
            assert not timeline["exact"]
            answered = [one for one in commands if one[4] == "ok"]
            assert answered
            assert {one[0] for one in answered} <= {
                "echo",
                "set",
                "seti",
                "run",
                "retrieve",
                "upload",
            }
            assert all(one[2] <= one[3] for one in answered)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('["happened",0,1,"",["answered"]]', "is not a record"),
        ('["happened",0,7,"",["answered",1.0,"OK",1]]', "is not a record"),
        ('["launched","nobody","accepted",2.0]', "does not fit the records before it"),
        ('["gone",1]', "is not a record"),
        (write_record(Incomplete("2 of its groups of records are lost")), "groups of records"),
    ],
)
def test_a_damaged_record_is_refused(line, why):
    with pytest.raises(ValueError, match=why):
        told(line)


# ---------------------------------------------------------------- tables and traces


def failing():
    return told(
        *launched(),
        assigned(),
        entered("retrieve:k\0f"),
        Disconnected(START + 4.0, 0, 1, "reset"),
        Reconnected(START + 5.0, 0, 1),
        replied(6.0, "FAIL(=1+1)", 1, states=["Broken"]),
        ended(6.0, "=cmd"),
    )


def test_a_table_has_a_row_for_each_thing_that_happened():
    rows = list(csv.DictReader("".join(csv_lines(failing())).splitlines()))
    assert [(row["what"], row["name"], row["begin"], row["end"]) for row in rows] == [
        ("start", "", "1.5", "3.0"),
        ("attempt", "", "3.0", "6.0"),
        ("state", "Broken", "6.0", "6.0"),
        ("command", "retrieve", "3.0", "6.0"),
        ("away", "", "4.0", "5.0"),
    ]
    assert rows[0]["seconds"] == "2.0"
    assert {row["worker"] for row in rows} == {"aa"}


def test_no_text_of_a_worker_is_a_formula_in_a_spreadsheet():
    rows = list(csv.DictReader("".join(csv_lines(failing())).splitlines()))
    assert [row["outcome"] for row in rows] == ["", "'=cmd", "", "'=1+1", "reset"]


def test_on_a_terminal_a_table_has_no_terminal_commands(monkeypatch):
    told = failing()
    told["actors"][0]["attempts"][0]["error"] = "\x1b]0;owned\x07"
    monkeypatch.setattr("mu.cli.timeline._found", lambda job: ({"id": job}, told))
    for to_terminal in (True, False):
        with CliRunner().isolation() as (printed, *_):
            monkeypatch.setattr(sys.stdout, "isatty", lambda to=to_terminal: to)
            trace.main(["j1"], standalone_mode=False)
            sys.stdout.flush()
            text = printed.getvalue().decode()
        assert "owned" in text
        assert ("\x1b" in text) is not to_terminal


def test_a_chrome_trace_has_a_thread_for_each_actor():
    trace = json.loads(json.dumps(chrome_trace(failing())))
    slices = [one for one in trace["traceEvents"] if one["ph"] == "X"]
    assert [(one["name"], one["ts"], one["dur"]) for one in slices] == [
        ("cold start", 1_000_000, 2_000_000),
        ("retrieve", 3_000_000, 3_000_000),
        ("away", 4_000_000, 1_000_000),
        ("failed", 6_000_000, 0),
    ]
    threads = {one["tid"] for one in slices if one["name"] != "away"}
    assert threads == {0}
    names = [one["args"]["name"] for one in trace["traceEvents"] if one["name"] == "thread_name"]
    assert names == ["actor 0", "actor 0 (2)"]


def test_slices_of_a_thread_never_overlap():
    timeline = told(
        assigned(),
        entered("run:", "run:", "run:"),
        *[replied(3.1, "OK:RUNNING(x)", n) for n in (1, 2, 3)],
        *[replied(9.0 - n, "OK:RETVAL(0)", n) for n in (1, 2, 3)],
        ended(9.0),
    )
    busy = {}
    for one in chrome_trace(timeline)["traceEvents"]:
        if one["ph"] == "X":
            assert one["ts"] >= busy.get(one["tid"], 0)
            busy[one["tid"]] = one["ts"] + one["dur"]
    assert len(busy) == 3


# ---------------------------------------------------------------- stages


def test_an_actor_is_blocked_until_those_before_it_have_ended():
    records = [
        *(assigned(1.0, 0, 1, "aa"), assigned(1.0, 1, 1, "bb")),
        *(ended(4.0, actor=1), ended(5.0, "no"), assigned(6.0, 0, 2, "cc"), ended(9.0, attempt=2)),
        *launched(9.5, 9.75, 10.0, "l3"),
        assigned(12.0, 2, 1, "dd", "l3"),
    ]
    after = [[[0, 1], [2]], [[2], [3]]]
    (*_, third, fourth) = told(*records, actors=4, rows=after, ended=False)["actors"]
    assert third["states"] == [
        *((0.0, "blocked"), (9.0, "waiting"), (9.75, "launching"), (10.0, "starting")),
        (12.0, "idle"),
    ]
    assert fourth["states"] == [(0.0, "blocked")]


def test_a_page_of_a_timeline_knows_the_ends_of_actors_that_it_leaves_out():
    records = [assigned(1.0), ended(4.0), assigned(6.0, 1, 1, "bb")]
    (second,) = told(*records, actors=2, rows=[[[0], [1]]], after=0)["actors"]
    assert second["states"][:2] == [(0.0, "blocked"), (4.0, "waiting")]


def test_a_worker_launched_ahead_starts_while_its_actor_is_blocked():
    records = [assigned(1.0), *launched(2.0, 2.5, 3.0, "l2"), ended(8.0)]
    records += [assigned(9.0, 1, 1, "bb", "l2")]
    (_, second) = told(*records, actors=2, rows=[[[0], [1]]], ended=False)["actors"]
    assert second["states"][:3] == [(0.0, "blocked"), (2.5, "launching"), (3.0, "starting")]


def test_an_actor_that_could_not_begin_has_failed():
    records = [assigned(1.0), ended(2.0, "no"), assigned(3.0, 0, 2), ended(4.0, "no", 2)]
    records.append(Skipped(START + 4.5, 1, "it could not begin"))
    (_, second) = told(*records, actors=2, rows=[[[0], [1]]])["actors"]
    assert second["states"] == [(0.0, "blocked"), (4.0, "waiting"), (4.5, "failed")]
