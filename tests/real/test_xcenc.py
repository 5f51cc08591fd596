"""xcenc and xcenc7: on real workers, the same bytes as the recipe makes, one step after the other."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from clip import get_clip
from imageio_ffmpeg import get_ffmpeg_exe
from kit.encoders.recipe import STAND_IN, XC_ENC, Machine, V, chunk, recipe, recipe7
from kit.encoders.stand_in import PROGRAMS
from kit.relay import SmallRelay
from kit.small_job import SmallJob
from stage import StageError

from mu.parameters import Params, read_fields
from mu.pipelines.xcenc import hashed, xcenc
from mu.pipelines.xcenc7 import xcenc7
from mu.testing import FakeWorker, run


@pytest.fixture(scope="module")
def s3(s3_files):
    return s3_files


@pytest.fixture
def bundle(tmp_path):
    """A folder with the stand-ins."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in PROGRAMS:
        shutil.copy(STAND_IN, folder / name)
    return folder


@pytest.fixture
def job(s3, bundle):
    relays = []

    def run_job(pipeline, params, workers, extended=True, **more):
        relays.append(SmallRelay(extended))
        given, event = {"bucket": "things", **params}, more.pop("event", s3.event)
        return SmallJob(bundle, pipeline, given, workers, event, relays[-1], **more)

    yield run_job
    for relay in relays:
        relay.close()


def put(s3, key: str, content: bytes) -> None:
    path = s3.folder / "things" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def get(s3, key: str) -> bytes:
    return (s3.folder / "things" / key).read_bytes()


# ---------------------------------------------------------------- with stand-ins


def test_xcenc_makes_what_the_recipe_makes_over_an_original_relay(job, s3, bundle, tmp_path):
    chunks, distance = list(range(2, 6)), 3
    machine = Machine(tmp_path, bundle)
    for number in chunks:
        put(s3, f"v{distance}/{number:08d}.y4m", chunk(number))
        machine.put(number, chunk(number))
    recipe(machine, chunks, distance)
    params = {"video": f"v{distance}", "keyframe_distance": distance, "offset": 2}
    params |= {"upload_states": True}
    done = job(xcenc, params, 4, extended=False)
    assert done.errors == [None] * 4
    keys = [f"v{distance}/out_30_x_k{distance}/{number:08d}.ivf" for number in chunks]
    assert done.result == {"keys": keys}
    kinds = {"out": "output.ivf", "first": "first.ivf", "final_state": "final.state"}
    for at, number in enumerate(chunks):
        wanted = kinds | ({"prev_state": "prev.state"} if at % distance else {})
        for kind, file in wanted.items():
            key = f"v{distance}/{kind}_30_x_k{distance}/{number:08d}.{file.rpartition('.')[2]}"
            assert get(s3, key) == machine.read(number, file), key
        if at % distance:
            key = f"v{distance}/comp_txt_30_x_k{distance}/{number:08d}.txt"
            assert get(s3, key) == b"different\n"


def test_xcenc7_makes_what_the_recipe_makes_over_an_original_relay(job, s3, bundle, tmp_path):
    chunks, distance = list(range(4)), 3
    machine = Machine(tmp_path, bundle)
    for number in chunks:
        overlap = number % distance > 0
        folder = "w_07" if overlap else "w_06"
        put(s3, f"{folder}/{number:08d}.y4m", chunk(number, overlap))
        machine.put(number, chunk(number, overlap))
    recipe7(machine, chunks, distance)
    params = {"video": "w", "keyframe_distance": distance, "upload_states": True}
    done = job(xcenc7, params, 4, extended=False)
    assert done.errors == [None] * 4
    assert done.result["keys"][3] == f"w_06/out_30_x_k{distance}/00000003.ivf"
    for number in chunks:
        assert get(s3, done.result["keys"][number]) == machine.read(number, "output.ivf")
        state = f"w_06/final_state_30_x_k{distance}/{number:08d}.state"
        assert get(s3, state) == machine.read(number, "final.state")


def test_xcenc7_refuses_a_chunk_without_the_frame_in_front(job, s3):
    put(s3, "short_06/00000000.y4m", chunk(0))
    put(s3, "short_07/00000001.y4m", chunk(1))
    put(s3, "short_07/00000002.y4m", chunk(2, overlap=True))
    done = job(xcenc7, {"video": "short", "keyframe_distance": 3}, 3)
    (error,) = (one for one in done.errors if one and one != "another one failed")
    assert error.endswith(": short_07/00000001.y4m must have 7 frames, got 6")


def test_the_second_quality_is_in_the_keys_and_given_to_the_passes_after_the_first(job, s3):
    for number in range(2):
        put(s3, f"second/{number:08d}.y4m", chunk(number))
    sent = set()
    params = {"video": "second", "keyframe_distance": 2, "quality_s": "40"}
    done = job(xcenc, params, 2, watch=lambda actor: sent.update(actor.commands))
    assert done.errors == [None] * 2
    assert done.result["keys"][1] == "second/out_30_40_k2/00000001.ivf"
    passes = [line for line in sent if line.startswith("run:##INSTATEWAIT##")]
    assert ["--s-ac-qi 40 -w" in line for line in passes] == [True]


def test_a_worker_that_dies_in_the_last_pass_is_replaced(job, s3, bundle, tmp_path):
    chunks = list(range(4))
    machine = Machine(tmp_path, bundle)
    for number in chunks:
        put(s3, f"d/{number:08d}.y4m", chunk(number))
        machine.put(number, chunk(number))
    recipe(machine, chunks, 4)
    killed = []

    def kill(actor):
        if actor.attempt == 1 and actor.number in (1, 2) and "seti:run_iter:2" in actor.commands:
            killed.append(actor.number)
            actor.begin_anew()

    done = job(xcenc, {"video": "d", "keyframe_distance": 4}, 4, watch=kill)
    assert killed == [2]
    assert done.errors == [None] * 4
    for number, key in enumerate(done.result["keys"]):
        assert get(s3, key) == machine.read(number, "output.ivf")


def test_hashed_keys_are_read_and_written(job, s3):
    put(s3, hashed("h/00000000.y4m"), chunk(0))
    done = job(xcenc, {"video": "h", "keyframe_distance": 1, "hash_s3keys": True}, 1)
    assert done.errors == [None]
    (key,) = done.result["keys"]
    assert key == hashed("h/out_30_x_k1/00000000.ivf")
    assert b'"key"' in get(s3, key)


def test_a_missing_program_is_named(job, s3, bundle):
    (bundle / "xc-dump").unlink()
    put(s3, "m/00000000.y4m", chunk(0))
    (error,) = job(xcenc, {"video": "m", "keyframe_distance": 2}, 1).errors
    assert error.endswith("not found in the function: ./xc-dump")


def test_the_stand_in_refuses_the_state_of_another_chunk(bundle, tmp_path):
    machine = Machine(tmp_path, bundle)
    for number in range(3):
        machine.put(number, chunk(number))
        machine(number, f"{V} -o prev.ivf input.y4m", "xc-dump prev.ivf final.state")
    machine(1, f"{XC_ENC} -I ../chunk0/final.state -p prev.ivf input.y4m")
    for wrong in ("../chunk0/final.state", "final.state", "../chunk1/final.state", "none"):
        with pytest.raises(subprocess.CalledProcessError):
            machine(2, f"{XC_ENC} -I {wrong} -p prev.ivf input.y4m")


# ---------------------------------------------------------------- without a worker


def plan(pipeline, workers, **given):
    return pipeline.plan(Params(read_fields(pipeline.parameters, given), workers=workers))


def test_keys_are_the_originals():
    one, two = plan(xcenc, 2, keyframe_distance=16, offset=3, upload_states=True)
    assert one == {
        "in_key": "sintel-1k-y4m_06/00000003.y4m",
        "keys": {
            "out": "sintel-1k-y4m_06/out_30_x_k16/00000003.ivf",
            "first": "sintel-1k-y4m_06/first_30_x_k16/00000003.ivf",
            "final_state": "sintel-1k-y4m_06/final_state_30_x_k16/00000003.state",
        },
    }
    assert two["keys"]["prev_state"] == "sintel-1k-y4m_06/prev_state_30_x_k16/00000004.state"
    assert two["keys"]["comp_txt"] == "sintel-1k-y4m_06/comp_txt_30_x_k16/00000004.txt"
    assert plan(xcenc7, 2, quality=20)[1] == {
        "in_key": "sintel-1k-y4m_07/00000001.y4m",
        "keys": {"out": "sintel-1k-y4m_06/out_20_x_k16/00000001.ivf"},
    }


def test_actors_are_dealt_over_the_groups_and_never_run_twice_at_once():
    assert [one.may_run_twice for one in (xcenc, xcenc7)] == [False, False]
    assert xcenc.order(Params(keyframe_distance=5), 8) == [0, 5, 1, 6, 2, 7, 3, 4]
    assert xcenc7.order(Params(keyframe_distance=5), 8) == [0, 5, 1, 6, 2, 7, 3, 4]


def switches(pipeline, **given):
    """Return, by actor, the iterations and whether each one's state is sent."""
    played = run(pipeline, given, lambda _: FakeWorker(), workers=6)
    assert not [actor for actor in played.actors if actor.finish.error]
    return [
        [
            f"{command[14:]}{'>' if following.endswith('1') else ''}"
            for command, following in zip(actor.commands, actor.commands[1:], strict=False)
            if command.startswith("seti:run_iter:")
        ]
        for actor in played.actors
    ]


def test_who_sends_what_in_which_pass():
    assert switches(xcenc, keyframe_distance=4) == [
        ["0>"],
        ["0>", "1>"],
        ["0>", "1", "2>"],
        ["0", "1", "3"],
        ["0>"],
        ["0", "1"],
    ]
    assert switches(xcenc7, keyframe_distance=4) == [["0>"], ["1>"], ["2>"], ["3"], ["0>"], ["1"]]


@pytest.mark.parametrize("pipeline", [xcenc, xcenc7])
def test_with_key_frames_everywhere_there_is_no_relay_and_no_state(pipeline):
    (actor,) = run(pipeline, {"keyframe_distance": 1}).actors
    assert not [one for one in actor.commands if one.startswith("connect:") or "xc-" in one]


# ---------------------------------------------------------------- with the real programs

ENCODER = os.environ.get("MU_XCENC_BIN", "")
CACHE = Path(__file__).parents[2] / ".demo"


def folder_of(program: str) -> str:
    """Return where a program of the encoder's is; skip where it is not installed."""
    found = shutil.which(program, path=f"{ENCODER}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{program} is neither in MU_XCENC_BIN nor installed (Debian: vpx-tools)")
    return str(Path(found).parent)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """18 real frames, as three chunks of six; the later two also with a frame before."""
    try:
        clip = get_clip(CACHE)
    except StageError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("film")
    line = [get_ffmpeg_exe(), "-v", "error", "-i", str(clip), "-vf", "scale=176:144", "-an"]
    subprocess.run([*line, "-frames:v", "18", "film.y4m"], cwd=folder, check=True)
    y4m = (folder / "film.y4m").read_bytes()
    header, _, frames = y4m.partition(b"\n")
    size = len(frames) // 18
    return {
        length: [
            header + b"\n" + frames[max(0, 6 * at + 6 - length) * size : (6 * at + 6) * size]
            for at in range(3)
        ]
        for length in (6, 7)
    }


def joined(parts: list[bytes]) -> tuple[bytes, list[bool]]:
    """Return IVF files as one, and of each frame whether it is a key frame."""
    frames = []
    for part in parts:
        at = 32
        while at < len(part):
            size = int.from_bytes(part[at : at + 4], "little")
            frames.append(part[at + 12 : at + 12 + size])
            at += 12 + size
    whole = bytearray(parts[0][:32])
    whole[24:28] = len(frames).to_bytes(4, "little")
    for number, frame in enumerate(frames):
        whole += len(frame).to_bytes(4, "little") + number.to_bytes(8, "little") + frame
    return bytes(whole), [not frame[0] & 1 for frame in frames]


def pictures(ivf: bytes, folder: Path) -> int:
    """Return how many pictures ffmpeg decodes."""
    (folder / "joined.ivf").write_bytes(ivf)
    line = [get_ffmpeg_exe(), "-v", "error", "-i", "joined.ivf", "-f", "framemd5", "-"]
    done = subprocess.run(line, cwd=folder, check=True, capture_output=True, text=True)
    assert not done.stderr
    return sum(not row.startswith("#") for row in done.stdout.splitlines())


def real_job(job, s3, pipeline, programs: str, **params) -> list[bytes]:
    """Run a job on the film with real programs; return its outputs."""
    event = {**s3.event, "env": {**s3.event["env"], "MU_XCENC_BIN": programs}}
    if "LD_LIBRARY_PATH" in os.environ:
        event["env"]["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    done = job(pipeline, {**params}, 3, event=event)
    assert done.errors == [None] * 3
    return [get(s3, key) for key in done.result["keys"]]


def test_with_the_real_vpxenc_and_key_frames_everywhere(job, s3, film, tmp_path):
    programs = folder_of("vpxenc")
    for number, content in enumerate(film[6]):
        put(s3, f"real/{number:08d}.y4m", content)
    outputs = real_job(job, s3, xcenc, programs, video="real", keyframe_distance=1)
    (tmp_path / "in.y4m").write_bytes(film[6][2])
    subprocess.run(f"{programs}/{V} -o out.ivf in.y4m", shell=True, check=True, cwd=tmp_path)
    assert outputs[2] == (tmp_path / "out.ivf").read_bytes()
    whole, keys = joined(outputs)
    assert sum(keys) == 3
    assert pictures(whole, tmp_path) == 18


@pytest.mark.parametrize("pipeline", [xcenc, xcenc7])
def test_with_the_real_encoder_one_key_frame_is_enough(job, s3, film, tmp_path, pipeline):
    programs = folder_of("xc-enc")
    for number in range(3):
        put(s3, f"real_06/{number:08d}.y4m", film[6][number])
        put(s3, f"real_07/{number:08d}.y4m", film[7][number])
    video = "real_06" if pipeline is xcenc else "real"
    outputs = real_job(job, s3, pipeline, programs, video=video, keyframe_distance=3)
    whole, keys = joined(outputs)
    assert keys[0]
    assert sum(keys) == 1
    assert pictures(whole, tmp_path) == 18
