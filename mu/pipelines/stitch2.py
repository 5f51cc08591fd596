"""stitch2: join the Y4M chunks 2k and 2k + 1, of `frames` each, to chunk k of twice as many."""

from collections.abc import Sequence

from mu.parameters import Parameter, Params
from mu.pipelines import y4m
from mu.pipelines.making import BUCKET, OFFSET, at, fetch, made, step, store
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker


async def stitch(worker: ScriptWorker) -> dict[str, str]:
    await fetch(worker)
    await step(worker, y4m.joined(at("first.y4m"), at("second.y4m"), at("out.y4m")))
    return await store(worker, "out.y4m")


class Stitch2(Pipeline):
    name = "stitch2"
    description = "Join each two Y4M chunks <video>-y4m_<frames>/%08d.y4m to one."
    parameters = (
        Parameter("video", str, "the beginning of all keys", "sintel-1k"),
        BUCKET,
        Parameter("frames", int, "frames per chunk, before they are joined", 6, 1, 5000),
        OFFSET,
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video")
        last = 2 * (params.offset + params.workers)
        check_last("params.offset", last)
        check_key("params.video", f"{params.video}-y4m_{2 * params.frames:02d}/{last:08d}.y4m")

    def plan(self, params: Params) -> list[ActorInput]:
        folder = f"{params.video}-y4m_{params.frames:02d}"
        return [
            {
                "files": {
                    "first.y4m": f"{folder}/{2 * chunk:08d}.y4m",
                    "second.y4m": f"{folder}/{2 * chunk + 1:08d}.y4m",
                },
                "out_key": f"{params.video}-y4m_{2 * params.frames:02d}/{chunk:08d}.y4m",
            }
            for chunk in range(params.offset, params.offset + params.workers)
        ]

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return stitch(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
        return made(outcomes)


stitch2 = Stitch2()
