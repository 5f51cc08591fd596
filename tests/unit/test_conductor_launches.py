"""Which launches a job repeats, and how its actors fail when no worker comes or one is lost."""

from kit.conductor import Bench, Dated, Patient, dated_bench, joined
from kit.parts import OneState, Threads
from twisted.internet.defer import fail, succeed

from mu.invocations import BadEnding, Throttled
from mu.messages import Hello


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


def test_each_missing_worker_fails_another_actor():
    bench = Bench()
    job = bench.start(workers=6, retries=2)
    bench.reactor.pump([1] * 121)
    assert [len(actor.failures) for actor in job.actors] == [1] * 6
    bench.reactor.pump([1] * 121)
    assert [len(actor.failures) for actor in job.actors] == [2] * 6
    assert job.state == "running"


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
    assert row["waits_for"] == "a place: queued: Resources"
    joined(bench, job, bench.engine.asked[0])
    assert job.counts["running"] == 1


def test_a_worker_that_has_ended_without_a_hello_is_replaced_at_once():
    bench = Bench()
    job = bench.start(Patient, retries=1)
    bench.conductor.watch.ended(bench.engine.asked[0], "ended: NODE_FAIL")
    bench.reactor.pump([1] * 2)
    assert len(bench.engine.asked) == 2
    bench.conductor.watch.ended(bench.engine.asked[1], "ended: NODE_FAIL")
    bench.reactor.pump([1] * 2)
    assert "actor 0: its worker did not connect: it ended: NODE_FAIL (after 2" in job.error


def test_an_engine_is_told_when_a_job_has_ended():
    bench = Bench()
    dropped = []
    bench.engine.cancel = lambda job_id: succeed(dropped.append(job_id))
    job = bench.start(Patient)
    assert dropped == []
    bench.conductor.cancel(job)
    assert dropped == [job.id]


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
