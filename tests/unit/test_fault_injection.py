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
