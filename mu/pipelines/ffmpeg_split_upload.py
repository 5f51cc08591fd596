"""ffmpeg_split_upload: as ffmpeg_split, and what ffmpeg writes is uploaded, a chunk an actor.

Chunks of frames as Y4M have the keys of png2y4m's: <video>-y4m_06/%08d.y4m.
"""

import re
from collections.abc import Sequence
from typing import Any

from mu.events import Finish
from mu.parameters import FieldError, Parameter, Params
from mu.pipelines.ffmpeg_split import HELP, PARAMETERS, PLAIN, check, plan_chunks, run_on_chunk
from mu.plugins import Pipeline
from mu.states import ScriptWorker
from mu.states.context import JobFacts

CUT = (
    "./ffmpeg -nostdin -v error -y -abort_on empty_output"  # past the end of the video
    " -ss {start} -t {seconds} -i {url} {out}"
)


async def cut(worker: ScriptWorker) -> dict[str, Any]:
    """Cut the chunk out and upload it; return its key."""
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
    description = "Cut one video into chunks with ffmpeg, read over HTTP, and upload them."
    parameters = (
        *PARAMETERS,
        Parameter(
            "out_format",
            str,
            "chunks go to <video>-<out_format>_<frames>/%08d.<out_format>, or, where their length"
            " is in seconds, to <video>-<out_format>_<seconds>s/",
            "y4m",
        ),
        Parameter("command", str, f"{HELP}; {{out}} is the file it writes", CUT),
    )

    def check(self, params: Params) -> None:
        """Raise FieldError for what cannot be meant; looks at nothing but the parameters."""
        check(params, (*PLAIN, "out"))
        if not re.fullmatch(r"\w{1,16}", params.out_format, re.ASCII):
            raise FieldError(
                "params.out_format",
                f"params.out_format must be letters and digits; {params.out_format!r} came",
            )

    def plan(self, params: Params) -> list[dict[str, Any]]:
        self.check(params)
        length = f"{params.seconds:g}s" if params.seconds else f"{params.frames:02d}"
        folder = f"{params.video}-{params.out_format}_{length}"
        return [
            {**given, "out_key": f"{folder}/{given['chunk']:08d}.{params.out_format}"}
            for given in plan_chunks(params)
        ]

    def begin(self, worker: ScriptWorker) -> Any:
        return cut(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
        return {"keys": [outcome.result["key"] for outcome in outcomes if not outcome.error]}


ffmpeg_split_upload = FfmpegSplitUpload()
