"""The first launches of a function that is not known to reach the daemon."""

from dataclasses import replace

import pytest
from kit.conductor import Patient, dated_bench, joined, together
from twisted.internet.defer import Deferred, succeed

from mu.engines.cost import GB_S_USD, REQUEST_USD
from mu.invocations import ConcurrencyLimit

X86 = GB_S_USD["x86_64"]


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
