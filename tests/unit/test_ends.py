"""The ends of actors, in the order in which users get to know them."""

from types import SimpleNamespace

from mu.jobs.ends import ShownEnds, ends_of


def actor(number, state="done"):
    error = None if state == "done" else "no\udcff luck"
    return SimpleNamespace(number=number, state=state, result=number * 10, error=error)


def test_ends_are_numbered_as_they_come():
    ends = ShownEnds()
    for one in (actor(2), actor(0, "failed"), actor(1)):
        ends.add(one)
    assert [(row["n"], row["actor"]) for row in ends.after(0)] == [(1, 2), (2, 0), (3, 1)]
    assert [row["actor"] for row in ends.after(1, limit=1)] == [0]
    assert ends.after(1)[0]["error"] == "no\ufffd luck"
    assert ends.after(3) == ends.after(99) == []


def test_whoever_waits_is_told_of_the_next_end_and_of_the_jobs_unless_he_left():
    ends, told = ShownEnds(), []
    for name in "ab":
        ends.next().addCallback(lambda _, name=name: told.append(name))
    leaving = ends.next()
    leaving.addErrback(lambda failure: told.append("cancelled"))
    leaving.cancel()
    ends.add(actor(0))
    ends.next().addCallback(lambda _: told.append("c"))
    ends.close()
    assert told == ["cancelled", "a", "b", "c"]


def test_a_job_of_an_earlier_run_of_the_daemon_has_the_same_order():
    rows = [
        {"actor": 0, "since": 7.0, "state": "done", "result": 1, "error": None, "label": ""},
        {"actor": 1, "since": 5.0, "state": "failed", "result": None, "error": "x", "label": ""},
    ]
    assert ends_of(rows) == [
        {"n": 1, "actor": 1, "state": "failed", "result": None, "error": "x"},
        {"n": 2, "actor": 0, "state": "done", "result": 1, "error": None},
    ]
