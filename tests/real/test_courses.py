"""Job histories: read from a journal without changing it, and replayed."""

import json
import os
import sqlite3
from dataclasses import replace

import pytest
from kit.film import wait_until
from twisted.internet.task import Clock

from mu.config import Config, MuSection
from mu.events import Answered, Entered
from mu.jobs.history import JOURNAL, NoHistory, replay_job
from mu.journal.records import (
    Assigned,
    AttemptEnded,
    NobodyCame,
    Ordered,
    Planned,
    Resumed,
    write_event,
    write_record,
)
from mu.journal.writer import Journal
from mu.machine import Machine
from mu.parameters import Parameter, Params
from mu.plugins import Pipeline
from mu.registry import Broken, Registry
from mu.states import CommandListState
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state
from mu.testing import FakeWorker, play

JOB = "ab12cd34ef56"


class Echo(Pipeline):
    """A pipeline whose actors greet the person in their input."""

    name = "echo"
    description = "Greet."
    parameters = (Parameter("greeting", str, "what is said", "hello"),)

    def __init__(self, more=()):
        self._more = list(more)

    def begin(self, worker):
        said = [f"echo:{worker.job.params.greeting} {worker.input['to']}", *self._more, "quit:"]
        return type("Greet", (CommandListState,), {"commandlist": said})(worker)


def registry(pipeline):
    known = Registry()
    known.pipelines[pipeline.name] = pipeline
    return known


INPUTS = [{"to": "Ann"}, {"to": "Bob"}]
ORDER = {"pipeline": "echo", "workers": 2, "params": {}, "engine": "local", "function": "echo"}
ORDER |= {"regions": ["us-east-1"], "deadline_s": 60.0, "worker_timeout_s": 30.0}


class Reactor(Clock):
    def callFromThread(self, call, *args):
        call(*args)


@pytest.fixture
def config(tmp_path):
    return Config(mu=MuSection(tmp_path))


def keep(config, *lines, job=JOB):
    """Write these lines or records to a journal."""
    reactor = Reactor()
    journal = Journal(config.home / JOURNAL, reactor, 0.1, pytest.fail)
    for line in lines:
        journal.write(job, line if isinstance(line, str) else write_record(line))
    closed = journal.close()
    reactor.advance(0)
    wait_until(lambda: closed.called)


def begun(**changed):
    return [Ordered(100.0, "uniq", {**ORDER, **changed}, "", ""), Planned(INPUTS, [0, 1])]


def events(actor, attempt=1, answers=None, pipeline=None):
    """Return the lines of an attempt that was run with the pipeline."""
    facts = JobFacts(JOB, Params(greeting="hello", workers=2), 2, "", "uniq")
    worker = ScriptWorker(facts, actor, INPUTS[actor])
    played = play(Machine(worker, first_state((pipeline or Echo()).begin)), FakeWorker(answers))
    pairs = zip(played.events, played.effects, strict=True)
    return [write_event(actor, attempt, *pair) for pair in pairs]


def assigned(actor, attempt=1, at=101.0):
    return Assigned(at, actor, attempt, f"session{actor}{attempt}", "launch")


def ended(actor, attempt=1, error=None, at=103.0):
    return AttemptEnded(at, actor, attempt, error, None, "Greet", "OK:ECHO(x)", True)


def both_done():
    first = [assigned(0), *events(0), ended(0)]
    return [*begun(), *first, assigned(1), *events(1), ended(1)]


# ---------------------------------------------------------------- what is returned


def test_an_attempt_with_the_same_effects_replays(config):
    keep(config, *both_done())
    told = replay_job(config, JOB, registry=registry(Echo()))
    assert (told["id"], told["pipeline"], told["created"]) == (JOB, "echo", 100.0)
    assert [one["actor"] for one in told["attempts"]] == [0, 1]
    assert [one["diverged"] for one in told["attempts"]] == [None, None]
    first = told["attempts"][0]
    assert (first["attempt"], first["session"], first["events"]) == (1, "session01", 3)
    assert (first["began"], first["finished"], first["error"]) == (101.0, 103.0, None)
    assert "course" not in first


def test_with_an_actor_every_event_has_its_effects(config):
    keep(config, *both_done())
    (one,) = replay_job(config, JOB, actor=1, registry=registry(Echo()))["attempts"]
    steps = one["course"]
    assert [step["event"][0] for step in steps] == ["entered", "answered", "answered"]
    assert [step["effects"] for step in steps] == [
        [],
        [["send", "echo:hello Bob"]],
        [["send", "quit:"], ["finish", None, None]],
    ]
    json.dumps(one)


def test_a_changed_pipeline_diverges_at_an_event(config):
    keep(config, *both_done())
    now = registry(Echo(["echo:more"]))
    told = replay_job(config, JOB, actor=0, registry=now)["attempts"]
    diverged = told[0]["diverged"]
    assert diverged["event"] == 2
    assert (
        'now has effects other than those recorded: ["send","echo:more"]' in (diverged["message"])
    )
    assert [step["effects"] for step in told[0]["course"]][1:] == [
        [["send", "echo:hello Ann"]],
        None,
    ]


def test_every_attempt_is_listed_by_actor_however_it_ended(config):
    keep(
        config,
        *begun(),
        NobodyCame(100.5, 1, "no worker came"),
        assigned(1),
        *events(1)[:2],
        ended(1, error="its worker is gone"),
        assigned(0),
        *events(0)[:2],
        assigned(1, 2, at=104.0),
        Resumed(120.0, 110.0),
        *events(1, 2),
        ended(1, 2, at=125.0),
    )
    told = replay_job(config, JOB, registry=registry(Echo()))["attempts"]
    assert [(one["actor"], one["attempt"], one["error"]) for one in told] == [
        (0, 1, None),
        (1, 0, "no worker came"),
        (1, 1, "its worker is gone"),
        (1, 2, None),
    ]
    assert [one["finished"] for one in told] == [None, 100.5, 103.0, 125.0]
    assert [one["diverged"] for one in told] == [None] * 4
    assert told[0]["label"] == "Greet"
    assert told[0]["heard"] == 120.0  # when a coordinator went on with it
    (_, _, last) = replay_job(config, JOB, actor=1, registry=registry(Echo()))["attempts"]
    assert last["course"][0] == {"at": 120.0, "event": ["resumed", 120.0, 110.0], "effects": []}
    assert last["events"] == 3


def test_a_job_without_a_plan_has_no_attempts(config):
    keep(config, begun()[0])
    assert replay_job(config, "last", registry=registry(Echo()))["attempts"] == []


def test_held_replies_are_limited_as_in_the_daemon(config):
    """Two replies that no state expects yet: if only one may be held, the actor fails."""

    class Picky(Echo):
        def begin(self, worker):
            state = super().begin(worker)
            state.transition = lambda msg: (_ for _ in ()).throw(ValueError)
            return state

    tight = replace(config, worker=replace(config.worker, max_held=1))
    lines = [Entered(1.0), Answered(1.0, "OK:HELLO"), Answered(2.0, "OK:HELLO again")]
    worker = ScriptWorker(JobFacts(JOB, Params(greeting="hello", workers=2), 2), 0, INPUTS[0])
    machine = Machine(worker, first_state(Picky().begin), held_limit=1)
    told = [write_event(0, 1, event, machine.receive(event)) for event in lines]
    assert machine.finished
    keep(config, *begun(), assigned(0), *told)
    assert not replay_job(tight, JOB, registry=registry(Picky()))["attempts"][0]["diverged"]
    assert (
        replay_job(config, JOB, registry=registry(Picky()))["attempts"][0]["diverged"]["event"] == 2
    )


# ---------------------------------------------------------------- which job


def test_a_job_is_named_by_its_id_a_prefix_or_last(config):
    for job in ("ab12", "ab34", "cd56"):
        keep(config, begun()[0], job=job)
    found = [
        replay_job(config, name, registry=registry(Echo()))["id"] for name in ("ab12", "c", "last")
    ]
    assert found == ["ab12", "cd56", "cd56"]
    for name, says in (
        ("ab", "'ab' matches 2 jobs, ab12, ab34"),
        ("x", "there is no job 'x' in .*journal.db: it belongs to another daemon, or was dropped"),
        ("", "there is no job ''"),
    ):
        with pytest.raises(NoHistory, match=says):
            replay_job(config, name, registry=registry(Echo()))
    with pytest.raises(NoHistory, match="job cd56 has no actor 0; it has 0"):
        replay_job(config, "last", actor=0, registry=registry(Echo()))


# ---------------------------------------------------------------- errors


def test_a_home_without_a_journal_is_reported(config):
    with pytest.raises(NoHistory, match=r"there is no journal at .*/journal.db: no daemon has run"):
        replay_job(config, "last")
    assert list(config.home.iterdir()) == []


def test_a_journal_without_jobs_is_reported(config):
    keep(config)
    with pytest.raises(NoHistory, match=r"there are no jobs in .*journal.db yet"):
        replay_job(config, "last")


def test_a_journal_of_another_version_is_reported(config):
    keep(config, *both_done())
    with sqlite3.connect(config.home / JOURNAL) as database:
        database.execute("pragma user_version = 99")
    with pytest.raises(
        NoHistory, match="has format version 99, but this mu reads version 1: use the"
    ):
        replay_job(config, JOB)


@pytest.mark.parametrize("content", [b"", b"no database, but long enough to be one" * 30])
def test_a_file_that_is_not_a_journal_is_reported(config, content):
    (config.home / JOURNAL).write_bytes(content)
    with pytest.raises(
        NoHistory, match=r"(journal.db has format version 0|journal.db is damaged: file is not)"
    ):
        replay_job(config, JOB)


def test_a_journal_without_read_permission_is_reported(config, monkeypatch):
    keep(config, *both_done())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)  # root may read it
    with pytest.raises(NoHistory, match=r"cannot read .*journal.db: Permission denied"):
        replay_job(config, JOB)


def test_a_pipeline_that_is_no_longer_installed_is_reported(config):
    keep(config, *both_done())
    with pytest.raises(
        NoHistory, match=f"job {JOB} has pipeline 'echo', which is no longer installed"
    ):
        replay_job(config, JOB, registry=Registry())
    broken = Registry(broken=[Broken("echo", "a:package", "ImportError: no echo")])
    with pytest.raises(NoHistory, match="no longer installed here: ImportError: no echo"):
        replay_job(config, JOB, registry=broken)


def test_an_order_that_its_pipeline_no_longer_accepts_is_reported(config):
    keep(config, *begun(params={"shout": True}))
    with pytest.raises(NoHistory, match=r"echo no longer accepts the order of job .*params.shout"):
        replay_job(config, JOB, registry=registry(Echo()))


@pytest.mark.parametrize(
    "lines",
    [
        ["rubbish"],
        [write_record(Planned([], []))],
        [*begun(), *events(0)],  # of an attempt that was never assigned
        [*begun(), assigned(0), '["happened",0,1,"",["nothing"]]'],
    ],
)
def test_damaged_records_are_reported(config, lines):
    keep(config, *lines)
    with pytest.raises(NoHistory, match="damaged: "):
        replay_job(config, JOB, registry=registry(Echo()))


# ---------------------------------------------------------------- beside a running daemon


def test_a_journal_is_read_while_a_daemon_writes_it(config):
    keep(config, *both_done())
    before = (config.home / JOURNAL).read_bytes()
    reactor = Reactor()
    journal = Journal(config.home / JOURNAL, reactor, 0.1, pytest.fail)
    journal.write("ffff", write_record(begun()[0]))
    journal.on_disk(lambda: None)
    reactor.advance(0)
    wait_until(lambda: journal.synced == journal.written)
    assert replay_job(config, "last", registry=registry(Echo()))["id"] == "ffff"
    assert replay_job(config, JOB, registry=registry(Echo()))["attempts"]
    assert (config.home / JOURNAL).read_bytes() == before  # what is new is in the log beside it
    closed = journal.close()
    reactor.advance(0)
    wait_until(lambda: closed.called)
