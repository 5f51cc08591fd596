"""mk7frames: put the last frame of the chunk before in front of each chunk, for xcenc7.

Actors make <video>-y4m_07/%08d.y4m of <video>-y4m_06/%08d.y4m, from chunk 1 on: chunk 0 has no
frame before it, and xcenc7 needs none.
"""

from collections.abc import Sequence

from mu.parameters import Parameter, Params
from mu.pipelines import y4m
from mu.pipelines.making import BUCKET, at, fetch, made, step, store
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker


async def put_in_front(worker: ScriptWorker) -> dict[str, str]:
    await fetch(worker)
    await step(worker, y4m.with_frame_before(at("before.y4m"), at("in.y4m"), at("out.y4m")))
    return await store(worker, "out.y4m")


def folder(params: Params, more: int = 0) -> str:
    return f"{params.video}-y4m_{params.frames + more:02d}"


class Mk7Frames(Pipeline):
    name = "mk7frames"
    description = "Put the last frame of the chunk before in front of each Y4M chunk, for xcenc7."
    parameters = (
        Parameter("video", str, "the beginning of all keys", "sintel-1k"),
        BUCKET,
        Parameter("frames", int, "frames per chunk, without the one in front", 6, 1, 98),
        Parameter("offset", int, "the number of the first chunk to make", 1, minimum=1),
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video")
        last = params.offset + params.workers
        check_last("params.offset", last)
        check_key("params.video", f"{folder(params, 1)}/{last:08d}.y4m")

    def plan(self, params: Params) -> list[ActorInput]:
        return [
            {
                "files": {
                    "before.y4m": f"{folder(params)}/{chunk - 1:08d}.y4m",
                    "in.y4m": f"{folder(params)}/{chunk:08d}.y4m",
                },
                "out_key": f"{folder(params, 1)}/{chunk:08d}.y4m",
            }
            for chunk in range(params.offset, params.offset + params.workers)
        ]

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["files"]["in.y4m"]]

    def begin(self, worker: ScriptWorker) -> Script:
        return put_in_front(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
        return made(outcomes)


mk7frames = Mk7Frames()
