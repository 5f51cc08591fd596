"""Logs that stay: what workers print is on disk, whatever happens to the daemon, and to the disk."""

import gzip
import re
import resource
import stat
import subprocess
import time

import pytest
from kit.cli import inside as mu
from kit.film import wait_until
from stage import Daemon, free_ports_conf

TICKS = "for n in 1 2 3 4 5 6 7 8; do echo tick $n; sleep 0.25; done; cp {in} {out}"


@pytest.fixture
def start(tmp_path, s3, joiner):
    """Start a daemon, or the same one again."""
    started = []

    def start(conf=None):
        daemon = Daemon(tmp_path, s3.env, conf or free_ports_conf(worker="hold_s = 60"))
        if not started:
            daemon.create_function("png2y4m", joiner)
        started.append(daemon)
        return daemon

    yield start
    last = started[-1]
    for job in last.ask("/jobs"):
        last.ask(f"/jobs/{job['id']}", method="DELETE")
    last.stop()


def put_inputs(s3, name, count=1):
    for number in range(count):
        s3.client().put_object(Bucket="films", Key=f"{name}/{number}", Body=b"x")


def order(name, command, workers=1):
    params = {"bucket": "films", "prefix": f"{name}/", "out_prefix": f"{name}-out/"}
    params["command"] = command
    return {"pipeline": "map", "function": "png2y4m", "workers": workers, "params": params}


def log_of(daemon, job, arguments="actor=0"):
    return daemon.ask(f"/jobs/{job}/log?{arguments}")


def test_a_log_has_what_was_printed_while_the_daemon_was_dead_and_outlives_its_job(start, s3):
    put_inputs(s3, "ticks")
    daemon = start()
    job = daemon.ask("/jobs", order("ticks", TICKS))["id"]
    wait_until(lambda: "tick 2" in log_of(daemon, job, "raw"))
    (live,) = (daemon.home / "logs" / job).iterdir()
    assert stat.S_IMODE(live.stat().st_mode) == 0o600
    assert re.search(rb"^20\S+Z 0\.1\.\d+ ticks/0 \| tick 2$", live.read_bytes(), re.MULTILINE)
    daemon.process.kill()
    time.sleep(0.3)  # what is printed now reaches no daemon
    daemon = start()
    assert "tick 1\n" in log_of(daemon, job), "of a daemon that is dead"
    assert daemon.wait(job)["state"] == "done"
    whole = "".join(f"tick {n}\n" for n in range(1, 9))
    assert log_of(daemon, job) == whole
    packed = daemon.home / "logs" / f"{job}.log.gz"
    wait_until(packed.exists)
    assert not live.parent.exists()
    assert stat.S_IMODE(packed.stat().st_mode) == 0o600
    found = subprocess.run(["zgrep", "tick 3", packed], capture_output=True, text=True, check=True)
    assert " 0.1." in found.stdout
    daemon.stop()
    daemon = start()
    assert log_of(daemon, job) == log_of(daemon, job, "key=ticks/0") == whole
    assert mu("log", job, "-a", 0, "-f", daemon=daemon).stdout == whole
    timed = mu("log", job, "-a", 0, "--times", daemon=daemon).stdout.splitlines()
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]{12}Z tick \d", line) for line in timed)
    assert gzip.decompress(packed.read_bytes()).count(b" tick ") == 8


def test_a_full_disk_loses_output_and_says_so_but_no_job(start, s3):
    put_inputs(s3, "loud")
    daemon = start()
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    command = "seq 100000; echo the end; cp {in} {out}"
    job = daemon.ask("/jobs", order("loud", command))["id"]
    assert daemon.wait(job)["state"] == "done"
    assert "[... output is lost here: File too large ...]" in log_of(daemon, job)
    said = daemon.process.log.read_text()
    assert said.count("the logs of jobs cannot be written: File too large") == 1
    resource.prlimit(
        daemon.process.pid,
        resource.RLIMIT_FSIZE,
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    )
    after = daemon.ask("/jobs", order("loud", command))["id"]
    assert daemon.wait(after)["state"] == "done"
    assert log_of(daemon, after).startswith("1\n2\n")
    assert log_of(daemon, after).endswith("\n100000\nthe end\n")
    assert "the logs of jobs can be written again" in daemon.process.log.read_text()
