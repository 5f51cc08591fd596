"""Jobs whose workers pass states on, with the daemon's relay, the local engine and S3."""

import json
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from kit.cli import inside
from kit.encoders.recipe import STAND_IN, Machine, chunk, recipe, recipe7
from kit.encoders.stand_in import PROGRAMS
from kit.film import kill, processes, wait_until
from kit.texts import one_pass, prose
from stage import Daemon, free_ports_conf

from mu.functions.bundle import bundle

HELD = """#!/bin/sh
# held GATE PROGRAM WHAT FOLDER FIRST ...: chain's program; part 0 joins once GATE is gone.
[ "$3 $5" = "join 0" ] && while [ -e "$1" ]; do sleep 0.02; done
shift
exec "${MU_PYTHON:-python3}" "$@"
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("held")
    (folder / "held").write_text(HELD)
    return bundle(folder / "held.zip", executables=[folder / "held"]).path


@pytest.fixture(scope="module")
def studio(daemon, held, tmp_path_factory):
    """The daemon, with the function `encoder` of stand-ins and the function `held`."""
    folder = tmp_path_factory.mktemp("encoders")
    encoders = bundle(folder / "encoder.zip", executables=dict.fromkeys(PROGRAMS, STAND_IN))
    daemon.create_function("encoder", encoders.path)
    daemon.create_function("held", held)
    return daemon


def run_job(daemon, pipeline, workers, **more):
    return daemon.ask("/jobs", {"pipeline": pipeline, "workers": workers, **more})["id"]


def get(s3, key):
    return s3.client().get_object(Bucket="films", Key=key)["Body"].read()


def check_index(s3, job, text, every):
    assert (job["state"], job["error"]) == ("done", None)
    rows, total = one_pass(text, every)
    assert job["result"]["total"] == total
    told = b"".join(get(s3, key) for key in job["result"]["keys"]).decode()
    assert [[int(word) for word in row.split()] for row in told.splitlines()] == rows


def test_chain_makes_the_index_that_one_pass_makes(studio, s3):
    text = prose(600_000)
    key = "a text; it's $(touch pwned)"
    s3.client().put_object(Bucket="films", Key=key, Body=text)
    params = {"bucket": "films", "key": key, "out_prefix": f"{key}.index/", "every": 50}
    job = studio.wait(run_job(studio, "chain", 5, function="png2y4m", params=params))
    check_index(s3, job, text, 50)
    assert job["used"]["wait_s"] > 0, "later parts wait for the states of earlier ones"
    course = studio.ask(f"/jobs/{job['id']}/timeline?detail=commands")["actors"]
    waited = [one["actor"] for one in course if one["attempts"][-1]["waits"]]
    assert waited
    assert 0 not in waited
    assert all("wait" in [state for _, state in course[number]["states"]] for number in waited)
    told = json.loads(inside("replay", job["id"], "--json", daemon=studio).stdout)
    assert [one["diverged"] for one in told["attempts"]] == [None] * 5


def worker_of_part(gate: str, part: int) -> int:
    """Return the worker in which that part waits for its neighbour; 0: there is none yet."""
    for pid in processes(gate):
        with suppress(OSError):  # it has ended meanwhile
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if words.startswith(b"/bin/sh\0-c") and f"/{part - 1}.state".encode() in words:
                parent = int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])
                if gate.encode() not in Path(f"/proc/{parent}/cmdline").read_bytes():
                    return parent
    return 0


def test_an_actor_whose_worker_dies_while_it_waits_is_replaced_in_the_chain(studio, s3):
    text = prose(200_000)
    s3.client().put_object(Bucket="films", Key="held", Body=text)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp is the sandbox's own
        gate = os.path.join(folder, secrets.token_hex(8))
        Path(gate).touch()
        params = {"bucket": "films", "key": "held", "out_prefix": "held.index/", "every": 10}
        params["python"] = f"./held {gate}"
        job_id = run_job(studio, "chain", 4, function="held", params=params, retries=2)
        kill(wait_until(lambda: worker_of_part(gate, 2)))
        wait_until(lambda: studio.ask(f"/jobs/{job_id}/workers")[2]["attempt"] == 2)
        os.unlink(gate)
        job = studio.wait(job_id)
    check_index(s3, job, text, 10)


@pytest.fixture
def start(tmp_path, s3):
    """Start a daemon, or the same one again."""
    started = []

    def start() -> Daemon:
        started.append(Daemon(tmp_path / "home", s3.env, free_ports_conf(mu="on_stop = cancel")))
        return started[-1]

    yield start
    started[-1].stop()


@pytest.mark.parametrize(
    "moment",
    [pytest.param("while they wait", marks=pytest.mark.soak), "while states go"],
)
def test_a_chain_outlives_the_daemon(s3, held, start, moment):
    text = prose(200_000)
    s3.client().put_object(Bucket="films", Key="outlived", Body=text)
    daemon = start()
    daemon.create_function("held", held)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        gate = os.path.join(folder, secrets.token_hex(8))
        Path(gate).touch()
        params = {
            "bucket": "films",
            "key": "outlived",
            "out_prefix": "outlived.index/",
            "every": 10,
        }
        params["python"] = f"./held {gate}"
        job_id = run_job(daemon, "chain", 4, function="held", params=params)
        for part in range(1, 4):
            wait_until(partial(worker_of_part, gate, part))
        if moment == "while states go":
            os.unlink(gate)
            wait_until(lambda: not worker_of_part(gate, 2))
        daemon.process.kill()
        if moment == "while they wait":
            os.unlink(gate)
        daemon = start()
        job = daemon.wait(job_id)
    check_index(s3, job, text, 10)
    workers = daemon.ask(f"/jobs/{job_id}/workers")
    assert [worker["attempt"] for worker in workers] == [1] * 4


@pytest.mark.parametrize("pipeline", ["xcenc", pytest.param("xcenc7", marks=pytest.mark.soak)])
def test_the_encoders_outputs_are_the_recipes(studio, s3, tmp_path, pipeline):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        shutil.copy(STAND_IN, programs / name)
    machine, distance = Machine(tmp_path, programs), 3
    name = f"it's {pipeline}; $(touch pwned) `touch pwned`"
    overlaps = pipeline == "xcenc7"
    for number in range(4):
        content = chunk(number, overlaps and number % distance > 0)
        machine.put(number, content)
        folder = f"{name}_07" if overlaps and number % distance else f"{name}_06"
        key = f"{folder}/{number:08d}.y4m"
        s3.client().put_object(Bucket="films", Key=key, Body=content)
    (recipe7 if overlaps else recipe)(machine, list(range(4)), distance)
    video = name if overlaps else f"{name}_06"
    params = {"bucket": "films", "video": video, "keyframe_distance": distance}
    job = studio.wait(run_job(studio, pipeline, 4, function="encoder", params=params, spares=1))
    assert (job["state"], job["error"]) == ("done", None)
    assert len(job["result"]["keys"]) == 4
    for number, key in enumerate(job["result"]["keys"]):
        assert key == f"{name}_06/out_30_x_k3/{number:08d}.ivf"
        assert get(s3, key) == machine.read(number, "output.ivf")
