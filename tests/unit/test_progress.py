"""The progress that actors report, and what users see of it."""

import pytest
from kit.journal import HeldJournal
from kit.parts import Port, make_job, make_spec, recorded_job
from kit.states import Two, hello

from mu.events import Answered, Entered
from mu.jobs.recovery import recover
from mu.journal.records import Planned, read_record, write_record
from mu.pipelines.map import map_pipeline
from mu.pipelines.png2y4m import png2y4m
from mu.states import Context, JobFacts, Progress
from mu.states.context import SOURCES_LIMIT
from mu.testing import FakeWorker, effects_of, machine, play, run, talk


async def three(worker):
    for done in range(3):
        worker.progress(done, 3, failed=done // 2)
        await worker.ask(f"echo:{done}")
    worker.progress(3, 3, failed=1)


def test_progress_is_no_effect():
    async def silent(worker):
        for done in range(3):
            await worker.ask(f"echo:{done}")

    said = ["OK:HELLO", "OK:ECHO(0)", "OK:ECHO(1)", "OK:ECHO(2)"]
    assert talk(three, *said) == talk(silent, *said)
    told = play(machine(three)).progress
    assert told == [Progress(0, 3), Progress(1, 3), Progress(2, 3, 1), Progress(3, 3, 1)]


@pytest.mark.parametrize("wrong", [(2, 1), (-1, 1), (1, 2, 2), (0.5, 1), (True, 1), (0, 10**16)])
def test_progress_that_cannot_be_fails_the_actor_and_says_why(wrong):
    async def script(worker):
        worker.progress(*wrong)

    error = talk(script, "OK:HELLO")[-1].error
    assert "0 <= failed <= done <= of, got " + repr(wrong[0]) in error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1/4", Progress(1, 4)),
        ("3/4/2", Progress(3, 4, 2)),
        *((text, None) for text in ("", "1", "5/4", "-1/4", "1/4/", "1/4/0/0", "a/b", "\u0661/4")),
        ("1/" + "9" * 5000, None),
    ],
)
def test_an_info_may_tell_progress_and_any_other_text_is_left_alone(text, told):
    driven = machine(Two)
    effects_of(driven, "OK:HELLO", f"INFO:progress:{text}")
    assert driven.worker.progressed == told
    assert driven.worker.info["progress"] == text


def first(worker, actor):
    return three(worker)


def job_of(script, workers=1, sizes=(), **spec):
    """Return a job with a journal, whose actors have those numbers of inputs, and its port."""
    job = recorded_job(make_spec(script, workers, **spec))
    job.ledger = HeldJournal()
    job.record(Planned([{} for _ in range(workers)], list(range(workers)), sizes=list(sizes)))
    job.begin()
    return job, Port(job, heartbeat_s=1000, silence_s=1000)


@pytest.mark.parametrize("said", range(4))
def test_progress_is_the_same_after_a_restart(said):
    job, port = job_of(first, 2, [3, 5])
    line = port.join(hello=hello())
    job.ledger.sync()
    for number in range(said):
        line.say(b"RE:%d:OK:ECHO(%d)" % (number + 1, number))
        job.ledger.sync()
    seen = [(8, 0, 0), (8, 1, 0), (8, 1, 1), (8, 2, 1)][said]
    told = dict(zip(("total", "done", "failed"), seen, strict=True))
    assert job.describe()["inputs"] == told
    again = recorded_job(make_spec(first, 2), job.id)
    again.ledger = HeldJournal()
    recover(again, job.ledger.records, 0.0)
    assert again.describe()["inputs"] == told
    assert [row["inputs"] for row in again.workers()] == [row["inputs"] for row in job.workers()]


def test_a_retry_begins_anew_and_all_inputs_of_a_failed_actor_have_failed():
    job, port = job_of(first, 1, [3], retries=1)
    totals = []
    for session in ("aa", "bb"):
        line = port.join(hello=hello(session))
        job.ledger.sync()
        line.say(b"RE:1:OK:ECHO(0)")
        totals.append(job.describe()["inputs"])
        line.say(b"RE:2:FAIL(no)")
        job.ledger.sync()
        totals.append(job.describe()["inputs"])
    before, begun, failed = (
        {"total": 3, "done": done, "failed": lost} for done, lost in ((0, 0), (1, 0), (0, 3))
    )
    assert totals == [begun, before, begun, failed]


def test_of_a_cancelled_actor_only_the_inputs_that_it_had_handled_count():
    job, port = job_of(first, 2, [3, 2])
    line = port.join(hello=hello())
    job.ledger.sync()
    line.say(b"RE:1:OK:ECHO(0)")
    job.stop("cancelled", "enough")
    job.ledger.sync()
    assert [actor.state for actor in job.actors] == ["cancelled", "cancelled"]
    assert job.describe()["inputs"] == {"total": 5, "done": 1, "failed": 0}


def test_an_actor_without_progress_has_one_input():
    job = make_job(Two, 2)
    line = Port(job).join(hello=hello())
    assert job.describe()["inputs"] == {"total": 2, "done": 0, "failed": 0}
    for number in (1, 2):
        line.say(b"RE:%d:OK:ECHO(%d)" % (number, number))
    assert job.describe()["inputs"] == {"total": 2, "done": 1, "failed": 0}


def test_records_of_earlier_versions_have_no_progress():
    record = Planned([{}], [0])
    assert read_record('["planned",[{}],[0]]') == record == read_record(write_record(record))


@pytest.mark.parametrize("ahead_mb", [0, 1])
def test_map_counts_its_keys_and_those_that_failed(ahead_mb):
    keys = ["a", "b", "c"]
    worker = FakeWorker({"run:rm -rf ##TMPDIR##/0": "OK:RETVAL(1):OUTPUT():COMMAND()"})
    played = play(
        machine(
            map_pipeline.begin,
            {"bucket": "b", "command": "true", "prefix": "", "suffix": "", "out_prefix": "o/"}
            | {"on_error": "keep", "ahead_mb": ahead_mb},
            given={"keys": keys},
        ),
        worker,
    )
    assert played.progress == [Progress(0, 3), Progress(1, 3), Progress(2, 3, 1), Progress(3, 3, 1)]
    assert map_pipeline.inputs({"keys": keys}) == keys


def test_png2y4m_counts_its_frames():
    (actor,) = run(png2y4m, {"frames": 3}).actors
    assert actor.progress == [Progress(done, 3) for done in range(4)]


def test_the_inputs_of_the_latest_commands_are_known_and_no_more_are_kept():
    worker = Context(JobFacts("j", {}), 0)
    for number in range(SOURCES_LIMIT + 1):
        worker.send("echo:x", source=f"key {number}")
    assert worker.source_of(1) == ""
    assert worker.source_of(SOURCES_LIMIT + 1) == f"key {SOURCES_LIMIT}"


def test_a_script_that_sleeps_says_so():
    async def patient(worker):
        await worker.sleep(5)

    made = machine(patient)
    made.receive(Entered(0.0))
    made.receive(Answered(0.0, "OK:HELLO"))
    assert made.expected == ["5 s to pass"]
