"""Fault injection in the local engine: parsing `faults`, and drawing the faults of each call."""

import re
from pathlib import Path

import pytest

from mu.config import ConfigError, read_config
from mu.engines.local.errors import LambdaError
from mu.engines.local.faults import CallFaults, FaultInjector, Faults


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


def test_all_faults_are_read() -> None:
    text = "throttle=0.3 error=0.05 cut=0.02 duplicate=0.1 lose=1 late=.1:3 refuse=a-1,b-2 expire=9 seed=7"
    assert Faults.parse(text) == Faults(
        text, 0.3, 0.05, 0.02, 0.1, 1.0, 0.1, 3.0, ("a-1", "b-2"), 9, 7
    )
    assert str(Faults.parse(text)) == text
    text = "answer=SlowDown,ServiceException:0.5 inactive=40 skew=-600"
    codes = ("SlowDown", "ServiceException")
    assert Faults.parse(text) == Faults(text, answer=0.5, codes=codes, inactive=40.0, skew=-600)
    assert Faults.parse("none") == Faults.parse("") == Faults()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("thottle=1", "unknown fault 'thottle'; the faults are throttle, error, cut, duplicate,"),
        ("none cut=1", "unknown fault 'none'; the faults are"),
        ("cut", "cut has no value; write cut=VALUE"),
        ("cut=1 cut=0", "cut is set twice"),
        ("cut=1.1", "cut must be a probability from 0 to 1, got '1.1'"),
        ("cut=nan", "cut must be a probability from 0 to 1, got 'nan'"),
        ("cut=", "cut must be a probability from 0 to 1, got ''"),
        ("late=0.1", "late must be P:SECONDS, a probability from 0 to 1 and 0 to 86400 seconds"),
        ("late=2:1", "late must be P:SECONDS, a probability from 0 to 1 and 0 to 86400 seconds"),
        ("late=0.1:-1", "0 to 86400 seconds, got '0.1:-1'"),
        ("late=0.1:86401", "0 to 86400 seconds, got '0.1:86401'"),
        ("answer=SlowDown", "answer must be CODE,...:P, error codes of AWS and a probability"),
        ("answer=:1", "answer must be CODE,...:P, error codes of AWS and a probability"),
        ("answer=Slow:1", "answer has an unknown error code 'Slow'"),
        ("inactive=-1", "inactive must be 0 to 86400 seconds, got '-1'"),
        ("skew=1h", "skew must be a whole number of seconds, got '1h'"),
        ("refuse=", "refuse must be regions separated by commas, got ''"),
        ("refuse=a,,b", "refuse must be regions separated by commas, got 'a,,b'"),
        ("expire=-1", "expire must be an integer of at least 0, got '-1'"),
        ("seed=1.5", "seed must be an integer of at least 0, got '1.5'"),
    ],
)
def test_an_invalid_fault_is_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    conf = tmp_path / "mu.conf"
    conf.write_text(f"[local]\nfaults = {text}\n")
    with pytest.raises(ConfigError, match=re.escape(f"[local] faults = {text}: ")) as refused:
        read_config(conf)
    assert says in str(refused.value)


def test_the_same_seed_gives_the_same_faults_to_the_same_call() -> None:
    text = "throttle=0.2 error=0.1 cut=0.1 duplicate=0.1 lose=0.1 late=0.1:3 seed={}"
    assert drawn(text.format(1)) == drawn(text.format(1))
    assert drawn(text.format(1)) != drawn(text.format(2))


def test_another_fault_does_not_change_which_calls_get_the_first() -> None:
    def cut(text: str) -> list[int]:
        found = enumerate(drawn(text))
        return [number for number, faults in found if isinstance(faults, CallFaults) and faults.cut]

    alone = cut("cut=0.3")
    assert 30 < len(alone) < 90
    assert set(cut("cut=0.3 throttle=0.2")) < set(alone)
    assert cut("cut=0.3 lose=0.5 late=0.5:1") == alone


def test_without_faults_every_call_is_normal() -> None:
    assert set(drawn("none")) == {CallFaults()}


def test_errors_are_those_of_the_service_and_of_a_proxy() -> None:
    injector = FaultInjector(Faults.parse("error=1"))
    bodies = set()
    for _ in range(30):
        with pytest.raises(LambdaError) as error:
            injector.next_invoke()
        bodies.add(error.value.body)
    assert bodies == {
        b'{"Type": "Service", "Message": "The request cannot be processed."}',
        b"<html><body><b>Http/1.1 Bad Gateway</b></body></html>",
        b"<html><body><b>Http/1.1 Service Unavailable</b></body></html>",
    }
