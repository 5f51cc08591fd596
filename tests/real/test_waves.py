"""An engine that runs few workers at once, as AWS does for a new account."""

import pytest
from kit.film import chunk, order, put_film
from stage import Daemon, free_ports_conf

WORKERS = 6


@pytest.fixture(scope="module")
def small_daemon(tmp_path_factory, s3, joiner):
    """A daemon whose engine runs one worker at a time, and whose patience is shorter than a job."""
    conf = free_ports_conf(
        local="concurrency = 1",
        launch="hello_timeout_s = 5",
        mu="on_stop = cancel",
    )
    daemon = Daemon(tmp_path_factory.mktemp("small"), s3.env, conf)
    daemon.create_function("png2y4m", joiner)
    yield daemon
    daemon.stop()


def test_a_job_of_any_size_runs_in_waves_without_a_retry(s3, small_daemon):
    put_film(s3, "waves", ["nap 1\n", "1\n"] * WORKERS)
    other = small_daemon.ask("/jobs", order("waves", 1))
    job = small_daemon.ask("/jobs", order("waves", WORKERS))
    rows = small_daemon.ask(f"/jobs/{job['id']}/workers")
    assert {row["waits_for"] for row in rows} <= {"a place: 1 of 1 in use", "a worker"}
    ended = small_daemon.wait(job["id"])
    assert (ended["state"], ended["error"]) == ("done", None)
    assert ended["launches"] == {"accepted": WORKERS}
    assert small_daemon.wait(other["id"])["state"] == "done"
    assert [chunk(s3, "waves", n) for n in range(WORKERS)] == ["nap 1\n1\n"] * WORKERS
    rows = small_daemon.ask(f"/jobs/{job['id']}/workers")
    assert [row["failures"] for row in rows] == [[]] * WORKERS


def test_a_job_in_waves_goes_on_where_a_killed_daemon_left_it(tmp_path, s3, joiner):
    """Also with two regions, since they share the places of the local engine."""
    conf = free_ports_conf(local="concurrency = 2", launch="hello_timeout_s = 10")
    daemon = Daemon(tmp_path, s3.env, conf)
    daemon.create_function("png2y4m", joiner)
    put_film(s3, "cut", ["nap 1\n", "1\n"] * 6)
    regions = ["us-east-1", "eu-west-1"]
    job = daemon.ask("/jobs", order("cut", 6, regions=regions, spares=2))
    daemon.wait(job["id"], until=lambda job: job["counts"]["running"] > 0)
    daemon.process.kill()
    daemon = Daemon(tmp_path, s3.env, conf)
    try:
        running = []

        def ended(job):
            running.append(job["counts"]["running"])
            return job["finished"] is not None

        job = daemon.wait(job["id"], until=ended)
        assert (job["state"], job["error"]) == ("done", None)
        assert max(running) <= 2
        assert [chunk(s3, "cut", n) for n in range(6)] == ["nap 1\n1\n"] * 6
        rows = daemon.ask(f"/jobs/{job['id']}/workers")
        assert [row["failures"] for row in rows] == [[]] * 6
        assert job["launches"]["accepted"] in (6, 7, 8)
    finally:
        daemon.stop()


def test_a_chain_runs_in_waves_too_since_the_relay_keeps_what_its_workers_pass_on(s3, small_daemon):
    text = "".join(f"line {number}\n" for number in range(100))
    s3.client().put_object(Bucket="films", Key="waves.txt", Body=text.encode())
    params = {"bucket": "films", "key": "waves.txt", "out_prefix": "waves/"}
    chained = {"pipeline": "chain", "function": "png2y4m", "workers": 2, "params": params}
    job = small_daemon.wait(small_daemon.ask("/jobs", chained)["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert job["launches"] == {"accepted": 2}
    assert job["result"]["total"]["lines"] == 100
