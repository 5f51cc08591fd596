"""What the command line prints about jobs and actors."""

import doctest
import io
import time

import pytest
from rich.console import Console

from mu.cli import deploy, doctor
from mu.cli.display import failures, outline, progress, tables, text
from mu.jobs.overview import Glance, overview


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


def test_the_failure_of_an_actor_is_shown_before_those_of_the_actors_that_waited_for_it():
    why = failures.COULD_NOT_BEGIN + "actor 0, which it waits for, failed"
    skipped = [actor(n, "failed", error=why, attempt=0) for n in range(1, 9)]
    told = shown(failures.failures([actor(0, "failed", error="e"), *skipped], ENDED))
    assert told[:3] == ["Actor 0 failed:", "e", "8 actors (1-8) failed:"]
    assert told[-1] == "Output of actor 0: mu log x -a 0"


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


def test_cancelled_actors_were_not_retried_for_that():
    cancelled = actor(0, "cancelled", error="by request", failures=[failure(1, "by request")])
    assert shown(failures.retried([cancelled])) == []
    again = actor(
        1, "cancelled", error="by request", failures=[failure(1, "gone"), failure(2, "by request")]
    )
    waiting = actor(2, "cancelled", error="by request", failures=[failure(1, "gone")])
    assert shown(failures.retried([cancelled, again, waiting])) == [
        "2 actors (1-2) were retried:",
        "gone",
    ]
    label = "ErrorState by request"
    rows = tables.workers_table([cancelled | {"label": label}], 100.0)
    assert "at" not in [column.header for column in rows.columns]


def job(counts=(0, 0, 0, 0), inputs=None, **more):
    """Return a job whose actors are in these states: failed, running, waiting, done."""
    states = dict(zip(("failed", "running", "waiting", "done"), counts, strict=True))
    total, done, failed = inputs or (sum(counts), states["done"], states["failed"])
    told = {"id": "j1", "pipeline": "map", "workers": sum(counts), "state": "running"}
    told |= {"counts": states, "created": 100.0, "first_hello": 100.0, "finished": None}
    return told | {"inputs": {"total": total, "done": done, "failed": failed}, "error": None} | more


def overview_of(told, *actors):
    return overview(told, map(Glance.read, actors))


def printed(shown, width=80):
    """Return the lines of what is shown on a terminal of that width."""
    terminal = io.StringIO()
    Console(width=width, file=terminal, force_terminal=True, color_system=None).print(shown)
    return [line.rstrip() for line in terminal.getvalue().splitlines()]


def test_progress_shows_what_actors_wait_for_and_for_how_long():
    actors = [actor(n, waits_for="a program to end", since=100.0 - n) for n in range(3)]
    actors += [actor(3, "waiting", label="", waits_for="a worker"), actor(4, "done", label="Final")]
    told = overview_of(job((0, 3, 1, 1)), *actors)
    assert progress.waits(told, 105.0) == [
        (3, "Convert: waiting for a program to end, up to 7.0 s"),
        (1, "waiting for a worker, 5.0 s"),
    ]


@pytest.mark.parametrize("workers", [1, 22, 300, 10_000])
def test_an_overview_fits_80_columns_and_its_numbers_add_up(workers):
    running, done = workers - workers // 3, workers // 3
    actors = [actor(n, label=f"state {n % 9}", waits_for="x" * n) for n in range(running)]
    told = overview_of(job((0, running, 0, done), (workers * 50, workers * 20, 3)), *actors)
    lines = printed(progress.progress(told, 200.0, 12.0))
    assert max(map(len, lines)) <= 80
    assert f"{workers * 20 + 3}/{workers * 50}" in "".join(lines)
    numbered = [line for line in lines if line[:7].strip().isdecimal() and "inputs" not in line]
    shown = [int(line[:7]) for line in numbered]
    assert sum(shown) == running
    left = text.span((workers * 30 - 3) / 12)
    assert f"; 12/s, about {left} left" in progress.progress_line(told, 200.0, 12.0)
    assert any(line.endswith(f"12/s, about {left} left") for line in lines)


def test_the_pace_is_that_of_the_last_minute():
    pace = progress.Pace()
    assert pace.note(job((0, 5, 0, 0)), 100.0) == 0
    assert pace.note(job((0, 5, 0, 0), (100, 10, 0)), 105.0) == 2.0  # since the first hello
    for at in range(106, 200):
        rate = pace.note(job((0, 5, 0, 0), (1000, 10 + (at - 105) * 5, 5)), float(at))
    assert 5.0 <= rate <= 5.1
    assert pace.note(job((0, 5, 0, 0), (1000, 0, 0)), 200.0) == 0  # actors were retried
    assert [progress.rate(one) for one in (123.4, 2.5, 0.5, 0.001)] == [
        *("123/s", "2.5/s", "30/min", "3.6/h")
    ]


def test_lists_fit_80_columns():
    named = [
        job((3, 200, 100, 9000), (10**6, 400_000, 17), id="0123456789ab", name="x" * 90),
        job((3, 200, 100, 9000), id="0123456789ab", pipeline="ffmpeg_split_upload"),
        job((1, 0, 0, 0), id="0123456789ab", state="cancelled", finished=90000.0),
    ]
    rows = printed(tables.jobs_table(named, 900000.0))
    assert max(map(len, rows)) <= 80
    assert "400017/100000…" in rows[1]
    told = {"total": 1000, "done": 400, "failed": 30}
    busy = [
        actor(n, state, attempt=2, inputs=told, waits_for="w" * 50, last_reply="r" * 200)
        for n, state in ((9999, "running"), (0, "waiting"), (3, "failed"))
    ]
    rows = printed(tables.workers_table(busy, 9000.0))
    assert max(map(len, rows)) <= 80
    assert "430/1000" in rows[1]


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
        *("actor", "state", "at", "heard", "last reply")
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


def test_a_spinner_erases_only_itself(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = io.StringIO()
    made = [Console(file=terminal, force_terminal=True, width=80) for _ in range(2)]
    monkeypatch.setattr(text, "console", lambda stderr=False: made[stderr])
    finding = {"check": "port", "level": "ok", "sentence": "it is open", "remedy": ""}

    def findings():
        until = time.monotonic() + 60
        while "Checking" not in terminal.getvalue() and time.monotonic() < until:
            time.sleep(0.01)  # a thread draws the spinner
        yield from [finding] * 3

    list(doctor._shown(findings(), False))
    lines = [line.rpartition("\x1b[2K")[2] for line in terminal.getvalue().split("\n")]
    assert sum("it is open" in line for line in lines) == 3
    assert not [line for line in lines if "it is open" in line and "Checking" in line]


def test_a_spinner_is_not_printed_into_a_pipe(monkeypatch, capsys):
    with deploy._progress(text.console()) as report:
        report("Looking up f")
    assert capsys.readouterr() == ("", "Looking up f\n")
