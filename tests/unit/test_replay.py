"""Events and effects on a line, and machines that are given them again."""

import random
import time

import pytest

from mu.events import (
    Answered,
    CancelTimer,
    Elapsed,
    Entered,
    Finish,
    Informed,
    Lost,
    Send,
    SetTimer,
    decode,
    digest,
    encode,
)
from mu.journal.records import Happened, read_record, write_event
from mu.journal.replay import Diverged, replay
from mu.machine import Machine
from mu.parameters import Params, read_fields
from mu.registry import Registry
from mu.states import CommandListState
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state
from mu.testing import FakeWorker, machine, play

ALL = [
    (Entered(1.5), '["entered",1.5]'),
    (Answered(2.0, "OK:GET(\udcff\n)", 3), '["answered",2.0,"OK:GET(\\udcff\\n)",3]'),
    (Informed(2.0, "k", "a:b", 0), '["informed",2.0,"k","a:b",0]'),
    (Elapsed(3.0, "state1"), '["elapsed",3.0,"state1"]'),
    (Lost(4.0, "gone"), '["lost",4.0,"gone"]'),
    (Send("run:ü\0"), '["send","run:\\u00fc\\u0000"]'),
    (SetTimer("t", 5), '["settimer","t",5]'),
    (CancelTimer("t"), '["canceltimer","t"]'),
    (Finish(None, {"key": [1, "x"]}), '["finish",null,{"key":[1,"x"]}]'),
    (Finish("why"), '["finish","why",null]'),
]


@pytest.mark.parametrize(("value", "line"), ALL)
def test_each_kind_has_one_encoding_for_ever(value, line):
    assert encode(value) == line
    assert decode(line) == value


@pytest.mark.parametrize("line", ["", "{}", '["nothing",1]', '["entered"]', '["entered",1,2]', "5"])
def test_a_line_that_is_none_is_refused(line):
    with pytest.raises(ValueError, match="is no event or effect"):
        decode(line)


def test_a_digest_tells_effects_apart():
    one, two = [Send("a:")], [Send("a:"), Send("b:")]
    assert digest(one) == digest([Send("a:")]) != digest(two) != digest(two[::-1])
    assert len(digest([])) == 16


def recorded(played):
    happened = zip(played.events, played.effects, strict=True)
    return [read_record(write_event(0, 1, *one)) for one in happened]


@pytest.mark.parametrize("name", sorted(Registry.installed().pipelines))
def test_every_pipeline_replays(name):
    pipeline = Registry.installed().pipelines[name]
    params = Params(read_fields(pipeline.parameters, EXAMPLES.get(name, {})), workers=2)
    inputs = PLANS[name] if name in PLANS else pipeline.plan(params)
    facts = JobFacts("j1", params, len(inputs), "127.0.0.1:13337", "uniq")
    for number, given in enumerate(inputs):

        def fresh(number=number, given=given):
            return Machine(ScriptWorker(facts, number, given), first_state(pipeline.begin))

        played = play(fresh(), FakeWorker(ANSWERS.get(name)))
        assert played.finish is not None
        assert played.finish.error is None
        again = replay(fresh(), recorded(played))
        assert again == [effect for effects in played.effects for effect in effects]


CHUNK = {"seconds": 1.0}
EXAMPLES = {
    "chain": {"bucket": "b", "key": "k", "out_prefix": "o/"},
    "ffmpeg_split": CHUNK,
    "ffmpeg_split_upload": CHUNK,
    "xcenc": {"keyframe_distance": 2, "upload_states": True},
    "map": {"bucket": "b", "command": "x {in} {out}", "keys": ["a", "b", "c"], "out_prefix": "o/"},
}
SIGNED = {"url": "http://s3/b/v.mp4?signed", "chunk": 3, "start": "3.0", "seconds": "1.0"}
PART = {"url": "http://s3/b/k?signed", "size": 9, "out_key": "o/00000000.txt"}
PLANS = {
    "chain": [{**PART, "first": 0, "end": 5}, {**PART, "first": 5, "end": 9}],
    "ffmpeg_split": [SIGNED],
    "ffmpeg_split_upload": [{**SIGNED, "out_key": "v-y4m_1s/00000003.y4m"}],
}
"""For pipelines whose plan needs the world: what it would have planned."""
ANSWERS = {"chain": {"run:": 'OK:RETVAL(0):OUTPUT({"lines": 3}):COMMAND(x)'}}
"""For those that need more of a worker than that its programs end well."""


def test_a_script_that_uses_chance_diverges_at_its_first_event_and_is_named():
    async def script(worker):
        await worker.ask("echo:same")
        await worker.ask(f"echo:{random.random()}")

    played = play(machine(script))
    with pytest.raises(Diverged, match="event 2, .*OK:ECHO.same.*other effects") as diverged:
        replay(machine(script), recorded(played))
    assert diverged.value.position == 2


def test_a_state_that_uses_the_clock_diverges():
    class Clock(CommandListState):
        def __init__(self, prevState, actorNum=0):
            self.commandlist = [f"echo:{time.monotonic_ns()}"]
            super().__init__(prevState, actorNum)

    with pytest.raises(Diverged, match="event 1"):
        replay(machine(Clock), recorded(play(machine(Clock))))


def test_a_pipeline_that_was_changed_meanwhile_diverges():
    def pipeline(command):
        return type("First", (CommandListState,), {"commandlist": ("echo:1", command)})

    before = recorded(play(machine(pipeline("echo:2"))))
    with pytest.raises(Diverged) as diverged:
        replay(machine(pipeline("echo:3")), before)
    assert diverged.value.position == 2


def test_a_broken_record_is_refused():
    with pytest.raises(ValueError, match="is no event"):
        replay(machine(CommandListState), [Happened(0, 1, "", "rubbish")])
