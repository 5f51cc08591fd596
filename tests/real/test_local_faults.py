"""Fault injection in the local engine, as boto3 sees it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from kit.film import wait_until
from kit.local import Engine, running_engine
from stage import Daemon, free_ports_conf

from mu.engines.local.faults import REASONS, FaultInjector, Faults
from mu.engines.local.key import read_key

EngineWith = Callable[[str], Engine]


@pytest.fixture
def notes() -> Iterator[Path]:
    """A file that all sandboxes can write to; each invocation appends a line."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder) / "notes"


def lines(notes: Path) -> list[Any]:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def client_of(engine: Engine, region: str, token: str | None = None) -> Any:
    key = read_key(engine.home)
    return boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{engine.port}",
        region_name=region,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}),
    )


def refusal_of(call: Any, **arguments: Any) -> Any:
    """Return the status, code, headers and whole response of a call that fails."""
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    answer = refused.value.response
    told = answer["ResponseMetadata"]
    return told["HTTPStatusCode"], answer["Error"]["Code"], told["HTTPHeaders"], answer


@pytest.fixture
def engine_with(tmp_path: Path) -> Iterator[EngineWith]:
    with ExitStack() as stack:

        def start(faults: str) -> Engine:
            engine = stack.enter_context(running_engine(tmp_path, "--faults", faults))
            engine.create("f", Timeout=20)
            return engine

        yield start


def note(engine: Engine, notes: Path, number: int = 0, kind: str = "Event") -> Any:
    event = {"do": "note", "file": str(notes), "number": number}
    return engine.lam.invoke(FunctionName="f", InvocationType=kind, Payload=json.dumps(event))


def test_throttled_calls_get_a_reason_and_sometimes_a_time_to_wait(
    engine_with: EngineWith, notes: Path
) -> None:
    engine = engine_with("throttle=1 seed=3")
    kinds = ["Event", "RequestResponse"] * 6
    refusals = [refusal_of(note, engine=engine, notes=notes, kind=kind) for kind in kinds]
    assert {refusal[:2] for refusal in refusals} == {(429, "TooManyRequestsException")}
    assert [refusal[3]["Reason"] for refusal in refusals] == [*REASONS] * 3
    assert {refusal[3].get("retryAfterSeconds") for refusal in refusals} == {None, "1"}
    assert {refusal[2].get("retry-after") for refusal in refusals} == {None, "1"}
    assert lines(notes) == []


def test_errors_come_from_the_service_or_from_a_proxy_in_front_of_it(
    engine_with: EngineWith, notes: Path
) -> None:
    engine = engine_with("error=1")
    refusals = [refusal_of(note, engine=engine, notes=notes) for _ in range(12)]
    assert {refusal[:2] for refusal in refusals} == {
        (500, "ServiceException"),
        (502, "502"),
        (503, "503"),
    }
    assert {refusal[2]["content-type"] for refusal in refusals} == {
        "application/json",
        "text/html",
    }
    assert lines(notes) == []


@pytest.mark.parametrize("kind", ["Event", "RequestResponse"])
def test_a_cut_call_runs_but_gets_no_response(
    engine_with: EngineWith, notes: Path, kind: str
) -> None:
    engine = engine_with("cut=1")
    with pytest.raises(ConnectionClosedError):
        note(engine, notes, kind=kind)
    wait_until(lambda: lines(notes), what="it ran")
    assert len(engine.lam.list_functions()["Functions"]) == 1


def test_events_run_twice_or_never_depending_on_the_seed(
    engine_with: EngineWith, notes: Path
) -> None:
    faults = "duplicate=0.4 lose=0.4 seed=11"
    engine = engine_with(faults)
    injector = FaultInjector(Faults.parse(faults))
    copies = [injector.next_invoke().copies for _ in range(15)]
    assert {*copies} == {0, 1, 2}
    told = [note(engine, notes, number)["ResponseMetadata"] for number in range(15)]
    assert {each["HTTPStatusCode"] for each in told} == {202}
    wait_until(lambda: len(lines(notes)) >= sum(copies), what="all expected runs")
    ran = lines(notes)
    numbers = [event["number"] for _, _, event in ran]
    assert [numbers.count(number) for number in range(15)] == copies
    requests = {request for request, _, _ in ran}
    assert len(requests) == len(ran)
    answered = {each["RequestId"] for each, times in zip(told, copies, strict=True) if times}
    assert answered < requests


def test_late_events_start_later(engine_with: EngineWith, notes: Path) -> None:
    engine = engine_with("late=1:0.6")
    began = time.time()
    note(engine, notes)
    answered = time.time()
    ((_, started, _),) = wait_until(lambda: lines(notes), what="it ran")
    assert started - began >= 0.6
    assert started > answered


def test_calls_in_a_region_are_denied_and_keys_expire(engine_with: EngineWith) -> None:
    engine = engine_with(
        "refuse=us-east-2,us-west-1 expire=3"
    )  # creating the function was the first call without a token
    for region in ("us-east-2", "us-west-1"):
        status, code, _, _ = refusal_of(client_of(engine, region).list_functions)
        assert (status, code) == (403, "AccessDeniedException")
    for _ in range(2):
        assert engine.lam.list_functions()["Functions"]
    status, code, _, answer = refusal_of(engine.lam.invoke, FunctionName="f")
    assert (status, code) == (403, "ExpiredTokenException")
    assert answer["Error"]["Message"] == "The security token included in the request is expired"
    assert client_of(engine, "eu-west-1", "ANOTHER").list_functions()["Functions"]


def test_the_daemons_engine_has_the_faults_of_its_configuration(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, conf=free_ports_conf(local="faults = refuse=us-east-1"))
    try:
        status, code, _, _ = refusal_of(daemon.lambda_client().list_functions)
        assert (status, code) == (403, "AccessDeniedException")
        log = (daemon.home / "local" / "engine.log").read_text()
        assert "fault injection is on: refuse=us-east-1" in log
    finally:
        daemon.stop()
