"""ffmpeg_split and ffmpeg_split_upload, without a network: where chunks begin, what is refused."""

import pytest

from mu.parameters import FieldError, Params, read_fields
from mu.pipelines import s3
from mu.pipelines.ffmpeg_split import ffmpeg_split
from mu.pipelines.ffmpeg_split_upload import ffmpeg_split_upload
from mu.testing import FakeWorker, run

URL = "http://s3/b/v.mp4?X-Amz-Expires=9&X-Amz-Signature=$(x)"


@pytest.fixture(autouse=True)
def _signed(monkeypatch):
    def readable_url(bucket, key, seconds):
        return URL.replace("b/v.mp4", f"{bucket}/{key}").replace("9", str(seconds))

    monkeypatch.setattr(s3, "readable_url", readable_url)


def plan(pipeline=ffmpeg_split, workers=3, **given):
    known = {"video": "v", "bucket": "b", **given}
    return pipeline.plan(Params(read_fields(pipeline.parameters, known), workers=workers))


def spans(**given):
    return [(one["start"], one["seconds"]) for one in plan(**given)]


def test_chunks_of_seconds_follow_one_another():
    assert spans(seconds=2.5) == [
        ("0.000000", "2.500000"),
        ("2.500000", "2.500000"),
        ("5.000000", "2.500000"),
    ]


def test_chunks_of_frames_begin_and_end_a_little_before_a_frame():
    assert spans(frames=10, rate="25") == [
        ("0.000000", "0.396000"),
        ("0.396000", "0.400000"),
        ("0.796000", "0.400000"),
    ]


@pytest.mark.parametrize("rate", ["24", "25", "30000/1001", "59.94", "120"])
def test_each_frame_is_in_its_chunk_and_in_no_other_however_long_the_video(rate):
    top, _, bottom = rate.partition("/")
    seconds = float(bottom or 1) / float(top)
    assert spans(frames=7, rate=rate, offset=2)[0] == spans(frames=7, rate=rate)[2]
    for number in range(0, 30_000, 997):
        ((start, length),) = spans(frames=7, rate=rate, workers=1, offset=number)
        inside = float(start), float(start) + float(length)
        first, last = 7 * number, 7 * number + 6
        assert inside[0] <= first * seconds < last * seconds < inside[1] - seconds / 2
        assert (last + 1) * seconds > inside[1]
        assert number == 0 or (first - 1) * seconds < inside[0] - seconds / 2


def test_all_actors_have_the_one_url_and_it_lives_as_long_as_asked():
    assert {one["url"] for one in plan(seconds=1, expires_s=77)} == {
        "http://s3/b/v.mp4?X-Amz-Expires=77&X-Amz-Signature=$(x)"
    }


def test_the_url_reaches_ffmpeg_as_a_variable_and_what_it_prints_is_the_result():
    answers = {"run:": "OK:RETVAL(0):OUTPUT(frame=7):COMMAND(x)"}
    job = run(ffmpeg_split, {"video": "v", "bucket": "b", "seconds": 3.0, "offset": 2}, answers)
    assert job.actors[0].commands[-1] == (
        "run:mu_url='http://s3/b/v.mp4?X-Amz-Expires=3600&X-Amz-Signature=$(x)'\n"
        './ffmpeg -nostdin -ss 6.000000 -t 3.000000 -i "$mu_url" -f null - 2>&1'
    )
    assert job.result == {"chunks": [{"chunk": 2, "seconds": 1.0, "output": "frame=7"}]}


def test_an_upload_goes_where_png2y4m_would_put_it():
    given = {"video": "v", "bucket": "b", "frames": 6, "rate": "24", "offset": 4}
    job = run(ffmpeg_split_upload, given)
    assert job.actors[0].commands[-1] == "upload:v-y4m_06/00000004.y4m\0##TMPDIR##/out.y4m"
    assert job.result == {"keys": ["v-y4m_06/00000004.y4m"]}
    (one, *_) = plan(ffmpeg_split_upload, seconds=2.5, out_format="mkv")
    assert one["out_key"] == "v-mkv_2.5s/00000000.mkv"


def test_a_chunk_that_fails_says_which_one_and_not_the_url():
    failing = FakeWorker({"run:mu_url": "OK:RETVAL(1):OUTPUT( no codec\n):COMMAND(x)"})
    for pipeline in (ffmpeg_split, ffmpeg_split_upload):
        given = {"video": "v", "bucket": "b", "seconds": 1.0}
        (actor,) = run(pipeline, given, lambda _: failing).actors
        assert actor.finish.error.endswith(": chunk 0: exit status 1: no codec")


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("frames", {}, "give either params.frames or params.seconds"),
        (
            "frames",
            {"frames": 5, "rate": "25", "seconds": 1.0},
            "give either params.frames or params.seconds",
        ),
        ("rate", {"frames": 5}, "got ''"),
        ("rate", {"frames": 5, "rate": "0"}, "30000/1001, got '0'"),
        ("rate", {"frames": 5, "rate": "25/0"}, "got '25/0'"),
        ("rate", {"frames": 5, "rate": "fast"}, "got 'fast'"),
        ("command", {"seconds": 1.0, "command": "x {uri}"}, r"unknown placeholder \{uri\}"),
        ("command", {"seconds": 1.0, "command": "x '{url}'"}, "single quotes"),
        ("out_format", {"seconds": 1.0, "out_format": "../x"}, "1 to 16 letters or digits"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(field, given, says):
    with pytest.raises(FieldError, match=says) as refused:
        plan(ffmpeg_split_upload, **given)
    assert refused.value.field == f"params.{field}"
