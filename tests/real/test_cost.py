"""What a job costs."""

import pytest
from kit.film import order, put_film

from mu.engines.cost import GB_S_USD, REQUEST_USD, Meter, Prices
from mu.invocations import Size

X86, ARM = GB_S_USD["x86_64"], GB_S_USD["arm64"]


def test_gb_seconds_and_requests_are_counted_while_workers_run():
    meter = Meter(Prices())
    for _ in range(1000):
        meter.invoked()
    assert meter.usd(0) == pytest.approx(1000 * REQUEST_USD)
    meter.began("a", 10.0, Size(2048))
    meter.began("b", 10.0, Size(512, "arm64"))
    base = 1000 * REQUEST_USD
    assert meter.usd(110.0) == pytest.approx(base + 200 * X86 + 50 * ARM)
    meter.ended("a", 110.0)
    assert meter.usd(210.0) == pytest.approx(base + 200 * X86 + 100 * ARM)
    meter.ended("b", 210.0)
    assert meter.usd(999.0) == pytest.approx(base + 200 * X86 + 100 * ARM)
    assert meter.gb_s == pytest.approx(300)


def test_a_worker_that_comes_back_ran_on_meanwhile():
    meter = Meter(Prices())
    meter.began("a", 0.0, Size(1024))
    meter.ended("a", 10.0)
    meter.began("a", 30.0, Size(1024))
    assert meter.usd(40.0) == pytest.approx(40 * X86)
    meter.ended("a", 50.0)
    meter.ended("a", 60.0)
    assert meter.usd(90.0) == pytest.approx(50 * X86)
    assert meter.gb_s == pytest.approx(50)


def test_a_jobs_cost_is_counted_while_it_runs(daemon, s3):
    put_film(s3, "cost", ["slow\n"] * 4)
    job = daemon.ask("/jobs", order("cost", workers=2))
    seen = daemon.wait(job["id"], until=lambda job: (job["cost_usd"] or 0) > 2e-6)
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")
    job = daemon.ask(f"/jobs/{job['id']}")
    assert job["cost_usd"] >= seen["cost_usd"]
    ran = job["finished"] - job["first_hello"]
    assert 2 * REQUEST_USD < job["cost_usd"] <= 2 * REQUEST_USD + 2 * ran * 0.5 * X86 + 1e-6
    assert job["gb_s"] == pytest.approx(ran, rel=0.3)


def test_a_job_that_costs_too_much_is_stopped_and_says_so(daemon, s3):
    put_film(s3, "dear", ["slow\n"] * 4)
    job = daemon.ask("/jobs", order("dear", workers=2, max_cost_usd=0.00002))
    job = daemon.wait(job["id"])
    assert job["state"] == "failed"
    assert job["error"].startswith("it has cost $0.0000")
    assert job["error"].endswith("; max_cost_usd is 2e-05")


def test_a_ceiling_that_cannot_be_kept_is_refused(daemon):
    job = daemon.wait(daemon.ask("/jobs", order("x", 1, function="none", max_cost_usd=1.0))["id"])
    assert job["state"] == "failed"
    assert "max_cost_usd cannot be kept: what function none is like in us-east-1" in job["error"]
    assert "404: Function not found" in job["error"]
