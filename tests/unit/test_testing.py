"""What authors of pipelines test with."""

import pytest

from mu.events import Elapsed, Finish
from mu.pipelines.hello import hello
from mu.pipelines.png2y4m import png2y4m
from mu.plugins import Pipeline
from mu.testing import FakeWorker, machine, play, run


def test_a_fake_worker_answers_as_a_worker_would():
    worker = FakeWorker()
    assert worker.answer("set:a:x:y") == ["OK:SET(a)"]
    assert worker.answer("get:a") == ["OK:GET(x:y)"]
    assert worker.answer("geti:a") == ["INFO:a:x:y", "OK:GETI(a)"]
    assert worker.answer("run:ls") == ["OK:RETVAL(0):OUTPUT():COMMAND(ls)"]
    assert worker.answer("seti:nonblock:1") == ["OK:SETI(nonblock)"]
    assert worker.answer("run:ls")[0] == "OK:RUNNING(ls)"
    assert worker.answer("seti:bg_silent:1") == ["OK:SETI(bg_silent)"]
    assert len(worker.answer("upload:")) == 1
    assert worker.answer("quit:") == []
    assert worker.answer("nonsense:")[0].startswith("FAIL(")


def test_the_longest_key_says_what_a_fake_worker_answers():
    worker = FakeWorker({"run:": "OK:RETVAL(1)", "run:ls": lambda command: [command, "b"]})
    assert worker.answer("run:x") == ["OK:RETVAL(1)"]
    assert worker.answer("run:ls -l") == ["run:ls -l", "b"]


def test_a_whole_job_is_played():
    job = run(hello, {"text": "hi"}, workers=3)
    assert [actor.commands for actor in job.actors] == [
        [f"echo:hi from actor {n}", "quit:"] for n in range(3)
    ]
    assert job.result == {"said_hello": 3}


def test_a_job_is_played_with_what_goes_wrong():
    job = run(png2y4m, {}, {"retrieve:": "FAIL(no such key)"})
    assert "no such key" in job.actors[0].finish.error
    assert job.result == {"keys": []}


def test_timers_elapse_when_nothing_else_happens():
    async def script(worker):
        await worker.sleep(60)

    played = play(machine(script))
    assert isinstance(played.events[-1], Elapsed)
    assert played.events[-1].at == 60.0
    assert played.finish == Finish()


def test_a_fake_worker_retrieves_and_uploads_in_the_background_if_told_to():
    worker = FakeWorker()
    assert worker.answer("retrieve:") == ["OK:RETRIEVE(bucket/key)"]
    worker.answer("seti:nonblock:1")
    started, ended = worker.answer("upload:")
    assert (started[:12], ended) == ("OK:UPLOADING", "OK:UPLOAD(bucket/key)")
    assert worker.answer("close_connect:") == ["OK:CLOSE_CONNECT"]


def test_each_actor_has_a_fake_worker_of_its_own():
    class Remember(Pipeline):
        name = "remember"

        def begin(self, worker):
            return remember(worker)

        def finish(self, job, outcomes):
            return [outcome.result for outcome in outcomes]

    async def remember(worker):
        before = await worker.get("a")
        await worker.set("a", "x")
        return before

    for worker in (FakeWorker(), {}, lambda actor: FakeWorker(), None):
        assert run(Remember(), {}, worker, workers=2).result == ["", ""]


def test_a_timer_that_is_cancelled_does_not_elapse():
    async def script(worker):
        await worker.within(5, worker.ask("echo:a"))

    played = play(machine(script))
    assert not [event for event in played.events if isinstance(event, Elapsed)]
    assert played.finish == Finish()


def test_a_machine_that_never_ends_is_stopped(monkeypatch):
    async def script(worker):
        while True:
            await worker.ask("echo:a")

    monkeypatch.setattr("mu.testing.COMMAND_LIMIT", 10)
    with pytest.raises(OverflowError, match="over 10 commands"):
        play(machine(script))


def test_an_actor_that_waits_for_ever_has_no_end():
    async def script(worker):
        await worker.wait_info("never")

    assert play(machine(script)).finish is None
