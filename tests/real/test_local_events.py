"""Events: retried after errors, queued while throttled, dropped in the end."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError
from kit.film import wait_until
from kit.local import Answer, Engine, running_engine

PAUSES = ("--retry-pauses", "0.3", "0.6")


@pytest.fixture
def notes() -> Iterator[Path]:
    """A folder that all sandboxes can write to."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with AWS's retry pauses."""
    with running_engine(tmp_path_factory.mktemp("home")) as engine:
        yield engine


def notes_in(path: Path) -> list[Any]:
    """Return what each attempt at an event wrote: request id, time, event."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def invoke(engine: Engine, name: str, kind: str) -> Answer:
    path = f"/2015-03-31/functions/{name}/invocations"
    return engine.raw("POST", path, b"{}", **{"X-Amz-Invocation-Type": kind})


def test_a_failed_event_is_retried_twice_with_its_id_and_payload(
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


def test_old_events_and_those_of_deleted_functions_are_not_retried(
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


def test_the_asynchronous_settings_can_be_put_updated_read_and_deleted(engine: Engine) -> None:
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
    assert abs(told["LastModified"].timestamp() - time.time()) < 120
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


def test_over_the_concurrency_calls_are_throttled_and_events_are_queued(
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
        wait_until((notes / "late").exists, what="it runs when others have ended")


def test_a_function_can_reserve_concurrency(notes: Path, tmp_path: Path) -> None:
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
        wait_until((notes / "late").exists, what="it runs when it is allowed to")
        lam.delete_function_concurrency(FunctionName="f")
        assert "ReservedConcurrentExecutions" not in lam.get_function_concurrency(FunctionName="f")
        assert "Concurrency" not in lam.get_function(FunctionName="f")


def test_over_the_invoke_rate_events_are_throttled_too(tmp_path: Path) -> None:
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
        wait_until(
            lambda: invoke(engine, "f", "Event").status == 202, what="calls are accepted again"
        )


def test_attached_daemons_are_told_which_launches_have_ended_also_those_before(
    engine: Engine,
) -> None:
    engine.create("ends", Timeout=20)
    engine.lam.put_function_event_invoke_config(FunctionName="ends", MaximumRetryAttempts=0)
    path = f"/mu/{engine.told['id']}"
    with urlopen(f"http://127.0.0.1:{engine.port}{path}", timeout=120) as first:
        assert json.loads(first.readline())["id"] == engine.told["id"]
        engine.later("ends", do="kill", launch="l-killed")
        killed = json.loads(first.readline())
        assert killed["ended"] == "l-killed"
        assert killed["why"] == "ended: Runtime exited with error: signal: killed"
        engine.invoke("ends", do="return", what="1")  # no worker's: it has no launch id
        engine.later("ends", do="return", what="1", launch="l-returned")
        returned = json.loads(first.readline())
        assert returned == {"ended": "l-returned", "why": "ended"}
    with urlopen(f"http://127.0.0.1:{engine.port}{path}", timeout=120) as second:
        second.readline()
        assert [json.loads(second.readline()) for _ in range(2)] == [killed, returned]
