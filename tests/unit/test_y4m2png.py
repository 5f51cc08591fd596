"""y4m2png, without a network."""

import pytest

from mu.events import Finish
from mu.parameters import Params, read_fields
from mu.pipelines.y4m2png import y4m2png
from mu.plugins import JobFailed
from mu.testing import run


def params(workers=2, **given):
    return Params(read_fields(y4m2png.parameters, given), workers=workers)


def play(found, **given):
    counted = f"OK:RETVAL(0):OUTPUT({found}\n):COMMAND(wc)"
    return run(y4m2png, {"video": "v", **given}, {"run:test": counted}).actors[0]


def test_frames_are_numbered_from_one_and_chunks_from_zero():
    assert y4m2png.plan(params(video="v", frames=2, offset=3)) == [
        {"in_key": "v-y4m_02/00000003.y4m", "out_folder": "v-png16", "first": 7},
        {"in_key": "v-y4m_02/00000004.y4m", "out_folder": "v-png16", "first": 9},
    ]
    (one, _) = y4m2png.plan(params(video="v", in_format="raw", out_format="back"))
    assert (one["in_key"], one["out_folder"]) == ("v-raw/00000000.y4m", "v-back")


def test_an_actor_uploads_all_frames_that_its_chunk_has():
    played = play(2, frames=3, offset=1)
    uploads = [command for command in played.commands if command.startswith("upload:")]
    assert uploads == [
        "upload:v-png16/00000004.png\0##TMPDIR##/png/00000001.png",
        "upload:v-png16/00000005.png\0##TMPDIR##/png/00000002.png",
    ]
    assert played.finish == Finish(result={"first": 4, "frames": 2})


def test_eight_frames_at_a_time_are_uploaded_side_by_side():
    played = play(20, frames=20)
    uploads = [
        len([effect for effect in effects if getattr(effect, "command", "").startswith("upload:")])
        for effects in played.effects
    ]
    assert [count for count in uploads if count] == [8, 8, 4]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"run:test": "OK:RETVAL(1):OUTPUT():COMMAND(x)"}, "RETVAL(1)"),
        (
            {"run:test": "OK:RETVAL(0):OUTPUT(7\n):COMMAND(x)"},
            "must have at most 6 frames, got 7",
        ),
        ({"retrieve:": "FAIL(could not retrieve: NoSuchKey)"}, "NoSuchKey"),
        ({"run:": "OK:RETVAL(1):OUTPUT(no codec):COMMAND(x)"}, "no codec"),
    ],
)
def test_a_chunk_that_cannot_be_right_fails_its_actor(answers, says):
    played = run(y4m2png, {"video": "v"}, answers).actors[0]
    assert says in played.finish.error
    assert not [command for command in played.commands if command.startswith("upload:")]


def finish(*frames):
    given = Params(read_fields(y4m2png.parameters, {"video": "v"}), workers=3)
    facts = type("Facts", (), {"params": given})
    outcomes = [Finish(result={"first": 1 + 6 * at, "frames": n}) for at, n in enumerate(frames)]
    return y4m2png.finish(facts, outcomes)


def test_only_the_last_chunk_may_be_shorter():
    assert finish(6, 6, 2) == {"folder": "v-png16", "frames": 14}
    with pytest.raises(JobFailed, match="begins with frame 7 must have 6 frames, got 5"):
        finish(6, 5, 6)
    with pytest.raises(JobFailed, match="begins with frame 7 must have 6 frames, got 5"):
        finish(6, 5)
