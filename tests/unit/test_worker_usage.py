"""What a worker says of a program that was killed."""

import os

import pytest
from mu_worker import usage


@pytest.fixture
def killed(monkeypatch):
    """Return what is said of a killed program, if the machine killed that many meanwhile."""

    def said(kills, peak_mb, **environment):
        counts = iter([10, 10 + kills])
        monkeypatch.setattr(usage, "_oom_kills", lambda: next(counts))
        monkeypatch.setattr(usage, "resident_mb", lambda limit: peak_mb)
        monkeypatch.setattr(os, "environ", environment)
        meter = usage.UsageMeter(True, 100.0)
        meter.begin(1)
        return meter.why_killed(1)

    return said


def test_a_full_function_or_the_word_of_its_own_machine_is_out_of_memory(killed):
    aws = {"AWS_LAMBDA_FUNCTION_NAME": "f"}
    assert killed(0, 95.0) == "killed: out of memory (peak 95 of 100 MB)"
    assert killed(1, 50.0, **aws) == "killed: out of memory (peak 50 of 100 MB)"
    assert killed(0, 50.0, **aws) == "killed (peak 50 of 100 MB)"


@pytest.mark.parametrize(
    "shared", [{}, {"AWS_LAMBDA_FUNCTION_NAME": "f", "MU_SHARED_MACHINE": "1"}]
)
def test_on_a_shared_machine_others_may_have_been_killed(killed, shared):
    why = "killed, perhaps because the machine was out of memory (peak 50 of 100 MB)"
    assert killed(1, 50.0, **shared) == why
    assert killed(0, 50.0, **shared) == "killed (peak 50 of 100 MB)"


def test_a_program_waits_until_the_first_state_for_it_has_arrived(monkeypatch):
    times = iter([100.0, 102.5, 104.0, 105.0])
    monkeypatch.setattr(usage, "monotonic", lambda: next(times))
    meter = usage.UsageMeter(True, 100.0)
    meter.begin(1)
    meter.note_state(1)
    meter.note_state(1)
    meter.note_state(2)
    assert meter.end(1)["wait_s"] == 2.5
