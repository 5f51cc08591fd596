"""How jobs go on, or end, after a restart of the coordinator."""

from dataclasses import fields

import pytest
from kit.conductor import Bench, Leave, Patient, Sized, dated_bench, joined
from kit.journal import HeldJournal
from kit.parts import make_spec
from twisted.internet.defer import succeed
from twisted.logger import capturedLogs

from mu.invocations import Unreached
from mu.jobs.recovery import find
from mu.jobs.summary import JobSummary
from mu.journal.records import Ordered
from mu.messages import Hello
from mu.net.strangers import LogSums


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
    kinds = [type(one).__name__.lower() for one in journal.records]
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
