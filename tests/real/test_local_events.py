"""Events: run again after errors, held back while too many run, dropped in the end."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kit.local_support import Answer, Engine, running_engine, wait_for
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mu.engines.local.errors import LambdaError
from mu.engines.local.functions import Function, InvokeConfig
from mu.engines.local.pool import InvocationResult
from mu.engines.local.queue import InvocationLimits, InvocationQueue

PAUSES = ("--retry-pauses", "0.3", "0.6")


@pytest.fixture
def notes() -> Iterator[Path]:
    """A folder that all sandboxes see, where their handlers write."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One with AWS's own pauses."""
    with running_engine(tmp_path_factory.mktemp("home")) as engine:
        yield engine


def notes_in(path: Path) -> list[Any]:
    """Return what the attempts at an event noted: request id, time, event."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def invoke(engine: Engine, name: str, kind: str) -> Answer:
    path = f"/2015-03-31/functions/{name}/invocations"
    return engine.raw("POST", path, b"{}", **{"X-Amz-Invocation-Type": kind})


def test_an_event_that_fails_runs_twice_more_with_its_id_and_payload(
    notes: Path, tmp_path: Path
) -> None:
    with running_engine(tmp_path, *PAUSES) as engine:
        engine.create("f", Timeout=20)
        engine.create("g", Timeout=1)
        engine.lam.put_function_event_invoke_config(FunctionName="g", MaximumRetryAttempts=1)
        engine.create("h")
        engine.lam.put_function_event_invoke_config(FunctionName="h", MaximumRetryAttempts=0)
        event = {"do": "note", "how": "raise", "failures": 9, "é": [1]}
        one = engine.later("f", file=str(notes / "always"), **event)
        engine.later("f", **{**event, "file": str(notes / "once"), "failures": 1, "how": "kill"})
        engine.later("f", **{**event, "file": str(notes / "never"), "failures": 0})
        engine.later("g", **{**event, "file": str(notes / "slow"), "how": "sleep"})
        engine.later("h", file=str(notes / "no"), **event)
        engine.waits_for("of f (2 so far): it failed, attempts: 3")
        engine.waits_for("of g (3 so far): it failed, attempts: 2")
        engine.waits_for("of h (1 so far): it failed, attempts: 1")
        counts = {path.name: len(notes_in(path)) for path in notes.iterdir()}
        log = (tmp_path / "local" / "logs" / "f" / f"{one}.log").read_text()
    assert counts == {"always": 3, "once": 2, "never": 1, "slow": 2, "no": 1}
    requests, times, events = zip(*notes_in(notes / "always"), strict=True)
    assert set(requests) == {one}
    assert all(each == {**event, "file": str(notes / "always")} for each in events)
    assert times[1] - times[0] >= 0.3
    assert times[2] - times[1] >= 0.6
    assert log.count(f"START RequestId: {one}") == 3


def test_a_deleted_functions_events_and_old_events_do_not_run_again(
    notes: Path, engine: Engine
) -> None:
    fails = {"do": "note", "how": "raise", "failures": 9}
    engine.create("old")
    engine.lam.put_function_event_invoke_config(
        FunctionName="old", MaximumEventAgeInSeconds=60, MaximumRetryAttempts=2
    )
    engine.later("old", file=str(notes / "old"), **fails)
    engine.waits_for("of old (1 so far): it would be older than 60 s")
    engine.create("gone")
    engine.later("gone", file=str(notes / "gone"), **fails)
    engine.waits_for("gone ")
    engine.lam.delete_function(FunctionName="gone")
    engine.waits_for("of gone (2 so far): the function was deleted")


def test_the_asynchronous_settings_are_put_updated_told_and_deleted(engine: Engine) -> None:
    lam = engine.lam
    engine.create("f")
    missing = pytest.raises(
        lam.exceptions.ResourceNotFoundException, match="doesn't have an EventInvokeConfig"
    )
    for call in (
        lam.get_function_event_invoke_config,
        lam.update_function_event_invoke_config,
        lam.delete_function_event_invoke_config,
    ):
        with missing:
            call(FunctionName="f")
    lam.put_function_event_invoke_config(FunctionName="f", MaximumRetryAttempts=1)
    told = lam.update_function_event_invoke_config(FunctionName="f", MaximumEventAgeInSeconds=60)
    assert (told["MaximumRetryAttempts"], told["MaximumEventAgeInSeconds"]) == (1, 60)
    assert told["FunctionArn"].endswith(":function:f:$LATEST")
    assert abs(told["LastModified"].timestamp() - time.time()) < 5
    told = lam.put_function_event_invoke_config(FunctionName="f", MaximumRetryAttempts=0)
    assert "MaximumEventAgeInSeconds" not in told
    for bad in ({"MaximumRetryAttempts": 3}, {"MaximumEventAgeInSeconds": 21_601}):
        with pytest.raises(ClientError, match="ValidationException.*at 'maximum"):
            lam.put_function_event_invoke_config(FunctionName="f", **bad)
    low = engine.raw(
        "PUT",
        "/2019-09-25/functions/f/event-invoke-config",
        b'{"MaximumEventAgeInSeconds": 59}',
    )
    assert low.status == 400
    with pytest.raises(ClientError, match="InvalidParameterValueException.*at least one"):
        lam.put_function_event_invoke_config(FunctionName="f")
    assert lam.get_function_event_invoke_config(FunctionName="f")["MaximumRetryAttempts"] == 0
    lam = engine.lam
    assert lam.get_function_event_invoke_config(FunctionName="f")["MaximumRetryAttempts"] == 0
    lam.delete_function_event_invoke_config(FunctionName="f")
    with pytest.raises(lam.exceptions.ResourceNotFoundException):
        lam.get_function_event_invoke_config(FunctionName="f")


def test_over_the_concurrency_calls_are_refused_and_events_wait(
    notes: Path, tmp_path: Path
) -> None:
    with running_engine(tmp_path, "--concurrency", "2") as engine:
        engine.create("f", Timeout=20)
        held = notes / "held"
        for _ in range(2):
            engine.later("f", do="sleep", seconds=0.7, file=str(held))
        with pytest.raises(engine.lam.exceptions.TooManyRequestsException):
            engine.invoke("f")
        refused = invoke(engine, "f", "RequestResponse")
        assert (refused.status, refused.told) == (
            429,
            {
                "Reason": "ConcurrentInvocationLimitExceeded",
                "Type": "User",
                "message": "Rate Exceeded.",
            },
        )
        assert refused.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
        assert "Retry-After" not in refused.headers
        engine.later("f", do="note", file=str(notes / "late"))
        assert not (notes / "late").exists()
        wait_for((notes / "late").exists, "it ran when there was room")


def test_a_function_may_reserve_its_concurrency(notes: Path, tmp_path: Path) -> None:
    with running_engine(tmp_path, "--concurrency", "3") as engine:
        lam = engine.lam
        engine.create("f", Timeout=20)
        engine.create("other", Timeout=20)
        with pytest.raises(ClientError, match="InvalidParameterValueException.*below its minimum"):
            lam.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=4)
        lam.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=0)
        assert lam.get_function_concurrency(FunctionName="f")["ReservedConcurrentExecutions"] == 0
        told = lam.get_function(FunctionName="f")["Concurrency"]
        assert told == {"ReservedConcurrentExecutions": 0}
        reason = invoke(engine, "f", "RequestResponse").told["Reason"]
        assert reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
        engine.later("f", do="note", file=str(notes / "late"))
        lam.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=2)
        engine.later("other", do="sleep", seconds=60, file=str(notes / "other"))
        reason = invoke(engine, "other", "RequestResponse").told["Reason"]
        assert reason == "ConcurrentInvocationLimitExceeded"
        wait_for((notes / "late").exists, "it ran when it was let")
        lam.delete_function_concurrency(FunctionName="f")
        assert "ReservedConcurrentExecutions" not in lam.get_function_concurrency(FunctionName="f")
        assert "Concurrency" not in lam.get_function(FunctionName="f")


def test_over_the_invoke_rate_events_are_refused_too(tmp_path: Path) -> None:
    with running_engine(tmp_path, "--invoke-rate", "2") as engine:
        engine.create("f")
        answers = [invoke(engine, "f", "Event") for _ in range(4)]
        assert [answer.status for answer in answers] == [202, 202, 429, 429]
        assert answers[3].headers["Retry-After"] == "1"
        assert answers[3].told == {
            "Reason": "CallerRateLimitExceeded",
            "Type": "User",
            "message": "Rate exceeded",
        }
        assert engine.lam.get_function(FunctionName="f")
        wait_for(lambda: invoke(engine, "f", "Event").status == 202, "it may ask again")


# ---------------------------------------------------------------- by a clock that is advanced


class Store:
    """One function, without a disk."""

    def __init__(self, **settings: Any) -> None:
        self.functions = {"f": Function("f", **settings)}

    def code_of(self, function: Function) -> Path:
        return Path("/nowhere")


class Pool:
    """Keeps what it is asked to run; the test says how that ends."""

    active = 0

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running: list[Deferred[InvocationResult]] = []

    def invoke(self, request: str, *_: object) -> Deferred[InvocationResult]:
        self.asked.append(request)
        self.running.append(Deferred())
        return self.running[-1]

    def end(self, failed: bool) -> None:
        self.running.pop(0).callback(InvocationResult(b"{}", failed, Path()))


class Queue:
    def __init__(self, limits: InvocationLimits, **settings: Any) -> None:
        self.clock, self.pool, self.store = Clock(), Pool(), Store(**settings)
        store: Any = self.store
        pool: Any = self.pool
        self.invocations = InvocationQueue(self.clock, store, pool, limits)

    def accept(self, payload: str = "{}") -> str:
        return self.invocations.accept(self.store.functions["f"], "eu-west-1", payload)


def test_a_throttled_event_is_tried_after_1_2_4_seconds_and_so_on() -> None:
    queue = Queue(InvocationLimits(concurrency=1))
    queue.accept()
    waiting = queue.accept()
    queue.clock.advance(1)
    queue.clock.advance(2)
    queue.pool.end(failed=False)
    queue.clock.advance(3.9)
    assert waiting not in queue.pool.asked
    queue.clock.advance(0.1)
    assert queue.pool.asked[-1] == waiting
    assert not queue.invocations.idle
    queue.pool.end(failed=False)
    assert queue.invocations.idle
    assert queue.clock.getDelayedCalls() == []


def test_a_throttled_event_is_dropped_when_it_is_too_old() -> None:
    queue = Queue(InvocationLimits(concurrency=1), invoke_config=InvokeConfig(0.0, event_age_s=60))
    queue.accept()
    queue.accept()
    queue.clock.pump([1, 2, 4, 8, 16])
    assert not queue.invocations.idle
    queue.clock.advance(29)  # its last chance comes at the end of its life, not at 63 s
    queue.pool.end(failed=False)
    assert queue.invocations.idle
    assert len(queue.pool.asked) == 1


def test_an_event_that_fails_waits_one_minute_then_two() -> None:
    queue = Queue(InvocationLimits())
    request = queue.accept()
    for pause in (60, 120):
        queue.pool.end(failed=True)
        queue.clock.advance(pause - 0.1)
        assert queue.pool.running == []
        queue.clock.advance(0.1)
        assert len(queue.pool.running) == 1
    queue.pool.end(failed=True)
    assert queue.pool.asked == [request] * 3
    assert queue.invocations.idle


def test_the_queue_is_bounded() -> None:
    queue = Queue(InvocationLimits(concurrency=0))
    large = " " * 2**20
    for _ in range(256):
        queue.accept(large)
    with pytest.raises(LambdaError) as refused:
        queue.accept(large)
    assert refused.value.status == 429
    queue.invocations.forget("f")
    assert queue.clock.getDelayedCalls() == []
    queue.accept(large)
