"""film, with real ffmpeg on small clips: no frame is lost, doubled or late, whatever the film is.

All but the last test play the job in this process, with workers that do what they are told.
"""

import json
import re
import shlex
import subprocess
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from kit.hands import worker_in
from kit.machine import Machine

from mu.parameters import Params, read_fields
from mu.pipelines import s3 as mu_s3
from mu.pipelines.film import film
from mu.testing import run

FFMPEG = get_ffmpeg_exe()
PAGE = Path(__file__).parents[2] / "docs" / "film.md"
LOSSLESS = {"codec": "h264", "quality": 0, "speed": "ultrafast"}

VIDEO = "-f lavfi -i testsrc2=size=64x48:rate=25:duration=2"
SOUND = "-f lavfi -i sine=440:duration=2:sample_rate=48000"
ODD = "-f lavfi -i testsrc=size=65x47:rate=25:duration=1"
SCENES = (
    "-f lavfi -i testsrc2=size=64x48:rate=25:duration=0.88 -f lavfi -i"
    " mandelbrot=size=64x48:rate=25 -f lavfi -i color=red:size=64x48:rate=25 -filter_complex"
    " [1]trim=duration=1[a];[2]trim=duration=1[b];[0][a][b]concat=n=3"
)
HDR = (
    "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1:repeat-headers=1:max-cll=1000,400:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
)
OPEN = "keyint=13:min-keyint=13:open-gop=1:bframes=3:scenecut=0"
CLIPS = {
    "plain.mp4": f"{VIDEO} {SOUND} -c:v libx264 -g 25 -bf 3 -pix_fmt yuv420p -c:a aac",
    "open.mp4": f"{VIDEO} -c:v libx264 -x264-params {OPEN}:b-adapt=0 -pix_fmt yuv420p",
    "open265.mp4": f"{VIDEO} -c:v libx265 -x265-params {OPEN}:log-level=error -pix_fmt yuv420p",
    "varied.mp4": f"{VIDEO} {SOUND} -vf \"select='not(eq(mod(n,7),3))*not(between(n,20,31))'\""
    " -fps_mode vfr -enc_time_base 1/90000 -video_track_timescale 90000 -c:v libx264 -g 20 -bf 2"
    " -pix_fmt yuv420p -c:a aac",
    "varied.mkv": "-i varied.mp4 -c copy",
    "odd.webm": f"{ODD} -c:v libvpx-vp9 -deadline realtime -pix_fmt yuv420p",
    "odd444.mp4": f"{ODD} -c:v libx264 -pix_fmt yuv444p",
    "turned.mp4": "-display_rotation 90 -i plain.mp4 -c copy",
    "late.mp4": "-i plain.mp4 -c copy -output_ts_offset 0.7",
    "edited.mp4": "-ss 0.53 -i plain.mp4 -c copy",
    "one.mp4": "-f lavfi -i testsrc2=size=64x48:rate=25 -frames:v 1 -pix_fmt yuv420p",
    "hidden.webm": f"{VIDEO} -c:v libvpx-vp9 -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 5",
    "laced.mp4": f"{VIDEO} -c:v libx264 -flags +ilme+ildct -x264-params tff=1 -pix_fmt yuv420p",
    "many.mkv": "-i plain.mp4 -f lavfi -i sine=880:duration=2:sample_rate=44100 -i words.srt -i tags"
    " -map 0 -map 1 -map 2 -map_metadata 3 -c:v copy -c:a:0 copy -c:a:1 ac3 -c:s srt"
    " -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu -metadata:s:s:0 language=fra",
    "covered.mp4": "-i plain.mp4 -i cover.jpg -map 0 -map 1 -c copy -disposition:v:1 attached_pic",
    "hdr.mp4": f"{VIDEO} -vf format=yuv420p10le -c:v libx265 -x265-params {HDR}:log-level=error",
    "packed.avi": f"{VIDEO} -c:v mpeg4 -bf 2",
    "scenes.mp4": f"{SCENES} -c:v libx264 -pix_fmt yuv420p",
    "quick.mp4": "-i plain.mp4 -c copy -movflags +faststart",
    "sound.mp4": f"{SOUND} -c:a aac",
    "two.mp4": "-i plain.mp4 -i plain.mp4 -map 0:v -map 1:v -c copy",
}
TAGS = """;FFMETADATA1
title=Holiday
[CHAPTER]
TIMEBASE=1/1000
START=0
END=1000
title=The beach
"""


def ffmpeg(folder, words, *more):
    """Return what ffmpeg printed to stdout, and to stderr."""
    command = [FFMPEG, "-hide_banner", "-nostdin", "-y", *shlex.split(words), *more]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    (folder / "words.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nHello\n")
    (folder / "tags").write_text(TAGS)
    ffmpeg(folder, "-f lavfi -i testsrc2=size=64x64 -frames:v 1 cover.jpg")
    for name, words in CLIPS.items():
        _, told = ffmpeg(folder, f"-v error {words}", name)
        assert (folder / name).exists(), (name, told)
    whole = (folder / "quick.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("hello\n")
    (folder / "empty.mp4").write_text("")
    return folder


@pytest.fixture
def encode(clips, tmp_path, monkeypatch):
    """Play a job of film on a clip, as the plan's only object; return the job and its result."""

    def play(name, result="film.mp4", workers=3, **more):
        found = mu_s3.S3Object(name, (clips / name).stat().st_size, datetime.now(UTC))
        monkeypatch.setattr(mu_s3, "objects_below", lambda bucket, prefix: [found])
        monkeypatch.setattr(mu_s3, "readable_url", lambda *_: str(clips / name))
        given = {"bucket": "b", "prefix": "p", "out_prefix": "out/", "result": result}
        given |= {"ffmpeg": FFMPEG, "shortest_s": 0.2, **(more or LOSSLESS)}
        folder = tmp_path / f"{name}{result}"
        folder.mkdir()
        job = run(film, given, lambda actor: worker_in(folder / str(actor), tmp_path), workers)
        return job, tmp_path / "out" / result

    return play


def frames(path, *words):
    """Return the time of each frame in ms, from the first on, and the hash of its pixels."""
    told, _ = ffmpeg(
        path.parent,
        f"-v error -i {path} -map 0:V:0",
        *words,
        *shlex.split("-fps_mode passthrough -enc_time_base demux -f framehash -hash md5 -"),
    )
    (base,) = re.findall(r"#tb 0: (\d+/\d+)", told)
    rows = [line.split(",") for line in told.splitlines() if not line.startswith("#")]
    first = int(rows[0][2])
    return [(round(1000 * (int(row[2]) - first) * Fraction(base)), row[-1].strip()) for row in rows]


def tracks(path):
    return ffmpeg(path.parent, f"-i {path}")[1]


# ---------------------------------------------------------------- each frame, at its time


@pytest.mark.parametrize(
    ("clip", "result"),
    [
        ("plain.mp4", "film.mp4"),
        ("open.mp4", "film.mp4"),
        ("open265.mp4", "film.mkv"),
        ("varied.mp4", "film.mp4"),
        pytest.param("varied.mkv", "film.mkv", marks=pytest.mark.soak),
        ("odd444.mp4", "film.mp4"),
        ("turned.mp4", "film.mp4"),
        ("late.mp4", "film.mov"),
        ("edited.mp4", "film.mp4"),
        ("one.mp4", "film.mp4"),
        ("hidden.webm", "film.mov"),
        ("laced.mp4", "film.mp4"),
        ("covered.mp4", "film.mkv"),
    ],
)
def test_no_frame_is_lost_doubled_changed_or_late(encode, clips, clip, result):
    job, out = encode(clip, result)
    assert job.error is None
    assert frames(out) == frames(clips / clip)
    assert job.result["ssim"]["worst"] == 1
    assert job.result["audio_off_s"] < 0.01
    assert job.result["chunks"] == (1 if clip == "one.mp4" else 3)


def test_borders_move_to_scene_cuts(encode):
    job, _ = encode("scenes.mp4", scenes=True, **LOSSLESS)
    assert job.error is None
    first = [actor.finish.result["first"] / 12800 for actor in job.actors[2:-1]]
    assert first == [0, 0.88, 1.88]


def test_an_odd_size_becomes_even_only_for_codecs_that_need_it(encode, clips):
    job, out = encode("odd.webm")
    assert frames(out) == frames(clips / "odd.webm", "-vf", "crop=64:46:0:0")
    assert "65x47, is odd" in job.result["notes"][0]
    job, out = encode("odd.webm", "odd.webm", codec="vp9", quality=0, speed="8", args="-lossless 1")
    assert frames(out) == frames(clips / "odd.webm")


@pytest.mark.parametrize(
    "given",
    [
        {"codec": "h265", "kbit": 300, "passes": 2, "speed": "ultrafast"},
        {"codec": "vp9", "quality": 40, "passes": 2, "speed": "8", "measure": "vmaf"},
        {"codec": "av1", "quality": 40, "speed": "8", "args": "-aq-mode 0"},
        pytest.param(
            {"codec": "h264", "kbit": 300, "passes": 2, "speed": "veryfast"}, marks=pytest.mark.soak
        ),
    ],
)
def test_each_codec_has_one_pass_or_two(encode, clips, given):
    job, out = encode("varied.mp4", workers=3, **given)
    assert job.error is None
    assert [at for at, _ in frames(out)] == [at for at, _ in frames(clips / "varied.mp4")]
    assert f"Video: {'hevc' if given['codec'] == 'h265' else given['codec']}" in tracks(out)
    assert job.result["vmaf" if "measure" in given else "ssim"]["worst"] > 0.9
    assert out.read_bytes().index(b"moov") < out.read_bytes().index(b"mdat")


# ---------------------------------------------------------------- all else


@pytest.mark.parametrize("result", ["film.mp4", "film.mkv"])
def test_sounds_subtitles_chapters_and_tags_are_carried_over(encode, clips, result):
    _, out = encode("many.mkv", result)
    told = tracks(out)
    kinds = re.findall(r"Stream #0:\d.*?(\((?:eng|deu|fra)\))?: (Audio|Subtitle): (\w+)", told)
    words = "mov_text" if result == "film.mp4" else "subrip"
    assert kinds[:3] == [
        ("(eng)", "Audio", "aac"),
        ("(deu)", "Audio", "ac3"),
        ("(fra)", "Subtitle", words),
    ]
    assert "Holiday" in told
    assert "The beach" in told
    sounds = [
        ffmpeg(clips, f"-v error -i {path} -map 0:a:1 -f md5 -")[0]
        for path in (out, clips / "many.mkv")
    ]
    assert sounds[0] == sounds[1]


def test_sounds_are_encoded_anew_or_left_out_if_that_is_wanted(encode):
    job, out = encode("many.mkv", "film.webm", codec="vp9", speed="8", audio="opus")
    assert len(re.findall(r"Audio: opus", tracks(out))) == 2
    assert job.result["audio_off_s"] < 0.03
    job, out = encode("many.mkv", "b.mp4", **LOSSLESS, audio="none", subtitles="none")
    assert (job.error, "Audio" in tracks(out), "Subtitle:" in tracks(out)) == (None, False, False)


def test_a_picture_of_the_film_stays(encode):
    _, out = encode("covered.mp4")
    assert "(attached pic)" in tracks(out)


@pytest.mark.parametrize("codec", [pytest.param("h264", marks=pytest.mark.soak), "h265"])
def test_the_brightness_of_hdr_is_carried_over(encode, clips, codec):
    _, out = encode("hdr.mp4", workers=2, codec=codec, speed="ultrafast")
    assert "bt2020nc/bt2020/smpte2084" in tracks(out)
    shown = [
        re.findall(
            r"side data - ((?:Mastering|Content).*)",
            ffmpeg(clips, f"-i {path} -vf showinfo -frames:v 1 -f null -")[1],
        )
        for path in (out, clips / "hdr.mp4")
    ]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 2


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("clip", "more", "why"),
    [
        ("text.mp4", {}, "ffmpeg cannot read it as a film"),
        ("empty.mp4", {}, "ffmpeg cannot read it as a film"),
        ("sound.mp4", {}, "it has no video track"),
        ("two.mp4", {}, r"it has 2 video tracks \(0, 1\): keep one"),
        ("packed.avi", {}, "its frames have no timestamps"),
        ("cut.mp4", {}, r"it ends at [01]\.\d s, and should at 2\.0 s: it is not whole"),
        ("plain.mp4", {"filters": "fps=12"}, "could be encoded"),
        ("plain.mp4", {"args": "-profile:v nonsense"}, "encoding: ffmpeg ended with"),
        ("plain.mp4", {"ffmpeg": "/no/ffmpeg"}, "ffmpeg /no/ffmpeg: No such file"),
        ("many.mkv", {"result": "a.webm", "codec": "av1"}, r"\.webm cannot have all its tracks"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_a_sentence(encode, clip, more, why):
    job, out = encode(clip, **{**LOSSLESS, **more} if "codec" not in more else more)
    assert re.search(why, job.error or ""), job.error
    assert not out.exists()


def test_an_ffmpeg_that_crashes_is_blamed_and_not_the_film(encode, tmp_path):
    crashing = tmp_path / "ffmpeg"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    job, _ = encode("plain.mp4", ffmpeg=str(crashing))
    assert "ffmpeg was killed by signal 11 when it opened the film" in job.error


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"codec": "divx"}, "params.codec must be one of h264, h265, vp9, av1, got 'divx'"),
        ({"result": "film"}, "params.result must be a name that ends in .mp4"),
        ({"result": "a/film.mp4"}, "params.result must be a name"),
        ({"result": "a.webm"}, ".webm is for vp9 and av1, with opus, and cannot have h264"),
        ({"quality": 52}, "params.quality must be at most 51 for h264, got 52"),
        ({"quality": 30, "kbit": 1}, "either params.kbit or params.quality"),
        ({"passes": 2}, "two passes of h264 need params.kbit"),
        ({"speed": "9"}, "params.speed must be one of ultrafast"),
        ({"codec": "av1", "speed": "9"}, "params.speed must be one of 0, 1"),
        ({"args": "'"}, "params.args: No closing quotation"),
        ({"audio": "mp3"}, "params.audio must be one of copy, aac, opus, none"),
        ({"out_prefix": "/x"}, "must not begin with a slash"),
    ],
)
def test_orders_that_contradict_themselves_are_refused(given, why):
    known = {"bucket": "b", "prefix": "p", "out_prefix": "o/", **given}
    with pytest.raises(ValueError, match=re.escape(why)):
        film.check(Params(read_fields(film.parameters, known, "params"), workers=1))


@pytest.mark.parametrize("keys", [[], ["p/a.mp4", "p/b.mp4"]])
def test_there_must_be_one_film(monkeypatch, keys):
    found = [mu_s3.S3Object(key, 1, datetime.now(UTC)) for key in keys]
    monkeypatch.setattr(mu_s3, "objects_below", lambda bucket, prefix: found)
    known = {"bucket": "b", "prefix": "p", "out_prefix": "o/"}
    with pytest.raises(ValueError, match=f"one film must be below .*, and there are {len(keys)}"):
        film.plan(Params(read_fields(film.parameters, known, "params"), workers=1))


# ---------------------------------------------------------------- one order


def test_one_order_makes_a_film_of_a_film(clips, light_ffmpeg, tmp_path):
    mine = Machine(tmp_path)
    user = tmp_path / "user"
    (user / "ffmpeg").symlink_to(light_ffmpeg)
    (user / "holiday.mp4").write_bytes((clips / "plain.mp4").read_bytes())
    (command,) = re.findall(r"^    (mu launch film .*)", PAGE.read_text(), re.MULTILINE)
    words = [*shlex.split(command)[1:], "-n", "2", "-p", "shortest_s=0.5"]
    status, told, more = mine.mu(*words)
    assert status == 0, told + more
    small = user / "small.mp4"
    assert [at for at, _ in frames(small)] == [at for at, _ in frames(clips / "plain.mp4")]
    assert "Video: av1" in tracks(small)
    (job,) = mine.daemon.ask("/jobs")
    result = mine.daemon.ask(f"/jobs/{job['id']}")["result"]
    assert (result["frames"], result["chunks"]) == (50, 2)
    assert result["bytes"] == small.stat().st_size
    assert "signature" not in json.dumps(result).lower()
    mine.daemon.stop()
