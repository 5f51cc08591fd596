"""ffmpeg_split_upload: like ffmpeg_split, but each actor uploads the file that ffmpeg writes.

Y4M chunks of a number of frames get the same keys as those of png2y4m: <video>-y4m_06/%08d.y4m.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines.ffmpeg_split import (
    HELP,
    PARAMETERS,
    TRUSTED,
    check,
    plan_chunks,
    rerun_chunks,
    run_on_chunk,
)
from mu.pipelines.mending import may_mend
from mu.pipelines.texts import check_key, check_last
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker

CUT = (
    "./ffmpeg -nostdin -v error -y -abort_on empty_output"  # beyond the end of the video
    " -ss {start} -t {seconds} -i {url} {out}"
)


def out_key(params: Params, chunk: int) -> str:
    """Return the key of a chunk. Different lengths have different keys."""
    length = f"{params.frames:02d}"
    if params.seconds:
        length = f"{Decimal(str(params.seconds)):f}s"
        length = length.removesuffix(".0s").removesuffix("s") + "s"
    folder = f"{params.video}-{params.out_format}_{length}"
    return f"{folder}/{chunk:08d}.{params.out_format}"


async def cut(worker: ScriptWorker) -> dict[str, object]:
    """Cut out the chunk and upload it; return its key."""
    params = worker.job.params
    await worker.seti("nonblock", 0)
    await worker.set("bucket", params.bucket)
    await worker.run("rm -rf ##TMPDIR##; mkdir -p ##TMPDIR##")
    out = f"##TMPDIR##/out.{params.out_format}"
    await run_on_chunk(worker, out=out)
    await worker.run(
        f"test -s {out} || {{ echo nothing was written: is it past the end?; exit 1; }}"
    )
    await worker.upload(worker.out_key, out)
    return {"key": worker.out_key}


class FfmpegSplitUpload(Pipeline):
    name = "ffmpeg_split_upload"
    may_mend = staticmethod(may_mend)
    description = "Cut one video into chunks with ffmpeg, read over HTTP, and upload them."
    parameters = (
        *PARAMETERS,
        Parameter(
            "out_format",
            str,
            "chunks are written to <video>-<out_format>_<frames>/%08d.<out_format>, or, if their"
            " length is in seconds, to <video>-<out_format>_<seconds>s/",
            "y4m",
        ),
        Parameter("command", str, f"{HELP}; {{out}} is the file to write", CUT),
    )

    def check(self, params: Params) -> None:
        check(params, (*TRUSTED, "out"))
        if not re.fullmatch(r"\w{1,16}", params.out_format, re.ASCII):
            raise FieldError(
                "params.out_format",
                f"params.out_format must be 1 to 16 letters or digits, got {params.out_format!r}",
            )
        last = params.offset + params.workers
        check_last("params.offset", last)
        check_key("params.video", out_key(params, last))

    def plan(self, params: Params) -> list[ActorInput]:
        self.check(params)
        return [
            {**given, "out_key": out_key(params, given["chunk"])} for given in plan_chunks(params)
        ]

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        return rerun_chunks(params, outcomes)

    def begin(self, worker: ScriptWorker) -> Script:
        return cut(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return {"keys": [outcome.result["key"] for outcome in outcomes if not outcome.error]}


ffmpeg_split_upload = FfmpegSplitUpload()
