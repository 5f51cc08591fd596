"""mapreduce: without a network, then on real workers whose daemon is killed between the stages."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from kit.cli import inside as mu
from stage import Daemon

from mu.aws.s3 import EMBEDDED_BUCKET
from mu.parameters import Params, read_fields
from mu.pipelines import s3 as mu_s3
from mu.pipelines.mapreduce import groups, mapreduce
from mu.plugins import JobFailed, Outcome
from mu.states.context import JobFacts
from mu.testing import FakeWorker, run

KEYS = [f"in/{number:02d}.txt" for number in range(40)]
GIVEN = {
    "bucket": "b",
    "command": "sort {in} > {out}",
    "reduce": "sort -m {in} > {out}",
    "keys": KEYS,
    "out_prefix": "out/",
}
SIZE = {"run:rm -f ": "OK:RETVAL(0):OUTPUT(12\n):COMMAND(wc)"}


def params(workers=2, **given):
    fields = read_fields(mapreduce.parameters, GIVEN | given, "params")
    return Params(fields, workers=workers)


@pytest.fixture
def written(monkeypatch):
    """What was put into the bucket, by key."""
    put: dict[str, bytes] = {}
    monkeypatch.setattr(mu_s3, "put", lambda bucket, key, body, kind: put.update({key: body}))
    return put


def test_each_run_of_reduce_waits_for_the_actors_that_make_its_files():
    plan = mapreduce.plan(params(3, fan_in=4, keys=KEYS[:10]))
    assert [len(one.input.get("keys", ())) for one in plan] == [3, 3, 4, 0, 0, 0, 0]
    assert [one.stage for one in plan] == ["map"] * 3 + ["reduce 1"] * 3 + ["reduce 2"]
    assert [list(one.after) for one in plan[3:]] == [[0], [1], [2], [3, 4, 5]]
    assert [key for one in plan for key in one.input.get("of_keys", [])] == KEYS[:10]
    assert plan[-1].input["out_key"] == "out/result"


@pytest.mark.parametrize(("keys", "stages"), [(1, 1), (16, 1), (17, 2), (256, 2), (257, 3)])
def test_the_tree_has_as_many_levels_as_it_needs(keys, stages):
    plan = mapreduce.plan(params(keys=[f"k{number}" for number in range(keys)]))
    assert {one.stage for one in plan} - {"map"} == {f"reduce {n + 1}" for n in range(stages)}
    assert plan[-1].stage == f"reduce {stages}"
    assert all(len(one.after) <= 16 and len(one.input.get("of_keys", "")) <= 16 for one in plan)


def test_parts_are_even():
    assert [len(part) for part in groups(range(17), 16)] == [8, 9]
    assert groups([], 16) == []
    plan = mapreduce.plan(params(30, keys=[f"k{number}" for number in range(100)]))
    assert [len(one.input["keys"]) for one in plan[:30]] == [3, 3, 4] * 10


@pytest.mark.parametrize("numbered", [True, False])
def test_the_outputs_are_reduced_in_the_order_of_the_keys(written, numbered):
    worker = FakeWorker(SIZE, numbered=numbered)
    job = run(mapreduce, GIVEN | {"keys": KEYS[:20], "fan_in": 5}, worker, workers=7)
    reducers = [one.commands for one in job.actors if not any("wc -c" in c for c in one.commands)]
    retrieved = [
        command.removeprefix("retrieve:").partition("\0")[0]
        for commands in reducers
        for command in commands
        if command.startswith("retrieve:")
    ]
    assert retrieved == [
        *(f"out/{key}" for key in KEYS[:20]),
        *(f"out/reduced/1-{number:06d}" for number in range(4)),
    ]
    assert "run:sort -m ##TMPDIR##/0/in0000 ##TMPDIR##/0/in0001" in " ".join(reducers[0])
    assert reducers[-1][-1] == "upload:out/result\0##TMPDIR##/0/out"
    assert (job.error, job.result["keys"], job.result["of"]) == (None, ["out/result"], 20)
    assert list(written) == ["out/manifest.json"]


def test_keys_that_fail_are_left_out_if_that_is_tolerated(written):
    answers = SIZE | {"retrieve:in/03": "FAIL(no such key)"}
    job = run(mapreduce, GIVEN | {"tolerate": "1"}, answers, workers=4)
    assert (job.error, job.result["of"], job.result["failed"]) == (None, 39, 1)
    refused = run(mapreduce, GIVEN, answers, workers=4)
    assert refused.error.startswith("39 of 40 keys; 1 failed: in/03.txt: ")


def test_without_any_output_there_is_no_result(written):
    answers = SIZE | {"retrieve:in/": "FAIL(no such key)"}
    job = run(mapreduce, GIVEN | {"tolerate": "100%"}, answers, workers=4)
    assert (job.error, job.result["keys"], job.result["of"]) == (None, [], 0)


def test_a_reduce_that_fails_fails_the_job(written):
    answers = SIZE | {"run:sort -m": "OK:RETVAL(2):OUTPUT(no):COMMAND(x)"}
    job = run(mapreduce, GIVEN, answers, workers=4)
    assert job.error.startswith("reduce failed: actor 4: ")
    missing = SIZE | {"run:test -f": "OK:RETVAL(1):OUTPUT():COMMAND(x)"}
    assert "wrote no file {out}" in run(mapreduce, GIVEN, missing, workers=4).error


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"command": "sort {in}"}, "params.command must contain {out}"),
        ({"reduce": "sort {in}"}, "params.reduce needs {out}"),
        ({"reduce": "sort {key} {in} > {out}"}, "params.reduce: unknown placeholder {key}"),
        ({"fan_in": 1}, "params.fan_in must be between 2 and 1000, got 1"),
        ({"result": ""}, "params.result must not be empty"),
        ({"result": "manifest.json"}, "nor the name of the manifest"),
        ({"result": "../x"}, "must not contain"),
        ({"result": "in/03.txt"}, "the result would overwrite 'out/in/03.txt'"),
        ({"keys": ["a", "reduced/b"]}, "'out/reduced/b' is below 'out/reduced/', which is for"),
    ],
)
def test_what_cannot_be_is_refused(given, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        mapreduce.plan(params(**given))


def test_what_the_embedded_server_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(mu_s3, "keys_below", lambda bucket, prefix: [])
    keys = ["in/a", "result/a"]
    with pytest.raises(ValueError, match="cannot hold 'out/result"):
        mapreduce.plan(params(bucket=EMBEDDED_BUCKET, keys=keys))


def test_a_rerun_runs_the_actors_whose_keys_failed():
    plan = mapreduce.plan(params(2, keys=KEYS[:2]))
    rows = [{"keys": [{"key": KEYS[0]}]}, {"keys": [{"key": KEYS[1], "error": "no"}]}]
    ends = [Outcome(None, rows[n], n, plan[n].input) for n in range(2)]
    ends.append(Outcome(None, {"out_key": "out/result", "of": 1}, 2, plan[2].input))
    assert mapreduce.rerun(params(), ends) == {1: plan[1].input}


def test_a_lost_reduce_says_so_and_keeps_what_the_keys_came_to(written):
    plan = mapreduce.plan(params(1, keys=KEYS[:1]))
    row = {"key": KEYS[0], "bytes": 1, "seconds": 1.0, "out_key": "out/x"}
    ends = [
        Outcome(None, {"keys": [row]}, 0, plan[0].input),
        Outcome("why", None, 1, plan[1].input),
    ]
    with pytest.raises(JobFailed, match="reduce failed: actor 1: why") as failed:
        mapreduce.finish(JobFacts("j1", params()), ends)
    assert failed.value.result["done"] == 1


# ---------------------------------------------------------------- on real workers

TEXTS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))[:18]
PAGE = Path(__file__).parents[2] / "docs" / "pipelines-reference.md"
(ORDER,) = re.findall(
    r"JOBS -d '(\{\"pipeline\": \"mapreduce\".*?\})'\n", PAGE.read_text(), re.DOTALL
)


def test_words_are_counted_as_one_program_does_though_the_daemon_is_killed_between_the_stages(
    tmp_path, s3, joiner
):
    client = s3.client()
    for text in TEXTS:
        client.put_object(Bucket="films", Key=f"texts/{text.name}", Body=text.read_bytes())
    daemon = Daemon(tmp_path, s3.env)
    daemon.create_function("png2y4m", joiner)
    order = json.loads(ORDER)
    given = order["params"] | {"bucket": "films", "fan_in": 4}
    given |= {name: f"sleep 0.3; {given[name]}" for name in ("command", "reduce")}
    given["reduce"] = given["reduce"].replace("| sort", "| LC_ALL=C sort")
    order |= {"function": "png2y4m", "workers": 5, "params": given}
    planned = daemon.ask("/plan", order)["stages"]
    assert planned == {"map": 5, "reduce 1": 5, "reduce 2": 2, "reduce 3": 1}
    job = daemon.ask("/jobs", order)

    def stages(*names):
        workers = daemon.ask(f"/jobs/{job['id']}/workers")
        return {worker["state"] for worker in workers if worker["stage"] in names}

    for running in ("map", "reduce 1"):
        daemon.wait(job["id"], until=lambda _, running=running: "running" in stages(running))
        waiting = [one for one in daemon.ask(f"/jobs/{job['id']}/workers") if not one["attempt"]]
        assert any(" to go" in one["waits_for"] for one in waiting)
        daemon.process.kill()
        daemon = Daemon(tmp_path, s3.env)
    done = daemon.wait(job["id"])
    assert (done["state"], done["error"]) == ("done", None)
    assert done["result"]["of"] == len(TEXTS)
    workers = daemon.ask(f"/jobs/{job['id']}/workers")
    assert {worker["attempt"] for worker in workers} == {1}
    assert {worker["stage"] for worker in workers} == {"map", "reduce 1", "reduce 2", "reduce 3"}
    counted = client.get_object(Bucket="films", Key="counts/result")["Body"].read()
    whole = "tr -cs A-Za-z '\\n' | grep . | sort | uniq -c | awk '{print $1, $2}' | LC_ALL=C sort"
    text = b"".join(text.read_bytes() + b"\n" for text in TEXTS)
    told = subprocess.run(whole, shell=True, input=text, capture_output=True, check=True)
    assert counted == told.stdout
    fetched = mu("fetch", job["id"], "--to", tmp_path / "out", daemon=daemon, **s3.env)
    assert fetched.exit_code == 0, fetched.output
    assert {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()} == {
        "result": counted
    }
    replayed = mu("replay", job["id"], daemon=daemon)
    assert replayed.exit_code == 0, replayed.output
    daemon.stop()
