"""The cost of jobs."""

import pytest
from kit.film import order, put_film, wait_until

from mu.engines.cost import GB_S_USD, REQUEST_USD
from mu.journal.archive import Archive
from mu.journal.records import Used, read_record

X86 = GB_S_USD["x86_64"]


def told_before_hello(daemon, job):
    """Return what workers have told of the time before their hello."""
    archive = Archive(daemon.home / "journal.db", read_only=True)
    records = list(map(read_record, archive.lines(job["id"])))
    archive.close()
    return [one for one in records if isinstance(one, Used)]


def test_a_jobs_cost_is_counted_while_it_runs(daemon, s3):
    put_film(s3, "cost", ["slow\n"] * 4)
    job = daemon.ask("/jobs", order("cost", workers=2))
    daemon.wait(job["id"], until=lambda job: job["counts"]["running"] == 2)
    # Until both have told what they ran before their hello, more may be counted.
    wait_until(lambda: len(told_before_hello(daemon, job)) == 2)
    seen = daemon.ask(f"/jobs/{job['id']}")
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")
    job = daemon.ask(f"/jobs/{job['id']}")
    assert job["cost_usd"] >= seen["cost_usd"]
    ran = job["finished"] - job["last_hello"]
    there_was = job["finished"] - job["created"] + 0.1
    assert 2 * ran * 0.5 < job["gb_s"] <= 2 * there_was * 0.5
    counted = 2 * REQUEST_USD + job["gb_s"] * X86
    assert job["cost_usd"] == pytest.approx(counted, abs=1e-6)
    assert job["cost_usd"] <= job["cost_usd_at_most"] <= counted + 1e-6


def test_what_workers_ran_before_their_hello_is_counted(daemon):
    job = daemon.wait(
        daemon.ask("/jobs", {"pipeline": "hello", "function": "png2y4m", "workers": 2})["id"]
    )
    used = told_before_hello(daemon, job)
    assert len(used) == 2
    assert all(0.01 < one.before_s < one.at - job["created"] for one in used)


def test_a_job_over_max_cost_usd_is_stopped_and_says_so(daemon, s3):
    put_film(s3, "dear", ["slow\n"] * 4)
    job = daemon.ask("/jobs", order("dear", workers=2, max_cost_usd=0.00002))
    job = daemon.wait(job["id"])
    assert job["state"] == "failed"
    assert job["error"].startswith("it has cost $0.0000")
    assert job["error"].endswith("; max_cost_usd is 2e-05")


def test_max_cost_usd_fails_the_job_if_the_price_is_unknown(daemon):
    job = daemon.wait(daemon.ask("/jobs", order("x", 1, function="none", max_cost_usd=1.0))["id"])
    assert job["state"] == "failed"
    assert (
        "max_cost_usd cannot be kept: the size of function none in us-east-1 is unknown"
        in job["error"]
    )
    assert "ResourceNotFoundException: Function not found" in job["error"]
