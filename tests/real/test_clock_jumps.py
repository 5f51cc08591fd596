"""Somebody sets the system's time while a job runs: libfaketime does so for the daemon and its engine."""

from pathlib import Path

import pytest
from kit.film import chunk, order, put_film
from stage import Daemon, free_ports_conf

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
WORKERS = 3


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("jump", ["+7200", pytest.param("-7200", marks=pytest.mark.soak)])
def test_a_job_does_not_notice_that_the_time_is_set(tmp_path, s3, joiner, jump):
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    name = f"jump{jump[0]}"
    put_film(s3, name, ["nap 2\n", "1\n"] * WORKERS)
    daemon = Daemon(tmp_path, s3.env | env, free_ports_conf())
    try:
        daemon.create_function("png2y4m", joiner)
        job = daemon.ask("/jobs", order(name, WORKERS, deadline_s=60, worker_timeout_s=60))
        daemon.wait(job["id"], until=lambda job: job["counts"]["running"] == WORKERS)
        offset.write_text(f"{jump}\n")
        job = daemon.wait(job["id"])
        assert (job["state"], job["error"]) == ("done", None)
        assert [chunk(s3, name, n) for n in range(WORKERS)] == ["nap 2\n1\n"] * WORKERS
        rows = daemon.ask(f"/jobs/{job['id']}/workers")
        assert [row["attempt"] for row in rows] == [1] * WORKERS
    finally:
        daemon.stop()
