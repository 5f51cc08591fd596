"""Stages: actors that begin when others are done, with the results of those."""

from dataclasses import replace
from typing import cast

import pytest
from kit.journal import HeldJournal
from kit.parts import Port, make_spec, recorded_job
from kit.states import hello
from twisted.internet.task import Clock

from mu.jobs.history import attempts, results_before
from mu.jobs.plan import checked_plan
from mu.jobs.recovery import recover
from mu.jobs.rerun import plan_rerun, read_earlier
from mu.jobs.stages import Stages
from mu.journal.records import (
    Ahead,
    Assigned,
    Ordered,
    Planned,
    Resumed,
    Skipped,
    read_record,
    write_record,
)
from mu.page.feed import COLUMNS, row_of
from mu.parameters import Params
from mu.plugins import ALL, Pipeline, Staged
from mu.testing import FakeWorker, run


class Adding(Pipeline):
    """Each actor sends what it got from those before it, and ends with what its worker says."""

    name = "adding"

    def __init__(self, *plan):
        self._plan = list(plan)

    def plan(self, params):
        return self._plan

    async def _add(self, worker):
        return (await worker.ask(f"echo:{dict(worker.before)}")).removeprefix("OK:ECHO")

    def begin(self, worker):
        return self._add(worker)


TREE = [{}, {}, Staged({}, after=[0, 1])]


def record(*plan, **spec):
    """Return the record of a plan."""
    return checked_plan(make_spec(None, pipeline=Adding(*plan), **spec), list(plan), 100_000)


class Scene:
    """A job with a journal, and workers that connect in turn."""

    def __init__(self, *plan, engine="external", **spec):
        self.spec = make_spec(None, len(plan), pipeline=Adding(*plan), engine=engine, **spec)
        self.job = recorded_job(self.spec)
        self.job.ledger = self.journal = HeldJournal()
        self.job.record(record(*plan))
        self.job.begin()
        self.port = Port(self.job, heartbeat_s=1e6, silence_s=1e6)
        self.joined = 0
        self.journal.sync()

    def join(self):
        """Connect a worker, for the oldest launch without one."""
        launches = list(self.job.launches)
        launch = launches[self.joined] if launches else ""
        self.joined += 1
        line = self.port.join(hello=hello(f"{self.joined:04x}", launch))
        self.sync()
        return line

    def sync(self):
        while self.journal.synced < self.journal.written:
            self.journal.sync()

    def play(self, *replies):
        """Have one worker for each reply, which it gives to its first command."""
        for reply in replies:
            line = self.join()
            line.say(f"RE:1:{reply}".encode())
            self.sync()

    def restart(self, kept=None, begins=True):
        """Return the scene with a new coordinator, which finds the first records."""
        records = self.journal.records[:kept]
        found = Scene.__new__(Scene)
        found.spec, found.joined = self.spec, self.joined
        found.job = recorded_job(self.spec)
        cast(Clock, found.job.clock).advance(1000)
        found.job.ledger = found.journal = HeldJournal(
            [("j1", write_record(one)) for one in records]
        )
        recover(found.job, records, 900.0)
        found.job.record(Resumed(1000.0, 900.0))
        found.job.restart()
        found.port = Port(found.job, heartbeat_s=1e6, silence_s=1e6)
        if begins:
            found.job.begin()
            found.sync()
        return found

    @property
    def states(self):
        return [actor.state for actor in self.job.actors]


# ---------------------------------------------------------------- when they begin, and with what


def test_an_actor_begins_when_those_before_it_are_done_and_has_their_results():
    scene = Scene(*TREE)
    scene.play("OK:ECHOone")
    assert scene.states == ["done", "waiting", "waiting"]
    assert scene.job.actors[1].waits_for() == "a worker"
    assert scene.job.actors[2].waits_for() == "actors 0 and 1: 1 of 2 to go"
    scene.play("OK:ECHOtwo")
    assert scene.job.actors[2].waits_for() == "a worker"
    last = scene.join()
    assert last.heard[-1] == b"echo:{0: 'one', 1: 'two'}"
    last.say(b"RE:1:OK:ECHOboth")
    scene.sync()
    assert scene.job.outcomes()[-1].result == "both"
    assert scene.job.state == "done"


def test_workers_are_launched_only_for_actors_that_can_begin():
    scene = Scene(*TREE, engine="made up", spares=1)
    assert len(scene.job.launches) == 3  # two, and the spare
    scene.play("OK:ECHO", "OK:ECHO")
    assert len(scene.job.launches) == 3
    scene.play("OK:ECHO")  # the spare
    assert scene.job.state == "done"
    without = Scene(*TREE, engine="made up")
    assert len(without.job.launches) == 2
    without.play("OK:ECHO", "OK:ECHO")
    assert len(without.job.launches) == 3


def test_a_worker_that_comes_too_early_gets_no_actor_that_cannot_begin():
    scene = Scene(*TREE, engine="made up")
    scene.job.advance(spares=1)
    first, _second, third = scene.join(), scene.join(), scene.join()
    assert third.heard == [b"quit:"]
    answer(first, scene)
    assert scene.states == ["done", "running", "waiting"]


def test_workers_that_are_started_by_hand_wait_for_the_actors_that_will_need_them():
    scene = Scene(*TREE)
    first, second, third, fourth = [scene.join() for _ in range(4)]
    assert (third.heard, fourth.heard) == ([b"welcome:-:0:0"], [b"quit:"])
    answer(first, scene)
    answer(second, scene)
    assert third.heard[-1] == b"echo:{0: '', 1: ''}"


def test_users_see_which_stage_an_actor_is_in_and_which_one_it_waits_for():
    mapped, reduced = Staged({}, stage="map"), Staged({}, after="map", stage="reduce")
    scene = Scene(mapped, mapped, mapped, *[reduced] * 5)
    scene.play("OK:ECHO")
    group = scene.job.overview()["groups"][0]
    assert (group["actors"], group["waits_for"]) == (5, "stage map: 2 of 3 to go")
    assert [row["stage"] for row in scene.job.workers()] == ["map"] * 3 + ["reduce"] * 5
    place = COLUMNS.index("waits_for")
    assert [row_of(actor)[place] for actor in scene.job.actors[2:4]] == [None, "stage map"]
    scene.play("OK:ECHO", "OK:ECHO")
    assert row_of(scene.job.actors[3])[place] is None
    assert scene.job.actors[3].waits_for() == "a worker"


def test_after_is_numbers_or_the_name_of_a_stage_or_all():
    def waits(*plan):
        return record(*plan).after

    one, two = Staged({}, stage="map"), Staged({}, stage="map")
    assert waits(one, two, Staged({}, after="map")) == [[[0, 1], [2]]]
    assert waits(one, two, Staged({}, after=[1])) == [[[1], [2]]]
    assert waits(one, Staged({}, after=(0,)), Staged({}, after=range(2))) == [
        [[0], [1]],
        [[0, 1], [2]],
    ]
    assert waits({}, one, Staged({}, after=ALL), {}, Staged({}, after=ALL)) == [[[0, 1, 3], [2, 4]]]
    assert waits({}, Staged({}, after=()), Staged({})) == []
    assert waits(one, Staged({}, after="map"), Staged({}, after=[0])) == [[[0], [1, 2]]]
    assert record(one, {}, two).stages == [["map", [0, 2]]]


def test_a_plan_without_stages_is_as_it_was():
    planned = record({"after": [7], "stage": 1}, {})
    assert (planned.inputs, planned.after, planned.stages) == (
        [{"after": [7], "stage": 1}, {}],
        [],
        [],
    )


def test_an_input_named_before_is_the_scripts_own_unless_the_actor_waits():
    class Own(Adding):
        async def _tell(self, worker):
            before = worker.before
            return before if before == 1 else {str(actor): one for actor, one in before.items()}

        def begin(self, worker):
            return self._tell(worker)

    plan = [{"before": 1}, {}, Staged({"before": 2}, after=[0])]
    assert [one.finish.result for one in run(Own(*plan)).actors] == [1, {}, {"0": 1}]


MANY = 10_000


def test_ten_thousand_actors_after_ten_thousand_cost_no_more_than_their_numbers():
    plan = [{}] * MANY + [Staged({}, after=ALL)] * MANY
    planned = record(*plan)
    assert len(write_record(planned)) < 40 * MANY
    stages = Stages(planned.after)
    opened = [stages.end(actor, failed=False) for actor in range(MANY)]
    assert [len(some) for some in opened if some] == [MANY]


# ---------------------------------------------------------------- refused plans


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ([Staged({}, after=[0])], "actor 0 waits for itself"),
        (
            [{}, Staged({}, after=[0, 2]), Staged({}, after=[1])],
            "actors wait for one another: actor 1 for actor 2 for actor 1",
        ),
        (
            [Staged({}, after="b", stage="a"), Staged({}, after="a", stage="b")],
            "actors wait for one another: actor 0 for actor 1 for actor 0",
        ),
        (
            [Staged({}, after=[1]), Staged({}, after=ALL)],
            "actors wait for one another: actor 0 for actor 1 for actor 0",
        ),
        (
            [{}, Staged({}, after=[2])],
            "actor 1 waits for actor 2, but there are only actors 0 to 1",
        ),
        ([{}, Staged({}, after=[-1])], "actor 1 waits for actor -1, but there are only"),
        (
            [Staged({}, stage="map"), Staged({}, after="mpa")],
            "actor 1 waits for the stage 'mpa', but the stages are map",
        ),
        ([{}, Staged({}, after="map")], "waits for the stage 'map', but there are no stages"),
        ([Staged({}, after=ALL)], "actor 0 waits for 'all', but no actor comes before"),
        ([Staged({}, stage="all")], "actor 0: a stage cannot have the name 'all'"),
    ],
)
def test_a_plan_that_could_not_end_is_refused(plan, why):
    with pytest.raises(ValueError, match=why):
        record(*plan)


@pytest.mark.parametrize(
    ("staged", "why"),
    [
        (Staged({}, after=[True]), "after must be a list of the numbers of actors"),
        (Staged({}, after=7), "after must be a list of the numbers of actors"),
        (Staged({}, after=["map"]), "after must be a list of the numbers of actors"),
        (Staged([]), "the input of a Staged must be a dict"),
        (Staged({}, stage="a\n"), "the name of a stage must be at most 100 printable characters"),
    ],
)
def test_a_staged_that_is_none_is_refused(staged, why):
    with pytest.raises(TypeError, match=f"actor 1: {why}"):
        record({}, staged)


def test_a_cycle_of_thousands_is_named_in_a_line():
    plan = [Staged({}, after=[(actor + 1) % 5000]) for actor in range(5000)]
    with pytest.raises(ValueError, match="actor 0 for actor 1 .* for actor 9 for \\.\\.\\.$"):
        record(*plan)


def test_actors_whose_predecessors_the_order_leaves_out_are_refused():
    with pytest.raises(
        ValueError, match="actor 2 was ordered, but not actor 1, which it waits for"
    ):
        record(*TREE, actors=(0, 2))
    assert record(*TREE, actors=(0, 1)).after == [[[0, 1], [2]]]


def test_stages_need_one_actor_after_another_and_not_all_at_once():
    pipeline = Adding(*TREE)
    pipeline.all_at_once = True
    with pytest.raises(ValueError, match="its actors must all run at the same time"):
        checked_plan(make_spec(None, pipeline=pipeline), TREE, 10)


# ---------------------------------------------------------------- failures


def test_an_actor_fails_with_those_that_it_waits_for():
    scene = Scene(*TREE, Staged({}, after=[2]))
    scene.play("FAIL(no)")
    _first, _second, third, fourth = scene.job.actors
    assert scene.states == ["failed", "waiting", "failed", "failed"]
    assert third.error == "it could not begin: actor 0, which it waits for, failed"
    assert fourth.error == "it could not begin: actor 2, which it waits for, failed"
    assert third.tried == 0
    scene.play("OK:ECHO")
    assert scene.job.failures().startswith("3 of 4 actors failed: actor 0: ")
    assert scene.job.life.value == "done"


def test_a_tolerated_failure_leaves_none_in_its_place():
    scene = Scene(*TREE, tolerate=1)
    scene.play("FAIL(no)", "OK:ECHOtwo")
    last = scene.join()
    assert last.heard[-1] == b"echo:{0: None, 1: 'two'}"


def test_what_is_tolerated_is_counted_over_the_whole_job():
    scene = Scene({}, {}, Staged({}, after=[0]), Staged({}, after=[1]), Staged({}), tolerate=1)
    scene.play("FAIL(no)")
    assert scene.states == ["failed", "waiting", "waiting", "waiting", "waiting"]
    scene.play("FAIL(no)")
    assert scene.states == ["failed", "failed", "failed", "failed", "waiting"]


def test_an_actor_that_has_begun_goes_on_when_more_fail_than_are_tolerated():
    scene = Scene({}, Staged({}, after=[0]), {}, tolerate=1)
    other = scene.port.join(hello=hello("ffff"))  # gets actor 0
    scene.sync()
    other.say(b"RE:1:FAIL(no)")
    scene.sync()
    third, second = scene.join(), scene.join()
    assert second.heard[-1] == b"echo:{0: None}"
    third.say(b"RE:1:FAIL(no)")
    scene.sync()
    assert scene.states == ["failed", "running", "failed"]
    second.say(b"RE:1:OK:ECHO")
    scene.sync()
    assert scene.states == ["failed", "done", "failed"]


def test_a_retry_that_succeeds_is_no_failure():
    scene = Scene(*TREE, retries=1)
    scene.play("FAIL(no)", "OK:ECHO1", "OK:ECHO2")
    last = scene.join()
    assert last.heard[-1] == b"echo:{0: '1', 1: '2'}"
    last.say(b"RE:1:FAIL(no)")
    scene.sync()
    again = scene.join()
    assert again.heard[-1] == b"echo:{0: '1', 1: '2'}"


def test_a_cancelled_job_cancels_the_actors_that_wait_for_others():
    scene = Scene(*TREE)
    scene.job.stop("cancelled", "enough")
    scene.sync()
    assert scene.states == ["cancelled"] * 3


# ---------------------------------------------------------------- restarts


def test_a_restart_after_any_record_changes_nothing():
    whole = Scene(*TREE, Staged({}, after=[2]), retries=1)
    whole.play("OK:ECHO0", "OK:ECHO1", "OK:ECHO2")
    for kept in range(1, len(whole.journal.records) + 1):
        found = whole.restart(kept)
        found.job.clock.advance(100)  # those whose workers are gone begin anew
        for _ in range(4 - found.states.count("done")):
            line = found.join()
            said = b"RE:1:OK:ECHO" + line.heard[-1].replace(b"echo:", b"")[-4:-2]
            line.say(said)
            found.sync()
        assert found.job.state == "done"
        begun = [one.actor for one in found.journal.records if isinstance(one, Assigned)]
        assert begun.index(2) > max(begun.index(0), begun.index(1))
        assert begun[-1] == 3


def test_a_restart_fails_what_could_not_be_failed_before_the_crash():
    scene = Scene(*TREE)
    scene.play("FAIL(no)")
    records = scene.journal.records
    (place,) = [at for at, one in enumerate(records) if isinstance(one, Skipped)]
    for kept in (place, place + 1):
        found = scene.restart(kept)
        assert found.states == ["failed", "waiting", "failed"]
        assert sum(isinstance(one, Skipped) for one in found.journal.records) == 1


def test_a_worker_that_is_faster_than_the_restart_gets_no_actor_that_cannot_begin():
    scene = Scene(*TREE)
    scene.play("OK:ECHO", "FAIL(no)")
    records = scene.journal.records
    (place,) = [at for at, one in enumerate(records) if isinstance(one, Skipped)]
    found = scene.restart(place, begins=False)
    assert found.join().heard == [b"quit:"]
    assert found.job.actors[2].tried == 0


def test_a_replay_gives_an_actor_what_it_got():
    scene = Scene(*TREE, tolerate=1)
    scene.play("OK:ECHO0", "FAIL(no)", "OK:ECHO2")
    records = scene.journal.records
    (plan,) = [one for one in records if isinstance(one, Planned)]
    before = results_before(plan, records)
    assert [before(actor) for actor in range(3)] == [None, None, {0: "0", 1: None}]
    assert len(attempts(records)) == 3


# ---------------------------------------------------------------- reruns


def rerun(scene, again=None):
    """Return the scene of a job that reruns another one; `again` is what the pipeline chooses."""
    pipeline = scene.spec.pipeline
    if again is not None:
        pipeline.rerun = lambda params, outcomes: again
    lines = [write_record(Ordered(0.0, "u", {}, "", ""))]
    lines += [write_record(one) for one in scene.journal.records]
    planned = plan_rerun(scene.spec, read_earlier("j1", "failed", lines))
    found = Scene.__new__(Scene)
    found.spec, found.joined = scene.spec, 0
    found.job = recorded_job(scene.spec, "j2")
    found.job.ledger = found.journal = HeldJournal()
    found.job.record(read_record(write_record(planned)))
    found.job.begin()
    found.port = Port(found.job, heartbeat_s=1e6, silence_s=1e6)
    found.sync()
    return found


def test_a_rerun_has_the_results_of_actors_that_do_not_run_again():
    old = Scene(*TREE, Staged({}, after=[0]))
    old.play("OK:ECHOone", "FAIL(no)", "OK:ECHOdone")
    assert old.states == ["done", "failed", "failed", "done"]
    new = rerun(old)
    assert [actor.number for actor in new.job.actors] == [1, 2]
    assert new.job.actors[1].waits_for() == "actors 0 and 1: 1 of 2 to go"
    line = new.port.join("j2", hello("0001"))
    answer(line, new, b"OK:ECHOtwo")
    last = new.port.join("j2", hello("0002"))
    new.sync()
    assert last.heard[-1] == b"echo:{0: 'one', 1: 'two'}"
    answer(last, new, b"OK:ECHOboth")
    assert [one.result for one in new.job.outcomes()] == ["one", "two", "both", "done"]


def test_those_that_waited_for_an_actor_that_runs_again_run_again_too():
    old = Scene(*TREE, Staged({}, after=[2]), Staged({}, after=[0]), tolerate=1)
    old.play("OK:ECHO0", "FAIL(no)", "OK:ECHO4", "OK:ECHO2", "OK:ECHO3")
    assert old.states == ["done", "failed", "done", "done", "done"]
    assert [actor.number for actor in rerun(old).job.actors] == [1, 2, 3]


def test_what_failed_and_does_not_run_again_has_failed_in_the_rerun_too():
    old = Scene(*TREE)
    old.play("FAIL(no)", "FAIL(no)")
    new = rerun(old, {2: {}})
    assert [actor.number for actor in new.job.actors] == [2]
    assert new.states == ["failed"]
    assert new.job.actors[0].error.startswith("it could not begin: 2 actors that it waits for")
    tolerant = Scene(*TREE, tolerate=3)
    tolerant.play("FAIL(no)", "OK:ECHO", "FAIL(no)")
    new = rerun(tolerant, {2: {}})
    line = new.port.join("j2", hello("0001"))
    new.sync()
    assert line.heard[-1] == b"echo:{0: None, 1: ''}"


# ---------------------------------------------------------------- workers launched ahead


def ahead(*plan, ahead_s=5.0, **spec):
    """Return a scene whose workers are launched up to that many seconds ahead."""
    scene = Scene(*plan, engine="made up", **spec)
    scene.job.limits = replace(scene.job.limits, ahead_s=ahead_s)
    return scene


def tick(scene, seconds):
    for _ in range(seconds):
        scene.job.clock.advance(1)
        scene.job.check("no worker connected")
        scene.sync()


def answer(line, scene, reply=b"OK:ECHO"):
    line.say(b"RE:1:" + reply)
    scene.sync()


def test_a_worker_is_launched_ahead_and_waits_for_its_actor():
    scene = ahead(*TREE)
    first = scene.join()
    tick(scene, 20)
    second = scene.join()
    answer(first, scene)  # so actors take 20 s
    tick(scene, 10)
    assert len(scene.job.launches) == 2
    tick(scene, 5)
    assert len(scene.job.launches) == 3
    third = scene.join()
    tick(scene, 30)  # it takes longer than it seemed
    assert third.heard == [b"welcome:-:0:0"]
    assert len(scene.job.launches) == 3
    assert scene.job.staff()["spare"] == 1
    answer(second, scene, b"OK:ECHOtwo")
    assert third.heard[-1] == b"echo:{0: '', 1: 'two'}"
    assert len(scene.job.launches) == 3


def test_a_worker_that_waits_ahead_still_waits_after_a_restart():
    scene = ahead(*TREE, worker_timeout_s=9000.0)
    first, second = scene.join(), scene.join()
    tick(scene, 20)
    answer(first, scene)
    tick(scene, 1)
    third = scene.join()
    assert third.heard == [b"welcome:-:0:0"]
    found = scene.restart()
    launches = list(found.job.launches)
    back = found.port.join(hello=hello("0003", launches[2]))
    found.sync()
    assert back.heard == [b"welcome:-:0:0"]
    again = found.port.join(hello=hello("0002", launches[1], [b"echo:{}"]))
    answer(again, found)
    assert back.heard[-1] == b"echo:{0: '', 1: ''}"
    assert (len(launches), len(found.job.launches)) == (3, 3)
    second.hang_up()


def test_a_worker_that_waits_ahead_helps_a_retry_and_is_replaced():
    scene = ahead(*TREE, retries=1)
    first, second = scene.join(), scene.join()
    tick(scene, 20)
    answer(first, scene)
    tick(scene, 1)
    third = scene.join()
    answer(second, scene, b"FAIL(no)")
    assert third.heard[-1] == b"echo:{}"
    assert len(scene.job.launches) == 4


def test_a_worker_that_has_waited_for_half_of_its_functions_time_is_replaced():
    scene = ahead(*TREE)
    scene.job.function_timeout_s = 60.0
    first = scene.join()
    tick(scene, 20)
    scene.join()
    answer(first, scene)
    tick(scene, 20)
    third = scene.join()
    tick(scene, 31)
    assert third.heard[-1] == b"quit:"
    assert len(scene.job.launches) == 4


def test_workers_that_were_launched_ahead_in_vain_are_let_go():
    scene = ahead(*TREE)
    first, second = scene.join(), scene.join()
    tick(scene, 20)
    answer(first, scene)
    tick(scene, 1)
    third = scene.join()
    answer(second, scene, b"FAIL(no)")
    assert scene.states == ["done", "failed", "failed"]
    assert third.heard[-1] == b"quit:"


def test_nothing_is_launched_ahead_for_an_actor_that_has_failed():
    scene = ahead({}, {}, {}, Staged({}, after=[0, 1, 2]))
    first, second, _ = scene.join(), scene.join(), scene.join()
    tick(scene, 20)
    answer(first, scene)
    answer(second, scene, b"FAIL(no)")
    assert scene.states == ["done", "failed", "running", "failed"]
    tick(scene, 20)
    assert len(scene.job.launches) == 3
    assert not any(isinstance(one, Ahead) for one in scene.journal.records)


def test_nothing_is_launched_ahead_of_actors_that_may_take_any_time():
    scene = ahead(*TREE, Staged({}, after=[2]))
    scene.join(), scene.join()
    tick(scene, 100)
    assert len(scene.job.launches) == 2  # nobody knows how long they take
    without = ahead(*TREE, ahead_s=0.0)
    first = without.join()
    without.join()
    tick(without, 20)
    answer(first, without)
    tick(without, 20)
    assert len(without.job.launches) == 2


# ---------------------------------------------------------------- stragglers


def test_a_straggler_is_measured_by_its_own_stage():
    quick, slow = Staged({}, stage="quick"), Staged({}, after="quick", stage="slow")
    scene = Scene(quick, quick, slow, slow, engine="made up", spares=3, stragglers=2.0)
    one, two, three, four, _spare = [scene.join() for _ in range(5)]
    tick(scene, 1)
    answer(one, scene)
    answer(two, scene)
    assert scene.states == ["done", "done", "running", "running"]
    tick(scene, 40)
    answer(three, scene)
    tick(scene, 39)
    assert len(scene.job.actors[3].attempts) == 1
    tick(scene, 3)
    assert len(scene.job.actors[3].attempts) == 2
    answer(four, scene)
    assert scene.states == ["done"] * 4


# ---------------------------------------------------------------- the dry run of authors


def test_authors_play_stages_without_a_network():
    plan = [Staged({}, after="map", stage="reduce"), *[Staged({}, stage="map")] * 2]
    played = run(Adding(*plan), worker=FakeWorker())
    assert [one.commands for one in played.actors] == [
        ["echo:{1: '({})', 2: '({})'}"],
        ["echo:{}"],
        ["echo:{}"],
    ]


def test_a_result_is_what_a_restart_finds():
    class Pairs(Adding):
        async def _pair(self, worker):
            return worker.before.get(0, (1, 2))

        def begin(self, worker):
            return self._pair(worker)

    assert run(Pairs({}, Staged({}, after=[0]))).actors[1].finish.result == [1, 2]


def test_what_an_actor_changes_in_a_result_no_other_one_sees():
    class Changing(Adding):
        async def _change(self, worker):
            worker.before[0]["found"].append(worker.actor)
            return [worker.before[0], f"{worker.before}"]

        def begin(self, worker):
            return self._change(worker) if worker.before else self._find(worker)

        async def _find(self, worker):
            return {"found": []}

    played = run(Changing({}, *[Staged({}, after=[0])] * 2))
    seen = [{"found": []}, "{0: {'found': []}}"]
    assert [one.finish.result for one in played.actors[1:]] == [seen, seen]


def test_params_are_as_ordered():
    assert Pipeline.plan(Adding(), Params(workers=2)) == [{}, {}]
