"""What a job costs, and what its cost limit stops."""

import pytest
from kit.conductor import Bench, Patient, bench_with, dated_bench, joined
from kit.journal import HeldJournal
from kit.parts import ScriptedEngine, make_spec
from twisted.internet.defer import Deferred, succeed

from mu.engines.cost import GB_S_USD, REQUEST_USD
from mu.invocations import Size, Unreached
from mu.jobs.reached import Reached
from mu.jobs.recovery import find
from mu.messages import Hello

X86 = GB_S_USD["x86_64"]


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
