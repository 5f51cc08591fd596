"""Payloads, and the course of launching with an engine that answers as told."""

import json

from kit.parts import ScriptedEngine, make_job
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mu.invocations import Accepted, Refused, Throttled, Unknown, Unreached
from mu.jobs.worker_event import worker_event
from mu.launch import Launcher, invocations
from mu.net.certificates import Identity
from mu.states import TerminalState


def launching(engine, count, in_flight=2, clock=None, hear=lambda launcher: None):
    """Start launching; return the list of answers."""
    answers = []

    def tell(invocation, answer):
        answers.append((invocation.launch, type(answer).__name__))
        hear(launcher)

    launcher = Launcher(engine, in_flight, clock or Clock(), tell, lambda failure: None)
    launcher.add(invocations({}, ["f"], ["r"], [(f"l{n}", n) for n in range(count)]))
    return answers


def test_each_launch_has_its_own_id_and_number_and_regions_take_turns():
    event = {"mode": 1, "env": {"N": "number ##ID##"}, "odd": 'quo"te'}
    made = list(invocations(event, ["f"], ["east", "west"], [("a", 0), ("b", 1), ("c", 2)]))
    assert [one.region for one in made] == ["east", "west", "east"]
    payloads = [json.loads(one.payload) for one in made]
    assert [payload["launch"] for payload in payloads] == ["a", "b", "c"]
    assert [payload["env"]["N"] for payload in payloads] == ["number 0", "number 1", "number 2"]
    assert payloads[0]["odd"] == 'quo"te'


def test_regions_and_copies_of_the_function_take_turns():
    made = invocations({}, ["f-0", "f-1"], ["east", "west"], [(f"l{n}", n) for n in range(5)])
    assert [(one.region, one.function) for one in made] == [
        ("east", "f-0"),
        ("west", "f-0"),
        ("east", "f-1"),
        ("west", "f-1"),
        ("east", "f-0"),
    ]


def test_the_event_says_all_that_a_worker_needs():
    job = make_job(TerminalState, event={"env": {"A": "1"}, "nonblock": 1})
    event = worker_event(job, Identity("cert", "key"), "ca", "1.2.3.4", 5, 60.0)
    assert event == {
        "mode": 1,
        "addr": "1.2.3.4",
        "port": 5,
        "server_name": "mu-coordinator",
        "cacert": "ca",
        "srvcrt": "cert",
        "srvkey": "key",
        "region": "us-east-1",
        "job": "j1",
        "reconnect_s": 60.0,
        "relay_ext": 1,
        "usage_ext": 1,
        "env": {"A": "1"},
        "nonblock": 1,
    }


def test_all_are_launched_with_no_more_in_flight_than_allowed():
    waiting = [Deferred() for _ in range(4)]
    engine = ScriptedEngine(*waiting)
    answers = launching(engine, 4, in_flight=2)
    assert engine.asked == ["l0", "l1"]
    waiting[1].callback(Accepted())
    assert engine.asked == ["l0", "l1", "l2"]
    for one in (waiting[0], waiting[2], waiting[3]):
        one.callback(Accepted())
    assert sorted(answers) == [(f"l{n}", "Accepted") for n in range(4)]


def test_a_throttled_launch_is_tried_again_with_the_same_id_after_a_pause():
    clock = Clock()
    engine = ScriptedEngine(Throttled("busy"), Throttled("busy", wait_s=5), Accepted())
    answers = launching(engine, 1, clock=clock)
    clock.advance(0.4)
    assert engine.asked == ["l0", "l0"]
    clock.advance(4.9)
    assert len(engine.asked) == 2
    clock.advance(2.6)
    assert engine.asked == ["l0"] * 3
    assert answers[-1] == ("l0", "Accepted")


def test_an_engine_out_of_reach_is_tried_again_and_then_counts_as_a_refusal():
    clock = Clock()
    engine = ScriptedEngine(*[Unreached("no route")] * 1000)
    answers = launching(engine, 64, in_flight=64, clock=clock)
    clock.pump([1] * 599)
    assert {answer for _, answer in answers} == {"Unreached"}
    clock.pump([1] * 20)
    assert answers[-1][1] == "Refused"


def test_an_engine_that_comes_back_in_time_does_no_harm():
    clock = Clock()
    engine = ScriptedEngine(Unreached("no route"), Unreached("no route"), Accepted())
    answers = launching(engine, 1, clock=clock)
    clock.advance(10)
    clock.advance(10)
    assert answers[-1] == ("l0", "Accepted")


def test_an_unknown_fate_is_told_and_not_tried_again():
    engine = ScriptedEngine(Unknown("lost"), Accepted())
    answers = launching(engine, 2, in_flight=1)
    assert answers == [("l0", "Unknown"), ("l1", "Accepted")]


def test_launching_stops_when_it_is_told_to():
    engine = ScriptedEngine(Refused("no such function"))
    answers = launching(engine, 100, in_flight=1, hear=lambda launcher: launcher.stop())
    assert answers == [("l0", "Refused")]


def test_more_can_be_launched_later():
    engine = ScriptedEngine()
    told = []
    launcher = Launcher(engine, 2, Clock(), lambda one, _: told.append(one.launch), list)
    launcher.add(invocations({}, ["f"], ["r"], [("a", 0)]))
    launcher.add(invocations({}, ["f"], ["r"], [("b", 1), ("c", 2)]))
    assert told == engine.asked == ["a", "b", "c"]


def test_an_engine_that_answers_at_once_may_be_asked_for_many():
    answers = launching(ScriptedEngine(), 5000)
    assert len(answers) == 5000


def test_a_busy_region_is_asked_more_slowly_and_holds_up_no_other():
    clock = Clock()
    waiting = [Deferred() for _ in range(8)]
    engine = ScriptedEngine(*waiting, *[Accepted()] * 100)
    told = []
    launcher = Launcher(
        engine, 4, clock, lambda one, answer: told.append((one.region, answer)), list
    )
    launcher.add(invocations({}, ["f"], ["busy", "free"], [(f"l{n}", n) for n in range(40)]))
    assert len(engine.asked) == 8  # four in each
    for number, one in enumerate(waiting):
        one.callback(Throttled("busy") if number < 4 else Accepted())
    assert [region for region, _ in told].count("free") == 20
    assert [answer for region, answer in told if region == "busy"] == [Throttled("busy")] * 4
    clock.advance(0.4)
    assert told[-1] == ("busy", Accepted())
    assert [answer for region, answer in told if region == "busy"].count(Accepted()) == 20


class BatchEngine(ScriptedEngine):
    """Takes three launches at once."""

    batch = 3

    def launch_many(self, invocations):
        self.asked.append([one.launch for one in invocations])
        answers = [self.script.pop(0) if self.script else Accepted() for _ in invocations]
        return Deferred() if answers[0] is None else succeed(answers)


def test_launches_go_in_batches_as_large_as_the_engine_takes():
    engine = BatchEngine()
    answers = launching(engine, 7)
    assert engine.asked == [["l0", "l1", "l2"], ["l3", "l4", "l5"], ["l6"]]
    assert answers == [(f"l{number}", "Accepted") for number in range(7)]


def test_a_batch_counts_as_one_request_in_flight():
    engine = BatchEngine(None, None, None)
    launching(engine, 7, in_flight=1)
    assert engine.asked == [["l0", "l1", "l2"]]


def test_of_a_batch_only_the_throttled_ones_are_tried_again():
    clock = Clock()
    engine = BatchEngine(Accepted(), Throttled("busy"), Accepted())
    answers = launching(engine, 3, clock=clock)
    clock.advance(1)
    assert engine.asked == [["l0", "l1", "l2"], ["l1"]]
    assert answers[-1] == ("l1", "Accepted")
