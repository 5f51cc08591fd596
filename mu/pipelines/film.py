"""film: encode a film in chunks, side by side, and join them to one film.

The first actor looks at the film. The others then read it over HTTP, with a URL that `plan` signs:
one encodes each chunk, one copies what is no video, and the last one joins it all and checks that
no frame is missing. The program that they run (film_program/) is sent to the worker, so any
function with an ffmpeg will do.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import s3
from mu.pipelines.texts import check_bucket, check_command, check_key, check_length, readable
from mu.pipelines.transfers import AT_ONCE
from mu.plugins import ActorInput, JobFailed, Outcome, Pipeline, Staged
from mu.states import ActorFailed, JobFacts, Script, ScriptWorker

# The program is part of a command. Any change to it, even to a comment, ends the attempts that are
# running when mu is upgraded.
PROGRAM = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted(Path(__file__).with_name("film_program").glob("*.py"))
}
"""The files of the program."""

LOOK, REST = 0, 1
"""The numbers of two actors; those of the chunks follow, and the last one joins."""
FIRST_CHUNK = 2
MOST_CHUNKS = 1000
MB = 1_000_000
TAIL = 500
"""How many characters of the end of a failed program's output are in its error."""

ENCODERS = {"h264": "libx264", "h265": "libx265", "vp9": "libvpx-vp9", "av1": "libaom-av1"}
QUALITIES = {"h264": 23, "h265": 28, "vp9": 31, "av1": 30}
"""The qualities that are the default."""
HIGHEST = {"h264": 51, "h265": 51, "vp9": 63, "av1": 63}
SPEEDS = {"h264": "medium", "h265": "medium", "vp9": "2", "av1": "6"}
FASTEST = {"vp9": 8, "av1": 8}
# fmt: off
PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium",
    "slow", "slower", "veryslow", "placebo",
)
# fmt: on
EVEN = ("h264", "h265")
"""The codecs whose frames have an even size if their colours have half of it."""
ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")


# ---------------------------------------------------------------- the encoder


def encoder_words(params: Params, film: Mapping[str, Any]) -> list[list[str]]:
    """Return ffmpeg's options for each pass of the encoder."""
    codec = params.codec
    speed = params.speed or SPEEDS[codec]
    words = ["-c:v", ENCODERS[codec]]
    words += ["-preset", speed] if codec in EVEN else ["-cpu-used", speed, "-row-mt", "1"]
    if codec == "vp9":
        words += ["-deadline", "good"]
    if params.pixels:
        words += ["-pix_fmt", params.pixels]
    if params.kbit:
        words += ["-b:v", f"{params.kbit}k"]
    else:
        quality = QUALITIES[codec] if params.quality < 0 else params.quality
        words += ["-crf", str(quality), *(() if codec in EVEN else ("-b:v", "0"))]
    return [
        [*words, *_pass(codec, number, params.passes, film["light"]), *shlex.split(params.args)]
        for number in range(1, params.passes + 1)
    ]


def _pass(codec: str, number: int, passes: int, light: Mapping[str, str]) -> list[str]:
    """Return the options for one pass; PASSES in them is a file name. `light` is HDR metadata."""
    several = passes > 1
    if codec != "h265":
        own = ["-pass", str(number), "-passlogfile", "PASSES"] if several else []
        if codec == "h264":
            master = [f"mastering-display={light['master']}"] if "master" in light else []
            cll = [f"cll={light['cll']}"] if "cll" in light else []
            own += ["-x264-params", ":".join([*master, *cll])] if master or cll else []
        return own
    settings = ["log-level=error"]
    if several:
        settings += [f"pass={number}", "stats=PASSES"]
    if "master" in light:
        settings += [f"master-display={light['master']}", "hdr10=1", "repeat-headers=1"]
    if "cll" in light:
        settings.append(f"max-cll={light['cll']}")
    return ["-x265-params", ":".join(settings)]


# ---------------------------------------------------------------- the actors


async def work_on(worker: ScriptWorker, work: str, **more: object) -> dict[str, Any]:
    """Have the worker do this part of the work; return what it found. Raises ActorFailed."""
    params = worker.job.params
    await worker.set("bucket", params.bucket)
    order = {
        "url": worker.input.get("url", ""),
        "ffmpeg": params.ffmpeg,
        "ending": ending(params.result),
        "codec": params.codec,
        **more,
    }
    files = {f"film_program/{name}": text for name, text in PROGRAM.items()}
    files["order.json"] = json.dumps(order) + "\n"
    await worker.run(
        "mkdir -p ##TMPDIR##/film_program\n"
        + "".join(
            f"cat >##TMPDIR##/{name} <<'END OF FILE'\n{text}END OF FILE\n"
            for name, text in files.items()
        ),
        quiet=True,
    )
    ran = await worker.run(
        f"PYTHONPATH=##TMPDIR## ${{MU_PYTHON:-python3}} -m film_program {work} ##TMPDIR##",
        check=False,
        source=worker.of,
    )
    if ran.status:
        tail = readable(ran.output[-TAIL:]).strip()
        raise ActorFailed(f"{work}: exit status {ran.status}: {tail}")
    found: dict[str, Any] = json.loads(ran.output)
    if "refused" in found:
        raise ActorFailed(readable(found["refused"]))
    return found


async def look(worker: ScriptWorker) -> dict[str, Any]:
    params = worker.job.params
    return await work_on(
        worker,
        "look",
        chunks=worker.chunks,
        shortest_s=params.shortest_s,
        encoder=ENCODERS[params.codec],
        even=params.codec in EVEN,
        filters=params.filters,
        audio=params.audio,
        audio_kbit=params.audio_kbit,
        subtitles=params.subtitles,
        measure=params.measure if params.measure != "none" else "",
    )


async def encode(worker: ScriptWorker) -> dict[str, Any]:
    params, film = worker.job.params, worker.before[LOOK]
    if worker.chunk >= film["chunks"]:
        return {"frames": 0}
    made = await work_on(
        worker,
        "encode",
        film=film,
        chunk=worker.chunk,
        encoder=encoder_words(params, film),
        sample=params.sample,
        scenes=params.scenes,
    )
    if made["frames"]:
        made["key"] = part_key(worker, f"{worker.chunk:08d}.mp4")
        await worker.upload(made["key"], "##TMPDIR##/chunk.mp4")
    return made


def part_key(worker: ScriptWorker, name: str) -> str:
    return f"{worker.job.params.out_prefix}parts/{worker.job.id}/{name}"


async def copy_rest(worker: ScriptWorker) -> dict[str, Any]:
    film, last = worker.before[LOOK], ending(worker.job.params.result)
    made = await work_on(worker, "rest", film=film)
    names = ["frames", "tags", *([f"rest{last}"] if film["words"] else [])]
    made["keys"] = {name: part_key(worker, name) for name in names}
    for name, key in made["keys"].items():
        await worker.upload(key, f"##TMPDIR##/{name}")
    return made


async def join(worker: ScriptWorker) -> dict[str, Any]:
    film, others = worker.before[LOOK], worker.before[REST]
    chunks = [worker.before[FIRST_CHUNK + number] for number in range(film["chunks"])]
    size = others["bytes"] + sum(chunk.get("bytes", 0) for chunk in chunks)
    await work_on(worker, "room", needed=2 * size)
    wanted = {key: name for name, key in others["keys"].items()}
    wanted |= {one["key"]: f"{at}.mp4" for at, one in enumerate(chunks) if one["frames"]}
    await retrieve_all(worker, wanted)
    known = [{name: one[name] for name in KNOWN if name in one} for one in chunks]
    made = await work_on(worker, "join", film=film, chunks=known)
    await worker.upload(worker.out_key, f"##TMPDIR##/film{ending(worker.out_key)}")
    return made


KNOWN = ("frames", "first", "last")
"""What the program needs to know of each chunk."""


async def retrieve_all(worker: ScriptWorker, wanted: Mapping[str, str]) -> None:
    """Retrieve objects to files in the worker's folder, several at a time."""
    if worker.numbered:
        await worker.together(worker.seti("nonblock", 1), worker.seti("bg_silent", 1))
    files = [(key, f"##TMPDIR##/{name}") for key, name in wanted.items()]
    at_once = AT_ONCE if worker.numbered else 1
    for begin in range(0, len(files), at_once):
        await worker.together(*(worker.retrieve(*one) for one in files[begin : begin + at_once]))


WORKS = {"look": look, "encode": encode, "rest": copy_rest, "join": join}


# ---------------------------------------------------------------- the plan


def ending(name: str) -> str:
    """Return the ending of a key, which chooses the format: .mp4."""
    return name[name.rfind(".") :].lower()


def check(params: Params) -> None:
    """Raise FieldError for parameters that are invalid or contradict each other."""
    check_bucket(params)
    _one_of("codec", params.codec, ENCODERS)
    _one_of("audio", params.audio, ("copy", "aac", "opus", "none"))
    _one_of("subtitles", params.subtitles, ("keep", "none"))
    _one_of("measure", params.measure, ("ssim", "vmaf", "none"))
    codec, last = params.codec, ending(params.result)
    if last not in ENDINGS or "/" in params.result or params.result == last:
        raise FieldError(
            "params.result",
            f"params.result must be a name that ends in {', '.join(ENDINGS)}, got {params.result!r:.200}",
        )
    if last == ".webm" and (codec in EVEN or params.audio == "aac"):
        what = codec if codec in EVEN else "aac"
        raise FieldError(
            "params.result",
            f"params.result: .webm is for vp9 and av1, with opus, and cannot have {what}",
        )
    check_length("params.prefix", params.prefix)
    check_key("params.out_prefix", f"{params.out_prefix}parts/{'x' * 12}/00000000.mp4")
    check_key("params.result", params.out_prefix + params.result)
    if params.quality > HIGHEST[codec]:
        raise FieldError(
            "params.quality",
            f"params.quality must be at most {HIGHEST[codec]} for {codec}, got {params.quality}",
        )
    if params.kbit and params.quality >= 0:
        raise FieldError("params.kbit", "give either params.kbit or params.quality")
    if params.passes > 1 and codec in EVEN and not params.kbit:
        raise FieldError(
            "params.passes", f"params.passes: two passes of {codec} need params.kbit, a bit rate"
        )
    if codec in FASTEST:
        allowed: Iterable[str] = [str(number) for number in range(FASTEST[codec] + 1)]
    else:
        allowed = PRESETS
    _one_of("speed", params.speed or SPEEDS[codec], allowed)
    try:
        words = shlex.split(params.args)
    except ValueError as error:
        raise FieldError("params.args", f"params.args: {error}") from None
    if codec == "h265" and params.passes > 1 and "-x265-params" in words:
        raise FieldError("params.args", "params.args must not have -x265-params with two passes")
    check_command("params.args", "".join(PROGRAM.values()) + params.args + params.filters)


def _one_of(name: str, got: str, allowed: Iterable[str]) -> None:
    if got not in allowed:
        raise FieldError(
            f"params.{name}", f"params.{name} must be one of {', '.join(allowed)}, got {got!r:.200}"
        )


class Film(Pipeline):
    name = "film"
    description = "Encode a film in chunks, side by side, and join them to one film."
    parameters = (
        Parameter("bucket", str, "the S3 bucket of the film, and of the result"),
        Parameter("prefix", str, "the film is the only object whose key begins with this"),
        Parameter("out_prefix", str, "the result is written to <out_prefix><result>"),
        Parameter("result", str, "the name of the result, whose ending is its format", "film.mp4"),
        Parameter("codec", str, "h264, h265, vp9 or av1", "h264"),
        Parameter("quality", int, "lower is better, and larger; -1: that of the codec", -1, -1, 63),
        Parameter("kbit", int, "kbit/s instead of a quality; 0: none", 0, 0, 1_000_000),
        Parameter("passes", int, "how many times the encoder reads each chunk", 1, 1, 2),
        Parameter(
            "speed",
            str,
            "the preset of h264 and h265, or 0 to 8 for vp9 and av1; faster is worse",
            "",
        ),
        Parameter("pixels", str, "the pixel format, such as yuv420p; empty: the film's", ""),
        Parameter("filters", str, "ffmpeg's filters, which keep the frames' number and times", ""),
        Parameter("args", str, "more options of ffmpeg for the encoder", ""),
        Parameter("audio", str, "copy, aac, opus or none", "copy"),
        Parameter("audio_kbit", int, "kbit/s of each sound that is encoded", 0, 0, 10_000),
        Parameter("subtitles", str, "keep or none", "keep"),
        Parameter("chunk_mb", float, "MB of the film per chunk; 0: one per worker", 8.0, 0.0, 1e6),
        Parameter("shortest_s", float, "how short a chunk may be, in seconds", 2.0, 0.01, 1e6),
        Parameter("scenes", bool, "move borders of chunks to scene cuts near them", False),
        Parameter("measure", str, "what to compare with the film: ssim, vmaf or none", "ssim"),
        Parameter("sample", int, "how many frames of each chunk to compare", 8, 1, 1_000_000),
        Parameter("ffmpeg", str, "ffmpeg's path; empty: the function's, or the machine's", ""),
        Parameter(
            "expires_s", int, "how long the signed URL is valid, in seconds", 43_200, 60, 604_800
        ),
    )

    def check(self, params: Params) -> None:
        check(params)

    def plan(self, params: Params) -> list[ActorInput | Staged]:
        check(params)
        found = [
            one
            for one in s3.objects_below(params.bucket, params.prefix)
            if not one.key.endswith("/")
        ]
        if len(found) != 1:
            names = "".join(f" {one.key!r}" for one in found[:3])
            raise ValueError(
                f"one film must be below params.prefix {params.prefix!r}, and there are"
                f" {len(found)}{':' if names else ''}{names}"
            )
        (film,) = found
        out_key = params.out_prefix + params.result
        if out_key == film.key:
            raise FieldError("params.result", f"the result would overwrite the film {out_key!r}")
        by_size = -(-film.size // max(1, int(params.chunk_mb * MB))) if params.chunk_mb else 1
        chunks = min(max(by_size, params.workers), MOST_CHUNKS)
        url = s3.readable_url(params.bucket, film.key, params.expires_s)
        given = {"of": film.key, "url": url}
        first = {"work": "look", "bytes": film.size, "chunks": chunks, **given}
        return [
            Staged(first, stage="look"),
            Staged({"work": "rest", **given}, after="look", stage="rest"),
            *(
                Staged({"work": "encode", "chunk": number, **given}, "look", "encode")
                for number in range(chunks)
            ),
            Staged({"work": "join", "of": film.key, "out_key": out_key}, "all", "join"),
        ]

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        """Run what failed, with a new URL: the old one may have expired."""
        failed = {one.actor: one.input for one in outcomes if one.error}
        if not failed:
            return {}
        url = s3.readable_url(params.bucket, outcomes[LOOK].input["of"], params.expires_s)
        return {
            actor: {**given, "url": url} if "url" in given else given
            for actor, given in failed.items()
        }

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["of"]]

    def begin(self, worker: ScriptWorker) -> Script:
        return WORKS[worker.work](worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Return what the film has become. Raises JobFailed with the first refusal."""
        for one in outcomes:
            if one.error:
                raise JobFailed(one.error, {"film": one.input["of"]})
        film, joined = outcomes[LOOK].result, outcomes[-1].result
        chunks = [one.result for one in outcomes[FIRST_CHUNK:-1] if one.result["frames"]]
        was, now = outcomes[LOOK].input["bytes"], joined["bytes"]
        result: dict[str, object] = {
            "keys": [outcomes[-1].input["out_key"]],
            "film": film["is"],
            "seconds": film["seconds"],
            "frames": joined["frames"],
            "chunks": len(chunks),
            "bytes_before": was,
            "bytes": now,
            "saved": f"{100 * (was - now) / max(was, 1):.1f} %",
            "encoding_s": round(sum(one["encoding_s"] for one in chunks), 1),
            "audio_off_s": joined["audio_off_s"],
        }
        if name := film["measure"]:
            values = [one[name] for one in chunks]
            result[name] = {"mean": round(sum(values) / len(values), 4), "worst": min(values)}
        notes = film["notes"] + _damage(film, chunks)
        return result | ({"notes": notes} if notes else {})


def _damage(film: Mapping[str, Any], chunks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence if ffmpeg complained about some chunks, which it could encode."""
    told = [one for one in chunks if "told" in one]
    if not told:
        return []
    second = told[0]["first"] * film["base"][0] / film["base"][1]
    more = f", and {len(told) - 1} more chunks" if len(told) > 1 else ""
    return [f"ffmpeg complained about the chunk from {second:.1f} s on{more}: {told[0]['told']}"]


film = Film()
