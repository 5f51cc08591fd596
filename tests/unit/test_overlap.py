"""Pipelines that copy files while programs run: which commands run side by side, and what fails."""

import json
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mu.events import Answered, Entered, Finish, Send
from mu.journal.records import read_record, write_event
from mu.journal.replay import replay
from mu.machine import Machine
from mu.parameters import Params, read_fields
from mu.pipelines import s3 as mu_s3
from mu.pipelines.map import map_pipeline
from mu.pipelines.png2y4m import png2y4m
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state
from mu.testing import FakeWorker, play

MB = 1_000_000
NOW = datetime(2026, 11, 27, tzinfo=UTC)
COURSES = json.loads((Path(__file__).parent / "data" / "courses-0.1.0.json").read_text())
PIPELINES = {"map": map_pipeline, "png2y4m": png2y4m}


class Talk:
    """An actor of map, and a worker that answers its commands in any order."""

    def __init__(self, keys="abcd", sizes=None, numbered=True, **params):
        asked = {"bucket": "b", "command": "sort {in} > {out}", "keys": [*keys]}
        asked |= {"out_prefix": "o/", **params}
        self.given = {"keys": [*keys]} | ({"sizes": sizes} if sizes else {})
        self.params = Params(read_fields(map_pipeline.parameters, asked), workers=1)
        self.machine = self.fresh()
        self.commands: list[str] = []
        self.open: dict[int, str] = {}
        self.records: list[str] = []
        self.finish: Finish | None = None
        self.happen(Entered(0.0, numbered))
        self.happen(Answered(0.0, "OK:HELLO"))
        while any(command.startswith("seti:") for command in self.open.values()):
            self.answer("seti:")

    def fresh(self):
        facts = JobFacts("j1", self.params)
        worker = ScriptWorker(facts, 0, self.given)
        return Machine(worker, first_state(map_pipeline.begin))

    def happen(self, event):
        effects = self.machine.receive(event)
        self.records.append(write_event(0, 1, event, effects))
        for effect in effects:
            match effect:
                case Send(command=command):
                    self.commands.append(command)
                    self.open[len(self.commands)] = command
                case Finish():
                    self.finish = effect

    def answer(self, beginning, text=""):
        """Answer the first open command that begins, or goes on, like this."""
        number = next(n for n, command in self.open.items() if beginning in command)
        command = self.open.pop(number)
        name = command.partition(":")[0]
        if name == "run":
            text = text or f"OK:RETVAL(0):OUTPUT({10 if 'wc' in command else ''}):COMMAND(x)"
        self.happen(Answered(float(number), text or f"OK:{name.upper()}(b/k)", number))

    def shown(self):
        """Return the open commands in short: r0, p0, m0, u0 for the first key."""
        return sorted(map(short, self.open.values()))

    def rows(self):
        return self.finish.result["keys"]


def short(command):
    if command.startswith("retrieve:"):
        return "r" + command.split("##TMPDIR##/")[1][0]
    if command.startswith("upload:"):
        return "u" + command.split("##TMPDIR##/")[1][0]
    if "wc -c" in command:
        return "m" + command.split("##TMPDIR##/")[1][0]
    return "p" + command.split("mkdir -p ##TMPDIR##/")[1][0]


# ---------------------------------------------------------------- map's course


def test_the_next_input_and_the_last_output_are_copied_while_the_command_runs():
    talk = Talk()
    assert talk.shown() == ["r0", "r1"]  # one ahead, where sizes are unknown
    talk.answer("retrieve:a")
    talk.answer("retrieve:b")
    assert talk.shown() == ["p0"]
    talk.answer("sort")
    assert talk.shown() == ["m0"]  # the first output shows how large they are
    talk.answer("wc")
    assert talk.shown() == ["p1", "r2", "u0"]
    talk.answer("upload")
    talk.answer("retrieve:c")
    talk.answer("sort")
    assert talk.shown() == ["m1", "p2", "r3"]
    talk.answer("wc")
    talk.answer("retrieve:d")
    assert talk.shown() == ["p2", "u1"]
    talk.answer("sort")
    talk.answer("sort")
    assert talk.shown() == ["m2", "m3", "u1"]
    assert talk.finish is None


def test_a_command_does_not_wait_for_the_input_after_its_own():
    talk = Talk()
    talk.answer("retrieve:a")
    assert talk.shown() == ["p0", "r1"]


def test_as_many_inputs_are_retrieved_ahead_as_the_limit_allows():
    sizes = [50 * MB, MB, MB, MB, 9 * MB]
    assert Talk("abcde", sizes, ahead_mb=3).shown() == ["r0", "r1", "r2", "r3"]
    assert Talk("abcde", sizes, ahead_mb=2).shown() == ["r0", "r1", "r2"]
    talk = Talk("abcde", [1, MB + 1, 1, 1, 1], ahead_mb=1)
    assert talk.shown() == ["r0"]  # the next one is too large, and the others come after it
    for command in ("retrieve:a", "sort", "wc", "upload"):
        talk.answer(command)
    assert talk.shown() == ["r1", "r2", "r3", "r4"]
    assert len(Talk("x" * 1, [0]).open) == 1
    assert len(Talk([str(n) for n in range(30)], [0] * 30).open) == 9


def test_a_command_waits_while_large_outputs_are_uploaded():
    talk = Talk(ahead_mb=1)
    for command in ("retrieve:a", "retrieve:b", "sort"):
        talk.answer(command)
    talk.answer("wc", f"OK:RETVAL(0):OUTPUT({600_000}\n):COMMAND(wc)")
    assert talk.shown() == ["p1", "r2", "u0"]
    for command in ("upload", "retrieve:c", "sort"):
        talk.answer(command)
    assert talk.shown() == ["m1", "p2", "r3"]  # it may be as large as the first: 0.6 MB
    talk.answer("sort")
    talk.answer("wc", f"OK:RETVAL(0):OUTPUT({600_000}\n):COMMAND(wc)")
    talk.answer("retrieve:d")
    assert talk.shown() == ["m2", "u1"]  # both together are over 1 MB
    talk.answer("wc", f"OK:RETVAL(0):OUTPUT({300_000}\n):COMMAND(wc)")
    talk.answer("upload")
    assert talk.shown() == ["p3", "u2"]


def test_an_input_that_cannot_be_retrieved_ahead_fails_only_its_own_key():
    talk = Talk()
    talk.answer("retrieve:b", "FAIL(NoSuchKey)")
    assert talk.shown() == ["r0"]
    while talk.open:
        talk.answer("")
    errors = [row.get("error", "") for row in talk.rows()]
    assert "NoSuchKey" in errors[1]
    assert errors[:1] + errors[2:] == ["", "", ""]
    assert [row.get("bytes") for row in talk.rows()] == [10, None, 10, 10]


@pytest.mark.parametrize(
    ("fails", "how", "says"),
    [
        ("retrieve:c", "FAIL(gone)", "'c': the worker answered 'FAIL(gone)'"),
        ("upload:o/b", "FAIL(gone)", "'b': the worker answered 'FAIL(gone)'"),
        ("##TMPDIR##/1/in >", "OK:RETVAL(3):OUTPUT(why):COMMAND()", "'b': exit status 3: why"),
    ],
)
def test_on_error_fail_any_of_them_fails_the_actor_with_its_key(fails, how, says):
    talk = Talk(on_error="fail")
    while talk.open:
        command = next(iter(talk.open.values()))
        talk.answer(command, how if fails in command else "")
    assert says in talk.finish.error


def test_files_are_removed_once_they_are_used():
    talk = Talk("abcdef")
    while talk.open:
        talk.answer("")
    removed = [
        word
        for command in talk.commands
        for line in command.removeprefix("run:").split("\n")
        if line.startswith("rm -rf ")
        for word in line.split()[2:]
    ]
    assert len(removed) == len(set(removed))
    assert removed[:3] == [f"##TMPDIR##/{number}" for number in range(3)]
    measured = [command for command in talk.commands if "wc -c" in command]
    assert all(command.startswith("run:rm -f ##TMPDIR##/") for command in measured)


@pytest.mark.parametrize("given", [{"numbered": False}, {"ahead_mb": 0}])
def test_all_is_done_one_after_the_other_if_replies_have_no_numbers_or_nothing_may_be_ahead(given):
    talk = Talk("ab", **given)
    order = []
    while talk.open:
        (command,) = talk.open.values()
        order.append(short(command))
        talk.answer("")
    assert order == ["r0", "p0", "m0", "u0", "r1", "p1", "m1", "u1"]
    assert "seti:" not in "".join(talk.commands)


def test_with_a_worker_that_makes_no_folders_map_makes_those_that_it_retrieves_into():
    made = set()

    def retrieve(command):
        folder = command.rpartition("\0")[2].rpartition("/")[0]
        return (
            "OK:RETRIEVE(b/k)" if folder in made else "FAIL(retrieving: No such file or directory)"
        )

    def run(command):
        made.update(re.findall(r"mkdir -p (\S+)", command))
        output = "1" if "wc -c" in command else ""
        return f"OK:RETVAL(0):OUTPUT({output}):COMMAND(x)"

    given = {"bucket": "b", "command": "sort {in} >{out}", "out_prefix": "o/", "keys": ["a", "b"]}
    params = Params(read_fields(map_pipeline.parameters, given), workers=1)
    worker = ScriptWorker(JobFacts("j1", params), 0, {"keys": ["a", "b"]})
    machine = Machine(worker, first_state(map_pipeline.begin))
    answers = {"retrieve:": retrieve, "run:": run}
    played = play(machine, FakeWorker(answers, numbered=False))
    assert [row["out_key"] for row in played.finish.result["keys"]] == ["o/a", "o/b"]
    assert made == {"##TMPDIR##/0", "##TMPDIR##/1"}


@pytest.mark.parametrize("seed", range(40))
def test_in_whatever_order_replies_come_the_rows_are_the_same_and_the_course_replays(seed):
    chance = random.Random(seed)
    keys = [str(number) for number in range(9)]
    sizes = [chance.randrange(MB) for _ in keys] if seed % 2 else None
    talk = Talk(keys, sizes, ahead_mb=1)
    failing = {"retrieve:3", "upload:o/4", "mkdir -p ##TMPDIR##/5\n"}
    while talk.open:
        command = chance.choice([*talk.open.values()])
        lost = any(beginning in command for beginning in failing)
        programs = [one for one in talk.shown() if one[0] == "p"]
        assert len(programs) <= 1
        talk.answer(command, "FAIL(no)" if lost else "")
    assert [row["key"] for row in talk.rows()] == keys
    assert [row["key"] for row in talk.rows() if "error" in row] == ["3", "4", "5"]
    programs = [one for one in map(short, talk.commands[2:]) if one[0] == "p"]
    assert programs == [f"p{number}" for number in range(9) if number != 3]
    again = replay(talk.fresh(), map(read_record, talk.records))
    assert again[-1] == talk.finish


# ---------------------------------------------------------------- plans and journals


def test_the_plan_has_the_sizes_that_the_listing_said(monkeypatch):
    sizes = {"in/a": 5, "in/b": 6, "in/c": 7}
    listed = [mu_s3.S3Object(key, size, NOW) for key, size in sizes.items()]
    monkeypatch.setattr(mu_s3, "objects_below", lambda bucket, prefix: iter(listed))
    asked = {"bucket": "b", "command": "x {in}", "prefix": "in/", "out_prefix": "o/"}
    params = Params(read_fields(map_pipeline.parameters, asked), workers=2)
    assert map_pipeline.plan(params) == [
        {"keys": ["in/a", "in/c"], "sizes": [5, 7]},
        {"keys": ["in/b"], "sizes": [6]},
    ]


@pytest.mark.parametrize("name", sorted(COURSES))
def test_attempts_that_an_earlier_version_recorded_replay_and_go_on_as_they_began(name):
    pipeline, course = PIPELINES[name], COURSES[name]
    del course["params"]["workers"]
    params = Params(read_fields(pipeline.parameters, course["params"]), workers=1)
    worker = ScriptWorker(JobFacts("j1", params), 0, course["input"])
    machine = Machine(worker, first_state(pipeline.begin))
    effects = replay(machine, map(read_record, course["records"]))
    assert isinstance(effects[-1], Finish)
    assert effects[-1].error is None


@pytest.mark.parametrize("numbered", [True, False])
def test_png2y4m_replays_with_any_worker(numbered):
    params = Params(read_fields(png2y4m.parameters, {"frames": 20}), workers=1)

    def fresh():
        worker = ScriptWorker(JobFacts("j1", params), 0, png2y4m.plan(params)[0])
        return Machine(worker, first_state(png2y4m.begin))

    played = play(fresh(), FakeWorker(numbered=numbered))
    happened = zip(played.events, played.effects, strict=True)
    assert played.finish.result["frames"] == 20
    recorded = [read_record(write_event(0, 1, *one)) for one in happened]
    assert replay(fresh(), recorded)[-1] == played.finish
