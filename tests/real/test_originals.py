"""Pipelines of the original that prepare, grey and judge video: the same bytes as one machine makes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from clip import get_clip
from kit.encoders.judges import JUDGES
from stage import StageError

from mu.functions.bundle import bundle

CACHE = Path(__file__).parents[2] / ".demo"
STAND_IN = Path(__file__).parents[1] / "kit" / "encoders" / "judges.py"
VP8 = "-c:v libvpx -quality good -cpu-used 5 -crf 30 -b:v 1G -g 9999 -auto-alt-ref 0 -threads 1"
FRAMES = 48
NEEDED = ("vpxenc", "vpxdec")


class Studio:
    """The daemon with the function `video`, and one machine with the same programs."""

    def __init__(self, daemon, s3, folder: Path, programs: dict[str, Path]) -> None:
        self.daemon, self.client = daemon, s3.client()
        self.folder = folder / "machine"
        (self.folder / "bin").mkdir(parents=True)
        for name, program in programs.items():
            os.symlink(program, self.folder / "bin" / name)
        self.path = f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def here(self, line: str) -> bytes:
        """Run a shell command on the one machine; return what it prints."""
        done = subprocess.run(
            line, shell=True, cwd=self.folder, env={**os.environ, "PATH": self.path},
            stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="films", Key=key, Body=content)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket="films", Key=key)["Body"].read()

    def keys(self, prefix: str) -> set[str]:
        found = self.client.list_objects_v2(Bucket="films", Prefix=prefix)
        return {one["Key"] for one in found.get("Contents", [])}

    def job(self, pipeline: str, workers: int, actors: list[int] | None = None, **params):
        order = {"pipeline": pipeline, "workers": workers, "function": "video", "retries": 0}
        order |= {"params": {"bucket": "films", **params}, "actors": actors or []}
        return self.daemon.wait(self.daemon.ask("/jobs", order)["id"])

    def done(self, *args, **params) -> dict:
        job = self.job(*args, **params)
        assert (job["state"], job["error"]) == ("done", None)
        return job["result"]


@pytest.fixture(scope="module")
def studio(daemon, s3, light_ffmpeg, tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    programs = {"ffmpeg": light_ffmpeg, **dict.fromkeys(JUDGES, STAND_IN)}
    for name in NEEDED:
        if found := shutil.which(name):
            programs[name] = Path(found)
    zipped = bundle(folder / "video.zip", executables=programs).path
    daemon.create_function("video", zipped, MemorySize=1024)
    return Studio(daemon, s3, folder, programs)


@pytest.fixture(scope="module")
def film(studio):
    """48 small frames of the real clip: in S3 as tiny.mp4, and here as film.mp4 and film.y4m."""
    try:
        clip = get_clip(CACHE)
    except StageError as error:
        pytest.skip(str(error))
    studio.here(
        f"ffmpeg -v error -i {clip} -an -vf scale=64:48 -frames:v {FRAMES} -c:v libx264 film.mp4"
    )
    studio.here("ffmpeg -v error -i film.mp4 film.y4m")
    studio.put("tiny.mp4", studio.read("film.mp4"))
    return studio.read("film.y4m")


def chunks(film: bytes, each: int, before: int = 0) -> list[bytes]:
    """Return the film in chunks, all but the first with that many frames before it."""
    header, _, body = film.partition(b"\n")
    size = len(body) // FRAMES
    return [
        header + b"\n" + body[max(0, at - before) * size : (at + each) * size]
        for at in range(0, FRAMES, each)
    ]


@pytest.fixture(scope="module")
def cut(studio, film):
    """The film in S3, in chunks of 6, 12 and 24 frames."""
    for each in (6, 12, 24):
        for number, chunk in enumerate(chunks(film, each)):
            studio.put(f"tiny-y4m_{each:02d}/{number:08d}.y4m", chunk)


# ---------------------------------------------------------------- chunks


def test_mk7frames_puts_the_last_frame_of_the_chunk_before_in_front(studio, film, cut):
    result = studio.done("mk7frames", 7, video="tiny")
    assert result == {"keys": [f"tiny-y4m_07/{number:08d}.y4m" for number in range(1, 8)]}
    for key, chunk in zip(result["keys"], chunks(film, 6, 1)[1:], strict=True):
        assert studio.get(key) == chunk


def test_stitch2_makes_chunks_of_twice_the_frames(studio, film, cut):
    result = studio.done("stitch2", 1, offset=1, frames=12, video="tiny")
    assert result == {"keys": ["tiny-y4m_24/00000001.y4m"]}
    assert studio.get("tiny-y4m_24/00000001.y4m") == chunks(film, 24)[1]


def test_chunks_that_differ_in_size_are_not_joined(studio, film, cut):
    studio.put("odd-y4m_06/00000000.y4m", chunks(film, 6)[0])
    studio.put("odd-y4m_06/00000001.y4m", b"YUV4MPEG2 W2 H2 F25:1\nFRAME\n123456")
    for pipeline in ("stitch2", "mk7frames"):
        job = studio.job(pipeline, 1, video="odd")
        assert "the chunks differ: YUV4MPEG2 W64 H48" in job["error"]


def test_merge_mp4_joins_in_a_tree_what_one_ffmpeg_joins(studio, film):
    studio.put("whole.mp4", studio.read("film.mp4"))
    given = {"frames": 12, "rate": "25", "out_format": "mp4"}
    cut = studio.done("ffmpeg_split_upload", 4, video="whole", **given)
    result = studio.done("merge_mp4", 3, video="whole", in_format="mp4_12", offset=1, fan_in=2)
    assert result == {"keys": ["whole-mp4_12-merged.mp4"]}
    names = []
    for key in cut["keys"][1:]:
        names.append(Path(key).name)
        (studio.folder / names[-1]).write_bytes(studio.get(key))
    (studio.folder / "list").write_text("".join(f"file {name}\n" for name in names))
    studio.here("ffmpeg -v error -f concat -i list -c copy joined.mp4")
    (studio.folder / "merged.mp4").write_bytes(studio.get(result["keys"][0]))
    merged, joined = (
        studio.here(f"ffmpeg -v error -i {name}.mp4 -f framemd5 -").decode().splitlines()
        for name in ("merged", "joined")
    )
    assert [row.split(",")[-1] for row in merged] == [row.split(",")[-1] for row in joined]
    assert sum(row[0] != "#" for row in merged) == 36


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize("given", [{"frames": 25, "rate": "25"}, {"length": 1.92, "rate": "25"}])
def test_ffmpeg_split_upload_makes_the_single_frames_that_gray_scale_makes_grey(
    studio, film, given
):
    name = "cut" + "".join(given)
    studio.put(f"{name}.mp4", studio.read("film.mp4"))
    result = studio.done("ffmpeg_split_upload", 2, video=name, out_format="png", **given)
    assert result == {"folder": f"{name}-mp4-png-split", "frames": FRAMES}
    shutil.rmtree(studio.folder / "png", ignore_errors=True)
    studio.here("mkdir -p png; ffmpeg -v error -i film.mp4 png/%d.png")
    split = {f"{name}-mp4-png-split/{number}.png" for number in range(1, FRAMES + 1)}
    assert studio.keys(f"{name}-mp4-png-split/") == split
    for number in (1, 25, 26, FRAMES):
        assert studio.get(f"{name}-mp4-png-split/{number}.png") == studio.read(f"png/{number}.png")
    if "length" in given:
        return
    result = studio.done("gray_scale", 2, video=name, frames=20, offset=0)
    assert result == {"folder": f"{name}-mp4-png-split-gs", "frames": 40}
    studio.here("ffmpeg -v error -i png/%d.png -vf hue=s=0 png/%d-gs.png")
    for number in range(1, 41):
        grey = studio.get(f"{name}-mp4-png-split-gs/{number}-gs.png")
        assert grey == studio.read(f"png/{number}-gs.png")
    assert len(studio.keys(f"{name}-mp4-png-split-gs/")) == 40


# ---------------------------------------------------------------- what dump_ssim says


def encode(studio, chunk: bytes, name: str, needed: int = 0, crf: int = 30) -> bytes:
    (studio.folder / "in.y4m").write_bytes(chunk)
    options = VP8.replace("30", str(crf), 1)
    studio.here(f"ffmpeg -v error -y -i in.y4m {options} -f ivf {name}")
    encoded = studio.read(name)
    return encoded[:28] + needed.to_bytes(4, "little") + encoded[32:]


@pytest.fixture(scope="module")
def judged(studio, film):
    """Encoded chunks in S3, as xcenc leaves them; their bytes by folder, kind and number."""
    held = {}
    for folder, each, groups in (("six", 6, 4), ("twelve", 12, 2), ("more", 24, 2)):
        for number, chunk in enumerate(chunks(film, each)):
            needed = number + 1 if number % groups else 0
            made = {
                "orig": chunk,
                "first": encode(studio, chunk, "first.ivf", crf=40),
                "out": encode(studio, chunk, "out.ivf", needed),
                "final_state": f"state {number + 2}".encode(),
            }
            for kind, content in made.items():
                held[folder, kind, number] = content
                where = f"{folder}/{kind}_30_x_k{groups}".replace("/orig_30_x_k" + str(groups), "")
                end = {"orig": "y4m", "final_state": "state"}.get(kind, "ivf")
                studio.put(f"{where}/{number:08d}.{end}", content)
    return held


def report(studio, judged, folder: str, number: int, kinds: list[tuple[str, bool]]) -> bytes:
    """Return what one machine says about a chunk: each kind, decoded from a state or not."""
    (studio.folder / "orig.y4m").write_bytes(judged[folder, "orig", number])
    said = b""
    for kind, from_state in kinds:
        (studio.folder / "enc.ivf").write_bytes(judged[folder, kind, number])
        state = ""
        if from_state:
            (studio.folder / "before").write_bytes(judged[folder, "final_state", number - 1])
            state = "before"
        studio.here(f"echo enc.ivf | xc-decode-bundle {state} >dec.y4m")
        said += studio.here("xc-framesize enc.ivf") + studio.here("dump_ssim dec.y4m orig.y4m")
    return said


def test_dump_ssim_reports_on_both_outputs_of_each_chunk(studio, judged):
    result = studio.done("dump_ssim", 2, video="six", keyframe_distance=4)
    assert result["keys"] == [f"six/out_ssim_30_x_k4/{number:08d}.txt" for number in range(2)]
    for number, key in enumerate(result["keys"]):
        kinds = [("first", False), ("out", number % 4 > 0)]
        assert studio.get(key) == report(studio, judged, "six", number, kinds)


def test_dump_ssim7_reports_on_the_output_alone(studio, judged):
    result = studio.done("dump_ssim7", 2, video="six", keyframe_distance=4, offset=4)
    for number, key in enumerate(result["keys"], 4):
        assert studio.get(key) == report(studio, judged, "six", number, [("out", number > 4)])


def halved(said: bytes, half: int, frames: int, kinds: int) -> bytes:
    """Return what a report says about one half of the frames, numbered from 0."""
    lines, kept = said.decode().splitlines(), []
    for at in range(0, len(lines), 4 * frames):
        sizes, found = lines[at : at + 2 * frames], lines[at + 2 * frames : at + 4 * frames]
        mine = found[half * frames : (half + 1) * frames]
        kept += sizes + [f"{n:08d}{line[8:]}" for n, line in enumerate(mine)]
    assert len(kept) == 3 * frames * kinds
    return ("\n".join(kept) + "\n").encode()


@pytest.mark.parametrize(
    ("pipeline", "folder", "frames", "kinds"),
    [
        ("split_dump_ssim", "more", 12, ["out"]),
        ("split12_dump_ssim", "twelve", 6, ["first", "out"]),
    ],
)
def test_two_actors_report_on_the_halves_of_a_chunk(
    studio, judged, pipeline, folder, frames, kinds
):
    result = studio.done(pipeline, 4, [0, 3], video=folder, keyframe_distance=2)
    assert result["keys"] == [f"{folder}/out_ssim_30_x_k2/{n:08d}.txt" for n in (0, 3)]
    for key, chunk in zip(result["keys"], (0, 1), strict=True):
        said = report(studio, judged, folder, chunk, [(kind, chunk > 0) for kind in kinds])
        assert studio.get(key) == halved(said, chunk, frames, len(kinds))


def test_chunks_join_as_the_reference_says_and_play_at_the_right_speed(studio, judged):
    page = (Path(__file__).parents[2] / "docs" / "pipelines-reference.md").read_text()
    (lines,) = re.findall(r"\n    (for chunk in .*)\n    (ffmpeg -f concat .*)\n    ffplay", page)
    (studio.folder / "chunks").mkdir()
    for number in range(8):
        chunk = bytearray(judged["six", "first", number])
        chunk[16:24] = (1).to_bytes(4, "little") * 2  # one frame per second, as xc-enc writes
        (studio.folder / f"chunks/{number:08d}.ivf").write_bytes(chunk)
    studio.here(f"{lines[0]}\n{lines[1].replace('ffmpeg', 'ffmpeg -v error')}")
    rows = studio.here("ffmpeg -v error -i bbb.webm -c copy -f framecrc -").decode().splitlines()
    times = [int(row.split(",")[2]) for row in rows if row[0] != "#"]
    assert times == [40 * number for number in range(FRAMES)]  # milliseconds


def test_the_state_of_another_chunk_is_refused_and_named(studio, judged):
    studio.put("six/final_state_30_x_k8/00000000.state", b"state 7")
    studio.put("six/out_30_x_k8/00000001.ivf", judged["six", "out", 1])
    job = studio.job("dump_ssim7", 2, [1], video="six", keyframe_distance=8)
    assert job["state"] == "failed"
    assert "needs state 2, and got 7" in job["error"]


def test_ffmpeg_compares_where_there_is_no_dump_ssim(studio, judged):
    compare = "./ffmpeg -nostdin -v error -i {decoded} -i {original} -lavfi ssim=f=- -f null -"
    result = studio.done("dump_ssim7", 1, video="six", keyframe_distance=4, compare=compare)
    *_, last = studio.get(result["keys"][0]).decode().splitlines()
    assert last.startswith("n:6 Y:0.9")


def test_vpx_ssim_reports_on_each_quality(studio, film, judged):
    for name in NEEDED:
        if not (studio.folder / "bin" / name).exists():
            pytest.skip(f"{name} is not installed (Debian: vpx-tools)")
    result = studio.done("vpx_ssim", 4, [2], video="six", qualities="4,40")
    assert result == {"keys": ["six/ssim_txt_4_40/00000002.txt"]}
    (studio.folder / "in.y4m").write_bytes(chunks(film, 6)[2])
    said = b""
    for quality in (4, 40):
        options = f"--min-q={quality} --max-q={quality} -y"
        studio.here(f"vpxenc --codec=vp8 --ivf {options} -o q.ivf in.y4m")
        studio.here("vpxdec --codec=vp8 -o q.y4m q.ivf")
        said += b"QUALITY:%d\n" % quality + studio.here("xc-framesize q.ivf")
        said += studio.here("dump_ssim in.y4m q.y4m")
    assert studio.get(result["keys"][0]) == said
