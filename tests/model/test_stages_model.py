"""Stages: every course of small jobs keeps the rules, and without any one of them some does not."""

from dataclasses import replace

import pytest
from kit.model.session_ends import Breach
from kit.model.stages_model import Exploration, Plan, Rules

from mu.jobs.stages import Stages

PAIR = [[[0], [1]]]
JOIN = [[[0, 1], [2]]]
FORK = [[[0], [1, 2]]]
CHAIN = [[[0], [1]], [[1], [2]]]

PLANS = {
    "a pair": Plan(2, PAIR, retries=1, fails=2, crashes=2, kills=1),
    "a pair, with a second attempt": Plan(2, PAIR, retries=1, fails=1, kills=1, seconds=1),
    "a pair that tolerates one failure": Plan(2, PAIR, tolerate=1, fails=2, crashes=2),
    "two before one": Plan(3, JOIN, fails=2),
    "two before one, of which one may fail": Plan(3, JOIN, tolerate=1, fails=2),
    "two before one, with retries": Plan(3, JOIN, retries=1, fails=1, crashes=0, kills=1),
    "one before two": Plan(3, FORK, fails=2),
    "one before two, tolerated": Plan(3, FORK, tolerate=1, fails=2),
    "a chain": Plan(3, CHAIN, fails=1, crashes=2),
    "a chain that tolerates one failure": Plan(3, CHAIN, tolerate=1, fails=2),
    "one that waits for nobody": Plan(3, PAIR, tolerate=1, fails=2),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.soak if name == "two before one, with retries" else [])
        for name in PLANS
    ],
)
def test_the_rules_of_stages_hold_in_every_course(name):
    found = Exploration(PLANS[name])
    assert len(found.seen) > 50
    assert ("done",) * PLANS[name].actors in found.courses


def test_the_courses_of_two_before_one_are_those_that_they_should_be():
    assert Exploration(PLANS["two before one"]).courses == {
        ("done", "done", "done"),
        ("done", "done", "failed"),
        ("failed", "done", "skipped"),
        ("done", "failed", "skipped"),
        ("failed", "failed", "skipped"),
    }
    tolerant = Exploration(PLANS["two before one, of which one may fail"]).courses
    assert {("failed", "done", "done"), ("failed", "failed", "skipped")} < tolerant
    assert ("failed", "done", "skipped") not in tolerant


# ---------------------------------------------------------------- what breaks without each rule


class AnyOpens(Stages):
    """A gate opens with the first end."""

    def closed(self, actor):
        gate = self.gate(actor)
        return gate if gate is not None and gate.left == len(gate.before) else None


class NeverOpens(Stages):
    """A gate opens only if nobody before it failed."""

    def closed(self, actor):
        gate = self.gate(actor)
        return gate if gate is not None and (gate.left or gate.failed) else None


class NobodyDoomed(Stages):
    """Those behind a failure begin in any case."""

    def doomed(self):
        return iter(())


class AllDoomed(Stages):
    """Those behind a failure fail whatever is tolerated."""

    def __init__(self, after=(), names=(), tolerate=0):
        super().__init__(after, names, -1)


class OneStepOnly(Stages):
    """Those that fail behind a failure are no failure for those behind them."""

    def end(self, actor, failed):
        gate = self.gate(actor)
        return super().end(actor, failed and not (gate is not None and gate.failed))


class FailuresAreNoEnds(Stages):
    """A gate counts only those that are done."""

    def end(self, actor, failed):
        return [] if failed else super().end(actor, failed)


BROKEN = {
    "P1 any opens": (Rules(AnyOpens), "two before one"),
    "P3 a failure is an end": (Rules(retried_first=False), "a pair"),
    "P2 told before it is on disk": (Rules(told_on_disk=False), "a pair"),
    "P2 the last end counts": (Rules(first_end_counts=False), "a pair, with a second attempt"),
    "P3 nobody doomed": (Rules(NobodyDoomed), "two before one"),
    "P3 all doomed": (Rules(AllDoomed), "a pair that tolerates one failure"),
    "P3 no skip after a restart": (Rules(restart_skips=False), "one before two"),
    "P4 begun are failed": (Rules(begun_goes_on=False), "one that waits for nobody"),
    "P3 one step only": (Rules(OneStepOnly), "a chain"),
    "P5 failures are no ends": (Rules(FailuresAreNoEnds), "a pair that tolerates one failure"),
    "P5 never opens": (Rules(NeverOpens), "a pair that tolerates one failure"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_that_is_left_out_is_missed(name):
    rules, plan = BROKEN[name]
    with pytest.raises(Breach, match=name.partition(" ")[0]):
        Exploration(PLANS[plan], rules)


def test_a_crash_between_a_failure_and_what_follows_from_it_matters():
    calm = replace(PLANS["one before two"], crashes=0)
    Exploration(calm, Rules(restart_skips=False))
