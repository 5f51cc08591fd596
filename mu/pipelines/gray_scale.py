"""gray_scale: make PNG frames grey, as ffmpeg's filter hue=s=0 does.

The frames are those of ffmpeg_split_upload with `out_format` png: numbered from 1, without leading
zeros. Each actor converts `frames` of them with one ffmpeg, which is in the function's bundle.
"""

from collections.abc import Sequence

from mu.parameters import Parameter, Params
from mu.pipelines.making import BUCKET, OFFSET, at, fetch, step
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.pipelines.transfers import upload_all
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker

GREY = (
    "./ffmpeg -nostdin -v error -y -start_number {first} -i {frames} -vf hue=s=0"
    " -start_number {first} {out}"
)


async def make_grey(worker: ScriptWorker) -> dict[str, int]:
    """Convert the actor's frames; return the first number, and how many."""
    first, frames = worker.first, len(worker.files)
    await fetch(worker)
    await step(worker, GREY.format(first=first, frames=at("%d.png"), out=at("%d-gs.png")))
    numbers = range(first, first + frames)
    await upload_all(
        worker, {at(f"{number}-gs.png"): f"{worker.out_key}{number}-gs.png" for number in numbers}
    )
    return {"first": first, "frames": frames}


class GrayScale(Pipeline):
    name = "gray_scale"
    description = "Make PNG frames <video>-<in_format>-png-split/%d.png grey with ffmpeg."
    parameters = (
        Parameter("video", str, "the beginning of all keys", "sintel-1k"),
        BUCKET,
        Parameter("in_format", str, "the format part of the keys: the video's own", "mp4"),
        Parameter("frames", int, "frames per actor", 6, minimum=1, maximum=10_000),
        OFFSET,
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video", "in_format")
        last = (params.offset + params.workers) * params.frames
        check_last("params.offset", last)
        check_key("params.video", f"{_folder(params)}-gs/{last}-gs.png")

    def plan(self, params: Params) -> list[ActorInput]:
        planned: list[ActorInput] = []
        for chunk in range(params.offset, params.offset + params.workers):
            first = 1 + params.frames * chunk
            names = [f"{number}.png" for number in range(first, first + params.frames)]
            files = {name: f"{_folder(params)}/{name}" for name in names}
            planned.append({"files": files, "first": first, "out_key": f"{_folder(params)}-gs/"})
        return planned

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return make_grey(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        frames = sum(outcome.result["frames"] for outcome in outcomes if not outcome.error)
        return {"folder": f"{_folder(job.params)}-gs", "frames": frames}


def _folder(params: Params) -> str:
    return f"{params.video}-{params.in_format}-png-split"


gray_scale = GrayScale()
