"""Whole jobs on bad days: whatever befalls workers, network, S3 and daemon, nothing is lost.

Each seed is a schedule of tests/faults.py. One that once showed a bug stays here for ever.
"""

import pytest
from kit.film import order, wait_until
from kit.local import processes_of
from kit.parts import Port, make_job
from kit.survival import Stage, survive

from mu.messages import Hello
from mu.states import MachineState

# ---------------------------------------------------------------- the journal


# ---------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def stage(tmp_path_factory, s3, joiner):
    stage = Stage(tmp_path_factory.mktemp("days"), s3, joiner, hold_s=1)
    yield stage
    stage.close()


@pytest.mark.parametrize(
    "seed", [9, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (14, 7, 28, 52))]
)
def test_a_bad_day_costs_nothing_but_time(stage, seed):
    survive(stage, seed, workers=6, life_s=1.5)


def test_a_bad_day_behind_haproxy_costs_nothing_but_time(tmp_path, s3, joiner):
    stage = Stage(tmp_path, s3, joiner, hold_s=1, fronted=True)
    survive(stage, seed=9, workers=6, life_s=1.5)
    stage.close()


# ---------------------------------------------------------------- what bad days found


class Waits(MachineState):
    """For ever."""


def test_a_stop_that_keeps_jobs_does_not_wait_for_their_workers():
    port = Port(make_job(Waits))
    line = port.join(hello=Hello("aa"))
    (connection,) = port.factory.connections
    connection.stop("the coordinator was stopped", keep=True)
    assert not line.open
    assert not port.factory.connections
    assert line.heard == [b"welcome:0:1:0"]


def test_a_stop_that_keeps_jobs_counts_against_nobody():
    job = make_job(Waits)
    port = Port(job)
    port.join(hello=Hello("aa"))
    (connection,) = port.factory.connections
    connection.stop("the coordinator was stopped", keep=True)
    port.clock.advance(job.limits.hold_s + 1)
    assert job.actors[0].attempts
    assert not job.actors[0].failures


def test_an_engine_that_is_left_running_is_not_reported_as_dead(stage):
    stage.running.ask("/jobs", order("left", workers=1, engine="external"))
    before = len(stage.log)
    stage.stop()
    stage.start()
    assert "1 running jobs will resume" in stage.log[before:]
    assert "ended unexpectedly" not in stage.log[before:]


def test_a_job_that_was_just_cancelled_keeps_no_engine(stage):
    stage.clear()
    job = stage.running.ask("/jobs", order("kept", workers=1, engine="external"))
    stage.running.ask(f"/jobs/{job['id']}", method="DELETE")
    stage.stop()
    wait_until(lambda: not processes_of(stage.home))
    stage.start()
    assert stage.running.wait(job["id"])["state"] == "cancelled"
