"""What the command line prints about jobs and actors."""

import doctest

from mu.cli.display import failures, outline, progress, tables, text


def test_a_workers_output_cannot_control_the_terminal():
    assert (
        text.clean("a\x1b]0;title\x07b\tc\nd\u202e\udcff")
        == "a\ufffd]0;title\ufffdb c\nd\ufffd\ufffd"
    )


def test_times_have_at_most_two_units():
    seconds = [0.051, 0.999, 5.94, 12.3, 59.4, 60, 185, 3600, 7800, 90000]
    assert [text.span(s) for s in seconds] == [
        *("0.05 s", "1.0 s", "5.9 s", "12 s", "59 s", "1 min", "3 min 5 s"),
        *("1 h", "2 h 10 min", "1 d 1 h"),
    ]
    assert [text.ago(s) for s in (-5, 0.2, 12.9, 60, 7300, 200000)] == [
        *("just now", "just now", "12 s ago", "1 min ago", "2 h ago", "2 d ago"),
    ]


def actor(number, state="running", **more):
    told = {"actor": number, "state": state, "label": "Convert", "attempt": 1, "since": 100.0}
    told |= {"waits_for": None, "last_reply": "", "error": None, "result": None, "failures": []}
    return told | more


def failure(attempt, error):
    return {"attempt": attempt, "at": 1.0, "label": "", "last_reply": "", "error": error}


ENDED = {"id": "x", "state": "failed", "error": "1 of 3 actors failed: actor 3: why"}


def shown(parts):
    return [str(getattr(part, "renderable", part)) for part in parts]


def test_the_same_failure_of_many_actors_is_shown_once():
    gone = "Convert: its worker at 127.0.0.1:{} is gone: it closed the connection"
    lost = [actor(n, "failed", error=gone.format(5000 + n)) for n in (0, 1, 2, 5)]
    other = [actor(n + 10, "failed", error=f"e{n}") for n in range(9)]
    told = shown(failures.failures(other + lost, ENDED))
    assert told[0] == "4 actors (0-2, 5) failed:"
    assert told[1] == "Convert: its worker is gone: it closed the connection"
    assert told[2:4] == ["Actor 10 failed:", "e0"]
    assert told[-2] == "5 more actors failed: mu workers x --state failed"


def test_a_failure_is_shown_with_the_last_reply_and_earlier_failures():
    late = "Convert: its worker took longer than 4 s"
    before = [failure(0, "no worker came"), failure(1, late.replace("4", "5")), failure(2, late)]
    one = actor(3, "failed", error=f"{late} (after 3 attempts)", failures=before)
    told = shown(failures.failures([one | {"last_reply": "OK:SET(a)"}], ENDED))
    assert told[:2] == ["Actor 3 failed:", f"{late} (after 3 attempts)"]
    assert told[2:-1] == [
        "Last reply: 'OK:SET(a)'",
        "Before the first attempt: no worker came",  # attempt 1 is the same but for a number
    ]
    said = one | {"error": "expected 'x', but the worker answered 'OK:SET(a)'", "failures": []}
    assert len(failures.failures([said | {"last_reply": "OK:SET(a)"}], ENDED)) == 3


def test_actors_that_were_stopped_with_the_job_come_last():
    stopped = [actor(n, "failed", error=f"Convert: {ENDED['error']}") for n in range(2)]
    told = shown(failures.failures([*stopped, actor(3, "failed", error="Convert: why")], ENDED))
    assert told == [
        *("Actor 3 failed:", "Convert: why"),
        *("2 actors (0-1) failed:", "Convert: stopped when the job ended"),
        "Output of actor 3: mu log x -a 3",
    ]
    told = text.ended(ENDED | {"created": 1.0, "finished": 2.0, "workers": 3})
    assert told == "Job x failed after 1.0 s: 1 of 3 actors failed."


def test_retried_actors_are_shown_with_the_reason():
    again = [actor(n, failures=[failure(1, "gone")], attempt=2) for n in (1, 2)]
    assert shown(failures.retried([actor(0), *again])) == [
        "2 actors (1-2) were retried:",
        "gone",
    ]


def test_progress_shows_what_actors_wait_for_and_for_how_long():
    actors = [actor(n, waits_for="OK:RETVAL(0)", since=100.0 - n) for n in range(3)]
    actors += [actor(3, "waiting", label="", waits_for="a worker"), actor(4, "done", label="Final")]
    assert progress.waits(actors, 105.0) == [
        (3, "Convert: waiting for OK:RETVAL(0), up to 7.0 s"),
        (1, "waiting for a worker, 5.0 s"),
    ]


def test_a_failed_actor_is_shown_with_the_state_before():
    table = tables.workers_table(
        [
            actor(0, "failed", label="ErrorState why: so", error="Convert (a): why: so"),
            actor(1, "failed", label="Fetch", error="a fault"),
        ],
        100.0,
    )
    assert [str(cell) for cell in table.columns[2].cells] == ["Convert (a)", "Fetch"]
    assert [column.header for column in table.columns] == [
        *("actor", "state", "at", "last event", "last reply")
    ]


def test_a_result_is_written_out_line_by_line():
    assert not doctest.testmod(outline).failed
    rows = [{"key": f"k{number}", "tail": "two\nlines", "parts": [1, 2]} for number in range(22)]
    lines = list(outline.outline({"failures": rows, "none": [], "empty": "", "ok": True}, "  "))
    assert lines[:6] == [
        "  failures:",
        "    - key: k0",
        "      tail: two lines",
        "      parts:",
        "        - 1",
        "        - 2",
    ]
    assert lines[-4:] == ["    … and 2 more", "  none: []", '  empty: ""', "  ok: true"]
    assert list(outline.outline(5)) == ["5"]


def test_the_most_that_a_job_can_have_cost_is_shown_if_it_is_more():
    job = {"cost_usd": 0.00124, "cost_usd_at_most": 0.00121}
    assert (text.cost(job), text.short_cost(job)) == ("$0.0012", "$0.0012")
    job["cost_usd_at_most"] = 7.8
    assert text.cost(job) == "$0.0012 (at most $7.8000)"
    assert text.short_cost(job) == "$0.0012-7.8000"
    failed = {"id": "x", "state": "failed", "error": "why", "created": 0.0, "finished": 2.0}
    assert text.ended(failed | job).endswith(
        "failed after 2.0 s: why. It cost $0.0012 (at most $7.8000)."
    )
    del job["cost_usd_at_most"]  # from an older daemon
    assert text.cost(job) == "$0.0012"
    assert text.cost(job | {"cost_usd": None}) == ""
