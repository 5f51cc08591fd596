"""ffmpeg_split: each actor looks at its part of one video, which it reads over HTTP.

Nothing is downloaded first: a program like ffmpeg seeks in the object itself, with a URL that
`plan` signs. What the program prints is the actor's result. ffmpeg_split_upload keeps what it
writes, too.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from mu.events import Finish
from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import s3
from mu.pipelines.templates import ShellTemplate
from mu.plugins import Pipeline
from mu.states import CommandFailed, ScriptWorker
from mu.states.context import JobFacts
from mu.states.script import Ran

PLAIN = ("start", "seconds", "actor")
STRANGE = ("url",)

PARAMETERS = (
    Parameter("video", str, "the object is <video>.<in_format>", "sintel-1k"),
    Parameter("bucket", str, "the S3 bucket that holds the video", "excamera-us-east-1"),
    Parameter("in_format", str, "the last part of the object's key", "mp4"),
    Parameter("frames", int, "frames in a chunk; needs rate", 0, minimum=0),
    Parameter("rate", str, "the video's frames per second, say 25 or 30000/1001", ""),
    Parameter("seconds", float, "the length of a chunk, in place of frames", 0.0, minimum=0.0),
    Parameter("offset", int, "chunks to leave out at the beginning", 0, minimum=0),
    Parameter("expires_s", int, "how long the signed URL can be used", 3600, 60, 604_800),
)

HELP = "a shell command; {url} is the video, {start} and {seconds} the chunk, {actor} a number"
LOOK = "./ffmpeg -nostdin -ss {start} -t {seconds} -i {url} -f null - 2>&1"


# ---------------------------------------------------------------- which part of the video


def check(params: Params, plain: Sequence[str]) -> None:
    """Raise FieldError for what cannot be meant; `plain` are the command's placeholders."""
    try:
        ShellTemplate(params.command, plain, STRANGE)
    except ValueError as error:
        raise FieldError("params.command", f"params.command: {error}") from None
    if bool(params.frames) == bool(params.seconds):
        raise FieldError(
            "params.frames", "params.frames or params.seconds must say how long a chunk is"
        )
    if params.frames:
        read_rate(params.rate)


def read_rate(rate: str) -> Fraction:
    """Return frames per second. Raises FieldError."""
    form = re.fullmatch(r"(\d{1,9})(?:/(\d{1,9})|\.(\d{1,9}))?", rate, re.ASCII)
    if form is None or Fraction(form[1]) == 0 or (form[2] and int(form[2]) == 0):
        raise FieldError(
            "params.rate",
            "params.rate must be the video's frames per second, say 25 or 30000/1001;"
            f" {rate!r} came",
        )
    return Fraction(rate)


def chunk(params: Params, number: int) -> dict[str, str]:
    """Return where a chunk begins and how long it is, in seconds, with as many digits as count.

    Chunks of frames begin and end a tenth of a frame early, where no container's rounding matters.
    """
    if params.seconds:
        length = Fraction(str(params.seconds))
        start, end = number * length, (number + 1) * length
    else:
        rate, early = read_rate(params.rate), Fraction(1, 10)
        first, last = number * params.frames, (number + 1) * params.frames
        start, end = max(first - early, Fraction(0)) / rate, (last - early) / rate
    return {"start": _decimal(start), "seconds": _decimal(end - start)}


def _decimal(seconds: Fraction) -> str:
    return f"{float(seconds):.6f}"


def plan_chunks(params: Params) -> list[dict[str, Any]]:
    """Return each actor's chunk, and the URL. Raises S3Error where there is no such video."""
    key = f"{params.video}.{params.in_format}"
    url = s3.readable_url(params.bucket, key, params.expires_s)
    numbers = range(params.offset, params.offset + params.workers)
    return [{"url": url, "chunk": number, **chunk(params, number)} for number in numbers]


# ---------------------------------------------------------------- an actor


class ChunkFailed(CommandFailed):
    """The program exited with another status than 0. The URL, with its signature, is not told."""

    def __init__(self, chunk: int, ran: Ran) -> None:
        said = ran.output[-500:].strip()
        Exception.__init__(self, f"chunk {chunk}: exit status {ran.status}: {said}")


async def run_on_chunk(worker: ScriptWorker, **files: str) -> Ran:
    """Run the job's command on the actor's chunk. Raises ChunkFailed."""
    command = ShellTemplate(worker.job.params.command, (*PLAIN, *files), STRANGE)
    values = {**worker.input, **files, "actor": str(worker.actor)}
    ran = await worker.run(command.fill(values), check=False)
    if ran.status:
        raise ChunkFailed(worker.chunk, ran)
    return ran


async def look(worker: ScriptWorker) -> dict[str, Any]:
    """Run the program on the chunk; return what it printed."""
    await worker.seti("nonblock", 0)
    begun = worker.now
    ran = await run_on_chunk(worker)
    return {
        "chunk": worker.chunk,
        "seconds": round(worker.now - begun, 3),
        "output": ran.output[-worker.job.params.output_chars :],
    }


class FfmpegSplit(Pipeline):
    name = "ffmpeg_split"
    description = "Run ffmpeg on each chunk of one video, read over HTTP, and keep what it prints."
    parameters = (
        *PARAMETERS,
        Parameter("command", str, HELP, LOOK),
        Parameter("output_chars", int, "kept of the end of each output", 2000, 1, 65536),
    )

    def check(self, params: Params) -> None:
        """Raise FieldError for what cannot be meant; looks at nothing but the parameters."""
        check(params, PLAIN)

    def plan(self, params: Params) -> list[dict[str, Any]]:
        self.check(params)
        return plan_chunks(params)

    def begin(self, worker: ScriptWorker) -> Any:
        return look(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
        return {"chunks": [outcome.result for outcome in outcomes if not outcome.error]}


ffmpeg_split = FfmpegSplit()
