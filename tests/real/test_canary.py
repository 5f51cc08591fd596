"""Functions that cannot reach the coordinator: few workers go ahead, and the job says why."""

import json

import pytest
from kit.cli import inside
from kit.local import COLD
from stage import Daemon, free_ports_conf

from mu.engines.cost import GB_S_USD, REQUEST_USD

NOWHERE = "127.0.0.2"
"""An address of this machine where the daemon of these tests does not listen."""
WORKERS = 100


@pytest.fixture(scope="module")
def deaf(tmp_path_factory, joiner):
    """A daemon that listens on 127.0.0.1 only, and gives up workers after 6 s."""
    conf = free_ports_conf(
        worker="host = 127.0.0.1\nreconnect_s = 1",
        launch="hello_timeout_s = 6",
        mu="on_stop = cancel",
    )
    running = Daemon(tmp_path_factory.mktemp("deaf"), {"PYTHONPATH": str(COLD)}, conf)
    running.create_function("png2y4m", joiner)
    yield running
    running.stop()


def hello(workers=WORKERS, **more):
    return {"pipeline": "hello", "function": "png2y4m", "workers": workers, **more}


def test_a_job_whose_workers_cannot_connect_stops_after_a_few_and_quotes_their_log(deaf):
    job = deaf.wait(deaf.ask("/jobs", hello(event={"addr": NOWHERE}))["id"])
    at = f"{NOWHERE}:{deaf.ports['worker']}"
    assert job["state"] == "failed"
    assert f" workers of function 'png2y4m' in us-east-1 did not connect to {at}" in job["error"]
    assert (
        f"its log says: mu worker: gave up: could not reconnect within 1 s: cannot reach {at}: "
        in job["error"]
    )
    assert job["launches"] == {"accepted": 9}
    requests = 9 * REQUEST_USD
    assert job["cost_usd"] == pytest.approx(requests, abs=1e-6)
    longest_s = 10 + 60  # INIT, and the function's timeout
    bound = requests + 9 * longest_s * 0.5 * GB_S_USD["x86_64"]
    assert requests < job["cost_usd_at_most"] <= bound + 1e-6
    shown = inside("watch", job["id"], daemon=deaf).stdout
    assert f"(at most ${job['cost_usd_at_most']:.4f})" in shown


def test_a_job_on_a_function_that_can_connect_launches_all_at_once(deaf):
    job = deaf.wait(deaf.ask("/jobs", hello(10))["id"])
    assert (job["state"], job["launches"]) == ("done", {"accepted": 10})
    assert job["gb_s"] * GB_S_USD["x86_64"] <= job["cost_usd"] <= job["cost_usd_at_most"]
    assert job["cost_usd_at_most"] == pytest.approx(job["cost_usd"], abs=1e-6)


def test_the_first_worker_that_connects_lets_all_others_start_and_is_remembered(deaf):
    slow = {"addr": "localhost"}  # which need not be where the daemon listens
    for _ in range(2):
        job = deaf.wait(deaf.ask("/jobs", hello(10, event=slow))["id"])
        assert (job["state"], job["launches"]) == ("done", {"accepted": 10})
    known = json.loads((deaf.home / "reached.json").read_text())
    assert known.keys() == {
        "local png2y4m us-east-1 127.0.0.1",
        "local png2y4m us-east-1 localhost",
    }
