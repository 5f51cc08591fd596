"""Texts and numbers from which no keys or commands can be made are refused when a job is ordered."""

import json

import pytest

from mu.config import Config
from mu.jobs.orders import read_order
from mu.parameters import FieldError, Parameter, read_fields
from mu.pipelines.texts import readable
from mu.registry import Registry

PIPELINES = Registry.installed().pipelines
NEEDED = {
    "map": {"bucket": "b", "command": "x", "out_prefix": "o/", "prefix": "p/"},
    "mapreduce": {
        "bucket": "b",
        "command": "x {out}",
        "reduce": "x {in} {out}",
        "out_prefix": "o/",
        "prefix": "p/",
    },
    "film": {"bucket": "b", "prefix": "p/f.mp4", "out_prefix": "o/"},
    "chain": {"bucket": "b", "key": "k", "out_prefix": "o/"},
    "xcenc": {"keyframe_distance": 2},
    "ffmpeg_split": {"seconds": 1},
    "ffmpeg_split_upload": {"seconds": 1},
    "pymap": {"call": "math:sqrt", "items": [1]},
}
OWN = [name for name, one in PIPELINES.items() if type(one).__module__.startswith("mu.")]


def order(pipeline, workers=2, **params):
    params = NEEDED.get(pipeline, {}) | params
    body = json.dumps({"pipeline": pipeline, "workers": workers, "params": params}).encode()
    return read_order(body, Config(), PIPELINES, ["local"])


def refused(pipeline, **params):
    with pytest.raises(FieldError) as error:
        order(pipeline, **params)
    return error.value


def names(kind, *wanted):
    return [
        (name, parameter.name)
        for name in OWN
        for parameter in PIPELINES[name].parameters
        if parameter.kind is kind and (not wanted or parameter.name in wanted)
    ]


@pytest.mark.parametrize("pipeline", OWN)
def test_what_is_right_is_taken(pipeline):
    order(pipeline)


@pytest.mark.parametrize(("pipeline", "name"), names(str))
def test_no_text_of_any_pipeline_has_a_nul_or_half_a_surrogate(pipeline, name):
    for text in ("a\0b", "half \ud83d", "\udcff"):
        error = refused(pipeline, **{name: text})
        assert error.field == f"params.{name}"
        assert ("must not contain a NUL" if "\0" in text else "valid Unicode") in str(error)


def test_texts_inside_lists_and_objects_are_checked_too():
    fields = [Parameter("deep", dict, "", {}), Parameter("keys", list, "", [])]
    for given, says in [
        ({"keys": ["a", "\0"]}, "keys[1] must not contain a NUL"),
        ({"deep": {"a": [{"b": "\ud800"}]}}, "deep.a[0].b must be valid Unicode"),
        ({"deep": {"\0": 1}}, "a name in deep must not contain a NUL"),
    ]:
        with pytest.raises(FieldError) as error:
            read_fields(fields, given)
        assert says in str(error.value)
        assert str(error.value).startswith((error.value.field, "a name in deep"))


@pytest.mark.parametrize(("pipeline", "name"), names(str, "bucket"))
def test_a_bucket_that_cannot_be_one_is_refused(pipeline, name):
    for text in ("a bucket", "bucket\n", "b/k", "s3://b", "b" * 256, "ü"):
        assert refused(pipeline, bucket=text).field == "params.bucket", text
    if pipeline == "pymap":  # it needs none
        assert order(pipeline, bucket="").params.bucket == ""
    else:
        assert refused(pipeline, bucket="").field == "params.bucket"


@pytest.mark.parametrize(("pipeline", "name"), names(str, "bucket"))
def test_access_points_are_buckets(pipeline, name):
    order(pipeline, bucket="arn:aws:s3:us-east-1:123456789012:accesspoint/films")


@pytest.mark.parametrize(("pipeline", "name"), names(str, "video", "out_prefix"))
def test_a_key_that_is_not_to_be_written_is_refused(pipeline, name):
    if pipeline == "ffmpeg_split":  # its video is only read
        return
    for text, says in (
        ("/v/", "must not begin with a slash"),
        ("a/../v", "'..' as a folder"),
        ("./v", "'.' or"),
        ("v\x1b[2J", "control characters"),
        ("v\x85", "control characters"),
        ("ü" * 512, "must have at most 1024 bytes, got 10"),
    ):
        error = refused(pipeline, **{name: text})
        assert error.field == f"params.{name}"
        assert says in str(error)


@pytest.mark.parametrize(("pipeline", "name"), names(str, "video"))
def test_a_video_needs_a_name(pipeline, name):
    assert "params.video must not be empty" in str(refused(pipeline, video=""))


@pytest.mark.parametrize(("pipeline", "name"), names(str, "video", "in_format", "out_format"))
def test_what_s3_takes_is_taken(pipeline, name):
    if (pipeline, name) != ("ffmpeg_split_upload", "out_format"):  # ffmpeg chooses by it
        for text in ('it\'s; $(x) `y` "z"', "line\nbreak\ttab", "ü 日本 \U0001f600"):
            order(pipeline, **{name: text})


@pytest.mark.parametrize(("pipeline", "name"), names(str, "command"))
def test_a_command_that_no_shell_gets_is_refused_with_the_order(pipeline, name):
    begin = "true {out} " if pipeline == "mapreduce" else "true "
    order(pipeline, command=begin + "#" * 130_000)
    error = refused(pipeline, command=begin + "#" * 131_072)
    assert (error.field, "at most 131071 bytes" in str(error)) == ("params.command", True)


@pytest.mark.parametrize("many", [16, 1000])
def test_a_reduce_that_no_shell_gets_with_all_its_files_is_refused_with_the_order(many):
    error = refused("mapreduce", fan_in=many, reduce="cat {in} > {out}" + "#" * 130_500)
    assert error.field == "params.reduce"


@pytest.mark.parametrize(("pipeline", "name"), names(int, "offset"))
@pytest.mark.parametrize("offset", [99_999_999, 10**30])
def test_numbers_that_have_no_eight_digits_are_refused(pipeline, name, offset):
    given = {"rate": "25", "frames": 6, "seconds": 0} if pipeline.startswith("ffmpeg") else {}
    if pipeline == "ffmpeg_split" and offset < 10**30:  # it writes no keys
        return
    assert refused(pipeline, offset=offset, **given).field == "params.offset"


@pytest.mark.parametrize("pipeline", ["ffmpeg_split", "ffmpeg_split_upload"])
@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"seconds": 1e-9}, "seconds", "makes chunks of 1e-09 s; they must have 0.001 to 1e+06 s"),
        ({"seconds": 9e-4}, "seconds", "must have 0.001"),
        ({"seconds": 5e-324}, "seconds", "must have 0.001"),
        ({"seconds": -1}, "seconds", "between 0 and 1000000, got -1"),
        ({"seconds": 1e300}, "seconds", "between 0 and 1000000, got 1e+300"),
        ({"seconds": "1/2"}, "seconds", "must be a number, got '1/2'"),
        ({"seconds": 0}, "frames", "give either"),
        ({"frames": 1, "rate": "999999999"}, "rate", "makes chunks of 1e-09 s"),
        ({"frames": 9, "rate": "1/999999999"}, "rate", "makes chunks of 9e+09 s"),
        ({"frames": 1, "rate": "0.000000001"}, "rate", "makes chunks of 1e+09 s"),
        ({"frames": 1, "rate": "0.0"}, "rate", "30000/1001, got '0.0'"),
        ({"frames": 1, "rate": "0/5"}, "rate", "got '0/5'"),
        ({"frames": 1, "rate": "-25"}, "rate", "got '-25'"),
        ({"frames": 1, "rate": "1e3"}, "rate", "got '1e3'"),
        ({"frames": 1, "rate": "٢٥"}, "rate", "got '٢٥'"),
        ({"frames": 10**30, "rate": "25"}, "rate", "makes chunks of 4e+28 s"),
        ({"seconds": 1e6, "offset": 99_000_000}, "offset", "at most 1000000000 s"),
    ],
)
def test_a_chunk_without_a_length_is_refused(pipeline, given, field, says):
    error = refused(pipeline, **{"seconds": 0, **given})
    assert error.field == f"params.{field}"
    assert says in str(error)


@pytest.mark.parametrize("rate", ["1/2", "0.5", "25", "30000/1001", "23.976"])
def test_slow_rates_are_rates(rate):
    order("ffmpeg_split", seconds=0, frames=1, rate=rate)


def test_two_lengths_never_share_their_keys():
    upload = PIPELINES["ffmpeg_split_upload"]
    from mu.pipelines.ffmpeg_split_upload import out_key

    def key(seconds):
        return out_key(order(upload.name, seconds=seconds).params, 0)

    assert key(10) == "sintel-1k-y4m_10s/00000000.y4m"
    assert key(2.5) == "sintel-1k-y4m_2.5s/00000000.y4m"
    lengths = [10, 10.0000001, 2.5, 0.001, 0.0015, 1e6, 999_999.5]
    assert len({key(seconds) for seconds in lengths}) == len(lengths)


def test_a_programs_output_is_text_that_json_parsers_take():
    assert readable("caf\udce9 ok ü") == "caf\ufffd ok ü"


@pytest.mark.parametrize("name", ["map", "ffmpeg_split", "ffmpeg_split_upload", "linpack"])
def test_a_command_that_does_nothing_is_refused(name):
    error = refused(name, command=" \n\t")
    assert str(error) == r"params.command must not be empty, got ' \n\t'"
    if name == "linpack":
        order(name, command="")  # the packaged command
    else:
        assert refused(name, command="").field == "params.command"
