"""png2y4m, without a network: its plan, its commands, its result."""

import pytest

from mu.events import Answered, Finish, Send
from mu.parameters import Params, read_fields
from mu.pipelines.png2y4m import png2y4m
from mu.plugins import JobFailed
from mu.states import JobFacts
from mu.testing import FakeWorker, machine, play, talk


def params(**given):
    return Params(read_fields(png2y4m.parameters, given), workers=2)


ANSWERS = [
    "OK:HELLO",
    "OK:SETI(nonblock)",
    "OK:RETVAL(0):OUTPUT():COMMAND(rm)",
    "OK:RETVAL(0):OUTPUT():COMMAND(mkdir)",
    *["OK:SET(x)"] * 5,
]
FRAME = ["OK:SET(inkey)", "OK:SET(targfile)", "OK:RETRIEVE(b/k)"]


def test_the_plan_numbers_frames_from_one_and_chunks_from_zero():
    plan = png2y4m.plan(params(video="v", in_format="png16", frames=2, offset=3))
    assert plan == [
        {
            "in_keys": ["v-png16/00000007.png", "v-png16/00000008.png"],
            "out_key": "v-y4m_02/00000003.y4m",
        },
        {
            "in_keys": ["v-png16/00000009.png", "v-png16/00000010.png"],
            "out_key": "v-y4m_02/00000004.y4m",
        },
    ]


def run(*answers):
    given = params(video="v", bucket="b", frames=2)
    return talk(png2y4m.begin, *answers, params=given, given=png2y4m.plan(given)[0])


def test_an_actor_retrieves_its_frames_converts_and_uploads():
    effects = run(*ANSWERS, *FRAME, *FRAME, "OK:RETVAL(0):OUTPUT()", "OK:UPLOAD(b/k)")
    assert effects == [
        Send("seti:nonblock:0"),
        Send("run:rm -rf ##TMPDIR##"),
        Send("run:mkdir -p ##TMPDIR##"),
        Send("set:bucket:b"),
        Send("set:cmdinfile:##TMPDIR##/%08d.png"),
        Send("set:cmdoutfile:##TMPDIR##/out.y4m"),
        Send("set:fromfile:##TMPDIR##/out.y4m"),
        Send("set:outkey:v-y4m_02/00000000.y4m"),
        Send("set:inkey:v-png16/00000001.png"),
        Send("set:targfile:##TMPDIR##/00000001.png"),
        Send("retrieve:"),
        Send("set:inkey:v-png16/00000002.png"),
        Send("set:targfile:##TMPDIR##/00000002.png"),
        Send("retrieve:"),
        Send("run:"),
        Send("upload:"),
        Send("quit:"),
        Finish(result={"key": "v-y4m_02/00000000.y4m", "frames": 2}),
    ]


def test_a_conversion_that_fails_fails_the_actor_with_what_it_printed():
    (*_, finish) = run(*ANSWERS, *FRAME, *FRAME, "OK:RETVAL(1):OUTPUT(no such codec):COMMAND(x)")
    assert "expected 'OK:RETVAL(0)'" in finish.error
    assert "no such codec" in finish.error


def test_a_frame_that_cannot_be_retrieved_fails_the_actor():
    (*_, finish) = run(*ANSWERS, *FRAME[:2], "FAIL(retrieve b/k: NoSuchKey)")
    assert "NoSuchKey" in finish.error


MISSING = "FAIL(could not retrieve b/k to /tmp/x: NoSuchKey: The specified key does not exist.)"
GONE = [*FRAME[:2], MISSING]


def test_the_last_chunk_may_be_shorter():
    effects = run(*ANSWERS, *FRAME, *GONE, "OK:RETVAL(0):OUTPUT()", "OK:UPLOAD(b/k)")
    assert [effect.command for effect in effects[-4:-1]] == ["run:", "upload:", "quit:"]
    assert effects[-1] == Finish(result={"key": "v-y4m_02/00000000.y4m", "frames": 1})


def test_a_chunk_without_any_frame_or_with_a_gap_fails_its_actor():
    (*_, finish) = run(*ANSWERS, *GONE)
    assert "NoSuchKey" in finish.error
    given = params(video="v", bucket="b", frames=4)
    plan = png2y4m.plan(given)[0]
    (*_, finish) = talk(
        png2y4m.begin, *ANSWERS, *FRAME, *GONE, *GONE, *FRAME, params=given, given=plan
    )
    assert "there is no v-png16/00000002.png, but there is v-png16/00000004.png" in finish.error


@pytest.mark.parametrize(
    "other",
    [
        "FAIL(could not retrieve b/k to /tmp/x: AccessDenied: Access Denied)",
        "FAIL(could not retrieve b/x: NoSuchKey: y to /tmp/x: EndpointConnectionError: no)",
        "FAIL(could not retrieve b/k to /tmp/x: OSError: [Errno 28] No space left on device)",
    ],
)
def test_a_frame_that_may_be_there_is_never_left_out(other):
    (*_, finish) = run(*ANSWERS, *FRAME, *FRAME[:2], other)
    assert finish.error


# ---------------------------------------------------------------- side by side


def play_with(answer, frames, numbered=True):
    given = params(video="v", bucket="b", frames=frames)
    driven = machine(png2y4m.begin, given, given=png2y4m.plan(given)[0])
    return play(driven, FakeWorker({"retrieve:": answer}, numbered))


def test_frames_are_retrieved_side_by_side_and_then_converted():
    given = params(video="v", bucket="b", frames=10)
    settings = [*ANSWERS[1:], "OK:SETI(bg_silent)", "OK:SETI(nonblock)"]
    begun = ["OK:HELLO", *(Answered(1.0, text, n) for n, text in enumerate(settings, 1))]

    def after(*answers):
        about = {"params": given, "given": png2y4m.plan(given)[0], "numbered": True}
        return talk(png2y4m.begin, *begun, *answers, **about)[8:]

    frames = [Send(f"retrieve:v-png16/{n:08d}.png\0##TMPDIR##/{n:08d}.png") for n in range(1, 11)]
    sent = [Send("seti:bg_silent:1"), Send("seti:nonblock:1"), *frames[:8]]
    assert after() == sent  # as many as a worker copies at a time
    arrived = [Answered(2.0, "OK:RETRIEVE(b/k)", n) for n in range(20, 10, -1)]
    assert after(arrived[2]) == [*sent, frames[8]]
    arrived = [*arrived[2:], *arrived[:2]]
    assert after(*arrived[:-1]) == [*sent, *frames[8:]]
    assert after(*arrived)[12:] == [Send("run:")]
    last = [Answered(3.0, "OK:RETVAL(0)", 21), Answered(4.0, "OK:UPLOAD(b/k)", 22)]
    result = {"key": "v-y4m_10/00000000.y4m", "frames": 10}
    assert after(*arrived, *last)[13:] == [Send("upload:"), Send("quit:"), Finish(result=result)]


def test_a_reply_that_is_about_no_frame_fails_the_actor():
    given = params(video="v", bucket="b", frames=2)
    driven = machine(png2y4m.begin, given, given=png2y4m.plan(given)[0])
    play(driven, FakeWorker({"retrieve:": []}))
    effects = driven.receive(Answered(99.0, "OK:RETRIEVE(b/k)", 5))
    assert effects == [
        Finish("Retrieve (retrieving frames): the worker answered 'OK:RETRIEVE(b/k)'")
    ]


def test_side_by_side_too_the_last_chunk_may_be_shorter_and_a_gap_fails_its_actor():
    def absent(*numbers):
        return lambda command: (
            MISSING if int(command.split(".")[0][-8:]) in numbers else "OK:RETRIEVE(b/k)"
        )

    assert play_with(absent(*range(12, 21)), 20).finish.result["frames"] == 11
    assert "NoSuchKey" in play_with(absent(1), 4).finish.error
    error = play_with(absent(2, 3), 4).finish.error
    assert (
        error
        == "Retrieve (retrieving frames): there is no v-png16/00000002.png, but there is v-png16/00000004.png"
    )
    assert "Denied" in play_with(lambda _: "FAIL(x: AccessDenied: Access Denied)", 4).finish.error


def test_with_an_original_worker_frames_are_retrieved_one_after_the_other():
    played = play_with("OK:RETRIEVE(b/k)", 2, numbered=False)
    assert played.commands[0] == "seti:nonblock:0"
    assert played.commands.count("retrieve:") == 2


def test_the_result_names_the_chunks():
    job = JobFacts("j", Params(read_fields(png2y4m.parameters, {"frames": 2}), workers=3))
    keys = [chunk["out_key"] for chunk in png2y4m.plan(job.params)]
    results = [{"key": keys[0]}, {"key": keys[1], "frames": 2}, {"key": keys[2], "frames": 1}]
    outcomes = [Finish("failed"), *(Finish(result=one) for one in results)]
    assert png2y4m.finish(job, outcomes) == {"keys": keys}
    results[1]["frames"] = 1
    says = f"{keys[1]} must have 2 frames, got 1: only the last, {keys[2]}, may have fewer"
    for done in (outcomes, outcomes[:3]):  # without the last chunk, this one is not the last either
        with pytest.raises(JobFailed, match=says):
            png2y4m.finish(job, done)
