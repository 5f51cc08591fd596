"""`python -m mu_worker`: one worker on any machine, from a bundle."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mu.functions.bundle import bundle
from mu.interfaces import IEngine
from mu.invocations import Accepted, Invocation
from mu.registry import Registry

PACKAGED = {"mode": 0}
"""An event that needs no coordinator: it runs the bundle's packaged command."""
SCRIPT = """#!/bin/sh
echo "private=$(test -e /tmp/outside || echo yes)"
rm -rf /tmp/*
pwd
"""


BLOCK = re.compile(r"\n\n((?:    .*\n|\n)+)")
"""A block of code in a page."""


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Return a function that makes a bundle with this packaged command."""
    folder = tmp_path_factory.mktemp("bundles")
    script = folder / "look"
    script.write_text(SCRIPT)

    def make(command: str) -> Path:
        return bundle(folder / "b.zip", executables=[script], command=command).path

    return make


def test_the_smallest_engine_of_the_docs_starts_a_worker(make, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    section = page[page.index("## The smallest engine\n") :]
    code, package = (textwrap.dedent(found) for found in BLOCK.findall(section)[:2])
    registered = tomllib.loads(package)["project"]["entry-points"]["mu.engines"]
    assert registered == {"processes": "mu_processes:engine"}
    mark = Path(f"/dev/shm/{tmp_path.name}-{os.getpid()}")
    zipped = make(f"touch {mark}")
    given: dict[str, Any] = {}
    exec(code.replace("/srv/functions", str(zipped.parent)), given)
    registry = Registry()
    registry.add(IEngine, given["engine"], "docs")
    launching = registry.engines["processes"].launch(
        Invocation("l1", zipped.stem, "", json.dumps(PACKAGED).encode())
    )
    assert launching.result == Accepted()
    until = time.monotonic() + 20
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.02)
    mark.unlink()


def write_event(folder: Path, event: object) -> Path:
    path = folder / "event.json"
    path.write_text(event if isinstance(event, str) else json.dumps(event))
    path.chmod(0o600)
    return path


def start(zipped: Path, event: Path | str, *more: object) -> "subprocess.Popen[str]":
    words = ["-m", "mu_worker", "--event", event, "--work", zipped.parent, *more]
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(zipped)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(running: "subprocess.Popen[str]", given: str = "") -> tuple[int, str, str]:
    printed, said = running.communicate(given, timeout=60)
    return running.returncode, printed, said


def test_a_worker_started_by_hand_does_its_job_and_its_event_is_removed(daemon, make, tmp_path):
    order = {"pipeline": "hello", "engine": "external"}
    job = daemon.ask("/jobs", order)
    event = write_event(tmp_path, job["event"])
    status, printed, said = end(start(make(""), event, "--remove", "--timeout", 60))
    assert (status, said, event.exists()) == (0, "", False)
    assert json.loads(printed)["status"] == "quit"
    assert daemon.wait(job["id"])["state"] == "done"


def test_map_runs_on_workers_started_by_hand(daemon, s3, make, tmp_path):
    for name in ("a", "b", "c"):
        s3.client().put_object(Bucket="films", Key=f"by-hand/{name}", Body=b"z\ny\n")
    params = {"bucket": "films", "prefix": "by-hand/", "out_prefix": "by-hand-sorted/"}
    params |= {"command": "sort {in} > {out}"}
    order = {"pipeline": "map", "engine": "external", "workers": 2, "params": params}
    job = daemon.ask("/jobs", {**order, "event": {"env": s3.env}})
    zipped, event = make(""), write_event(tmp_path, job["event"])
    for running in [start(zipped, event, "--timeout", 60) for _ in range(2)]:
        status, printed, said = end(running)
        assert (status, said, json.loads(printed)["status"]) == (0, "", "quit")
    done = daemon.wait(job["id"])
    assert (done["state"], done["counts"]["done"]) == ("done", 2), done["error"]
    for name in ("a", "b", "c"):
        found = s3.client().get_object(Bucket="films", Key=f"by-hand-sorted/{name}")
        assert found["Body"].read() == b"y\nz\n"


def test_it_has_a_tmp_of_its_own_and_leaves_nothing_behind(make, tmp_path):
    zipped, outside = make("./look"), Path("/tmp/outside")
    outside.touch()
    try:
        status, printed, _ = end(start(zipped, "-"), json.dumps(PACKAGED))
        assert outside.exists()
    finally:
        outside.unlink(missing_ok=True)
    told = json.loads(printed)
    assert (status, told["retval"]) == (0, 0), told
    assert "private=yes\n" in told["output"]
    assert list(zipped.parent.glob("mu_run_*")) == []


@pytest.mark.parametrize(
    ("command", "option", "status", "says"),
    [
        ("sleep 100 & sleep 100", ("--timeout", 0.5), 124, "ran for its time limit, 0.5 s"),
        (
            "(head -c 300m /dev/zero; sleep 100) | tail",
            ("--memory", 100),
            137,
            "was out of memory:",
        ),
    ],
)
def test_a_limit_ends_the_worker_and_all_that_it_started(make, command, option, status, says):
    running = start(make(command), "-", *option)
    assert running.stdin is not None
    running.stdin.write(json.dumps(PACKAGED))
    running.stdin.close()
    found = set[int]()
    while running.poll() is None:
        found |= set(children_of(running.pid))
        time.sleep(0.02)
    assert running.returncode == status
    assert running.stderr is not None
    assert says in running.stderr.read()
    assert len(found) > 1
    assert [pid for pid in found if Path(f"/proc/{pid}").exists()] == []


def test_sigterm_ends_the_worker_and_all_that_it_started(make, tmp_path):
    running = start(make("sleep 100"), write_event(tmp_path, PACKAGED))
    until = time.monotonic() + 20
    while len(descendants := children_of(running.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    status, _, said = end(running)
    assert (status, said) == (143, "mu worker: the worker was ended by SIGTERM\n")
    assert [pid for pid in descendants if Path(f"/proc/{pid}").exists()] == []


def children_of(pid: int) -> list[int]:
    """Return the descendants of a process."""
    try:
        found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return found + [deeper for one in found for deeper in children_of(one)]


@pytest.mark.parametrize(
    ("event", "mode", "more", "says"),
    [
        ("{}", 0o640, (), "so its mode must be 0600, got 0640: chmod 600 "),
        ('{"srvkey": "secret', 0o600, (), "must be a JSON object: no JSON in line 1"),
        ("[1]", 0o600, (), "must be a JSON object, got list"),
        ('{"mode": 7}', 0o600, (), "event key mode must be an integer from 0 to 3, got 7"),
        ("{}", 0o600, ("--index", 0), "--launches and --index go together"),
        ("{}", 0o600, ("--launches", "/dev/null", "--index", 3), "has no line for index 3"),
        ("{}", 0o600, ("--bundle", "/etc/passwd"), "cannot unpack the bundle /etc/passwd"),
        ("{}", 0o600, ("--bundle", "/usr"), "/usr must be a bundle of mu, a folder or a zip"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(make, tmp_path, event, mode, more, says):
    path = write_event(tmp_path, event)
    path.chmod(mode)
    status, printed, said = end(start(make("true"), path, *more))
    assert (status, printed) == (2, "")
    assert said.startswith("mu worker: ")
    assert says in said
    assert "secret" not in said
