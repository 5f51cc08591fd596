"""chain through the real daemon: real workers pass their sums on by way of the real relay."""

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest
from kit.film import kill, processes, wait_until
from stage import Daemon, free_ports_conf

from mu.functions.bundle import bundle
from mu.pipelines.chain_program import PRIME

WORKERS = 6


def prose(size):
    chance = random.Random(7)
    return b"".join(
        bytes(chance.choices(range(32, 127), k=chance.randrange(120))) + b"\n"
        for _ in range(size // 60)
    )


def workers_at(word, home):
    """Return the workers of the engine of that home which run a program with that word."""
    found = []
    for pid in processes(word):
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            found += worker_above(pid, home)
    return found


def worker_above(pid, home):
    worker, above = 0, b""
    while pid > 1 and str(home).encode() not in above:
        above = Path(f"/proc/{pid}/cmdline").read_bytes()
        if not worker and b"python" in above and b"chain.py" not in above:
            worker = pid
        pid = int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])
    return [worker] if str(home).encode() in above else []


@pytest.fixture
def daemon(tmp_path, s3):
    conf = free_ports_conf(mu="on_stop = cancel", worker="hold_s = 1")
    running = Daemon(tmp_path, s3.env, conf)
    running.create_function("chain", bundle(tmp_path / "chain.zip").path)
    yield running
    running.stop()


@pytest.mark.parametrize("trouble", ["none", "worker killed", "daemon killed"])
def test_sums_run_along_the_chain(daemon, s3, tmp_path, trouble):
    text = prose(20_000_000 if trouble != "none" else 500_000)
    s3.client().put_object(Bucket="films", Key="big.txt", Body=text)
    params = {"bucket": "films", "key": "big.txt", "out_prefix": "index/", "every": 1000}
    ordered = {
        "pipeline": "chain",
        "workers": WORKERS,
        "params": params,
        "event": {"relay_keep": 1},
    }
    job = daemon.ask("/jobs", ordered)
    if trouble == "worker killed":
        kill(wait_until(lambda: workers_at("chain.py join", daemon.home))[0])
    elif trouble == "daemon killed":
        wait_until(lambda: daemon.ask(f"/jobs/{job['id']}")["counts"]["running"] == WORKERS)
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.kill()
        again = Daemon(tmp_path, s3.env, daemon.conf.read_text())
        daemon.process, daemon.ports, daemon.url = again.process, again.ports, again.url
    ended = daemon.wait(job["id"])
    assert (ended["state"], ended["error"]) == ("done", None)
    hashed = format(int.from_bytes(text, "big") % PRIME, "032x")
    total = {"bytes": len(text), "lines": text.count(b"\n"), "hash": hashed}
    assert ended["result"]["total"] == total
    attempts = {one["attempt"] for one in daemon.ask(f"/jobs/{job['id']}/workers")}
    if trouble == "worker killed":
        assert attempts == {1, 2}
    elif trouble == "none":
        assert attempts == {1}
