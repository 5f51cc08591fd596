"""chain: on real workers the same rows and sums as one pass over the object."""

import re
import textwrap
from pathlib import Path

import pytest
from kit.relay import SmallRelay
from kit.small_job import SmallJob
from kit.texts import one_pass, prose

from mu.events import Finish
from mu.machine import Machine
from mu.parameters import FieldError, Parameter, Params, read_fields
from mu.pipelines.chain import chain
from mu.pipelines.chain_program import PRIME
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state
from mu.testing import FakeWorker, play

GIVEN = {"bucket": "things", "key": "big.txt", "out_prefix": "index/"}


@pytest.fixture(scope="module")
def s3(s3_files):
    return s3_files


@pytest.fixture
def job(s3, tmp_path, monkeypatch):
    """Return a function that runs the pipeline on a text."""
    for name, value in s3.event["env"].items():
        monkeypatch.setenv(name, value)
    relays = []

    def run(text: bytes, workers: int, extended: bool = True, **more) -> SmallJob:
        (s3.folder / "things" / "big.txt").write_bytes(text)
        relays.append(SmallRelay(extended))
        params = {**GIVEN, **more.pop("params", {})}
        return SmallJob(tmp_path, chain, params, workers, s3.event, relays[-1], **more)

    yield run
    for relay in relays:
        relay.close()


def rows_of(s3, job: SmallJob) -> list[list[int]]:
    texts = [(s3.folder / "things" / key).read_text() for key in job.result["keys"]]
    return [[int(word) for word in row.split()] for text in texts for row in text.splitlines()]


def test_over_an_original_relay_the_parts_make_what_one_pass_makes(job, s3):
    text = prose(1_000_000) + b"no line break at its end"
    done = job(text, 3, extended=False, params={"every": 10})
    assert done.errors == [None] * 3
    rows, total = one_pass(text, 10)
    assert done.result["total"] == total
    assert rows_of(s3, done) == rows
    assert done.result["keys"] == [f"index/{number:08d}.txt" for number in range(3)]


def test_a_worker_of_the_original_is_refused_at_its_hello():
    worker = ScriptWorker(JobFacts("j1", {}, 2), 0, {})
    played = play(Machine(worker, first_state(chain.begin)), FakeWorker(numbered=False))
    assert "chain needs a worker of mu: the worker is one of the original" in played.finish.error
    assert played.commands == []


@pytest.mark.parametrize("text", [b"", b"x", b"\r\n\x00\xff\n"])
def test_small_objects_have_as_many_parts_as_bytes(job, s3, text):
    done = job(text, 3, params={"every": 1})
    rows, total = one_pass(text, 1)
    assert done.result["total"] == total
    assert rows_of(s3, done) == [row for row in rows if len(text) > row[1]]
    assert len(done.actors) == max(1, min(3, len(text)))


def test_an_actor_whose_worker_dies_gets_its_neighbours_state_again(job, s3):
    """Once it waits, and once when it has passed its own on."""
    text = prose(400_000)
    killed = []

    def kill(actor):
        sent = actor.commands[-1]
        if (actor.number, actor.attempt) in [(1, 1), (2, 1)] and "index ##TMPDIR##" in sent:
            killed.append(actor.number)
            actor.begin_anew()

    done = job(text, 4, watch=kill, params={"every": 10})
    assert sorted(killed) == [1, 2]
    assert done.errors == [None] * 4
    rows, total = one_pass(text, 10)
    assert (rows_of(s3, done), done.result["total"]) == (rows, total)


def test_a_relay_that_breaks_off_now_and_then_does_no_harm(job, s3):
    text = prose(400_000)
    cuts = []

    def cut(actor):
        if "join ##TMPDIR##" in actor.commands[-1] and actor.number not in cuts:
            cuts.append(actor.number)
            actor.job.relay.cut()

    done = job(text, 4, watch=cut, params={"every": 10})
    assert sorted(cuts) == [0, 1, 2, 3]
    assert done.errors == [None] * 4
    assert (rows_of(s3, done), done.result["total"]) == one_pass(text, 10)


def test_a_part_that_cannot_be_read_is_a_sentence_without_the_url(job):
    done = job(b"x\n" * 10, 1, params={"expires_s": 60, "python": "echo Signature; exit 3;"})
    assert done.errors == ["CountEnded: part 0: exit status 3: Signature"]


# ---------------------------------------------------------------- the documentation's example


class FromThePage:
    """The script of docs/pipelines.md as a pipeline."""

    name = "page"
    parameters = (Parameter("bucket", str, "the S3 bucket"),)

    def plan(self, params):
        return [{"key": f"part{number}"} for number in range(params.workers)]

    def begin(self, worker):
        page = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()
        block = re.search(
            r"^    from mu.states import connect_command\n(?:    .*\n|\n)+", page, re.M
        )
        defined: dict = {}
        exec(textwrap.dedent(block[0]), defined)
        return defined["number_lines"](worker)

    def finish(self, job, outcomes):
        return [outcome.result for outcome in outcomes]


@pytest.mark.parametrize("extended", [True, False])
def test_the_example_of_the_documentation_runs(s3, tmp_path, extended):
    for number in range(3):
        (s3.folder / "things" / f"part{number}").write_text("line\n" * (number + 2))
    relay = SmallRelay(extended)
    done = SmallJob(tmp_path, FromThePage(), {"bucket": "things"}, 3, s3.event, relay)
    relay.close()
    assert done.result == [{"lines so far": lines} for lines in (2, 5, 9)]


# ---------------------------------------------------------------- without a worker


def test_without_a_relay_it_says_so():
    from mu.testing import machine, play

    params = Params(read_fields(chain.parameters, GIVEN), workers=2)
    given = {"url": "u", "size": 2, "first": 0, "end": 1, "out_key": "k"}
    played = play(machine(chain.begin, params=params, given=given))
    assert "the daemon has no relay" in played.finish.error


@pytest.mark.parametrize("name", ["bucket", "key", "out_prefix", "python"])
def test_an_empty_name_is_refused(name):
    params = Params(read_fields(chain.parameters, {**GIVEN, name: ""}), workers=2)
    with pytest.raises(FieldError, match=f"params.{name} must not be empty"):
        chain.check(params)


def test_without_its_last_actor_there_is_no_total():
    outcomes = [
        Finish(result={"actor": 0, "key": "a", "end": {"bytes": 1}}),
        Finish("its worker is gone"),
    ]
    facts = JobFacts("j1", {}, 2)
    assert chain.finish(facts, outcomes) == {"keys": ["a"], "total": None}


def test_the_modulus_is_a_prime():
    """By Fermat, for some bases."""
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13))
