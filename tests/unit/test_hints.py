import pytest

from mu.cli.hints import command_for_map, job_for


@pytest.mark.parametrize(
    ("packaged", "command"),
    [
        ("./thumb.py", "./thumb.py {in} {out}"),
        ("./sort ##INFILE## -o ##OUTFILE##", "./sort {in} -o {out}"),
        ("nice ./count ##INFILE##", "nice ./count {in}"),
        ("./awk '{print}'", "./awk '{{print}}' {in} {out}"),
    ],
)
def test_a_packaged_command_is_turned_into_that_of_map(packaged, command):
    assert command_for_map(packaged) == command


def test_the_job_that_fits_a_function_is_that_of_its_program():
    assert job_for("ffmpeg", "", bucket=False) == ["hello"]
    suggested = job_for("ffmpeg", "./ffmpeg", bucket=False)
    assert suggested == [
        *("map", "--in", "FOLDER", "--out", "FOLDER-OUT", "-p", "command=./ffmpeg {in} {out}")
    ]
    assert job_for("ffmpeg", "./ffmpeg", bucket=True) == [*suggested, "-p", "bucket=BUCKET"]
    assert job_for("png2y4m", "./png2y4m", bucket=True) == ["png2y4m"]
    assert job_for("map", "./x", bucket=False)[0] == "map"
    told = ["xcenc", "-p", "keyframe_distance=KEYFRAME_DISTANCE"]
    assert job_for("xcenc", "./xcenc", bucket=True) == told
