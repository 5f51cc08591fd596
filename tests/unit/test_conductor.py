"""A job's course, from its order to its end, with time and the engine in the test's hands."""

import gc
import json
import weakref
from dataclasses import fields, replace
from io import BytesIO

import pytest
from kit.journal import HeldJournal
from kit.parts import OneState, Port, Reactor, ScriptedEngine, Threads, make_spec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import capturedLogs
from twisted.web.test.requesthelper import DummyRequest

from mu.access import Access
from mu.aws.s3 import S3Place
from mu.config import Config, LaunchSection
from mu.control import Control
from mu.engines.cost import GB_S_USD, REQUEST_USD
from mu.home import Tokens
from mu.interfaces import IPipeline
from mu.invocations import (
    Accepted,
    BadEnding,
    ConcurrencyLimit,
    Refused,
    Size,
    Throttled,
    Unknown,
    Unreached,
)
from mu.jobs.conductor import Conductor
from mu.jobs.reached import Reached
from mu.jobs.recovery import find
from mu.jobs.summary import JobSummary
from mu.journal.ledger import NoJournal
from mu.journal.records import Ordered
from mu.messages import Hello
from mu.net.strangers import LogSums
from mu.page.feed import Feeds
from mu.pipelines.dealing import deal
from mu.plugins import JobFailed
from mu.registry import Registry
from mu.states import MachineState, OnePassState

X86 = GB_S_USD["x86_64"]


class Leave(OnePassState):
    expect = "OK:HELLO"
    command = "quit:"


class Patient(MachineState):
    """Waits for ever."""


class Bench:
    """A conductor, its engine, and a port for the workers that it launches."""

    def __init__(self, *script, ledger=None, config=None):
        self.reactor = Reactor()
        self.threads = Threads()
        self.port = Port(clock=self.reactor)
        self.engine = ScriptedEngine(*script)
        engines = {"scripted": self.engine}
        self.conductor = Conductor(
            config or Config(),
            self.port.book,
            ledger or NoJournal(),
            self.port.authority,
            engines,
            self.in_thread,
            self.reactor,
        )

    def in_thread(self, call, *args):
        return deferToThreadPool(self.reactor, self.threads, call, *args)

    def start(self, first=Leave, workers=1, engine="scripted", **spec):
        started = []
        spec = make_spec(first, workers, engine=engine, **spec)
        self.conductor.start(spec).addCallback(started.append)
        return started[0]


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


# ---------------------------------------------------------------- launching again


def test_a_worker_that_does_not_say_hello_in_time_is_launched_again():
    bench = Bench()
    job = bench.start(workers=2, retries=1)
    bench.port.join(job.id, Hello("aa", bench.engine.asked[0])).hang_up()
    bench.reactor.pump([1] * 121)
    assert len(bench.engine.asked) == 3
    assert len(set(bench.engine.asked)) == 3
    bench.port.join(job.id, Hello("bb", bench.engine.asked[2]))
    assert (job.state, job.error) == ("done", None)
    assert [len(actor.failures) for actor in job.actors] == [0, 1]


def test_a_worker_that_comes_late_is_taken_while_its_actor_waits():
    bench = Bench()
    job = bench.start(retries=1)
    bench.reactor.pump([1] * 121)
    assert bench.port.join(job.id, Hello("aa", bench.engine.asked[0])).heard[-1] == b"quit:"
    assert job.state == "done"
    assert bench.port.join(job.id, Hello("bb", bench.engine.asked[1])).heard == [b"quit:"]
    assert job.dismissed == 1


def test_a_lost_workers_actor_gets_a_new_launch():
    bench = Bench()
    job = bench.start(Patient, retries=1)
    bench.port.join(job.id, Hello("aa", bench.engine.asked[0])).hang_up()
    bench.reactor.advance(9)
    assert len(bench.engine.asked) == 1
    bench.reactor.advance(1)
    assert len(bench.engine.asked) == 2


def test_spares_are_launched_too():
    bench = Bench()
    job = bench.start(Patient, workers=3, spares=2)
    assert len(bench.engine.asked) == 5
    assert len(job.launches) == 5


def test_an_engine_that_is_busy_for_too_long_fails_the_actor():
    bench = Bench(*[Throttled("busy", wait_s=30.0)] * 1000)
    job = bench.start(deadline_s=3600.0)
    bench.reactor.pump([1] * 605)
    assert job.error == (
        "1 of 1 actors failed: actor 0: engine scripted did not accept a launch within 600 s"
    )


class PlanLater(Threads):
    """A thread pool that plans when it is told to."""

    def __init__(self):
        self.waiting = []

    def callInThreadWithCallback(self, tell, call, *args):
        self.waiting.append((tell, call, args))

    def work(self):
        waiting, self.waiting = self.waiting, []
        for tell, call, args in waiting:
            super().callInThreadWithCallback(tell, call, *args)


def test_workers_that_come_before_the_plan_were_launched_by_nobody():
    bench = Bench()
    bench.threads = threads = PlanLater()
    job = bench.start(Patient, workers=3, spares=1)
    early = [bench.port.join(job.id, hello) for hello in (Hello("aa"), Hello())]
    threads.work()
    assert [line.heard for line in early] == [[b"quit:"], [b"quit:"]]
    assert len(bench.engine.asked) == 4


def test_of_the_workers_that_come_before_the_plan_no_more_stay_than_the_order_has_spares():
    bench = Bench()
    bench.threads = threads = PlanLater()
    job = bench.start(Patient, workers=3, spares=1, engine="external")
    early = [bench.port.join(job.id, Hello(f"{n}a")) for n in range(6)]
    threads.work()
    assert [line.heard[-1] for line in early[:3]] == [b"welcome:%d:1:0" % n for n in range(3)]
    assert [line.heard[-1] for line in early[3:]] == [b"quit:", b"quit:", b"welcome:-:0:0"]
    assert job.dismissed == 2


class Measuring(ScriptedEngine):
    """An engine that says later what its functions are like."""

    def __init__(self):
        super().__init__()
        self.asked_for = []

    def size(self, function, region):
        self.asked_for.append(Deferred())
        return self.asked_for[-1]


def test_what_is_known_of_the_cost_after_the_end_changes_nothing():
    bench = Bench()
    bench.engine = engine = Measuring()
    bench.conductor.coordinator.engines = {"scripted": engine}
    job = bench.start(Patient)
    bench.conductor.cancel(job)
    engine.asked_for[0].callback(Size(1024))
    assert job.state == "cancelled"
    assert (job.describe()["cost_usd"], engine.asked) == (None, [])


def test_the_cost_of_a_resumed_job_is_not_counted_from_the_middle():
    journal = HeldJournal()
    before = Bench(ledger=journal)
    before.conductor.start(make_spec(Patient, engine="scripted"))
    journal.sync()
    bench = Bench(ledger=HeldJournal())
    bench.engine = engine = Measuring()
    bench.conductor.coordinator.engines = {"scripted": engine}
    found, _, last = find(journal, lambda ordered: make_spec(Patient, engine="scripted"))
    bench.conductor.restore(found, last)
    bench.conductor.resume()
    (job,) = bench.port.book.live()
    engine.asked_for[0].callback(Size(1024))
    assert (job.state, job.describe()["cost_usd"]) == ("running", None)


def test_an_ended_job_keeps_neither_its_launcher_nor_its_certificate():
    bench = Bench()
    job = bench.start(Patient)
    run = bench.conductor._runs[job.id]
    launcher = weakref.ref(run._staffing._launcher)
    assert "srvkey" in run._event
    bench.conductor.cancel(job)
    gc.collect()
    assert (launcher(), run._event, bench.conductor._runs) == (None, None, {})


@pytest.mark.parametrize(
    "ordered", [None, Ordered(1.0, "u", {"pipeline": "one", "workers": 3}, "key", "digest")]
)
def test_a_job_that_cannot_resume_is_shown_with_all_that_a_job_has(ordered):
    bench = Bench()
    running = bench.start(Patient).describe()
    with capturedLogs():
        bench.conductor.bury("lost", ordered, "its pipeline is gone")
    told = bench.port.book.get("lost").describe()
    assert list(told) == list(running) == [one.name for one in fields(JobSummary)]
    assert {name: type(told[name]) for name in ("counts", "launches", "params")} == {
        "counts": dict,
        "launches": dict,
        "params": dict,
    }
    assert told["counts"].keys() == running["counts"].keys()
    assert (told["state"], told["workers"]) == (
        "failed",
        ordered.order["workers"] if ordered else 0,
    )
    assert told["error"].endswith(": its pipeline is gone")


def test_the_end_of_a_job_that_cannot_resume_is_notified_once_it_is_on_disk():
    journal, told = HeldJournal(), []
    bench = Bench(ledger=journal)
    bench.conductor.coordinator.notify = told.append
    order = {"pipeline": "one", "workers": 3, "notify_url": "http://a/"}
    with capturedLogs():
        bench.conductor.bury("lost", Ordered(1.0, "u", order, "", ""), "its pipeline is gone")
    assert told == []
    journal.sync()
    assert [(one.job, one.url) for one in told] == [("lost", "http://a/")]


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


def test_what_a_job_had_cost_before_a_restart_is_not_counted_again():
    journal = HeldJournal()
    spec = make_spec(Patient, engine="scripted")
    before = Bench(ledger=journal)
    before.engine.size = lambda function, region: succeed(Size(1024))
    before.conductor.start(spec)
    (job,) = before.port.book.all()
    for _ in range(3):
        journal.sync()
    before.port.join(job.id, Hello("aa", before.engine.asked[0]))
    before.reactor.advance(100)
    for _ in range(3):
        journal.sync()
    assert job.cost_usd > 0
    after = Bench(ledger=HeldJournal())
    found, _, last = find(journal, lambda ordered: spec)
    after.conductor.restore(found, last)
    (again,) = after.port.book.live()
    assert again.cost_usd > 0
    assert after.conductor.coordinator.totals.ended_usd == -again.cost_usd


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
        {"scripted", "external"},
        no_bucket,
        lambda given: Deferred(),
        lambda accept: (b"", "text/plain"),
        Feeds(bench.reactor),
        {},
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


class Sized(ScriptedEngine):
    """An engine that knows what its functions are like."""

    def size(self, function, region):
        return succeed(Size(1024))


def carry_on(bench, journal, job):
    """Give each launch its worker until the job ends, with the disk always up to date."""
    came = set()
    for _ in range(10):
        journal.sync()
        if job.ended:
            return
        for launch in set(bench.engine.asked) - came:
            came.add(launch)
            bench.port.join(job.id, Hello(launch, launch)).hang_up()
        bench.reactor.pump([1] * 10)


def test_a_job_ends_well_wherever_its_coordinator_was_killed():
    journal = HeldJournal()
    before = Bench(ledger=journal)
    before.conductor.coordinator.engines = {"scripted": Sized()}
    spec = make_spec(Leave, engine="scripted", retries=3, spares=1)
    started = []
    before.conductor.start(spec).addCallback(started.append)
    before.engine = before.conductor.coordinator.engines["scripted"]
    journal.sync()
    (job,) = started
    carry_on(before, journal, job)
    assert job.state == "done"
    kinds = [one.kind for one in journal.records]
    assert kinds[:4] == ["ordered", "planned", "sized", "launching"]
    for kept in range(1, len(kinds) + 1):
        left = journal.after_crash(len(kinds) - kept + 1)  # the end of the job is lost, too
        bench = Bench(ledger=left)
        bench.engine = Sized()
        bench.conductor.coordinator.engines = {"scripted": bench.engine}
        found, lost, last = find(left, lambda ordered: spec)
        assert not lost
        bench.reactor.advance(last + 5)
        bench.conductor.restore(found, last)
        bench.conductor.resume()
        (again,) = bench.port.book.all()
        bench.engine.asked += again.launches  # the workers that were launched before
        carry_on(bench, left, again)
        assert (again.state, again.error) == ("done", None), kinds[:kept]
        assert again.cost_usd is not None
        assert [call for call in bench.reactor.getDelayedCalls() if not sums_up(call)] == []


def sums_up(call):
    """Whether this call writes the next line of sums to the log: it belongs to no job."""
    return call.func.__name__ == LogSums._sum_up.__name__


# ---------------------------------------------------------------- places


class SmallEngine(ScriptedEngine):
    """An engine that says how many workers it runs at once."""

    def __init__(self, places: int | None) -> None:
        super().__init__()
        self.places = places

    def concurrency(self, function, region):
        return succeed(None if self.places is None else ConcurrencyLimit(self.places))


def bench_with(places):
    bench = Bench()
    bench.engine = SmallEngine(places)
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    return bench


def in_waves(bench, job):
    """Let each launch that was made bring a worker that leaves, until none is made any more."""
    waves, done = [], 0
    while len(bench.engine.asked) > done:
        bench.reactor.pump([10] * 10)  # the clocks of launches that wait do not run
        wave = bench.engine.asked[done:]
        done += len(wave)
        waves.append(len(wave))
        lines = [bench.port.join(job.id, Hello(launch[:8], launch)) for launch in wave]
        for line in lines:
            line.hang_up()
    return waves


def test_a_job_larger_than_its_engine_runs_in_waves():
    bench = bench_with(3)
    job = bench.start(workers=8)
    assert len(bench.engine.asked) == 3
    assert job.actors[7].waits_for() == "a place: 3 of 3 in use"
    assert job.state == "launching"
    assert in_waves(bench, job) == [3, 3, 2]
    assert (job.state, [len(actor.failures) for actor in job.actors]) == ("done", [0] * 8)


def test_a_limit_that_nobody_knows_is_learned_and_costs_no_retry():
    bench = bench_with(None)
    job = bench.start(Patient, workers=3, retries=0)
    assert len(bench.engine.asked) == 3
    line = bench.port.join(job.id, Hello("aa", bench.engine.asked[0]))
    bench.reactor.pump([1] * 121)
    assert [actor.failures for actor in job.actors] == [[], [], []]
    assert job.actors[2].waits_for() == "a place: 1 of 1 in use"
    assert len(bench.engine.asked) == 3
    bench.reactor.pump([1] * 121)  # now and then one more is tried
    assert len(bench.engine.asked) == 4
    line.hang_up()


def test_jobs_share_places_in_rotation_and_a_retry_goes_first():
    bench = bench_with(2)
    first = bench.start(workers=6, retries=1)
    second = bench.start(workers=6)
    asked = bench.engine.asked
    assert set(asked) <= set(first.launches)
    owners = []
    for place in range(8):
        launch = asked[place]
        job = first if launch in first.launches else second
        owners.append(job)
        bench.port.join(job.id, Hello(f"{place:08x}", launch)).hang_up()
    assert owners[2:].count(second) == 3
    assert owners[2:].count(first) == 3


def test_a_pipeline_that_needs_all_actors_at_once_is_refused_where_places_are_too_few():
    bench = bench_with(3)
    OneState.all_at_once = True
    try:
        job = bench.start(workers=4)
    finally:
        OneState.all_at_once = False
    assert (job.state, job.error) == (
        "failed",
        "one needs all of its 4 actors at once, but engine scripted runs at most 3 workers",
    )
    assert bench.engine.asked == []


def test_the_deadline_counts_the_time_spent_waiting_for_a_place():
    bench = bench_with(1)
    bench.start(Patient)
    job = bench.start(deadline_s=30.0)
    bench.reactor.pump([1] * 31)
    assert (job.state, job.error) == ("failed", "the deadline of 30 s has passed")
    assert len(bench.engine.asked) == 1


def test_a_functions_own_reserve_limits_that_function_alone():
    bench = bench_with(5)

    def concurrency(function, region):
        return succeed(ConcurrencyLimit(2, True) if function == "own" else ConcurrencyLimit(5))

    bench.engine.concurrency = concurrency
    bench.start(Patient, workers=4, function="own")
    assert len(bench.engine.asked) == 2
    job = bench.start(Patient, workers=7, function="shared")
    assert len(bench.engine.asked) == 2 + 5
    assert job.actors[6].waits_for() == "a place: 5 of 5 in use"
    bench.start(Patient, function="own")
    assert len(bench.engine.asked) == 2 + 5


def test_each_copy_of_a_function_has_a_reserve_of_its_own():
    bench = bench_with(5)
    bench.engine.concurrency = lambda function, region: succeed(ConcurrencyLimit(2, True))
    bench.start(Patient, workers=9, function="f", copies=3)
    assert len(bench.engine.asked) == 6


def test_a_function_with_a_reserve_of_zero_fails_the_job():
    bench = bench_with(5)
    bench.engine.concurrency = lambda function, region: succeed(ConcurrencyLimit(0, True))
    job = bench.start(function="f")
    assert (job.state, job.error) == (
        "failed",
        "function f may not run in us-east-1: its reserved concurrency is 0",
    )


@pytest.mark.parametrize(("regional", "launched"), [(True, 4), (False, 2)])
def test_regions_may_have_places_of_their_own_or_share_them(regional, launched):
    bench = bench_with(2)
    bench.engine.regional = regional
    bench.start(Patient, workers=6, regions=("east", "west"))
    assert len(bench.engine.asked) == launched


def test_a_higher_limit_is_noticed_while_a_job_waits():
    bench = bench_with(1)
    bench.start(Patient, workers=3)
    bench.engine.places = 2
    bench.reactor.pump([1] * 62)
    assert len(bench.engine.asked) == 2


def test_the_last_actor_does_not_wait_behind_others_because_a_launch_was_for_a_spare():
    """Workers of a job are alike, so that what a launch was ordered for says nothing."""
    bench = bench_with(1)
    job = bench.start(Patient, spares=1, retries=1)
    other = bench.start(workers=9)
    bench.port.join(job.id, Hello("aa", bench.engine.asked[0])).hang_up()
    bench.reactor.pump([1] * 20)
    assert bench.engine.asked[1] in job.launches
    assert bench.engine.asked[1] not in other.launches


def test_a_launch_that_was_given_up_is_not_made_any_more():
    bench = Bench(*[Throttled("busy")] * 1000)
    job = bench.start(retries=5, deadline_s=5000.0)
    bench.reactor.pump([1] * 601)
    (first, *rest) = job.launches
    assert job.launches[first].answer == "late"
    assert rest
    asked = len(bench.engine.asked)
    bench.reactor.pump([1] * 100)
    assert set(bench.engine.asked[asked:]) == set(rest)
    assert bench.conductor.coordinator.places.of("scripted", "us-east-1").in_use == 1


def test_workers_that_are_done_before_another_is_missed_show_how_many_run_at_once():
    bench = bench_with(None)
    job = bench.start(workers=8, retries=0)
    asked = bench.engine.asked
    bench.reactor.pump([1] * 40)
    lines = [bench.port.join(job.id, Hello(launch[:8], launch)) for launch in asked[:3]]
    for line in lines:
        line.hang_up()
    bench.reactor.pump([1] * 81)  # the other five are missed while nothing runs
    assert (job.counts["done"], job.counts["waiting"]) == (3, 5)
    assert len(asked) == 8 + 3


def test_a_function_whose_workers_never_come_fails_its_job_in_spite_of_others_that_run():
    bench = bench_with(None)
    good = bench.start(Patient, function="good", worker_timeout_s=9000.0, deadline_s=9999.0)
    line = bench.port.join(good.id, Hello("aa", bench.engine.asked[0]))
    line.say(b"ping:1")
    job = bench.start(function="broken", retries=1, deadline_s=5000.0)
    for _ in range(1500):
        bench.reactor.advance(1)
        line.say(b"ping:1")
    assert job.state == "failed"
    assert "no worker connected within 120 s" in job.error
    assert good.counts["running"] == 1


class Hidden(ScriptedEngine):
    """Cannot be reached until it is found."""

    found = False

    def size(self, function, region):
        return succeed(Size(1024) if self.found else Unreached("no route"))


def test_a_cost_limit_is_kept_although_the_engine_cannot_be_reached_at_first():
    bench = Bench()
    bench.engine = Hidden()
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    job = bench.start(Patient, max_cost_usd=1.0)
    bench.reactor.pump([1] * 300)
    assert (job.state, bench.engine.asked) == ("launching", [])
    bench.engine.found = True
    bench.reactor.pump([1] * 20)
    assert len(bench.engine.asked) == 1
    assert job.cost_usd is not None


def test_a_cost_limit_fails_the_job_when_the_outage_lasts():
    bench = Bench()
    bench.engine = Hidden()
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    job = bench.start(max_cost_usd=1.0, deadline_s=9999.0)
    bench.reactor.pump([1] * 620)
    assert job.state == "failed"
    assert "max_cost_usd cannot be kept: the size of function one in us-east-1" in job.error


def test_a_worker_that_connects_again_keeps_its_place_and_its_cost():
    bench = bench_with(2)
    bench.engine.size = lambda function, region: succeed(Size(1024))
    job = bench.start(Patient, spares=1)
    first, second = bench.engine.asked
    places = bench.conductor.coordinator.places.of("scripted", "us-east-1")
    lines = [
        bench.port.join(job.id, Hello(name, (name == "aa" and first) or second))
        for name in ("aa", "bb")
    ]
    again = [
        bench.port.join(job.id, Hello(name, (name == "aa" and first) or second))
        for name in ("aa", "bb")
    ]
    assert [line.open for line in (*lines, *again)] == [False, False, True, True]
    assert places.in_use == 2
    before = job.cost_usd
    bench.reactor.advance(10)
    assert job.cost_usd - before == pytest.approx(2 * 10 * 1.66667e-05)


def test_each_missing_worker_fails_another_actor():
    bench = Bench()
    job = bench.start(workers=6, retries=2)
    bench.reactor.pump([1] * 121)
    assert [len(actor.failures) for actor in job.actors] == [1] * 6
    bench.reactor.pump([1] * 121)
    assert [len(actor.failures) for actor in job.actors] == [2] * 6
    assert job.state == "running"


def test_an_actor_that_waited_in_vain_does_not_go_before_the_one_that_it_waited_for():
    bench = bench_with(3)
    job = bench.start(Patient, workers=3, retries=3, deadline_s=9000.0, worker_timeout_s=20.0)
    asked = bench.engine.asked
    bench.port.join(job.id, Hello("aa", asked[0])).hang_up()
    lines = [
        bench.port.join(job.id, Hello(name, asked[place])) for place, name in ((1, "bb"), (2, "cc"))
    ]
    bench.reactor.pump([1] * 21)
    for line in lines:
        line.hang_up()
    bench.reactor.pump([1] * 5)
    assert [actor.tried for actor in job.actors] == [1, 1, 1]
    for place, launch in enumerate(asked[3:]):
        bench.port.join(job.id, Hello(f"d{place}", launch))
        assert [actor.tried for actor in job.actors] == [2] * (place + 1) + [1] * (2 - place)


def test_nothing_is_launched_before_the_limits_are_known():
    bench = bench_with(2)
    answer = Deferred()
    bench.engine.concurrency = lambda function, region: answer
    bench.start(Patient, workers=5)
    bench.reactor.pump([1] * 20)
    assert bench.engine.asked == []
    answer.callback(ConcurrencyLimit(2))
    assert len(bench.engine.asked) == 2


class Chained(OneState):
    """Its actors wait for those before them."""

    relay_keep = True


def test_the_place_of_a_lost_worker_goes_to_its_actors_retry():
    """Otherwise those that wait for this actor would take all places, and keep them."""
    ledger = HeldJournal()
    bench = Bench(ledger=ledger)
    bench.engine = SmallEngine(2)
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    started = []
    spec = make_spec(Patient, 6, engine="scripted", pipeline=Chained(Patient), retries=5)
    bench.conductor.start(spec).addCallback(started.append)
    settle(bench, ledger, 3)
    (job,) = started
    asked = bench.engine.asked
    for tried in range(5):
        taken = len(asked)
        line = bench.port.join(job.id, Hello(f"{tried:02x}", asked[-1]))
        settle(bench, ledger)
        line.hang_up()
        while len(asked) == taken:
            settle(bench, ledger)
    assert [actor.tried for actor in job.actors] == [5, 0, 0, 0, 0, 0]


def settle(bench, ledger, seconds=1):
    for _ in range(seconds):
        bench.reactor.advance(1)
        ledger.sync()


class Together(OneState):
    """All its actors need one another."""

    all_at_once = True


def together(bench, workers, **spec):
    return bench.start(Patient, workers=workers, pipeline=Together(Patient), **spec)


@pytest.mark.parametrize(("regional", "fits"), [(True, True), (False, False)])
def test_actors_that_need_one_another_are_refused_if_their_regions_share_too_few_places(
    regional, fits
):
    bench = bench_with(3)
    bench.engine.regional = regional
    job = together(bench, 6, regions=("east", "west"))
    assert job.active == fits
    assert len(bench.engine.asked) == (6 if fits else 0)


def test_actors_that_need_one_another_are_refused_if_one_of_their_regions_has_too_few_places():
    bench = bench_with(3)
    bench.engine.concurrency = lambda function, region: succeed(
        ConcurrencyLimit(2 if region == "west" else 10)
    )
    job = together(bench, 6, regions=("east", "west"))
    assert (job.state, job.error) == (
        "failed",
        "one needs all of its 6 actors at once, but engine scripted runs at most 2 workers where 3"
        " of them would start",
    )


def test_copies_with_a_reserve_each_count_for_actors_that_need_one_another():
    bench = bench_with(5)
    bench.engine.concurrency = lambda function, region: succeed(ConcurrencyLimit(2, True))
    assert together(bench, 6, function="f", copies=3).active
    assert len(bench.engine.asked) == 6


def test_two_jobs_whose_actors_need_one_another_do_not_share_places_that_suffice_for_one():
    bench = bench_with(5)
    other = bench.start(Patient, workers=1)
    first = together(bench, 3)
    second = together(bench, 4)
    third = together(bench, 1)  # would fit, but it does not overtake
    bench.reactor.pump([1] * 30)
    assert len(bench.engine.asked) == 1 + 3
    assert second.actors[0].waits_for() == "places for all its actors at once"
    assert third.launches == {}
    bench.conductor.cancel(first)
    bench.conductor.cancel(other)
    bench.reactor.pump([1] * 3)
    assert len(bench.engine.asked) == 1 + 3 + 4 + 1
    bench.conductor.cancel(second)
    bench.conductor.cancel(third)
    assert together(bench, 5).launches


def test_a_job_that_waits_for_places_for_all_may_be_cancelled_and_holds_up_nobody():
    bench = bench_with(3)
    first, second, third = together(bench, 2), together(bench, 3), together(bench, 1)
    bench.conductor.cancel(second)
    bench.reactor.pump([1] * 3)
    assert second.state == "cancelled"
    assert len(bench.engine.asked) == 3
    assert first.active
    assert third.active


def test_a_reserve_that_is_set_while_a_job_runs_is_no_limit_for_other_functions():
    bench = bench_with(3)
    job = bench.start(Patient, workers=5)
    bench.engine.concurrency = lambda function, region: succeed(ConcurrencyLimit(1, True))
    bench.reactor.pump([1] * 62)
    assert len(bench.engine.asked) == 3
    bench.port.join(job.id, Hello("aa", bench.engine.asked[0])).hang_up()
    bench.reactor.pump([1] * 15)
    assert len(bench.engine.asked) == 4


def test_a_limit_that_could_not_be_asked_for_at_first_is_asked_for_again():
    bench = bench_with(None)
    bench.start(Patient, workers=2)
    bench.engine.places = 2
    bench.reactor.pump([1] * 62)
    bench.start(Patient, workers=2)
    assert len(bench.engine.asked) == 2


# ---------------------------------------------------------------- what nobody sees, and the canary


class Dated(ScriptedEngine):
    """An engine that knows its function's size, timeout and version."""

    version = "monday"
    growth = 0

    def size(self, function, region):
        return succeed(Size(1024, timeout_s=40.0, version=self.version))

    def log_of(self, function, region, since):
        return succeed(f"its log says: {function} in {region} at {since:g} s")


def dated_bench(*script, **options):
    bench = Bench(**options)
    bench.engine = Dated(*script)
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    return bench


def joined(bench, job, launch):
    return bench.port.join(job.id, Hello(launch[:8], launch))


def test_the_first_job_of_a_function_launches_one_worker_and_then_all_and_the_next_all_at_once():
    bench = dated_bench()
    job = bench.start(workers=20)
    asked = bench.engine.asked
    assert len(asked) == 1
    assert job.actors[19].waits_for() == "the first workers to connect to 127.0.0.1:0"
    joined(bench, job, asked[0])
    assert len(asked) == 20
    bench.start(workers=20)
    assert len(asked) == 40
    bench.engine.version = "tuesday"  # it was deployed again
    third = bench.start(workers=20)
    assert len(asked) == 41
    joined(bench, third, asked[40])
    assert len(asked) == 60


def test_a_worker_of_another_job_lets_all_start_too():
    bench = dated_bench()
    bench.start(workers=5)
    other = bench.start(workers=5)
    asked = bench.engine.asked
    assert len(asked) == 2
    joined(bench, other, asked[1])
    bench.reactor.advance(1)
    assert len(asked) == 10


def test_a_job_whose_first_workers_cannot_connect_stops_with_what_their_log_says():
    bench = dated_bench()
    job = bench.start(workers=1000, retries=2)
    asked = bench.engine.asked
    bench.reactor.pump([1] * 121)
    assert (len(asked), job.state) == (9, "launching")
    bench.reactor.pump([1] * 121)
    assert (len(asked), job.state) == (9, "failed")
    assert job.error == (
        "9 workers of function 'one' in us-east-1 did not connect to 127.0.0.1:0 (public_host in"
        " mu.conf) within 120 s, nor has any other since its last deployment, so mu started no more:"
        " its log says: one in us-east-1 at 0 s"
    )
    assert job.bill.usd_at_most(999.0) == pytest.approx(9 * (REQUEST_USD + 50 * X86))
    assert bench.reactor.getDelayedCalls() == []


def test_a_worker_that_comes_while_the_log_is_read_saves_the_job():
    bench = dated_bench()
    reading = Deferred()
    bench.engine.log_of = lambda *_: reading
    job = bench.start(workers=20)
    bench.reactor.pump([1] * 125)
    assert (job.active, len(bench.engine.asked)) == (True, 1)
    joined(bench, job, bench.engine.asked[0])
    assert len(bench.engine.asked) == 20
    reading.callback("its log says nothing")
    assert job.active


def test_a_job_with_more_retries_than_the_canary_launches_all_in_the_end():
    bench = dated_bench()
    job = bench.start(workers=15, retries=20)
    bench.reactor.pump([1] * 242)
    assert (len(bench.engine.asked) > 15, job.active) == (True, True)


def test_a_job_of_one_worker_says_what_the_log_says_too():
    bench = dated_bench()
    job = bench.start(retries=0)
    bench.reactor.pump([1] * 121)
    assert job.error.startswith("1 worker of function 'one' in us-east-1 did not connect to ")


def test_a_canary_that_no_engine_accepts_is_replaced():
    bench = dated_bench(Deferred())
    job = bench.start(workers=3, retries=1, deadline_s=6000.0)
    bench.reactor.pump([10] * 61)
    assert (len(bench.engine.asked), job.active) == (2, True)
    joined(bench, job, bench.engine.asked[1])
    assert len(bench.engine.asked) == 4


def test_with_no_canary_all_launch_at_once():
    bench = dated_bench()
    config = bench.conductor.coordinator.config
    off = replace(config, launch=replace(config.launch, canary=()))
    bench.conductor.reload(off)
    bench.start(workers=20)
    assert len(bench.engine.asked) == 20


def test_workers_on_this_machine_reach_its_loopback_address():
    bench = dated_bench()
    bench.engine.on_this_machine = True
    bench.start(workers=20)
    assert len(bench.engine.asked) == 20
    bench.start(workers=20, event={"addr": "127.0.0.1"})
    assert len(bench.engine.asked) == 40
    bench.start(workers=20, event={"addr": "192.0.2.1"})
    assert len(bench.engine.asked) == 41


def test_held_launches_go_on_after_a_restart_with_a_canary_of_their_own():
    journal = HeldJournal()
    before = dated_bench(ledger=journal)
    before.conductor.start(make_spec(Patient, 20, engine="scripted"))
    for _ in range(3):  # the order, the launches, the answer
        journal.sync()
    assert len(before.engine.asked) == 1
    bench = dated_bench(ledger=HeldJournal())
    found, _, last = find(journal, lambda ordered: make_spec(Patient, 20, engine="scripted"))
    bench.conductor.restore(found, last)
    bench.conductor.resume()
    (job,) = bench.port.book.live()
    assert len(bench.engine.asked) == 1
    assert job.bill.absent == 2  # with the one from before
    joined(bench, job, bench.engine.asked[0])
    assert len(bench.engine.asked) == 19


def test_max_cost_usd_stops_a_job_whose_workers_may_run_unseen():
    bench = dated_bench()
    bench.conductor.coordinator.reached = Everyone()
    job = bench.start(workers=10, max_cost_usd=10 * 20 * X86)
    bench.reactor.pump([1] * 18)
    assert job.state == "running"
    bench.reactor.pump([1] * 3)
    assert job.state == "failed"
    assert job.error.startswith("it has cost $0.0000, and up to $0.00")
    assert job.error.endswith(
        " with 10 workers that have not connected; max_cost_usd is 0.00333334"
    )
    left = job.bill.usd_at_most(21.0)
    assert left == pytest.approx(10 * (REQUEST_USD + 50 * X86))
    joined(bench, job, bench.engine.asked[0])  # it is told to quit, and counts as it was
    assert job.bill.usd_at_most(21.0) < left


class Everyone(Reached):
    """Knows that everyone reaches the daemon."""

    def knows(self, way, version):
        return True


def test_a_late_worker_that_found_no_place_costs_nothing():
    bench = dated_bench()
    bench.conductor.coordinator.reached = Everyone()
    job = bench.start(Patient, workers=2)
    line = joined(bench, job, bench.engine.asked[0])
    bench.reactor.pump([1] * 100)
    assert job.bill.absent == 1
    bench.reactor.pump([1] * 21)
    assert (job.bill.absent, job.actors[1].failures) == (0, [])
    line.hang_up()


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (b'{"init_s": 0.5, "hello_s": 0.25}', 0.75),
        (b'{"hello_s": 0.25, "other": [1]}', 0.25),
        (b'{"init_s": 1e9}', 10.0),
        (b'{"init_s": -5, "hello_s": "x"}', 0.0),
        (b'{"init_s": NaN, "hello_s": null}', 0.0),
        (b'{"init_s": 1' + b"0" * 400 + b"}", 10.0),
    ],
)
def test_what_a_worker_ran_before_its_hello_counts_as_it_tells_within_reason(told, seconds):
    bench = dated_bench()
    job = bench.start(Patient, workers=2)
    bench.reactor.advance(10.0)
    line = joined(bench, job, bench.engine.asked[0])
    at_hello = job.cost_usd
    line.say(b"USED:3:" + told)  # of a command
    assert job.cost_usd == at_hello
    for _ in range(2):
        line.say(b"USED:0:" + told)
    assert job.cost_usd - at_hello == pytest.approx(seconds * X86)
    line.hang_up()


def test_a_spare_tells_what_it_used_too():
    bench = dated_bench()
    job = bench.start(Patient, workers=1, spares=1)
    bench.reactor.advance(10.0)
    joined(bench, job, bench.engine.asked[0])
    spare = joined(bench, job, bench.engine.asked[1])
    before = job.cost_usd
    assert spare.say(b'USED:0:{"init_s": 0.5}') == [b"welcome:-:0:0"]
    assert job.cost_usd - before == pytest.approx(0.5 * X86)


def test_a_function_that_cannot_connect_stops_its_job_although_another_takes_the_places():
    bench = dated_bench()
    good = bench.start(Patient, function="good", worker_timeout_s=9000.0, deadline_s=9999.0)
    line = joined(bench, good, bench.engine.asked[0])
    job = bench.start(workers=20, function="broken", retries=1, deadline_s=9999.0)
    for _ in range(1200):
        bench.reactor.advance(1)
        line.say(b"ping:1")
    assert job.state == "failed"
    assert "of function 'broken' in us-east-1 did not connect to 127.0.0.1:0" in job.error
    assert good.counts["running"] == 1


def test_actors_that_need_one_another_wait_for_places_and_then_for_the_canary():
    bench = dated_bench()
    bench.engine.concurrency = lambda *_: succeed(ConcurrencyLimit(4))
    first, second = together(bench, 3), together(bench, 3)
    asked = bench.engine.asked
    assert len(asked) == 1
    assert second.actors[0].waits_for() == "places for all its actors at once"
    joined(bench, first, asked[0])
    assert len(asked) == 3
    bench.conductor.cancel(first)
    bench.reactor.pump([1] * 3)
    assert len(asked) == 6


def test_held_launches_take_no_places_from_other_jobs():
    bench = dated_bench()
    bench.engine.concurrency = lambda *_: succeed(ConcurrencyLimit(3))
    job = bench.start(Patient, workers=5)
    other = bench.start(Patient, workers=5, function="other")
    asked = bench.engine.asked
    assert len(asked) == 2
    joined(bench, other, asked[1])
    assert len(asked) == 3
    joined(bench, job, asked[0])
    assert job.actors[4].waits_for() == "a place: 3 of 3 in use"


def test_a_job_goes_on_after_a_restart_although_its_engine_cannot_be_reached():
    journal = HeldJournal()
    before = dated_bench(ledger=journal)
    before.conductor.start(make_spec(Patient, 3, engine="scripted"))
    for _ in range(3):  # the order, the launches, the answer
        journal.sync()
    bench = dated_bench(ledger=HeldJournal())
    bench.engine.size = lambda function, region: succeed(Unreached("no route"))
    found, _, last = find(journal, lambda ordered: make_spec(Patient, 3, engine="scripted"))
    bench.conductor.restore(found, last)
    bench.conductor.resume()
    assert len(bench.engine.asked) == 2


# ---------------------------------------------------------------- workers whose engine knows more


class Knowing(Dated):
    """Knows how invocations ended, if anybody asks."""

    def __init__(self, *script):
        super().__init__(*script)
        self.endings = []
        self.inquiries = []

    def ending_of(self, *which):
        self.inquiries.append(which)
        return succeed(self.endings.pop(0) if self.endings else None)


FULL = BadEnding("was killed: out of memory (peak 512 of 512 MB)", 512.0)


def lost_worker(*endings, told=b'{"request": "r-1", "memory_mb": 512}', **spec):
    """Return a bench and a job; its only worker told that, and has just lost its connection."""
    bench = dated_bench()
    bench.engine = Knowing()
    bench.engine.endings += endings
    bench.conductor.coordinator.engines = {"scripted": bench.engine}
    job = bench.start(Patient, retries=0, **spec)
    line = joined(bench, job, bench.engine.asked[0])
    line.say(b"USED:0:" + told)
    line.hang_up()
    return bench, job


def test_a_lost_worker_of_which_the_engine_knows_the_end_is_given_up_at_once_with_its_words():
    bench, job = lost_worker(FULL, regions=("eu-west-1",))
    bench.reactor.advance(0.3)
    (which,) = bench.engine.inquiries
    assert which == ("one", "eu-west-1", "r-1", -10.0)
    assert job.state == "failed"
    assert job.error.endswith(
        "actor 0: Patient: its worker was killed: out of memory (peak 512 of 512 MB)"
    )
    (row,) = job.workers()
    assert (row["used"]["peak_mb"], row["used"]["memory_mb"]) == (512, 512)
    assert row["used"]["cpu_s"] is None


def test_an_engine_that_does_not_know_yet_is_asked_again_while_the_worker_is_away():
    bench, job = lost_worker(None, None, FULL)
    bench.reactor.pump([0.25] * 16)
    assert len(bench.engine.inquiries) == 3
    assert "out of memory" in job.error
    bench, job = lost_worker()
    bench.reactor.pump([0.25] * 60)
    assert len(bench.engine.inquiries) == 4
    assert job.error.endswith("it did not come back within 10 s")


def test_no_engine_is_asked_of_a_worker_that_is_back_or_did_not_tell_its_request():
    bench, job = lost_worker(FULL)
    joined(bench, job, bench.engine.asked[0])
    bench.reactor.pump([0.25] * 40)
    assert (bench.engine.inquiries, job.state) == ([], "running")
    for told in (b"{}", b'{"request": 7.5}', b'{"request": "../../etc/passwd"}'):
        bench, job = lost_worker(FULL, told=told)
        bench.reactor.advance(1)
        assert bench.engine.inquiries == []


def test_an_engine_that_fails_to_answer_changes_nothing():
    bench, job = lost_worker()
    bench.engine.ending_of = lambda *_: fail(RuntimeError("no log"))
    bench.reactor.advance(0.3)
    assert (job.state, job.counts["running"]) == ("running", 1)


# ---------------------------------------------------------------- workers whose launch has ended


def test_a_hold_ends_when_the_engine_says_that_the_launch_has_ended():
    bench, job = lost_worker(told=b"{}")
    bench.conductor.watch.ended("unknown", "ended")
    bench.conductor.watch.ended(bench.engine.asked[0], "ended: signal: killed")
    assert job.counts["running"] == 1  # what it sent before may still be on its way
    bench.reactor.advance(0.6)
    assert job.error.endswith("actor 0: Patient: its worker ended: signal: killed")


def test_a_worker_whose_launch_has_ended_is_not_given_up_before_its_connection_is_lost():
    bench = dated_bench()
    job = bench.start(Patient, retries=0)
    line = joined(bench, job, bench.engine.asked[0])
    bench.conductor.watch.ended(bench.engine.asked[0], "ended")
    bench.reactor.advance(5)
    assert job.counts["running"] == 1
    line.hang_up()
    bench.reactor.advance(0.6)
    assert job.error.endswith("actor 0: Patient: its worker ended")


def test_a_worker_that_had_connected_again_before_it_ended_is_heard_first():
    bench, job = lost_worker(told=b"{}")
    bench.conductor.watch.ended(bench.engine.asked[0], "ended")
    line = joined(bench, job, bench.engine.asked[0])
    bench.reactor.advance(5)
    assert job.counts["running"] == 1
    line.hang_up()
    bench.reactor.advance(0.6)
    assert job.state == "failed"


def test_a_launch_that_waits_in_its_engine_is_not_late_and_users_see_why():
    bench = dated_bench()
    job = bench.start(Patient)
    for _ in range(4):
        bench.conductor.watch.pending(bench.engine.asked[0], "queued: Resources")
        bench.reactor.advance(100)
    assert job.state == "running"
    (row,) = job.workers()
    assert row["waits_for"] == "a worker (queued: Resources)"
    joined(bench, job, bench.engine.asked[0])
    assert job.counts["running"] == 1


def held_beside_a_spare(**spec):
    """Return a bench, a job, and the workers of its actor, which is held, and of its spare."""
    bench = dated_bench()
    job = bench.start(Patient, spares=1, **spec)
    first, spare = (joined(bench, job, one) for one in bench.engine.asked)
    first.hang_up()
    bench.reactor.advance(0.1)
    return bench, job, spare


def test_with_a_spare_a_second_attempt_begins_beside_a_held_one():
    bench, job, _ = held_beside_a_spare()
    assert [one.number for one in job.actors[0].attempts] == [1, 2]
    joined(bench, job, bench.engine.asked[0])  # it is back, and goes on
    assert [one.number for one in job.actors[0].attempts] == [1, 2]
    bench.reactor.advance(20)
    assert job.counts["running"] == 1


def test_a_second_attempt_beside_a_held_one_goes_on_when_the_hold_ends():
    bench, job, _ = held_beside_a_spare(retries=0)
    bench.reactor.advance(11)
    assert [one.number for one in job.actors[0].attempts] == [2]
    assert job.state == "running"


def test_an_actor_that_must_not_run_twice_is_held_without_a_second_attempt(monkeypatch):
    monkeypatch.setattr(OneState, "may_run_twice", False)
    _, job, _ = held_beside_a_spare()
    assert [one.number for one in job.actors[0].attempts] == [1]
