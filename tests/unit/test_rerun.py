"""Reruns: a new job that runs what failed in an old one, and knows what the old one has done."""

import pytest
from kit.journal import HeldJournal
from kit.parts import OneState, Port, Reactor, Threads, make_spec
from twisted.internet.threads import deferToThreadPool
from twisted.logger import capturedLogs

from mu.config import Config
from mu.jobs.conductor import Conductor
from mu.jobs.recovery import find
from mu.jobs.rerun import NoRerun, merged, plan_rerun, read_earlier
from mu.journal.records import AttemptEnded, NobodyCame, Ordered, Planned, write_record
from mu.parameters import Params
from mu.pipelines.chain import chain
from mu.pipelines.map import map_pipeline
from mu.pipelines.xcenc import xcenc
from mu.plugins import JobFailed, Outcome
from mu.states import MachineState, TerminalState


class Said(TerminalState):
    def __init__(self, prevState, actorNum=0):
        super().__init__(prevState, actorNum)
        self.result = prevState.messages[-1]


class Listen(MachineState):
    """Ends with the worker's next reply."""

    def transition(self, msg):
        self.messages.append(msg)
        return self if msg.startswith("OK:HELLO") else Said(self)


class Listening(OneState):
    """Its result is what each actor said last; it fails if `fails` is set."""

    fails = ""

    def __init__(self):
        super().__init__(Listen)

    def finish(self, job, outcomes):
        told = [[one.actor, one.error or one.result] for one in outcomes]
        if self.fails:
            raise JobFailed(self.fails, told)
        return told


class Scene:
    """A conductor with a journal, and workers that say what the test wants."""

    def __init__(self, journal=None):
        self.reactor, threads = Reactor(), Threads()
        self.port = Port(clock=self.reactor)
        self.journal = journal or HeldJournal()
        self.conductor = Conductor(
            Config(),
            self.port.book,
            self.journal,
            self.port.authority,
            {},
            lambda *call: deferToThreadPool(self.reactor, threads, *call),
            self.reactor,
        )
        self.pipeline = Listening()

    def sync(self):
        """Have everything on disk, and what follows from that."""
        while self.journal.synced < self.journal.written:
            self.journal.sync()

    def spec(self, workers=3, **more):
        given = {"engine": "external", "order": {"pipeline": "one", "params": {}}}
        return make_spec(Listen, workers, **(given | {"pipeline": self.pipeline} | more))

    def order(self, plan=None, **spec):
        started = []
        self.conductor.start(self.spec(**spec), plan).addCallback(started.append)
        self.sync()
        return started[0]

    def play(self, job, *replies):
        """Have a worker for each reply, in the order of the actors."""
        for reply in replies:
            line = self.port.join(job.id)
            self.sync()
            line.say(reply)
            self.sync()

    def plan(self, job, **spec):
        """Return the plan of a rerun of that job."""
        earlier = read_earlier(job.id, job.state, self.journal.lines(job.id))
        return plan_rerun(self.spec(**spec), earlier)

    def rerun(self, job):
        return self.order(self.plan(job), rerun=job.id)


def test_a_rerun_runs_the_actors_that_failed_and_finish_gets_all_outcomes():
    scene = Scene()
    job = scene.order()
    scene.play(job, b"OK:a", b"FAIL(no)", b"OK:c")
    assert (job.state, job.counts["failed"]) == ("failed", 1)
    again = scene.rerun(job)
    assert [actor.number for actor in again.actors] == [1]
    assert again.facts.actors == 3
    scene.play(again, b"OK:b")
    assert (again.state, again.error) == ("done", None)
    assert again.result == [[0, "OK:a"], [1, "OK:b"], [2, "OK:c"]]
    assert (again.describe()["rerun"], again.describe()["workers"]) == (job.id, 1)


def test_what_fails_again_can_be_rerun_again_and_still_nothing_is_lost():
    scene = Scene()
    job = scene.order()
    scene.play(job, b"OK:a", b"FAIL(no)", b"FAIL(no)")
    again = scene.rerun(job)
    scene.play(again, b"FAIL(never)", b"OK:c")
    assert again.error.startswith("1 of 3 actors failed: actor 1: ")
    assert [one[0] for one in again.result] == [0, 1, 2]
    third = scene.rerun(again)
    scene.play(third, b"OK:b")
    assert third.result == [[0, "OK:a"], [1, "OK:b"], [2, "OK:c"]]


def test_actors_of_a_cancelled_job_run_again_whether_they_had_a_worker_or_not():
    scene = Scene()
    job = scene.order()
    scene.play(job, b"OK:a", b"OK:HELLO again")
    scene.conductor.cancel(job)
    scene.sync()
    assert [actor.state for actor in job.actors] == ["done", "cancelled", "cancelled"]
    assert [actor.number for actor in scene.rerun(job).actors] == [1, 2]


def test_a_job_of_which_only_finish_failed_reruns_only_finish():
    scene = Scene()
    scene.pipeline.fails = "no bucket"
    job = scene.order(workers=1)
    scene.play(job, b"OK:a")
    assert (job.state, job.error) == ("failed", "no bucket")
    scene.pipeline.fails = ""
    again = scene.rerun(job)
    scene.sync()
    assert (again.state, again.result) == ("done", [[0, "OK:a"]])
    assert again.describe()["workers"] == 0


def test_a_rerun_looks_the_same_after_a_restart_and_goes_on():
    scene = Scene()
    job = scene.order()
    scene.play(job, b"OK:a", b"FAIL(no)", b"FAIL(no)")
    again = scene.rerun(job)
    scene.play(again, b"OK:b")
    told, workers = again.describe(), again.workers()
    other = Scene(HeldJournal(scene.journal._entries))
    found, lost, last = find(other.journal, lambda ordered: scene.spec(rerun=job.id))
    assert lost == {}
    other.conductor.restore(found, last)
    other.conductor.resume()
    other.sync()
    (restored,) = [one for one in other.port.book.all() if one.id == again.id]
    assert (restored.describe(), restored.workers()) == (told, workers)
    other.play(restored, b"OK:c")
    assert restored.result == [[0, "OK:a"], [1, "OK:b"], [2, "OK:c"]]


def test_a_rerun_that_is_stopped_before_its_order_is_on_disk_has_cancelled_actors():
    scene = Scene()
    job = scene.order()
    scene.play(job, b"OK:a", b"FAIL(no)", b"OK:c")
    started = []
    scene.conductor.start(scene.spec(rerun=job.id), scene.plan(job)).addCallback(started.append)
    scene.conductor.stop(keep=False)
    scene.sync()
    assert started[0].state == "cancelled"
    assert [actor.state for actor in started[0].actors] == ["cancelled"]


def asked(scene, job_id):
    told = []
    coming = scene.conductor.earlier(job_id)
    try:
        coming.send(None)
    except NoRerun as refused:
        told.append(str(refused))
    coming.close()
    return told[0]


def test_a_job_that_runs_or_is_unknown_cannot_be_rerun():
    scene = Scene()
    job = scene.order()
    assert f"job {job.id} still runs" in asked(scene, job.id)
    assert "there is no job 'x'" in asked(scene, "x")


ORDER = {"pipeline": "one", "params": {}}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([], "are no longer in the journal"),
        ([Ordered(1.0, "u", ORDER, "", "")], "ended before it had a plan"),
        (["no record"], "the records of job j1 are damaged"),
    ],
)
def test_a_job_without_its_records_cannot_be_rerun(records, says):
    lines = [one if isinstance(one, str) else write_record(one) for one in records]
    with pytest.raises(NoRerun, match=says):
        read_earlier("j1", "failed", lines)


def test_a_job_without_failures_has_nothing_to_rerun():
    scene = Scene()
    job = scene.order(workers=1)
    scene.play(job, b"OK:a")
    with pytest.raises(NoRerun, match="nothing to rerun: none of its inputs failed"):
        scene.plan(job)


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (lambda *_: {7: {}}, "TypeError: rerun.. must return a dict .* got 7: {}"),
        (lambda *_: {0: None}, "got 0: None"),
        (lambda *_: {0: {"x": {1}}}, "TypeError: Object of type set"),
        (lambda *_: 1 / 0, "the rerun of one failed: ZeroDivisionError"),
    ],
)
def test_a_pipeline_that_reruns_what_was_not_there_is_refused(hook, says):
    scene = Scene()
    job = scene.order(workers=1)
    scene.play(job, b"FAIL(no)")
    scene.pipeline.rerun = hook
    with capturedLogs(), pytest.raises(NoRerun, match=says):
        scene.plan(job)


def test_a_rerun_counts_the_inputs_that_its_actors_have_now():
    scene = Scene()
    scene.pipeline.plan = lambda params: [{"keys": ["a", "b", "c"]}, {"keys": ["d"]}]
    scene.pipeline.inputs = lambda given: given["keys"]
    job = scene.order(workers=2)
    assert job.describe()["inputs"]["total"] == 4
    scene.play(job, b"FAIL(no)", b"OK:d")
    scene.pipeline.rerun = lambda *_: {0: {"keys": ["b", "c"]}}
    assert scene.rerun(job).describe()["inputs"]["total"] == 2


def test_the_first_attempt_that_is_done_counts_and_absences_are_failures():
    ended = [
        AttemptEnded(2.0, 0, 1, None, "first", "", "", True),
        AttemptEnded(3.0, 0, 2, "another attempt at its actor finished first", None, "", "", True),
        NobodyCame(2.0, 1, "no worker connected"),
    ]
    lines = [Ordered(1.0, "u", ORDER, "", ""), Planned([{}, {}, {}], [0, 1, 2]), *ended]
    earlier = read_earlier("j1", "failed", map(write_record, lines))
    assert [(one.error, one.result) for one in earlier.outcomes] == [
        (None, "first"),
        ("no worker connected", None),
        ("it had not ended when its job did", None),
    ]


# ---------------------------------------------------------------- the pipelines that come with mu


def test_pipelines_that_pass_states_rerun_whole_groups_or_refuse():
    outcomes = [
        Outcome("no" if actor in (1, 4) else None, None, actor, {"a": actor}) for actor in range(8)
    ]
    again = xcenc.rerun(Params(keyframe_distance=3), outcomes)
    assert again == {actor: {"a": actor} for actor in range(6)}
    with pytest.raises(ValueError, match="order it again"):
        chain.rerun(Params(), outcomes)
    assert chain.rerun(Params(), outcomes[:1]) == {}


def test_map_runs_failed_and_unknown_keys_in_their_actors():
    done, bad = {"key": "a"}, {"key": "b", "error": "exit status 1"}
    first = Outcome(None, {"keys": [done, bad]}, 0, {"keys": ["a", "b"]})
    lost = Outcome("its worker is gone", None, 1, {"keys": ["c", "d"]})
    assert map_pipeline.rerun(Params(), [first, lost]) == {
        0: {"keys": ["b"]},
        1: {"keys": ["c", "d"]},
    }
    mended = Outcome(None, {"keys": [{"key": "b"}]}, 0, {"keys": ["b"]})
    assert map_pipeline.rerun(Params(), merged([first, lost], [mended])) == {
        1: {"keys": ["c", "d"]}
    }
    lost_again = Outcome("its worker is gone", None, 0, {"keys": ["b"]})
    assert map_pipeline.rerun(Params(), merged([first], [lost_again])) == {0: {"keys": ["b"]}}
