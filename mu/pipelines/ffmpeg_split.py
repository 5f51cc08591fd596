"""ffmpeg_split: each actor runs ffmpeg on its chunk of one video, read over HTTP.

Nothing is downloaded first: ffmpeg seeks in the object itself, with a URL that `plan` signs. The
output of the program is the actor's result. ffmpeg_split_upload also uploads the file it writes.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import s3
from mu.pipelines.mending import NOT_THERE, first_program, is_final, may_mend, need
from mu.pipelines.templates import ShellTemplate
from mu.pipelines.texts import check_bucket, check_command, check_given, check_length, readable
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import ActorFailed, JobFacts, Ran, Script, ScriptWorker

TRUSTED = ("start", "seconds", "actor")
UNTRUSTED = ("url",)

PARAMETERS = (
    Parameter("video", str, "the object is <video>.<in_format>", "sintel-1k"),
    Parameter("bucket", str, "the S3 bucket of the video", "excamera-us-east-1"),
    Parameter("in_format", str, "the extension of the object's key", "mp4"),
    Parameter("frames", int, "frames per chunk; needs rate", 0, minimum=0),
    Parameter("rate", str, "frames per second of the video, such as 25 or 30000/1001", ""),
    Parameter(
        "seconds", float, "the length of a chunk in seconds, instead of frames", 0.0, 0.0, 1e6
    ),
    Parameter("offset", int, "the number of chunks to skip at the start", 0, minimum=0),
    Parameter("expires_s", int, "how long the signed URL is valid, in seconds", 3600, 60, 604_800),
)

SHORTEST, LONGEST = Fraction(1, 1000), Fraction(10**6)
"""Limits of a chunk, in seconds. Commands get six decimals; to ffmpeg, a length of 0 means all."""
LAST_SECOND = 10**9
"""No video is longer, and later positions have too many digits for a float with six decimals."""

HELP = (
    "a shell command; {url} is the video, {start} and {seconds} the position and length of the"
    " chunk, {actor} the actor's number"
)
LOOK = "./ffmpeg -nostdin -ss {start} -t {seconds} -i {url} -f null - 2>&1"


# ---------------------------------------------------------------- chunks


def check(params: Params, trusted: Sequence[str]) -> None:
    """Raise FieldError for parameters that contradict each other; `trusted` as in ShellTemplate."""
    try:
        ShellTemplate(params.command, trusted, UNTRUSTED)
    except ValueError as error:
        raise FieldError("params.command", f"params.command: {error}") from None
    check_bucket(params)
    check_given(params, "video", "in_format")
    check_length("params.video", object_key(params))
    check_command("params.command", params.command)
    if bool(params.frames) == bool(params.seconds):
        raise FieldError(
            "params.frames", "give either params.frames or params.seconds, the length of a chunk"
        )
    name = "seconds" if params.seconds else "rate"
    length = chunk_length(params)
    if not SHORTEST <= length <= LONGEST:
        raise FieldError(
            f"params.{name}",
            f"params.{name} makes chunks of {float(length):g} s; they must have"
            f" {float(SHORTEST):g} to {float(LONGEST):g} s",
        )
    end = (params.offset + params.workers) * length
    if end > LAST_SECOND:
        raise FieldError(
            "params.offset",
            f"params.offset is too large: the last chunk would end at {float(end):g} s, but a"
            f" video has at most {LAST_SECOND} s",
        )


def chunk_length(params: Params) -> Fraction:
    """Return the length of a chunk in seconds. Raises FieldError for an invalid rate."""
    if params.seconds:
        return Fraction(str(params.seconds))
    frames: int = params.frames
    return frames / read_rate(params.rate)


def object_key(params: Params) -> str:
    return f"{params.video}.{params.in_format}"


def read_rate(rate: str) -> Fraction:
    """Return frames per second. Raises FieldError."""
    form = re.fullmatch(r"(\d{1,9})(?:/(\d{1,9})|\.(\d{1,9}))?", rate, re.ASCII)
    if form is None or (form[2] and int(form[2]) == 0) or Fraction(rate) == 0:
        raise FieldError(
            "params.rate",
            f"params.rate must be frames per second, such as 25 or 30000/1001, got {rate!r}",
        )
    return Fraction(rate)


def chunk(params: Params, number: int) -> dict[str, str]:
    """Return the start and the length of a chunk, in seconds with six decimals.

    Chunks of frames begin and end a tenth of a frame early, so that the rounding of timestamps in
    the container makes no difference.
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


def plan_chunks(params: Params) -> list[ActorInput]:
    """Return the chunk of each actor, and the URL. Raises S3Error if the video cannot be read."""
    url = s3.readable_url(params.bucket, object_key(params), params.expires_s)
    numbers = range(params.offset, params.offset + params.workers)
    return [{"url": url, "chunk": number, **chunk(params, number)} for number in numbers]


def rerun_chunks(params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
    """Return the chunks that failed, with a new URL: the old one may have expired."""
    failed = {one.actor: one.input for one in outcomes if one.error}
    if not failed:
        return {}
    url = s3.readable_url(params.bucket, object_key(params), params.expires_s)
    return {actor: {**given, "url": url} for actor, given in failed.items()}


# ---------------------------------------------------------------- an actor


async def run_on_chunk(worker: ScriptWorker, **files: str) -> Ran:
    """Run the job's command on the actor's chunk.

    Raises ActorFailed if the exit status is not 0, without the URL, since that is signed.
    """
    command = ShellTemplate(worker.job.params.command, (*TRUSTED, *files), UNTRUSTED)
    values = {**worker.input, **files, "actor": str(worker.actor)}
    ran = await worker.run(command.fill(values), check=False)
    if ran.status:
        if ran.status in NOT_THERE:
            await need(worker, *first_program(worker.job.params.command))
        output = readable(ran.output[-500:]).strip()
        words = f"chunk {worker.chunk}: exit status {ran.status}: {output}"
        raise ActorFailed(words, is_final(ran.status, ran.output))
    return ran


async def look(worker: ScriptWorker) -> dict[str, object]:
    """Run the program on the chunk; return its output."""
    await worker.seti("nonblock", 0)
    begun = worker.now
    ran = await run_on_chunk(worker)
    return {
        "chunk": worker.chunk,
        "seconds": round(worker.now - begun, 3),
        "output": readable(ran.output[-worker.job.params.output_chars :]),
    }


class FfmpegSplit(Pipeline):
    name = "ffmpeg_split"
    may_mend = staticmethod(may_mend)
    description = "Run ffmpeg on each chunk of one video, read over HTTP, and keep its output."
    parameters = (
        *PARAMETERS,
        Parameter("command", str, HELP, LOOK),
        Parameter(
            "output_chars", int, "characters to keep of the end of each output", 2000, 1, 65536
        ),
    )

    def check(self, params: Params) -> None:
        check(params, TRUSTED)

    def plan(self, params: Params) -> list[ActorInput]:
        self.check(params)
        return plan_chunks(params)

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        return rerun_chunks(params, outcomes)

    def begin(self, worker: ScriptWorker) -> Script:
        return look(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return {"chunks": [outcome.result for outcome in outcomes if not outcome.error]}


ffmpeg_split = FfmpegSplit()
