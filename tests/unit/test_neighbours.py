"""Actors that wait for the states of others: of those that are left out, or have failed for good."""

import json

import pytest
from kit.journal import HeldJournal
from kit.parts import make_spec, recorded_job
from kit.seats import Seat, settle

from mu.config import Config
from mu.jobs.orders import read_order
from mu.jobs.rerun import EarlierJob, NoRerun, plan_rerun
from mu.journal.records import AttemptEnded, Planned
from mu.parameters import FieldError, Params, read_fields
from mu.pipelines.chain import chain
from mu.pipelines.xcenc import xcenc
from mu.pipelines.xcenc7 import xcenc7
from mu.plugins import Outcome, Pipeline


def order(pipeline, params, **more):
    body = {"pipeline": pipeline.name, "workers": 6, "params": {"bucket": "b", **params}, **more}
    known = {one.name: one for one in (chain, xcenc, xcenc7)}
    return read_order(json.dumps(body).encode(), Config(), known, {"external", "local"})


TERMINATE = "xc-terminate-chunk ##TMPDIR##/prev.ivf"
CHAIN = {"key": "k", "out_prefix": "o/"}


@pytest.mark.parametrize(
    ("pipeline", "params", "actors", "alone"),
    [
        (chain, CHAIN, [0, 2], "actor 2 waits for the state of actor 1"),
        (chain, CHAIN, [3], "actor 3 waits for the state of actor 2"),
        (xcenc, {"keyframe_distance": 2}, [2, 3, 5], "actor 5 waits for the state of actor 4"),
        (xcenc7, {"keyframe_distance": 4}, [4, 2], "actor 2 waits for the state of actor 1"),
    ],
)
def test_an_order_without_a_neighbour_that_an_actor_needs_is_refused(
    pipeline, params, actors, alone
):
    with pytest.raises(FieldError) as refused:
        order(pipeline, params, actors=actors)
    assert str(refused.value) == f"actors must include more: {alone}, got {actors}"


def test_an_order_of_whole_groups_is_accepted():
    assert order(xcenc, {"keyframe_distance": 2}, actors=[5, 4]).actors == (5, 4)
    assert order(xcenc, {"keyframe_distance": 1}, actors=[3, 5]).actors == (3, 5)
    assert order(chain, CHAIN, actors=[1, 0]).actors == (1, 0)


def test_a_rerun_without_a_neighbour_is_refused():
    class Linked(Pipeline):
        name, uses_relay = "linked", True

        def neighbour(self, params, actor):
            return actor - 1 if actor else None

        def begin(self, worker):
            raise AssertionError

    outcomes = [Outcome(None, None, 0, {}), Outcome("it broke", None, 1, {})]
    earlier = EarlierJob("old", "failed", {}, Planned([{}, {}], [0, 1]), outcomes)
    with pytest.raises(NoRerun, match="actor 1 waits for the state of actor 0, which would not"):
        plan_rerun(make_spec(None, pipeline=Linked()), earlier)


# ---------------------------------------------------------------- neighbours that fail


def chained(workers=4, **spec):
    """Return a planned job of xcenc7, whose actors are one group."""
    given = {"bucket": "b", "keyframe_distance": 16}
    params = Params(read_fields(xcenc7.parameters, given), workers=workers)
    job = recorded_job(make_spec(None, workers, pipeline=xcenc7, params=params, **spec))
    job.relay = "127.0.0.1:9"
    job.ledger = HeldJournal()
    job.record(Planned(xcenc7.plan(params), list(range(workers))))
    job.begin()
    return job


def go_on(job, seat, until, status=0):
    """Answer a worker's commands until one that contains `until`, to which it replies `status`."""
    attempt = next(a for actor in job.actors for a in actor.attempts if a.session is seat.session)
    outstanding = attempt.machine.worker.outstanding
    while outstanding:
        number, command = next(iter(outstanding.items()))
        if until in command:
            if status is not None:
                seat.say(number, f"OK:RETVAL({status}):OUTPUT():COMMAND(x)")
                settle(job)
            return
        for reply in seat.worker.answer(command):
            seat.say(number, reply)
        settle(job)


def failed_with(job):
    return {one.number: one.error for one in job.actors if one.state == "failed"}


def test_those_who_wait_for_a_neighbour_that_failed_for_good_fail_at_once():
    job = chained()
    seats = [Seat(job, f"a{n}") for n in range(3)]  # the last actor has no worker yet
    settle(job)
    for number in (1, 2):
        go_on(job, seats[number], f"-I ##TMPDIR##/{number - 1}.state", None)
    assert job.actors[2].waits_for() == "a program to end, which needs state 1 of actor 1"
    go_on(job, seats[0], TERMINATE, 1)
    settle(job)
    assert failed_with(job)[1] == "it waits for the state of actor 0, which has failed"
    assert failed_with(job)[3] == "it waits for the state of actor 2, which has failed"
    assert (job.state, seats[2].ended) == ("done", "quit")  # its Owner calls no finish


def test_with_a_retry_left_those_who_wait_go_on_waiting():
    job = chained(workers=2, retries=1)
    seats = [Seat(job, f"a{n}") for n in range(2)]
    settle(job)
    go_on(job, seats[1], "-I ##TMPDIR##/0.state", None)
    go_on(job, seats[0], TERMINATE, 1)
    assert not failed_with(job)
    assert job.actors[1].state == "running"
    go_on(job, Seat(job, "b0"), TERMINATE, 1)
    settle(job)
    assert list(failed_with(job)) == [0, 1]
    assert len(job.actors[1].failures) == 1


def test_a_state_that_was_passed_on_before_its_actor_failed_is_enough():
    job = chained(workers=3)
    seats = [Seat(job, f"a{n}") for n in range(2)]
    settle(job)
    go_on(job, seats[1], "-I ##TMPDIR##/0.state", None)
    go_on(job, seats[0], TERMINATE, 0)
    assert job.actors[1].waits_for() == "a program to end"
    seats[0].session.give_up("its worker is gone")
    settle(job)
    job.check("late")
    assert list(failed_with(job)) == [0]
    assert job.actors[1].state == "running"
    go_on(job, seats[1], "-I ##TMPDIR##/0.state", 1)
    settle(job)
    assert list(failed_with(job)) == [0, 1, 2]  # actor 1 never passed on its own


def test_old_records_do_not_say_what_was_passed_on_so_nothing_fails_because_of_them():
    job = chained(workers=2)
    Seat(job, "a0")
    settle(job)
    job.record(AttemptEnded(1.0, 0, 1, "why", None, "", "", True))
    job._show(job.actors[0])
    job.check("late")
    assert list(failed_with(job)) == [0]
    assert job.actors[1].state == "waiting"
