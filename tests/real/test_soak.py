"""Longer runs, for `make soak`."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak


def kib(pid):
    return 4 * int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def run_jobs(daemon, jobs, workers):
    for _ in range(jobs):
        order = {"pipeline": "hello", "function": "png2y4m", "workers": workers}
        assert daemon.wait(daemon.ask("/jobs", order)["id"])["state"] == "done"


def test_a_hundred_jobs_leave_no_memory_and_no_files_behind(daemon):
    pid = daemon.process.pid
    run_jobs(daemon, 20, 20)
    before, files = kib(pid), len(os.listdir(f"/proc/{pid}/fd"))
    run_jobs(daemon, 100, 20)
    assert kib(pid) - before < 60 * 1024
    assert len(os.listdir(f"/proc/{pid}/fd")) <= files + 5


def test_a_job_of_five_hundred_real_workers_is_done(daemon):
    run_jobs(daemon, 1, 500)
