"""film: encode a film in chunks, side by side, and join them to one film.

The first actor looks at the film. The others then read it over HTTP, with a URL that `plan` signs:
one encodes each chunk, one copies what is no video, and the last one joins it all and checks that no
frame is missing. The program that they run (film_program.py) is sent to the worker, so any function
with an ffmpeg will do.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import s3
from mu.pipelines.texts import check_bucket, check_key, check_length, readable
from mu.plugins import ActorInput, Outcome, Pipeline, Staged
from mu.states import ActorFailed, JobFacts, Script, ScriptWorker

# The program is part of a command. Any change to it, even to a comment, ends the attempts that are
# running when mu is upgraded.
PROGRAM = Path(__file__).with_name("film_program.py").read_text(encoding="utf-8")
MB = 1_000_000
MOST_CHUNKS = 1000
TAIL = 500
"""How many characters of the end of a failed program's output are in its error."""

LOOK, REST = 0, 1
"""The numbers of two actors; the chunks follow them, and the last one joins."""
FIRST_CHUNK = 2

ENCODERS = {
    "h264": ("libx264", 23),
    "h265": ("libx265", 28),
    "vp9": ("libvpx-vp9", 31),
    "av1": ("libaom-av1", 30),
}
"""For each codec, ffmpeg's encoder, and the quality that is its default."""


async def work_on(worker: ScriptWorker, work: str, **order: object) -> dict[str, Any]:
    """Have the worker do a part of the work; return what it found. Raises ActorFailed."""
    params = worker.job.params
    told = {"url": worker.input.get("url", ""), "ffmpeg": params.ffmpeg, **order}
    await worker.run(
        f"cat >##TMPDIR##/film.py <<'END OF PROGRAM'\n{PROGRAM}END OF PROGRAM\n", quiet=True
    )
    ran = await worker.run(
        f"printf %s {shlex.quote(json.dumps(told))} >##TMPDIR##/order.json &&"
        f" ${{MU_PYTHON:-python3}} ##TMPDIR##/film.py {work} ##TMPDIR##",
        check=False,
        source=worker.input["of"],
    )
    if ran.status:
        tail = readable(ran.output[-TAIL:]).strip()
        raise ActorFailed(f"{work}: exit status {ran.status}: {tail}")
    found: dict[str, Any] = json.loads(ran.output)
    if "refused" in found:
        raise ActorFailed(found["refused"])
    return found


async def look(worker: ScriptWorker) -> dict[str, Any]:
    params = worker.job.params
    return await work_on(
        worker, "look", chunks=worker.input["chunks"], shortest_s=params.shortest_s
    )


async def encode(worker: ScriptWorker) -> dict[str, Any]:
    params = worker.job.params
    made = await work_on(
        worker,
        "encode",
        film=worker.before[LOOK],
        chunk=worker.input["chunk"],
        encoder=encoder_words(params),
        passes=params.passes,
        filters=[],
    )
    if made["frames"]:
        made["key"] = f"{params.out_prefix}parts/{worker.job.id}/{worker.input['chunk']:08d}.mp4"
        await worker.upload(made["key"], "##TMPDIR##/chunk.mp4")
    return made


async def rest(worker: ScriptWorker) -> dict[str, Any]:
    made = await work_on(worker, "rest", film=worker.before[LOOK])
    made["key"] = f"{worker.job.params.out_prefix}parts/{worker.job.id}/frames"
    await worker.upload(made["key"], "##TMPDIR##/frames")
    return made


async def join(worker: ScriptWorker) -> dict[str, Any]:
    film = worker.before[LOOK]
    chunks = [worker.before[FIRST_CHUNK + number] for number in range(film["chunks"])]
    await worker.retrieve(worker.before[REST]["key"], "##TMPDIR##/frames")
    for number, chunk in enumerate(chunks):
        if chunk["frames"]:
            await worker.retrieve(chunk["key"], f"##TMPDIR##/{number}.mp4")
    out = "film" + worker.input["out_key"][worker.input["out_key"].rindex(".") :]
    made = await work_on(
        worker,
        "join",
        film=film,
        chunks=chunks,
        out=out,
        muxer=["-movflags", "+faststart"],
    )
    await worker.upload(worker.out_key, f"##TMPDIR##/{out}")
    return made


def encoder_words(params: Params) -> list[str]:
    """Return ffmpeg's options for the encoder."""
    name, quality = ENCODERS[params.codec]
    words = ["-c:v", name, "-crf", str(quality if params.quality < 0 else params.quality)]
    return words + shlex.split(params.args)


class Film(Pipeline):
    name = "film"
    description = "Encode a film in chunks, side by side, and join them to one film."
    parameters = (
        Parameter("bucket", str, "the S3 bucket of the film, and of the result"),
        Parameter("prefix", str, "the film is the one object whose key begins with this"),
        Parameter("out_prefix", str, "the result is written to <out_prefix><result>"),
        Parameter(
            "result", str, "the name of the result; its ending chooses the format", "film.mp4"
        ),
        Parameter("codec", str, "h264, h265, vp9 or av1", "h264"),
        Parameter("quality", int, "lower is better and larger; -1: the encoder's", -1, -1, 63),
        Parameter("passes", int, "how often the encoder reads each chunk", 1, 1, 2),
        Parameter("args", str, "more options of ffmpeg for the encoder", ""),
        Parameter("chunk_mb", float, "MB of the film for each chunk", 8.0, 0.0, 1e6),
        Parameter("shortest_s", float, "how short a chunk may be, in seconds", 2.0, 0.01, 1e6),
        Parameter("ffmpeg", str, "the path of ffmpeg on the workers", ""),
        Parameter("expires_s", int, "how long the signed URL is valid", 43_200, 60, 604_800),
    )

    def plan(self, params: Params) -> list[ActorInput | Staged]:
        found = [
            one
            for one in s3.objects_below(params.bucket, params.prefix)
            if not one.key.endswith("/")
        ]
        if len(found) != 1:
            raise FieldError(
                "params.prefix", f"there must be one film below {params.prefix!r}, got {len(found)}"
            )
        (film,) = found
        by_size = -(-film.size // int(params.chunk_mb * MB)) if params.chunk_mb else 1
        chunks = min(max(by_size, params.workers), MOST_CHUNKS)
        given = {"url": s3.readable_url(params.bucket, film.key, params.expires_s), "of": film.key}
        return [
            Staged({**given, "work": "look", "chunks": chunks, "bytes": film.size}, stage="look"),
            Staged({**given, "work": "rest"}, after="look", stage="rest"),
            *(
                Staged({**given, "work": "encode", "chunk": number}, after="look", stage="encode")
                for number in range(chunks)
            ),
            Staged(
                {"of": film.key, "work": "join", "out_key": params.out_prefix + params.result},
                after="all",
                stage="join",
            ),
        ]

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["of"]]

    def begin(self, worker: ScriptWorker) -> Script:
        return self._work(worker)

    async def _work(self, worker: ScriptWorker) -> dict[str, Any]:
        await worker.set("bucket", worker.job.params.bucket)
        works = {"look": look, "rest": rest, "encode": encode, "join": join}
        return await works[worker.input["work"]](worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        last = outcomes[-1]
        if last.error:
            return {}
        return {"keys": [last.input["out_key"]], **last.result}


film = Film()
