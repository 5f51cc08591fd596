"""merge_mp4: join MP4 chunks to one file without encoding them again, in a tree of joins.

Each actor joins at most `fan_in` consecutive files with ffmpeg, and begins as soon as they are there:
first chunks, then what other actors have joined, until one file is left. Its index comes first, so
that it plays while it is being read.
"""

from collections.abc import Sequence

from mu.parameters import Parameter, Params
from mu.pipelines.making import BUCKET, OFFSET, at, fetch, made, step, store
from mu.pipelines.mapreduce import groups
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.plugins import ActorInput, Outcome, Pipeline, Staged
from mu.states import JobFacts, Script, ScriptWorker

JOIN = (
    "printf 'file %s\\n' {names} >{list} && ./ffmpeg -nostdin -v error -y -f concat -safe 0 -i {list}"
    " -map 0 -c copy -movflags +faststart {out}"
)


async def join(worker: ScriptWorker) -> dict[str, str]:
    """Join the actor's files; return the key of the result."""
    await fetch(worker)
    files = {"names": " ".join(worker.files), "list": at("list"), "out": at("out.mp4")}
    await step(worker, JOIN.format(**files))
    return await store(worker, "out.mp4")


class MergeMp4(Pipeline):
    name = "merge_mp4"
    description = "Join MP4 chunks <video>-<in_format>/%08d.mp4 to one file, without encoding."
    parameters = (
        Parameter("video", str, "the beginning of all keys", "sintel-1k"),
        BUCKET,
        Parameter("in_format", str, "the format part of the chunks' folder", "mp4_06"),
        Parameter("fan_in", int, "how many files an actor joins at most", 16, 2, 1000),
        OFFSET,
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video", "in_format")
        last = params.offset + params.workers
        check_last("params.offset", last)
        check_key("params.video", f"{_folder(params)}-merged/10-{last:08d}.mp4")

    def plan(self, params: Params) -> list[Staged]:
        chunks = range(params.offset, params.offset + params.workers)
        keys = [f"{_folder(params)}/{chunk:08d}.mp4" for chunk in chunks]
        waits: list[int] = []  # the actors that make the keys; none for the chunks
        planned: list[Staged] = []
        level = 1
        while True:
            parts = groups(range(len(keys)), params.fan_in)
            begun, last = len(planned), len(parts) == 1
            for number, part in enumerate(parts):
                out_key = f"{_folder(params)}-merged" + ("" if last else f"/{level}-{number:08d}")
                files = {f"{place:04d}.mp4": keys[one] for place, one in enumerate(part)}
                given: ActorInput = {"files": files, "out_key": f"{out_key}.mp4"}
                after = [waits[one] for one in part] if waits else ()
                planned.append(Staged(given, after, f"join {level}"))
            if last:
                return planned
            keys = [one.input["out_key"] for one in planned[begun:]]
            waits = list(range(begun, len(planned)))
            level += 1

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return join(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
        """Return the key of the whole film; the others are only on the way to it."""
        return {"keys": made(outcomes)["keys"][-1:]}


def _folder(params: Params) -> str:
    return f"{params.video}-{params.in_format}"


merge_mp4 = MergeMp4()
