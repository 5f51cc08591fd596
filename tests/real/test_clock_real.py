"""The system's clock is set while a daemon runs, and while none does: no job is lost."""

import os
from pathlib import Path

import pytest
from kit.film import order, put_film, wait_until
from stage import Daemon, free_ports_conf

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR = 3600
CONF = free_ports_conf(worker="hold_s = 60", jobs="deadline_s = 120", launch="hello_timeout_s = 40")

pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="libfaketime is not installed (Debian's package libfaketime)"
)


class Clock:
    """The clock of all processes with `env`; the time since the machine's start stays true."""

    def __init__(self, folder):
        self._file = folder / "clock"
        self.set(0)
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead):
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+d}")
        os.replace(new, self._file)


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def start(tmp_path, clock, s3, joiner):
    """Start a daemon by that clock, or the same one again."""
    started = []

    def start():
        daemon = Daemon(tmp_path, s3.env | clock.env, CONF)
        if not started:
            daemon.create_function("png2y4m", joiner)
        started.append(daemon)
        return daemon

    yield start
    started[-1].stop()


def ordered(daemon, s3, name, naps=2):
    """Order a job of two workers, whose programs run for that many seconds each."""
    put_film(s3, name, ["nap\n"] * naps * 2)
    return daemon.ask("/jobs", order(name, workers=2, frames=naps))


def half_way(daemon, job):
    return daemon.wait(job["id"], until=lambda job: job["counts"]["running"] == 2)


def noticed(daemon):
    return daemon.process.log.read_text().count("the system's clock was set")


def first_try(daemon, job):
    workers = daemon.ask(f"/jobs/{job['id']}/workers")
    return [(worker["state"], worker["attempt"]) for worker in workers] == [("done", 1)] * 2


def test_a_clock_that_jumps_while_a_job_runs_changes_nothing(start, clock, s3):
    daemon = start()
    job = half_way(daemon, ordered(daemon, s3, "jumps"))
    for told, ahead in enumerate((HOUR, -HOUR, 0)):
        clock.set(ahead)
        wait_until(lambda told=told: noticed(daemon) == told + 1)
    job = daemon.wait(job["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert 0 < job["finished"] - job["created"] < 60
    assert first_try(daemon, job)


@pytest.mark.soak
def test_a_clock_that_is_set_between_a_kill_and_a_restart_loses_no_job(start, clock, s3):
    daemon = start()
    job = half_way(daemon, ordered(daemon, s3, "restart", 3))
    for ahead in (HOUR, -HOUR):
        daemon.process.kill()
        clock.set(ahead)
        daemon = start()
    job = daemon.wait(job["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert first_try(daemon, job)
    assert 0 <= job["cost_usd"] < 0.005  # an hour of both costs 0.06
    clock.set(0)  # it is mended; the local engine is asked, and workers connect
    wait_until(lambda: noticed(daemon))
    another = daemon.wait(ordered(daemon, s3, "after", 1)["id"])
    assert (another["state"], another["error"]) == ("done", None)
