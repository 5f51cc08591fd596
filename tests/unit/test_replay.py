"""Events and effects on a line, and machines that are given them again."""

import json
import random
import time

import pytest
from kit.hands import FILM_ANSWERS, FILM_BEFORE

from mu.events import (
    Answered,
    CancelTimer,
    Effect,
    Elapsed,
    Entered,
    Event,
    Finish,
    Informed,
    Lost,
    Send,
    SetTimer,
    digest,
    encode,
    old_digest,
    read_event,
)
from mu.invocations import Accepted, Answer, Refused, Throttled, Unknown, Unreached
from mu.jobs.plan import arrange
from mu.journal.records import (
    Ahead,
    Alive,
    Arrived,
    Assigned,
    AttemptEnded,
    CommandUsed,
    Counted,
    Disconnected,
    Happened,
    Incomplete,
    Launched,
    Launching,
    NobodyCame,
    Ordered,
    Planned,
    Reconnected,
    Record,
    Resumed,
    Sized,
    Skipped,
    Stopped,
    Used,
    read_record,
    write_event,
    write_record,
)
from mu.journal.replay import Diverged, replay, step
from mu.machine import Machine
from mu.parameters import Params, read_fields
from mu.registry import Registry
from mu.states import CommandListState
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state
from mu.testing import FakeWorker, machine, play

ALL = [
    (Entered(1.5), '["entered",1.5]'),
    (Entered(1.5, True), '["entered",1.5,true]'),
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


RECORDS = [
    (
        Ordered(1.0, "u", {"pipeline": "hello"}, "key", "d1", "10.0.0.1:13337"),
        '["ordered",1.0,"u",{"pipeline":"hello"},"key","d1","10.0.0.1:13337"]',
    ),
    (Planned([{"key": "a"}, {}], [1, 0]), '["planned",[{"key":"a"},{}],[1,0],null,[],[],[],[]]'),
    (
        Planned([{"key": "a"}, {}], [1, 0], [1], [[0, None, "done", {"key": "a"}]], [3, 1]),
        '["planned",[{"key":"a"},{}],[1,0],[1],[[0,null,"done",{"key":"a"}]],[3,1],[],[]]',
    ),
    (
        Planned([{}, {}], [0, 1], after=[[[0], [1]]], stages=[["map", [0]]]),
        '["planned",[{},{}],[0,1],null,[],[],[[[0],[1]]],[["map",[0]]]]',
    ),
    (Launching(1.5, "l1", 3), '["launching",1.5,"l1",3]'),
    (
        Launched("l1", "accepted", 1.75, invoked=1.6),
        '["launched","l1","accepted",1.75,true,1.6]',
    ),
    (Launched("l1", "late", 9.0, False), '["launched","l1","late",9.0,false,0.0]'),
    (Counted(1.8, {"throttled": 2}, 1), '["counted",1.8,{"throttled":2},1]'),
    (Arrived(1.9, "aa", "l1", False), '["arrived",1.9,"aa","l1",false]'),
    (Assigned(2.0, 0, 1, "aa", "l1"), '["assigned",2.0,0,1,"aa","l1"]'),
    (Disconnected(2.5, 0, 1, "reset"), '["disconnected",2.5,0,1,"reset"]'),
    (Reconnected(2.75, 0, 1), '["reconnected",2.75,0,1]'),
    (
        AttemptEnded(3.0, 0, 1, "why", None, "Echo", "FAIL(\udcff)", True, [2, 3, 1]),
        '["attemptended",3.0,0,1,"why",null,"Echo","FAIL(\\udcff)",true,[2,3,1],false,null]',
    ),
    (
        AttemptEnded(3.0, 0, 1, "why", None, "Echo", "OK", True, None, True, [0, 2]),
        '["attemptended",3.0,0,1,"why",null,"Echo","OK",true,null,true,[0,2]]',
    ),
    (NobodyCame(4.0, 2, "late"), '["nobodycame",4.0,2,"late"]'),
    (Skipped(4.5, 2, "why"), '["skipped",4.5,2,"why"]'),
    (Ahead(4.75, [3, 4]), '["ahead",4.75,[3,4]]'),
    (Stopped(5.0, "cancelled", "by request"), '["stopped",5.0,"cancelled","by request"]'),
    (Resumed(7.0, 6.0), '["resumed",7.0,6.0]'),
    (
        Sized({"us-east-1": [1024, "arm64"]}, {"us-east-1": 130.0}),
        '["sized",{"us-east-1":[1024,"arm64"]},{"us-east-1":130.0}]',
    ),
    (Used(7.5, "aa", 0.25), '["used",7.5,"aa",0.25,null,null,""]'),
    (
        Used(7.5, "aa", 0.25, 0.125, 1769, "r-1"),
        '["used",7.5,"aa",0.25,0.125,1769,"r-1"]',
    ),
    (
        CommandUsed(7.5, 0, 1, 3, {"cpu_s": 1.5}),
        '["commandused",7.5,0,1,3,{"cpu_s":1.5}]',
    ),
    (Alive(8.0), '["alive",8.0]'),
    (Incomplete("lost"), '["incomplete","lost"]'),
]
HAPPENED = [
    (
        (Entered(1.5), []),
        '["happened",0,1,0,["entered",1.5,false],null,"",""]',
    ),
    (
        (Answered(2.0, "OK:A", 1), [Send("quit:"), Finish(None, {"key": [1]})]),
        '["happened",0,1,2331507145,["answered",2.0,"OK:A",1],null,"quit",""]',
    ),
    (
        (Lost(4.0, "gone"), [CancelTimer("t"), Finish("Echo: gone ü")]),
        '["happened",0,1,2696147348,["lost",4.0,"gone"],"Echo: gone \\u00fc","",""]',
    ),
]
OLD_DIGESTS = ["e4a6a0577479b2b4", "fd760d1a7f8dc00b", "74e260917888db8c"]
ANSWER_KINDS = {
    Accepted: "accepted",
    Throttled: "throttled",
    Unreached: "unreached",
    Refused: "refused",
    Unknown: "unknown",
}


@pytest.mark.parametrize(("value", "line"), ALL)
def test_the_encoding_of_each_event_and_effect_never_changes(value, line):
    assert encode(value) == line
    if isinstance(value, Event):
        assert read_event(json.loads(line)) == value


@pytest.mark.parametrize(("record", "line"), RECORDS)
def test_the_encoding_of_each_record_never_changes(record, line):
    assert write_record(record) == line
    assert read_record(line) == record


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ('["launched","l1","late"]', Launched("l1", "late")),
        ('["launched","l1","late",1.75]', Launched("l1", "late", 1.75)),
        ('["launched","l1","late",9.0,false]', Launched("l1", "late", 9.0, False)),
        (
            '["happened",0,1,"fd76",["answered",2.0,"OK:A",1]]',
            Happened(0, 1, "fd76", Answered(2.0, "OK:A", 1)),
        ),
        ('["sized",{"r":[128,"arm64"]}]', Sized({"r": [128, "arm64"]})),
        ('["ordered",1.0,"u",{},"","d1"]', Ordered(1.0, "u", {}, "", "d1")),
        ('["planned",[{}],[0]]', Planned([{}], [0])),
        ('["planned",[{}],[0],null,[],[2]]', Planned([{}], [0], sizes=[2])),
        (
            '["attemptended",3.0,0,1,null,null,"","OK",true]',
            AttemptEnded(3.0, 0, 1, None, None, "", "OK", True),
        ),
        (
            '["attemptended",3.0,0,1,"why",null,"","OK",true,[2,3,1]]',
            AttemptEnded(3.0, 0, 1, "why", None, "", "OK", True, [2, 3, 1]),
        ),
    ],
)
def test_records_of_older_versions_lack_the_last_fields(line, record):
    assert read_record(line) == record


@pytest.mark.parametrize(("happened", "line"), HAPPENED)
def test_the_encoding_of_what_happened_never_changes(happened, line):
    event, effects = happened
    assert write_event(0, 1, event, effects) == line
    record = read_record(line)
    assert record.event == event
    assert record.effects == digest(effects)
    assert record.error == (effects[-1].error if effects else None)


def test_an_event_is_recorded_with_the_commands_and_states_that_it_led_to():
    sent = [Send("set:k:v"), Send("run:"), Send("what is this:"), Send("ü:"), Finish("broken")]
    states = [(2.0, "First"), (2.0, "Zweiter_ü")]
    happened = read_record(write_event(0, 1, Answered(2.0, "OK:A", 1), sent, states))
    assert (happened.sent, happened.states) == ("set,run,?,?", "First,Zweiter_ü")
    assert happened.error == "broken"
    happened = read_record(write_event(0, 1, Answered(2.0, "OK:A", 1), [], states[:1]))
    assert (happened.error, happened.sent, happened.states) == (None, "", "First")


@pytest.mark.parametrize(
    "text",
    ["\udcff", "\ud800x", "ü\u2028\U0001f600", "\x00\x1f\x7f\n", '"\\', "OK:" + "x" * 999],
)
def test_an_event_of_any_text_is_a_line_of_ascii_and_comes_back(text):
    event, sent = Answered(1795849334.5618136, text, 2**70), [Send(f"echo:{text}")]
    line = write_event(0, 1, event, sent)
    assert line.isascii()
    assert "\n" not in line
    happened = read_record(line)
    assert read_event(happened.event) == event
    assert happened.effects == digest(sent)


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "-Infinity",
        "1e999",
        "[1e400]",
        '"\\ud800"',
        '{"a":1,"a":2}',
        "123456789012345678901234567890",
        "1.0",
        "-0.0",
        "5e-324",
        "0.1",
        "1E5",
        "9007199254740993",
        "true",
        '{"\\udcff":[null]}',
    ],
)
def test_a_record_is_read_as_the_json_module_reads_it(value):
    record = read_record(f'["attemptended",3,0,1,null,{value},"","OK",true]')
    assert repr(record.result) == repr(json.loads(value))


def test_the_kinds_of_answers_never_change():
    assert {kind: kind.kind for kind in Answer.__args__} == ANSWER_KINDS


def test_every_kind_is_among_those_examples():
    assert {type(value) for value, _ in ALL} == set((Event | Effect).__args__)
    assert {type(record) for record, _ in RECORDS} | {Happened} == set(Record.__args__)


@pytest.mark.parametrize("line", ["", "{}", "5", '["gone",1]', '["alive"]', '["alive",1,2]'])
def test_a_line_that_is_not_a_record_is_refused(line):
    with pytest.raises(ValueError, match="is not a record"):
        read_record(line)


@pytest.mark.parametrize("values", [{}, ["gone", 1], ["send", "x"], ["entered"], [[], 1], "", 5])
def test_a_line_that_is_not_an_event_is_refused(values):
    with pytest.raises(ValueError, match="is not an event"):
        read_event(values)


@pytest.mark.parametrize(("happened", "line"), HAPPENED)
def test_the_digest_in_older_journals_never_changes(happened, line):
    _, effects = happened
    assert old_digest(effects) == OLD_DIGESTS[HAPPENED.index((happened, line))]


def test_a_digest_tells_effects_apart():
    one, two = [Send("a:")], [Send("a:"), Send("b:")]
    apart = [one, two, two[::-1], [], [Send("")], [Send("a:b:")], [SetTimer("a:", 1.0)]]
    for how in (digest, old_digest):
        assert how(one) == how([Send("a:")])
        assert len({how(effects) for effects in apart}) == len(apart)


def recorded(played):
    happened = zip(played.events, played.effects, strict=True)
    return [read_record(write_event(0, 1, *one)) for one in happened]


@pytest.mark.parametrize("name", sorted(Registry.installed().pipelines))
def test_every_pipeline_replays(name):
    pipeline = Registry.installed().pipelines[name]
    params = Params(read_fields(pipeline.parameters, EXAMPLES.get(name, {})), workers=2)
    inputs = PLANS[name] if name in PLANS else arrange(pipeline.plan(params)).inputs
    facts = JobFacts("j1", params, len(inputs), "127.0.0.1:13337", "uniq")
    for number, given in enumerate(inputs):

        def fresh(number=number, given=given):
            worker = ScriptWorker(facts, number, given, BEFORE.get(name))
            return Machine(worker, first_state(pipeline.begin))

        played = play(fresh(), FakeWorker(ANSWERS.get(name)))
        assert played.finish is not None
        assert played.finish.error is None
        again = replay(fresh(), recorded(played))
        assert again == [effect for effects in played.effects for effect in effects]


CHUNK = {"seconds": 1.0}
MAPPED = {"bucket": "b", "command": "x {in} {out}", "keys": ["a", "b", "c"], "out_prefix": "o/"}
EXAMPLES = {
    "pymap": {"call": "math:sqrt", "items": [1, 4]},
    "chain": {"bucket": "b", "key": "k", "out_prefix": "o/"},
    "ffmpeg_split": CHUNK,
    "ffmpeg_split_upload": CHUNK,
    "xcenc": {"keyframe_distance": 2, "upload_states": True},
    "map": MAPPED,
    "film": {"bucket": "b", "prefix": "v.mp4", "out_prefix": "o/"},
    "mapreduce": {**MAPPED, "reduce": "x {in} {out}"},
}
SIGNED = {"url": "http://s3/b/v.mp4?signed", "chunk": 3, "start": "3.0", "seconds": "1.0"}
PART = {"url": "http://s3/b/k?signed", "size": 9, "out_key": "o/00000000.txt"}
PLANS = {
    "chain": [{**PART, "first": 0, "end": 5}, {**PART, "first": 5, "end": 9}],
    "ffmpeg_split": [SIGNED],
    "film": [
        {"work": "look", "of": "v.mp4", "url": "http://s3/signed", "chunks": 1},
        {"work": "rest", "of": "v.mp4", "url": "http://s3/signed"},
        {"work": "encode", "of": "v.mp4", "url": "http://s3/signed", "chunk": 0},
        {"work": "join", "of": "v.mp4", "out_key": "o/film.mp4"},
    ],
    "ffmpeg_split_upload": [{**SIGNED, "out_key": "v-y4m_1s/00000003.y4m"}],
}
"""For pipelines whose plan needs the world: what it would have planned."""
BEFORE = {
    "film": FILM_BEFORE,
    "mapreduce": {0: {"keys": [{"key": "a", "out_key": "o/a"}]}, 1: None},
}
"""For those with stages: the results of the actors before."""
ANSWERS = {
    "pymap": {"run:cat": 'OK:RETVAL(0):OUTPUT({"failed": 0, "rows": []}):COMMAND(x)'},
    "chain": {"run:": 'OK:RETVAL(0):OUTPUT({"lines": 3}):COMMAND(x)'},
    "film": FILM_ANSWERS,
}
"""For those that need more of a worker than that its programs end well."""


def test_a_script_that_uses_chance_diverges_at_its_first_event_and_is_named():
    async def script(worker):
        await worker.ask("echo:same")
        await worker.ask(f"echo:{random.random()}")

    played = play(machine(script))
    with pytest.raises(Diverged, match="event 2, .*OK:ECHO.same.*effects other than") as diverged:
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
    with pytest.raises(ValueError, match="is not an event"):
        replay(machine(CommandListState), [Happened(0, 1, "", "rubbish")])


# ---------------------------------------------------------------- errors that are worded anew


class Scripted:
    """A machine (as far as a replay needs one) with the same effects for every event."""

    def __init__(self, *effects):
        self._effects = list(effects)

    def receive(self, event):
        return self._effects


EVENT = Answered(2.0, "FAIL(no)", 1)


def before_the_field(*effects):
    """Return what a version without Happened.error recorded."""
    return Happened(0, 1, old_digest(effects), EVENT)


def test_an_error_that_is_worded_anew_does_not_diverge_and_is_told_as_recorded():
    recorded = [Send("quit:"), Finish("Echo: the old words")]
    now = Scripted(Send("quit:"), Finish("Echo: new words"))
    happened = read_record(write_event(0, 1, EVENT, recorded))
    assert step(now, happened) == (EVENT, recorded)
    assert step(now, happened, 0, "what AttemptEnded says") == (EVENT, recorded)


def test_of_an_older_journal_the_attempts_end_has_the_recorded_words():
    recorded = [Send("quit:"), Finish("Echo: the old words")]
    now = Scripted(Send("quit:"), Finish("Echo: new words"))
    happened = before_the_field(*recorded)
    assert replay(now, [happened], "Echo: the old words") == recorded
    for error in (None, "Echo: other words"):
        with pytest.raises(Diverged):
            replay(now, [happened], error)


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        ([Send("a:"), Finish("why")], [Send("b:"), Finish("other words")]),
        ([Finish("why")], [Send("a:"), Finish("other words")]),
        ([Finish("why")], [Finish(None, 1)]),
        ([Finish("why")], []),
        ([Finish()], [Finish("other words")]),
        ([Finish(None, 1)], [Finish(None, 2)]),
        ([], [Finish("other words")]),
    ],
)
def test_what_differs_in_more_than_an_errors_words_diverges(recorded, now):
    error = next((one.error for one in recorded if isinstance(one, Finish)), None)
    for happened in (read_record(write_event(0, 1, EVENT, recorded)), before_the_field(*recorded)):
        with pytest.raises(Diverged):
            step(Scripted(*now), happened, 0, error)


def test_a_pipeline_whose_error_is_worded_anew_replays_to_its_end():
    def failing(words):
        async def script(worker):
            await worker.ask("echo:1")
            raise ValueError(words)

        return machine(script)

    before = recorded(play(failing("so it was called")))
    effects = replay(failing("so it is called now"), before)
    assert "so it was called" in effects[-1].error
