"""Attributes of states that look misspelt are warned of when a pipeline is loaded, and in tests."""

import doctest
import warnings

import pytest
from kit.parts import OneState
from twisted.logger import capturedLogs, formatEvent

from mu.cli.display.tables import pipeline_page, pipelines_table
from mu.cli.display.text import console
from mu.control import pipeline_json
from mu.interfaces import IPipeline
from mu.registry import Registry
from mu.states import ForLoopState, MultiPassState, OnePassState, TerminalState, spelling
from mu.states.spelling import suspicious
from mu.testing import run, talk


class Good(MultiPassState):
    commands = expects = ()
    nextState = TerminalState
    retries = 3

    def fetch(self):
        return self.retries


class Derived(Good):
    retries = 4
    timeout = 5.0


class Misspelt(OnePassState):
    """The subject of these tests, in a package of its own: others need no warning of it."""

    __module__ = "made_up.states"
    expct = "OK"
    comand = "quit:"
    nextstate = TerminalState

    def posttransition(self):
        return self


class Loop(ForLoopState):
    __module__ = "made_up.loops"
    iter_fin = 5
    expects = "OK"


SAID = [
    "Misspelt.expct is not used by mu: did you mean expect?",
    "Misspelt.comand is not used by mu: did you mean command?",
    "Misspelt.nextstate is not used by mu: did you mean nextState?",
    "Misspelt.posttransition is not used by mu: did you mean post_transition?",
]


def test_what_looks_like_an_attribute_of_a_state_is_suspicious_and_nothing_else():
    assert not doctest.testmod(spelling).failed
    assert suspicious(Good) == suspicious(Derived) == ()
    assert list(suspicious(Misspelt)) == SAID
    assert [said.partition(": ")[2] for said in suspicious(Loop)] == [
        "did you mean iterFin?",
        "did you mean expect?",
    ]


@pytest.mark.parametrize("test", [lambda: talk(Misspelt, "OK"), lambda: run(OneState(Good))])
def test_a_test_of_such_a_class_warns(test, monkeypatch):
    monkeypatch.setattr("mu.testing.package_of", lambda pipeline: "made_up")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        test()
    assert set(SAID) <= {str(one.message) for one in caught}


def test_a_pipeline_with_such_a_class_is_loaded_with_a_warning():
    Own = type("Own", (OneState,), {"__module__": "made_up.pipeline"})
    registry = Registry()
    with capturedLogs() as logs:
        registry.add(IPipeline, Own(Good), "own of a package")
    said = registry.warnings["one"]
    assert set(SAID) <= set(said)
    assert any(SAID[2] in formatEvent(event) for event in logs)
    told = pipeline_json(registry.pipelines["one"], said)
    screen = console()
    with screen.capture() as shown:
        screen.print(pipelines_table([told]))
        screen.print(pipeline_page(told))
    assert shown.get().count(f"Pipeline one: {SAID[2]}") == 2


def test_the_pipelines_that_come_with_mu_are_not_suspicious():
    assert Registry.installed().warnings == {}
