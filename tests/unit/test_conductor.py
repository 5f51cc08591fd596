"""A job's course, from its order to its end, with time and the engine in the test's hands."""

import gc
import json
import weakref
from dataclasses import replace
from io import BytesIO

import pytest
from kit.conductor import Bench, Leave, Patient
from kit.journal import HeldJournal
from kit.parts import OneState, Threads, make_spec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import capturedLogs
from twisted.web.test.requesthelper import DummyRequest

from mu.access import Access
from mu.aws.s3 import S3Place
from mu.config import Config, LaunchSection
from mu.control import Control
from mu.home import Tokens
from mu.interfaces import IPipeline
from mu.invocations import Accepted, Refused, Unknown
from mu.messages import Hello
from mu.page.feed import Feeds
from mu.pipelines.dealing import deal
from mu.plugins import JobFailed
from mu.registry import Registry


def test_a_job_that_nobody_hinders_is_done():
    bench = Bench()
    job = bench.start(workers=2)
    assert job.state == "running"
    assert len(bench.engine.asked) == 2
    for _ in range(2):
        line = bench.port.join(job.id)
        assert line.heard == [b"quit:"]
        line.hang_up()
    assert (job.state, job.error, job.result) == ("done", None, [None, None])
    assert bench.reactor.getDelayedCalls() == []


def test_a_job_is_launching_until_all_is_answered():
    waiting = Deferred()
    job = Bench(waiting).start()
    assert job.state == "launching"
    waiting.callback(Accepted())
    assert job.state == "running"


def test_a_refusal_fails_the_job_with_its_reason_and_stops_launching():
    bench = Bench(Refused("AccessDenied: no"))
    job = bench.start(workers=500)
    assert (job.state, job.error) == (
        "failed",
        "engine scripted refused to launch: AccessDenied: no",
    )
    assert len(bench.engine.asked) == 1


def test_an_unknown_launch_may_still_bring_its_worker():
    bench = Bench(Unknown("timed out"))
    job = bench.start()
    assert job.launches.counts == {"unknown": 1}
    bench.port.join(job.id)
    assert job.state == "done"


def test_workers_that_never_come_fail_their_actors():
    bench = Bench()
    job = bench.start(workers=2)
    bench.reactor.advance(121)
    assert job.state == "failed"
    assert job.error.startswith(
        "2 of 2 actors failed: actors 0, 1: no worker connected within 120 s of its launch: "
    )
    assert "the log of function 'one'" in job.error
    assert "reach 127.0.0.1:" in job.error


def test_the_address_that_workers_cannot_reach_is_told_as_people_write_it():
    bench = Bench(config=replace(Config(), launch=LaunchSection(public_host="2001:db8::1")))
    job = bench.start()
    bench.reactor.advance(121)
    assert "workers can reach [2001:db8::1]:" in job.error


def test_the_deadline_stops_all_that_runs():
    bench = Bench()
    job = bench.start(Patient, workers=2, deadline_s=30.0)
    line = bench.port.join(job.id)
    line.let_pass(31)
    assert line.heard == [b"quit:"]
    assert (job.state, job.error) == ("failed", "the deadline of 30 s has passed")


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (
            ValueError("there is no bucket films"),
            "the plan of one failed: there is no bucket films",
        ),
        (KeyError("x"), "the plan of one failed: KeyError: 'x' ("),
    ],
)
def test_a_plan_that_raises_fails_the_job_with_a_sentence(monkeypatch, raised, says):
    def plan(self, params):
        raise raised

    monkeypatch.setattr(OneState, "plan", plan)
    with capturedLogs():
        job = Bench().start()
    assert job.state == "failed"
    assert job.error.startswith(says)


@pytest.mark.parametrize(
    ("planned", "says"),
    [
        ([], "nothing to do"),
        (None, "a list of dicts"),
        ([1], "a list of dicts"),
        ([{}] * 10_001, "has 10001 actors, but max_workers is 10000"),
    ],
)
def test_a_plan_that_is_none_fails_the_job(monkeypatch, planned, says):
    monkeypatch.setattr(OneState, "plan", lambda self, params: planned)
    with capturedLogs():
        job = Bench().start()
    assert job.state == "failed"
    assert says in job.error


def test_a_finish_can_fail_the_job_and_keep_its_result(monkeypatch):
    def finish(self, job, outcomes):
        raise JobFailed("1 of 2 texts is empty", [one.actor for one in outcomes])

    monkeypatch.setattr(OneState, "finish", finish)
    bench = Bench()
    job = bench.start(workers=2)
    for _ in range(2):
        bench.port.join(job.id).hang_up()
    assert (job.state, job.error, job.result) == ("failed", "1 of 2 texts is empty", [0, 1])


def test_a_finish_that_raises_fails_the_job(monkeypatch):
    def finish(self, job, outcomes):
        raise ValueError("no manifest")

    monkeypatch.setattr(OneState, "finish", finish)
    bench = Bench()
    job = bench.start()
    with capturedLogs():
        bench.port.join(job.id)
    assert (job.state, job.error) == ("failed", "the finish of one failed: no manifest")


def test_cancelling_while_launching_stops_it():
    waiting = [Deferred() for _ in range(64)]
    bench = Bench(*waiting)
    job = bench.start(workers=200)
    bench.conductor.cancel(job)
    for one in waiting:
        one.callback(Accepted())
    assert (job.state, job.error) == ("cancelled", "cancelled by request")
    assert len(bench.engine.asked) == 64
    assert bench.port.join(job.id).heard == [b"quit:"]


def test_an_external_job_launches_nothing_and_waits_for_its_workers():
    bench = Bench()
    job = bench.start(Leave, engine="external")
    assert json.loads(json.dumps(bench.conductor.event(job)))["job"] == job.id
    assert bench.engine.asked == []
    bench.reactor.advance(500)
    assert job.state == "running"
    bench.port.join(job.id)
    assert job.state == "done"


def test_stopping_the_daemon_cancels_what_runs():
    bench = Bench()
    job = bench.start(Patient)
    line = bench.port.join(job.id)
    bench.conductor.stop(keep=False)
    assert line.heard == [b"quit:"]
    assert (job.state, job.error) == ("cancelled", "the coordinator was stopped")


def test_a_job_that_is_stopped_before_its_order_is_on_disk_is_cancelled():
    journal = HeldJournal()
    bench = Bench(ledger=journal)
    started = []
    bench.conductor.start(make_spec(Patient, engine="scripted")).addCallback(started.append)
    bench.conductor.stop(keep=False)
    assert not started
    journal.sync()
    journal.sync()
    (job,) = started
    assert (job.state, job.error) == ("cancelled", "the coordinator was stopped")
    assert bench.engine.asked == []
    assert bench.reactor.getDelayedCalls() == []


def test_an_engine_that_raises_fails_the_job_with_its_words():
    with capturedLogs():
        job = Bench(fail(RuntimeError("out of coal"))).start()
    assert job.state == "failed"
    assert job.error == "a fault in mu: out of coal"


def actors_of(bench, job):
    """Connect a worker for each actor; return their numbers in the order in which they came."""
    welcomes = []
    for launch in job.launches:
        line = bench.port.join(job.id, Hello(launch, launch))
        welcomes.append(int(line.heard[0].split(b":")[1]))
    return welcomes


def test_only_the_actors_that_were_asked_for_run():
    bench = Bench()
    job = bench.start(workers=13, actors=(12, 0, 7))
    assert len(bench.engine.asked) == 3
    assert actors_of(bench, job) == [0, 7, 12]
    assert [actor.number for actor in job.actors] == [0, 7, 12]
    assert job.facts.actors == 13
    assert job.state == "done"


def test_an_actor_that_is_not_planned_fails_the_job():
    with capturedLogs():
        job = Bench().start(workers=3, actors=(5,))
    assert job.error == "the plan of one failed: actor 5 was ordered, but it has only actors 0 to 2"


def test_a_pipeline_may_give_another_order(monkeypatch):
    monkeypatch.setattr(OneState, "order", lambda self, params, n: deal(n, 5), raising=False)
    bench = Bench()
    assert actors_of(bench, bench.start(workers=8)) == [0, 5, 1, 6, 2, 7, 3, 4]


def test_an_order_that_is_none_fails_the_job(monkeypatch):
    monkeypatch.setattr(OneState, "order", lambda self, params, n: [0, 0], raising=False)
    with capturedLogs():
        job = Bench().start(workers=2)
    assert "order() must name each actor once, got [0, 0]" in job.error


class SlowThreads(Threads):
    """A thread pool that works when it is told to."""

    def __init__(self):
        self.waiting = []

    def callInThreadWithCallback(self, tell, call, *args):
        if call.__name__ == "finish":
            self.waiting.append((tell, call, args))
        else:
            super().callInThreadWithCallback(tell, call, *args)

    def work(self):
        for tell, call, args in self.waiting:
            super().callInThreadWithCallback(tell, call, *args)


@pytest.mark.parametrize(
    ("how", "ended"),
    [
        (lambda bench, job: bench.conductor.cancel(job), ("cancelled", "cancelled by request")),
        (
            lambda bench, job: bench.reactor.advance(601),
            ("failed", "the deadline of 600 s has passed"),
        ),
    ],
)
def test_a_finish_that_takes_too_long_can_be_ended(how, ended):
    bench = Bench()
    bench.threads = threads = SlowThreads()
    job = bench.start()
    bench.port.join(job.id)
    assert job.state == "running"
    how(bench, job)
    assert (job.state, job.error) == ended
    threads.work()
    assert (job.state, job.error) == ended


def test_a_finish_that_returns_no_json_value_fails_the_job(monkeypatch):
    monkeypatch.setattr(OneState, "finish", lambda self, job, outcomes: {1, 2})
    bench = Bench()
    job = bench.start()
    with capturedLogs():
        bench.port.join(job.id)
    assert job.state == "failed"
    assert "TypeError: Object of type set is not JSON serializable" in job.error
    assert job.result is None


def test_an_engine_that_raises_while_workers_run_has_them_told_to_quit():
    failing = Deferred()
    bench = Bench(Accepted(), failing)
    job = bench.start(Patient, workers=2)
    line = bench.port.join(job.id)
    with capturedLogs():
        failing.errback(RuntimeError("out of coal"))
    assert line.heard == [b"quit:"]
    assert (job.state, job.error) == ("failed", "a fault in mu: out of coal")


def test_a_conductor_that_stops_says_so():
    bench = Bench()
    bench.conductor.stop(keep=False)
    assert bench.conductor.stopping


def test_an_ended_job_keeps_neither_its_launcher_nor_its_certificate():
    bench = Bench()
    job = bench.start(Patient)
    run = bench.conductor._runs[job.id]
    launcher = weakref.ref(run._staffing._launcher)
    assert "srvkey" in run._event
    bench.conductor.cancel(job)
    gc.collect()
    assert (launcher(), run._event, bench.conductor._runs) == (None, None, {})


def test_the_end_of_a_job_is_notified_once_it_is_on_disk():
    journal, told = HeldJournal(), []
    bench = Bench(ledger=journal)
    bench.conductor.coordinator.notify = told.append
    bench.conductor.start(make_spec(Leave, engine="scripted", notify_url="http://a/"))
    journal.sync()
    (job,) = bench.port.book.live()
    bench.conductor.cancel(job)
    while not job.ended:
        assert told == []
        journal.sync()
    assert [(one.job, one.url, one.since) for one in told] == [(job.id, "http://a/", job.finished)]


async def no_log(job: str, actor: int) -> None:
    raise NotImplementedError


async def no_bucket(bucket: str) -> S3Place:
    raise NotImplementedError


def test_an_order_that_is_repeated_is_answered_once_it_is_on_disk():
    journal = HeldJournal()
    bench = Bench(ledger=journal)
    registry = Registry()
    registry.add(IPipeline, OneState(Patient), "tests")
    config = Config()
    control = Control(
        config,
        Access(config.control, Tokens("secret", "reader"), "key", bench.reactor.seconds),
        bench.port.book,
        registry,
        bench.conductor,
        no_log,
        maybeDeferred,
        {"scripted", "external"},
        no_bucket,
        lambda given: Deferred(),
        lambda accept: (b"", "text/plain"),
        Feeds(bench.reactor),
        {},
        bench.reactor,
        None,
    )
    answers = []
    for _ in range(2):
        request = DummyRequest([])
        request.requestHeaders.setRawHeaders("authorization", ["Bearer secret"])
        request.requestHeaders.setRawHeaders("idempotency-key", ["k"])
        request.content = BytesIO(b'{"pipeline": "one", "engine": "external"}')  # type: ignore[attr-defined]
        Deferred.fromCoroutine(control.start(request)).addCallback(answers.append)
    assert answers == []
    journal.sync()
    first, second = map(json.loads, answers)
    assert first["id"] == second["id"]
    assert len(bench.port.book.all()) == 1
