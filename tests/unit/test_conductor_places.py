"""How the jobs share an engine's places."""

import pytest
from kit.conductor import Bench, Patient, SmallEngine, bench_with, together
from kit.journal import HeldJournal
from kit.parts import OneState, make_spec
from twisted.internet.defer import Deferred, succeed

from mu.invocations import ConcurrencyLimit
from mu.messages import Hello


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
