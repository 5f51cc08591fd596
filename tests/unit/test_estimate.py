from typing import Any

import pytest

from mu.aws import limits
from mu.cli.estimate import bound, estimate, inputs_of, key_lists

PLAN: Any = {
    "pipeline": "map",
    "engine": "lambda",
    "function": "thumb",
    "regions": ["us-east-1"],
    "actors": 2,
    "inputs": [{"keys": ["a", "b", "c"]}, {"keys": ["d"]}],
    "spares": 0,
    "retries": 2,
    "worker_timeout_s": 70.0,
    "hello_timeout_s": 30.0,
    "deadline_s": 3600.0,
    "max_cost_usd": 0.0,
    "size": None,
    "size_unknown": "",
    "prices": {"gb_s": {"x86_64": 0.001, "arm64": 0.0005}, "request": 1.0},
}
SIZE: Any = {"memory_mb": 2048, "architecture": "x86_64", "timeout_s": 900.0}


def test_the_bound_has_every_attempt_until_its_limit_and_its_request():
    most = bound(PLAN, SIZE)
    assert (most.attempts, most.attempt_s) == (6, 100)
    assert most.usd == pytest.approx(6 * 100 * 0.002 + 6)
    assert bound(PLAN, SIZE | {"architecture": "arm64"}).usd == pytest.approx(0.6 + 6)


@pytest.mark.parametrize(
    ("changes", "seconds", "requests"),
    [
        ({"worker_timeout_s": 9999.0}, 6 * 900, 6),  # the function's own limit
        ({"deadline_s": 50.0}, 2 * 50, 6),  # of both workers together
        ({"spares": 1}, 6 * 100 + 3600, 7),
        ({"actors": 1, "retries": 0, "deadline_s": 60.0}, 60, 1),
    ],
)
def test_limits_of_functions_and_jobs_end_attempts_earlier(changes, seconds, requests):
    most = bound(PLAN | changes, SIZE)
    assert most.usd == pytest.approx(seconds * 0.002 + requests)


def test_a_function_whose_timeout_is_unknown_may_run_as_long_as_any():
    most = bound(PLAN | {"worker_timeout_s": 99999.0}, SIZE | {"timeout_s": 0.0})
    assert most.attempt_s == limits.TIMEOUT.most


def test_max_cost_is_a_bound_too():
    assert bound(PLAN | {"max_cost_usd": 0.5}, SIZE).usd == 0.5
    assert bound(PLAN | {"max_cost_usd": 50.0}, SIZE).usd == bound(PLAN, SIZE).usd


def job(**changes):
    known: dict[str, Any] = {
        "pipeline": "map",
        "engine": "lambda",
        "function": "thumb",
        "state": "done",
    }
    known |= {"workers": 4, "created": 100.0, "finished": 110.0, "cost_usd": 0.8}
    return known | {"result": {"done": 7, "failed": 1}} | changes


def test_the_estimate_is_in_proportion_to_inputs_and_workers():
    like = estimate(PLAN, [job()])
    assert (like.usd, like.jobs) == (pytest.approx(0.4), 1)  # 4 inputs instead of 8
    assert like.seconds == pytest.approx(10)  # 2 inputs a worker, as before
    assert inputs_of(PLAN["inputs"]) == 4


def test_the_estimate_is_the_median_of_the_latest_jobs():
    jobs = [job(cost_usd=99.0)] + [job(cost_usd=cost) for cost in (0.2, 0.4, 0.6, 0.8, 8.0)]
    like = estimate(PLAN, jobs)
    assert (like.usd, like.jobs) == (pytest.approx(0.3), 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "failed"},
        {"function": "other"},
        {"pipeline": "hello"},
        {"engine": "local"},
        {"cost_usd": None},
        {"result": None},
        {"result": {"done": 0, "failed": 0}},
        {"workers": 0},
    ],
)
def test_jobs_that_tell_nothing_about_this_one_are_left_out(changes):
    assert estimate(PLAN, [job(**changes)]) is None


def test_actors_of_a_later_stage_have_no_keys_and_count_as_no_inputs():
    inputs = [*PLAN["inputs"], {"out_key": "result"}]
    assert inputs_of(inputs) == 4
    assert key_lists(inputs) == [["a", "b", "c"], ["d"]]


def test_a_pipeline_without_keys_is_estimated_by_its_actors():
    plan = PLAN | {"inputs": [{"number": 1}, {"number": 2}]}
    assert inputs_of(plan["inputs"]) is None
    like = estimate(plan, [job(result=None)])
    assert (like.usd, like.seconds) == (pytest.approx(0.4), pytest.approx(10))
