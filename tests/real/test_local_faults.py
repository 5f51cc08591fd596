"""Fault injection in the local engine: how `faults` is read, and what boto3 sees of it."""

import json
import re
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
from kit.local_support import Engine, running_engine, wait_for
from stage import Daemon, free_ports_conf

from mu.config import ConfigError, read_config
from mu.engines.local.errors import LambdaError
from mu.engines.local.faults import REASONS, CallFaults, FaultInjector, Faults

EngineWith = Callable[[str], Engine]


@pytest.fixture
def notes() -> Iterator[Path]:
    """A file that all sandboxes see, where each invocation writes a line."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder) / "notes"


def lines(notes: Path) -> list[Any]:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def client_of(engine: Engine, region: str, key: str = "AKID") -> Any:
    return boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{engine.port}",
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )


def refusal_of(call: Any, **arguments: Any) -> Any:
    """Return status, code, headers and the whole answer of a call that is refused."""
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    answer = refused.value.response
    told = answer["ResponseMetadata"]
    return told["HTTPStatusCode"], answer["Error"]["Code"], told["HTTPHeaders"], answer


def drawn(text: str, calls: int = 200) -> list[CallFaults | tuple[int, str]]:
    """Return the faults or the error of that many calls of Invoke."""
    injector = FaultInjector(Faults.parse(text))
    found: list[CallFaults | tuple[int, str]] = []
    for _ in range(calls):
        try:
            found.append(injector.next_invoke())
        except LambdaError as error:
            found.append((error.status, error.code))
    return found


# ---------------------------------------------------------------- what is asked for


def test_all_faults_are_read() -> None:
    text = "throttle=0.3 error=0.05 cut=0.02 duplicate=0.1 lose=1 late=.1:3 refuse=a-1,b-2 expire=9 seed=7"
    assert Faults.parse(text) == Faults(
        text, 0.3, 0.05, 0.02, 0.1, 1.0, 0.1, 3.0, ("a-1", "b-2"), 9, 7
    )
    assert str(Faults.parse(text)) == text
    assert Faults.parse("none") == Faults.parse("") == Faults()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "thottle=1",
            "unknown fault 'thottle=1': use none, or NAME=VALUE with throttle, error, cut,",
        ),
        ("cut", "unknown fault 'cut': use none, or NAME=VALUE with"),
        ("none cut=1", "unknown fault 'none': use none, or NAME=VALUE with"),
        ("cut=1 cut=0", "'cut=0': cut is set twice"),
        ("cut=1.1", "'cut=1.1': expected a chance from 0 to 1"),
        ("cut=nan", "'cut=nan': expected a chance from 0 to 1"),
        ("cut=", "'cut=': expected a chance from 0 to 1"),
        ("late=0.1", "'late=0.1': expected late=CHANCE:SECONDS"),
        ("late=2:1", "'late=2:1': expected late=CHANCE:SECONDS"),
        ("late=0.1:-1", "'late=0.1:-1': expected late=CHANCE:SECONDS"),
        ("refuse=", "'refuse=': expected regions, separated by commas"),
        ("refuse=a,,b", "'refuse=a,,b': expected regions, separated by commas"),
        ("expire=-1", "'expire=-1': expected an integer of at least 0"),
        ("seed=1.5", "'seed=1.5': expected an integer of at least 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    conf = tmp_path / "mu.conf"
    conf.write_text(f"[local]\nfaults = {text}\n")
    with pytest.raises(ConfigError, match=re.escape(f"[local] faults = {text}: ")) as refused:
        read_config(conf)
    assert says in str(refused.value)


def test_the_same_seed_gives_the_same_faults_to_the_same_call() -> None:
    text = "throttle=0.2 error=0.1 cut=0.1 duplicate=0.1 lose=0.1 late=0.1:3 seed={}"
    assert drawn(text.format(1)) == drawn(text.format(1))
    assert drawn(text.format(1)) != drawn(text.format(2))


def test_one_fault_more_leaves_the_others_where_they_were() -> None:
    def cut(text: str) -> list[int]:
        found = enumerate(drawn(text))
        return [number for number, faults in found if isinstance(faults, CallFaults) and faults.cut]

    alone = cut("cut=0.3")
    assert 30 < len(alone) < 90
    assert set(cut("cut=0.3 throttle=0.2")) < set(alone)
    assert cut("cut=0.3 lose=0.5 late=0.5:1") == alone


def test_without_faults_nothing_happens() -> None:
    assert set(drawn("none")) == {CallFaults()}


# ---------------------------------------------------------------- what callers see


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


def test_throttled_calls_are_told_why_and_sometimes_for_how_long(
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


def test_errors_are_of_the_service_or_of_what_stands_before_it(
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
def test_a_call_that_is_cut_runs_without_an_answer(
    engine_with: EngineWith, notes: Path, kind: str
) -> None:
    engine = engine_with("cut=1")
    with pytest.raises(ConnectionClosedError):
        note(engine, notes, kind=kind)
    wait_for(lambda: lines(notes), "it ran")
    assert len(engine.lam.list_functions()["Functions"]) == 1


def test_events_run_twice_or_never_as_the_seed_has_it(engine_with: EngineWith, notes: Path) -> None:
    faults = "duplicate=0.4 lose=0.4 seed=11"
    engine = engine_with(faults)
    copies = [each.copies for each in drawn(faults, 15) if isinstance(each, CallFaults)]
    assert {*copies} == {0, 1, 2}
    told = [note(engine, notes, number)["ResponseMetadata"] for number in range(15)]
    assert {each["HTTPStatusCode"] for each in told} == {202}
    wait_for(lambda: len(lines(notes)) >= sum(copies), "all ran that should")
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
    ((_, started, _),) = wait_for(lambda: lines(notes), "it ran")
    assert started - began >= 0.6
    assert started > answered


def test_a_region_is_refused_and_keys_expire(engine_with: EngineWith) -> None:
    engine = engine_with("refuse=us-east-2,us-west-1 expire=3")  # of AKID, creating it was one
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
