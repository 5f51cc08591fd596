"""What the dump_ssim pipelines share: they decode what xcenc encoded, and compare it with the original.

An actor's report has, for each encoded file, the sizes of its frames (xc-framesize) and how similar
they are to the original ones (dump_ssim). The programs are alfalfa's xc-framesize and
xc-decode-bundle, and daala's dump_ssim; the function's bundle has them, or MU_XCENC_BIN names their
folder.
"""

from collections.abc import Sequence

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import y4m
from mu.pipelines.making import BUCKET, OFFSET, at, fetch, step, store
from mu.pipelines.templates import ShellTemplate
from mu.pipelines.texts import LAST_NUMBER, check_bucket, check_command, check_given, check_key
from mu.pipelines.texts import check_last as check_last_number
from mu.pipelines.xcenc import PROGRAMS, QUALITY_S, hashed
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker

COMPARED = ("decoded", "original")
VPX, XC, STATE = "vpx.ivf", "xc.ivf", "final.state"

COMPARE = Parameter(
    "compare",
    str,
    "a shell command that compares the Y4M files {decoded} and {original}; empty: dump_ssim",
    "",
)
QUALITY = (
    Parameter("quality", int, "the cq-level of xcenc's job", 30, 0, 63),
    QUALITY_S,
)
HASHED = Parameter("hash_s3keys", bool, "whether all keys begin with four digits of a hash", False)


def video(default: str) -> Parameter:
    return Parameter("video", str, "the folder of the chunks", default)


def distance(default: int) -> Parameter:
    text = "the keyframe distance of xcenc's job"
    if not default:
        text += "; 0: it had none, and the keys do not name it"
    return Parameter("keyframe_distance", int, text, default, int(default > 0), LAST_NUMBER)


def shared(default_video: str, default_distance: int) -> tuple[Parameter, ...]:
    """Return the parameters that all of them have."""
    return (
        video(default_video),
        BUCKET,
        distance(default_distance),
        *QUALITY,
        OFFSET,
        HASHED,
        COMPARE,
    )


def check_compare(params: Params) -> None:
    """Raise FieldError for a `compare` that cannot be a command."""
    if not params.compare:
        return
    try:
        ShellTemplate(params.compare, COMPARED, ())
    except ValueError as error:
        raise FieldError("params.compare", f"params.compare: {error}") from None
    check_command("params.compare", params.compare)


def check(params: Params, last: int) -> None:
    """Raise FieldError for invalid parameters; `last` is the last number in a key."""
    check_bucket(params)
    check_given(params, "video")
    check_compare(params)
    check_last_number("params.offset", last)
    key = report_key(params, last)
    check_key("params.video", hashed(key) if params.hash_s3keys else key)


def _folder(params: Params, kind: str) -> str:
    quality = f"{params.quality}_{params.quality_s}"
    if params.keyframe_distance:
        quality += f"_k{params.keyframe_distance}"
    return f"{params.video}/{kind}_{quality}"


def report_key(params: Params, number: int) -> str:
    return f"{_folder(params, 'out_ssim')}/{number:08d}.txt"


def files_of(params: Params, chunk: int, encoded: Sequence[str], state: bool) -> dict[str, str]:
    """Return the key of each file for a chunk; with `state`, also of the chunk before it."""
    keys = {
        "orig.y4m": f"{params.video}/{chunk:08d}.y4m",
        VPX: f"{_folder(params, 'first')}/{chunk:08d}.ivf",
        XC: f"{_folder(params, 'out')}/{chunk:08d}.ivf",
        STATE: f"{_folder(params, 'final_state')}/{chunk - 1:08d}.state",
    }
    wanted = ("orig.y4m", *encoded, *([STATE] if state else []))
    return {name: keys[name] for name in wanted}


def plan_chunks(params: Params, encoded: Sequence[str]) -> list[ActorInput]:
    """Return an actor for each chunk. Each but the first of its group needs a state.

    Without a keyframe distance, the whole video is one group.
    """
    planned: list[ActorInput] = []
    for actor in range(params.workers):
        chunk = actor + params.offset
        state = bool(actor % params.keyframe_distance if params.keyframe_distance else actor)
        planned.append(
            {
                "files": files_of(params, chunk, encoded, state),
                "with_state": [XC] if state else [],
                "out_key": report_key(params, chunk),
            }
        )
    return planned


def plan_halves(params: Params, encoded: Sequence[str]) -> list[ActorInput]:
    """Return two actors for each chunk, one for each half of its frames."""
    planned: list[ActorInput] = []
    for actor in range(2 * params.workers):
        place = actor // 2
        state = place % params.keyframe_distance > 0
        planned.append(
            {
                "files": files_of(params, place + params.offset, encoded, state),
                "with_state": list(encoded) if state else [],
                "half": actor % 2,
                "out_key": report_key(params, actor + 2 * params.offset),
            }
        )
    return planned


async def judge(worker: ScriptWorker, half_frames: int = 0) -> dict[str, str]:
    """Write and upload the report on a chunk, or on the actor's half of `half_frames` frames."""
    await fetch(worker, worker.job.params.hash_s3keys)
    original, decoded, report = at("orig.y4m"), at("out.y4m"), at("out.txt")
    if half_frames:
        await step(worker, y4m.half(original, worker.half, half_frames))
    for encoded in (VPX, XC):
        if encoded not in worker.files:
            continue
        state = f" {at(STATE)}" if encoded in worker.with_state else ""
        await step(worker, f"echo {at(encoded)} | {PROGRAMS}/xc-decode-bundle{state} >{decoded}")
        if half_frames:
            await step(worker, y4m.half(decoded, worker.half, half_frames))
        await step(worker, f"{PROGRAMS}/xc-framesize {at(encoded)} >>{report}")
        await step(worker, compare(worker, decoded, original, report))
    return await store(worker, "out.txt")


def compare(worker: ScriptWorker, decoded: str, original: str, report: str) -> str:
    """Return the command that appends how similar two files are to the report."""
    given = worker.job.params.compare
    if not given:
        return f"{PROGRAMS}/dump_ssim {decoded} {original} >>{report}"
    command = ShellTemplate(given, COMPARED, ()).fill({"decoded": decoded, "original": original})
    return f"{{ {command}\n}} >>{report}"


def reports(job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return the keys of all reports, in order."""
    name = hashed if job.params.hash_s3keys else str
    return {"keys": [name(outcome.result["key"]) for outcome in outcomes if not outcome.error]}


class Judging(Pipeline):
    """A pipeline that reports on the `encoded` files of each chunk."""

    encoded: tuple[str, ...] = (XC,)
    half_frames = 0
    """Frames in half a chunk, if two actors report on each; 0: one actor reports on it."""

    def check(self, params: Params) -> None:
        check(params, (params.offset + params.workers) * (2 if self.half_frames else 1))

    def plan(self, params: Params) -> list[ActorInput]:
        return (plan_halves if self.half_frames else plan_chunks)(params, self.encoded)

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return judge(worker, self.half_frames)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return reports(job, outcomes)
