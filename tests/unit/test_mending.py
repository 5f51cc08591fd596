"""Failures that no retry can mend: which ones, and that there is no retry."""

import subprocess

import pytest
from kit.journal import HeldJournal
from kit.parts import make_spec, recorded_job
from kit.seats import Seat, settle

from mu.events import Finish, digest, encode
from mu.journal.records import AttemptEnded, Planned
from mu.pipelines import s3
from mu.pipelines.linpack import linpack
from mu.pipelines.map import map_pipeline
from mu.pipelines.mending import (
    check_programs,
    first_program,
    is_final,
    may_mend,
    need,
)
from mu.pipelines.vpxenc import vpxenc
from mu.pipelines.xcenc import xcenc
from mu.plugins import Pipeline
from mu.states import ActorFailed, CommandListState, ErrorState, OnePassState
from mu.testing import FakeWorker, effects_of, machine, run

MISSING = "OK:RETVAL(127):OUTPUT(not found in the function: ./x):COMMAND(look)"


@pytest.mark.parametrize(
    ("reply", "mends"),
    [
        ("OK:RETVAL(127):OUTPUT(sh: 1: ffmpeg: not found):COMMAND(ffmpeg)", False),
        ("OK:RETVAL(126):OUTPUT(sh: 1: ./x: Permission denied):COMMAND(./x)", False),
        ("OK:RETVAL(64):OUTPUT():COMMAND(x)", False),
        ("OK:RETVAL(2):OUTPUT(usage: x [-h]\nx: error: no such option):COMMAND(x)", False),
        ("OK:RETVAL(1):OUTPUT(bad option\n  Usage: vpxenc <options>):COMMAND(x)", False),
        ("OK:RETVAL(2):OUTPUT(sh: 1: Syntax error: end of file):COMMAND(x)", False),
        ("OK:RETVAL(2):OUTPUT(disk usage exceeded):COMMAND(x)", True),
        ("OK:RETVAL(1):OUTPUT(no space left):COMMAND(usage: x)", True),
        ("OK:RETVAL(-9):OUTPUT(usage: x):COMMAND(x)", True),
        ("OK:RETVAL(137):OUTPUT(killed):COMMAND(x)", True),
        ("FAIL(could not retrieve b/k to f: NoSuchKey: it does not exist.)", False),
        ("FAIL(could not retrieve b/k to f: NoSuchBucket)", False),
        ("FAIL(could not retrieve b/k to f: SlowDown: reduce your rate)", True),
        ("FAIL(could not upload f to b/NoSuchKey: timed out)", True),
    ],
)
def test_a_retry_mends_no_missing_program_or_object_and_no_wrong_use(reply, mends):
    assert may_mend(reply) is mends


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("./ffmpeg -i {url}", ["./ffmpeg"]),
        ("\n  wc -l <{in}", ["wc"]),
        ("true; ./x", ["true"]),
        ("x=1 ./ffmpeg", []),
        ("(cd a; ls)", []),
        ('"$PROGRAM" x', []),
        ("f() { ls; }; f", []),
        ("{in}", []),
        ("# what it does\nls", []),
        ("", []),
    ],
)
def test_the_program_with_which_a_command_begins_is_known_if_it_is_a_plain_word(command, program):
    assert first_program(command) == program


def shell(command, folder):
    return subprocess.run(["/bin/sh", "-c", command], cwd=folder, capture_output=True, text=True)


def test_the_check_names_all_programs_that_are_not_there(tmp_path):
    for name in ("own", "a program"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert (
        shell(check_programs("sh", "./own", '"./a program"', "cd", "for"), tmp_path).returncode == 0
    )
    ran = shell(check_programs("./own", '"${NO_SUCH:-.}"/xc-enc', "nothing"), tmp_path)
    assert (ran.returncode, is_final(ran.returncode, ran.stdout)) == (127, True)
    assert ran.stdout == "not found in the function: ./xc-enc nothing\n"


# ---------------------------------------------------------------- states, scripts and pipelines


def final(first, *replies):
    """Return the Finish of a machine whose pipeline knows what no retry can mend."""
    driven = machine(first)
    driven.worker.may_mend = may_mend
    return effects_of(driven, "OK:HELLO", *replies)[-1]


class Convert(CommandListState):
    commandlist = ("run:./x", ("OK:RETVAL(0)", "quit:"))


class GiveUp(OnePassState):
    expect = "OK:HELLO"

    def post_transition(self):
        return ErrorState(self, "no such film", final=True)


async def convert(worker):
    await worker.run("./x")


async def fetch(worker):
    await worker.retrieve("k", "f")


async def look(worker):
    await need(worker, "./x")


async def give_up(worker):
    raise ActorFailed("no such film", final=True)


NO_KEY = "FAIL(could not retrieve b/k to f: NoSuchKey)"


@pytest.mark.parametrize(
    ("first", "replies", "is_it"),
    [
        (Convert, [MISSING], True),
        (Convert, ["OK:RETVAL(1):OUTPUT():COMMAND(./x)"], False),
        (Convert, [NO_KEY], True),
        (Convert, ["FAIL(could not start ./x: too many processes)"], False),
        (convert, [MISSING], True),
        (convert, ["OK:RETVAL(1):OUTPUT():COMMAND(./x)"], False),
        (fetch, [NO_KEY], True),
        (look, [MISSING], True),
        (GiveUp, [], True),
        (give_up, [], True),
    ],
)
def test_states_and_scripts_end_for_good_with_a_failure_that_no_retry_can_mend(
    first, replies, is_it
):
    finish = final(first, *replies)
    assert (bool(finish.error), finish.final) == (True, is_it)


def test_a_pipeline_that_says_nothing_is_retried():
    assert effects_of(machine(Convert), "OK:HELLO", MISSING)[-1].final is False


def test_whether_a_failure_is_final_changes_no_encoding():
    assert encode(Finish("why", final=True)) == encode(Finish("why")) == '["finish","why",null]'
    assert digest([Finish("why", final=True)]) == digest([Finish("why")])


PARAMS: dict[Pipeline, dict[str, object]] = {
    linpack: {"command": "./x"},
    xcenc: {"bucket": "b", "keyframe_distance": 3},
    map_pipeline: {"bucket": "b", "keys": ["a", "b"], "out_prefix": "o/", "command": "./x {key}"},
}


@pytest.mark.parametrize("pipeline", [xcenc, map_pipeline, linpack], ids=lambda one: one.name)
def test_a_missing_program_fails_all_actors_for_good_with_the_same_words(pipeline, monkeypatch):
    monkeypatch.setattr(s3, "put", lambda *_: None)
    job = run(pipeline, PARAMS[pipeline], FakeWorker({"run:": MISSING}), workers=2)
    ends = {actor.finish for actor in job.actors}
    (end,) = ends
    assert end.final
    assert "not found in the function: ./x" in end.error


def test_the_encoder_looks_for_its_programs_and_connects_while_its_chunk_is_fetched():
    job = run(xcenc, {"bucket": "b", "keyframe_distance": 3}, {}, workers=2)
    assert [one.finish.error for one in job.actors] == [None, None]
    words = [command.partition(":")[0] for command in job.actors[1].commands[:10]]
    assert words == [
        "seti",
        "seti",
        "seti",
        "set",
        "retrieve",
        "run",
        "seti",
        "seti",
        "set",
        "connect",
    ]
    assert all(job.actors[1].events[n].text.startswith("OK:") for n in range(1, 11))
    looks = [one.commands[5] for one in job.actors]
    assert ["xc-enc" in look for look in looks] == [False, True]
    assert all("/vpxenc" in look and "/xc-dump" in look for look in looks)


# ---------------------------------------------------------------- jobs


class Hopeless(Pipeline):
    name = "hopeless"
    may_mend = staticmethod(may_mend)

    def begin(self, worker):
        return Convert(worker, worker.actor)


def hopeless_job():
    """Return a planned job of one actor."""
    job = recorded_job(make_spec(None, 1, pipeline=Hopeless(), retries=5))
    job.ledger = HeldJournal()
    job.record(Planned([{}], [0]))
    job.begin()
    return job


def test_an_actor_that_failed_for_good_is_not_retried_and_its_record_says_so():
    job = hopeless_job()
    seat = Seat(job, "aa")
    settle(job)
    seat.say(1, MISSING)
    settle(job)
    (record,) = [one for one in job.ledger.records if isinstance(one, AttemptEnded)]
    assert (record.final, record.charged, job.actors[0].state) == (True, True, "failed")
    assert (job.actors[0].tried, job.state) == (1, "done")  # its Owner calls no finish


def test_an_attempt_that_still_runs_beside_one_that_failed_for_good_may_win():
    job = hopeless_job()
    actor = job.actors[0]
    actor.begin(1, 0.0)
    actor.begin(2, 0.0)
    actor.take_end(AttemptEnded(1.0, 0, 1, "no such key", None, "", "", True, None, True))
    assert actor.outcome is None
    actor.take_end(AttemptEnded(1.0, 0, 2, None, "made", "", "", True))
    assert actor.outcome == Finish(result="made")


def test_after_a_failure_for_good_no_retry_begins_when_the_other_attempt_fails():
    job = hopeless_job()
    actor = job.actors[0]
    actor.begin(1, 0.0)
    actor.begin(2, 0.0)
    actor.take_end(AttemptEnded(1.0, 0, 1, "no such key", None, "", "", True, None, True))
    actor.take_end(AttemptEnded(1.0, 0, 2, "gone", None, "", "", True))
    assert actor.outcome == Finish("gone (after 2 attempts)")


def test_a_played_vpxenc_without_its_chunk_fails_for_good():
    job = run(vpxenc, {"bucket": "b"}, FakeWorker({"retrieve:": NO_KEY}))
    assert job.actors[0].finish.final
