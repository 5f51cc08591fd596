"""Each pipeline on real video: the same bytes as one program on one machine makes."""

import json
import subprocess
from pathlib import Path

import pytest
from clip import FRAMES, get_clip
from imageio_ffmpeg import get_ffmpeg_exe
from kit.plain_s3 import plain_s3
from stage import Daemon, StageError, free_ports_conf

from mu.functions.bundle import bundle

CACHE = Path(__file__).parents[2] / ".demo"
CHUNK = 6
SCALE = "-vf scale=160:90"
COMMAND = "./ffmpeg -v error -nostdin -y -i ##INFILE## $CODEC ##OUTFILE##"
VP8 = (
    "-c:v libvpx -quality good -cpu-used 0 -crf 30 -qmin 0 -qmax 63 -b:v 1G -auto-alt-ref 0"
    " -g 9999 -threads 1 -slices 1 -tune ssim -f ivf"
)
RENDEZVOUS = """#!/bin/sh
# bench FOLDER: ends only when two of it run at once.
touch "$1/$$.running"
until [ "$(ls "$1" | grep -c running)" = 2 ]; do sleep 0.02; done
echo "$$ met another"
"""


def one_ffmpeg(folder, *words):
    """Run ffmpeg here, on this one machine; return what it prints."""
    line = [get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, words)]
    return subprocess.run(line, cwd=folder, check=True, capture_output=True, text=True).stdout


def chunks_of(y4m, frames, each):
    """Return the bytes of a Y4M file of that many frames as Y4M files of at most `each`."""
    header_end = y4m.index(b"\n") + 1
    header, body = y4m[:header_end], y4m[header_end:]
    size = len(body) // frames
    assert size * frames == len(body)
    return [header + body[at : at + each * size] for at in range(0, len(body), each * size)]


@pytest.fixture(scope="module")
def ffmpeg_zip(light_ffmpeg, tmp_path_factory):
    """The real ffmpeg, its codec from the environment."""
    zipped = tmp_path_factory.mktemp("ffmpeg") / "ffmpeg.zip"
    return bundle(zipped, executables={"ffmpeg": light_ffmpeg}, command=COMMAND).path


@pytest.fixture(scope="module")
def studio(daemon, ffmpeg_zip):
    """The daemon, with the function `ffmpeg`."""
    daemon.create_function("ffmpeg", ffmpeg_zip, MemorySize=1024)
    return daemon


@pytest.fixture(scope="module")
def movie(s3):
    """The real clip, as bbb.mp4 in S3 and as a file here."""
    try:
        clip = get_clip(CACHE)
    except StageError as error:
        pytest.skip(str(error))
    s3.client().put_object(Bucket="films", Key="bbb.mp4", Body=clip.read_bytes())
    return clip


@pytest.fixture(scope="module")
def whole(movie, tmp_path_factory):
    """All of the clip, small, as one Y4M file."""
    folder = tmp_path_factory.mktemp("whole")
    one_ffmpeg(folder, "-i", movie, *SCALE.split(), "whole.y4m")
    return folder / "whole.y4m"


@pytest.fixture(scope="module")
def chunks(whole, s3):
    """The first 26 frames in S3, as chunks of 6 the last of which has 2; and their bytes."""
    one_ffmpeg(whole.parent, "-i", whole, "-frames:v", 26, "first.y4m")
    cut = chunks_of((whole.parent / "first.y4m").read_bytes(), 26, CHUNK)
    for number, chunk in enumerate(cut):
        s3.client().put_object(Bucket="films", Key=f"bbb-y4m_06/{number:08d}.y4m", Body=chunk)
    return cut


def get(s3, key):
    return s3.client().get_object(Bucket="films", Key=key)["Body"].read()


def keys_below(s3, prefix):
    found = s3.client().list_objects_v2(Bucket="films", Prefix=prefix)
    return [one["Key"] for one in found.get("Contents", [])]


def run_job(daemon, pipeline, workers, codec="", function="ffmpeg", **params):
    order = {"pipeline": pipeline, "workers": workers, "function": function}
    order |= {"params": params, "event": {"env": {"CODEC": codec}}}
    return daemon.wait(daemon.ask("/jobs", order)["id"])


# ---------------------------------------------------------------- y4m2png


def test_y4m2png_makes_the_frames_that_one_ffmpeg_makes(studio, s3, chunks, whole):
    job = run_job(studio, "y4m2png", len(chunks), bucket="films", video="bbb", out_format="back")
    assert (job["state"], job["error"]) == ("done", None)
    assert job["result"] == {"folder": "bbb-back", "frames": 26}
    one_ffmpeg(whole.parent, "-i", "first.y4m", "%08d.png")
    made = sorted(whole.parent.glob("*.png"))
    assert keys_below(s3, "bbb-back/") == [f"bbb-back/{frame.name}" for frame in made]
    for frame in made:
        assert get(s3, f"bbb-back/{frame.name}") == frame.read_bytes()


def test_y4m2png_refuses_chunks_that_are_longer_than_the_job_says(studio, s3, chunks):
    given = {"bucket": "films", "video": "bbb", "in_format": "y4m_06", "out_format": "wrong"}
    job = run_job(studio, "y4m2png", 1, frames=4, **given)
    assert job["state"] == "failed"
    assert "bbb-y4m_06/00000000.y4m must have at most 4 frames, got 6" in job["error"]
    assert not keys_below(s3, "bbb-wrong/")


def test_y4m2png_says_where_frames_are_missing(studio, chunks):
    given = {"bucket": "films", "video": "bbb", "in_format": "y4m_06", "out_format": "gaps"}
    job = run_job(studio, "y4m2png", 2, frames=8, offset=1, **given)
    assert job["state"] == "failed"
    assert "begins with frame 9 must have 8 frames, got 6" in job["error"]


# ---------------------------------------------------------------- vpxenc


def test_vpxenc_makes_the_files_that_one_encoder_makes_and_they_play(studio, s3, chunks, tmp_path):
    job = run_job(studio, "vpxenc", len(chunks), VP8, bucket="films", video="bbb-y4m_06")
    assert (job["state"], job["error"]) == ("done", None)
    keys = [f"bbb-y4m_06/out/{number:08d}.ivf" for number in range(len(chunks))]
    assert job["result"] == {"keys": keys}
    for key, chunk in zip(keys, chunks, strict=True):
        (tmp_path / "in.y4m").write_bytes(chunk)
        one_ffmpeg(tmp_path, "-i", "in.y4m", *VP8.split(), "out.ivf")
        encoded = get(s3, key)
        assert encoded == (tmp_path / "out.ivf").read_bytes()
        assert encoded[:4] + encoded[8:12] == b"DKIFVP80"
        played = one_ffmpeg(tmp_path, "-i", "out.ivf", "-f", "framemd5", "-")
        frames = 2 if chunk is chunks[-1] else CHUNK
        assert len([line for line in played.splitlines() if line[0] != "#"]) == frames


# ---------------------------------------------------------------- ffmpeg_split


def framemd5(printed):
    """Return the hash of each frame."""
    lines = (line for line in printed.splitlines() if line and line[0] != "#")
    return [line.rpartition(",")[2].strip() for line in lines]


def test_ffmpeg_split_shows_each_worker_its_seconds_and_no_frame_twice(studio, movie, tmp_path):
    hashes = f"{SCALE} -an -f framemd5 -"
    job = run_job(
        studio,
        "ffmpeg_split",
        6,
        bucket="films",
        video="bbb",
        seconds=1,
        command=f"./ffmpeg -v error -nostdin -ss {{start}} -t {{seconds}} -i {{url}} {hashes}",
        output_chars=65536,
    )
    assert (job["state"], job["error"]) == ("done", None)
    seen = [framemd5(chunk["output"]) for chunk in job["result"]["chunks"]]
    together = [frame for chunk in seen for frame in chunk]
    assert together == framemd5(one_ffmpeg(tmp_path, "-i", movie, *hashes.split()))
    assert [len(hashes) for hashes in seen] == [25, 25, 25, 25, 25, 7]


def test_ffmpeg_split_by_default_tells_what_ffmpeg_says(studio, movie):
    job = run_job(studio, "ffmpeg_split", 1, bucket="films", video="bbb", frames=10, rate="25")
    (chunk,) = job["result"]["chunks"]
    assert "frame=   10 " in chunk["output"]
    assert "bbb.mp4" not in json.dumps(job["result"])  # the signed URL is nobody else's


def test_ffmpeg_split_upload_cuts_the_chunks_that_one_ffmpeg_makes(studio, s3, whole):
    cut = f"./ffmpeg -nostdin -v error -y -ss {{start}} -t {{seconds}} -i {{url}} {SCALE} {{out}}"
    given = {"bucket": "films", "video": "bbb", "frames": 30, "rate": "25", "command": cut}
    job = run_job(studio, "ffmpeg_split_upload", 5, **given)
    assert (job["state"], job["error"]) == ("done", None)
    keys = [f"bbb-y4m_30/{number:08d}.y4m" for number in range(5)]
    assert job["result"] == {"keys": keys}
    for key, chunk in zip(keys, chunks_of(whole.read_bytes(), FRAMES, 30), strict=True):
        assert get(s3, key) == chunk


def test_a_chunk_past_the_end_fails_its_actor(studio, s3, movie):
    given = {"bucket": "films", "video": "bbb", "seconds": 60, "out_format": "mkv", "offset": 1}
    job = run_job(studio, "ffmpeg_split_upload", 1, **given)
    assert job["state"] == "failed"
    assert "chunk 1: exit status 234: " in job["error"]
    assert "file is empty" in job["error"]
    assert "Signature" not in job["error"]
    assert not keys_below(s3, "bbb-mkv_60s/")


def test_a_video_that_is_not_there_is_a_sentence(studio):
    job = run_job(studio, "ffmpeg_split", 1, bucket="films", video="absent", seconds=1)
    assert job["state"] == "failed"
    assert "cannot read s3://films/absent.mp4: " in job["error"]


# ---------------------------------------------------------------- map


def test_map_makes_of_each_chunk_what_one_ffmpeg_makes(studio, s3, chunks, tmp_path):
    grey = "-vf hue=s=0 -f yuv4mpegpipe"
    job = run_job(
        studio,
        "map",
        2,
        bucket="films",
        prefix="bbb-y4m_06/",
        match="*.y4m",
        out_prefix="bbb-grey/",
        command=f"./ffmpeg -v error -nostdin -i {{in}} {grey} {{out}}",
    )
    assert (job["state"], job["error"]) == ("done", None)
    assert (job["result"]["done"], job["result"]["failed"]) == (len(chunks), 0)
    for number, chunk in enumerate(chunks):
        (tmp_path / "in.y4m").write_bytes(chunk)
        one_ffmpeg(tmp_path, "-i", "in.y4m", *grey.split(), "out.y4m")
        assert get(s3, f"bbb-grey/{number:08d}.y4m") == (tmp_path / "out.y4m").read_bytes()


# ---------------------------------------------------------------- linpack


def test_linpack_runs_the_packaged_program_twice_side_by_side(daemon, tmp_path):
    script = tmp_path / "bench"
    script.write_text(RENDEZVOUS)
    made = bundle(tmp_path / "bench.zip", executables=[script], command="./bench ##TMPDIR##")
    daemon.create_function("linpack", made.path)
    job = run_job(daemon, "linpack", 2, function="linpack")
    assert (job["state"], job["error"]) == ("done", None)
    runs = job["result"]["runs"]
    assert [one["actor"] for one in runs] == [0, 0, 1, 1]
    assert runs[0]["output"] != runs[1]["output"]
    assert all(one["output"].endswith(" met another\n") for one in runs)
    assert job["result"]["seconds"]["slowest"] < 120


def test_a_benchmark_that_fails_fails_its_actor(daemon):
    job = run_job(daemon, "linpack", 1, function="png2y4m", command="echo no such; exit 4")
    assert job["state"] == "failed"
    assert "RETVAL(4)" in job["error"]


# ---------------------------------------------------------------- names, and a last chunk that is shorter

PNG_TO_Y4M = "-pix_fmt yuv420p -f yuv4mpegpipe"
FIVE = 5


@pytest.fixture(scope="module")
def any_names(tmp_path_factory, ffmpeg_zip):
    """A daemon and its S3: rclone, which is the other one, does not always keep line breaks."""
    with plain_s3() as s3:
        running = Daemon(tmp_path_factory.mktemp("any"), s3.env, free_ports_conf())
        running.create_function("ffmpeg", ffmpeg_zip, MemorySize=1024)
        yield running, s3
        running.stop()


def test_keys_of_any_name_and_a_shorter_last_chunk_go_through_all_pipelines(
    any_names, movie, whole, tmp_path
):
    studio, s3 = any_names
    video = """it's; $(touch pwned) `touch pwned` "$HOME" && x\nrm {key} ##INFILE## %08d"""
    one_ffmpeg(tmp_path, "-i", whole, "-frames:v", 8, "%08d.png")
    frames = sorted(tmp_path.glob("*.png"))
    for frame in frames:
        s3.client().put_object(
            Bucket="films", Key=f"{video}-png16/{frame.name}", Body=frame.read_bytes()
        )
    given = {"bucket": "films", "frames": FIVE}

    job = run_job(studio, "png2y4m", 2, PNG_TO_Y4M, video=video, **given)
    assert (job["state"], job["error"]) == ("done", None)
    y4m = [f"{video}-y4m_05/{number:08d}.y4m" for number in range(2)]
    assert job["result"] == {"keys": y4m}
    one_ffmpeg(tmp_path, "-i", "%08d.png", *PNG_TO_Y4M.split(), "all.y4m")
    chunks = chunks_of((tmp_path / "all.y4m").read_bytes(), 8, FIVE)
    assert [get(s3, key) for key in y4m] == chunks

    job = run_job(studio, "y4m2png", 2, video=video, out_format="back", **given)
    assert (job["state"], job["error"]) == ("done", None)
    assert job["result"] == {"folder": f"{video}-back", "frames": 8}
    one_ffmpeg(tmp_path, "-i", "all.y4m", "back-%08d.png")
    for frame in frames:
        made = (tmp_path / f"back-{frame.name}").read_bytes()
        assert get(s3, f"{video}-back/{frame.name}") == made

    job = run_job(studio, "vpxenc", 2, VP8, bucket="films", video=f"{video}-y4m_05")
    assert (job["state"], job["error"]) == ("done", None)
    for number, key in enumerate(job["result"]["keys"]):
        (tmp_path / "chunk.ivf").write_bytes(get(s3, key))
        played = one_ffmpeg(tmp_path, "-i", "chunk.ivf", "-f", "framemd5", "-")
        assert len(framemd5(played)) == (FIVE, 3)[number]

    s3.client().put_object(Bucket="films", Key=f"{video}.mp4", Body=movie.read_bytes())
    cut = f"./ffmpeg -nostdin -v error -y -ss {{start}} -t {{seconds}} -i {{url}} {SCALE} {{out}}"
    split = {"bucket": "films", "video": video, "frames": 50, "rate": "25", "offset": 2}
    job = run_job(studio, "ffmpeg_split_upload", 1, command=cut, **split)
    assert (job["state"], job["error"]) == ("done", None)
    (key,) = job["result"]["keys"]
    assert get(s3, key) == chunks_of(whole.read_bytes(), FRAMES, 50)[2]

    assert not list(studio.home.rglob("pwned"))  # commands run in the bundle's folder


def test_png2y4m_takes_no_more_workers_than_there_are_chunks(studio, s3):
    for number in range(1, 4):
        key = f"few-png16/{number:08d}.png"
        s3.client().put_object(Bucket="films", Key=key, Body=b"x")
    job = run_job(studio, "png2y4m", 2, bucket="films", video="few", frames=3)
    assert job["state"] == "failed"
    workers = studio.ask(f"/jobs/{job['id']}/workers")
    assert "few-png16/00000004.png" in workers[1]["error"]
    assert "NoSuchKey" in workers[1]["error"]
