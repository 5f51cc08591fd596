"""ffmpeg_split_upload: like ffmpeg_split, but each actor uploads the file that ffmpeg writes.

Y4M chunks of a number of frames get the same keys as those of png2y4m: <video>-y4m_06/%08d.y4m. With
`out_format` png, a chunk becomes single frames, numbered as in the whole video.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines.ffmpeg_split import (
    HELP,
    PARAMETERS,
    TRUSTED,
    check,
    chunk_length,
    plan_chunks,
    read_rate,
    rerun_chunks,
    run_on_chunk,
)
from mu.pipelines.mending import may_mend
from mu.pipelines.texts import check_key, check_last
from mu.pipelines.transfers import upload_all
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import ActorFailed, JobFacts, Script, ScriptWorker

PNG = "png"

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


def frames_folder(params: Params) -> str:
    return f"{params.video}-{params.in_format}-png-split"


def frames_of(params: Params) -> int:
    """Return how many frames a chunk has. Raises FieldError unless that is a whole number."""
    frames = read_rate(params.rate) * chunk_length(params)
    if frames.denominator > 1:
        raise FieldError(
            "params.seconds",
            f"params.seconds makes chunks of {float(frames):g} frames at {params.rate} per second: it"
            " must be a whole number",
        )
    return int(frames)


def with_length(params: Params) -> Params:
    """Return the parameters, `seconds` and `workers` set so that the chunks are of whole seconds.

    They cover `length` seconds: with more workers than seconds, there are fewer chunks.
    """
    if not params.length:
        return params
    seconds = math.ceil(params.length / params.workers)
    workers = math.ceil(params.length / seconds)
    return Params({**params, "seconds": float(seconds), "workers": workers})


async def cut_frames(worker: ScriptWorker) -> dict[str, object]:
    """Cut out the chunk as PNG frames and upload them; return the first number, and how many."""
    params = worker.job.params
    await worker.seti("nonblock", 0)
    await worker.set("bucket", params.bucket)
    await worker.run("rm -rf ##TMPDIR##; mkdir -p ##TMPDIR##/png")
    await run_on_chunk(worker, out="##TMPDIR##/png/%d.png")
    counted = await worker.run("ls ##TMPDIR##/png | wc -l", quiet=True)
    frames = int(counted.output)
    if not 0 < frames <= worker.frames:  # their numbers would be those of the next chunk
        raise ActorFailed(
            f"chunk {worker.chunk} must have 1 to {worker.frames} frames, got {frames}: is it past the"
            " end, or the rate another one?"
        )
    await upload_all(
        worker,
        {
            f"##TMPDIR##/png/{number}.png": f"{worker.out_key}{worker.first + number - 1}.png"
            for number in range(1, frames + 1)
        },
    )
    return {"first": worker.first, "frames": frames}


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
            " length is in seconds, to <video>-<out_format>_<seconds>s/; png: single frames, to"
            " <video>-<in_format>-png-split/%d.png",
            "y4m",
        ),
        Parameter(
            "length",
            float,
            "in place of seconds and frames, the length of the video in seconds, to cut it for"
            " `workers` into chunks of whole seconds",
            0.0,
            0.0,
            1e6,
        ),
        Parameter("command", str, f"{HELP}; {{out}} is the file to write", CUT),
    )

    def check(self, params: Params) -> None:
        if params.length and (params.seconds or params.frames):
            raise FieldError(
                "params.length", "give only one of params.length, params.seconds and params.frames"
            )
        params = with_length(params)
        check(params, (*TRUSTED, "out"))
        if not re.fullmatch(r"\w{1,16}", params.out_format, re.ASCII):
            raise FieldError(
                "params.out_format",
                f"params.out_format must be 1 to 16 letters or digits, got {params.out_format!r}",
            )
        last = params.offset + params.workers
        if params.out_format == PNG:
            last *= frames_of(params)
            check_key("params.video", f"{frames_folder(params)}/{last}.png")
        else:
            check_key("params.video", out_key(params, last))
        check_last("params.offset", last)

    def plan(self, params: Params) -> list[ActorInput]:
        self.check(params)
        params = with_length(params)
        planned = plan_chunks(params)
        if params.out_format != PNG:
            return [{**given, "out_key": out_key(params, given["chunk"])} for given in planned]
        more = {"frames": frames_of(params), "out_key": f"{frames_folder(params)}/"}
        return [{**one, **more, "first": 1 + more["frames"] * one["chunk"]} for one in planned]

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        return rerun_chunks(params, outcomes)

    def begin(self, worker: ScriptWorker) -> Script:
        return cut_frames(worker) if worker.job.params.out_format == PNG else cut(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        if job.params.out_format == PNG:
            frames = sum(outcome.result["frames"] for outcome in outcomes if not outcome.error)
            return {"folder": frames_folder(job.params), "frames": frames}
        return {"keys": [outcome.result["key"] for outcome in outcomes if not outcome.error]}


ffmpeg_split_upload = FfmpegSplitUpload()
