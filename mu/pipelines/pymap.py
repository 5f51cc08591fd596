"""pymap: call a function of Python for each of some items.

Each actor calls it for a chunk of neighbouring items, in one process. Function and items are a MODULE:FUNCTION
of the bundle with JSON, as anyone may order, or two blobs with pickles, as mu.client orders. Nothing here
unpickles. The program (mu_worker.calls) is a part of the worker.

An actor's result is the rows of its items: up to WIRE_BYTES in its reply, larger ones in a file in S3, or
in a blob if the order names no bucket.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines.blobs import shelf
from mu.pipelines.mending import is_final, may_mend
from mu.pipelines.texts import check_bucket, check_key, readable
from mu.pipelines.tolerance import Tolerance, tolerates
from mu.plugins import ActorInput, JobFailed, Outcome, Pipeline
from mu.states import ActorFailed, JobFacts, Ran, Script, ScriptWorker, Started
from mu.wire import HEADER_BYTES, frame

WIRE_BYTES = 65536
"""The most that comes back in a reply: what a worker keeps of a program's output by default."""
TAIL = 500
"""How many characters of the end of the program's output are in its actor's error."""
SHOWN = 5
"""How many failed items the job's error has."""
FIRST_LOOK_S, LONGEST_PAUSE_S = 1.0, 10.0
"""When to look for the first time how many items are done, and how far apart looks get."""
RESULTS = "##TMPDIR##/pymap/results"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CALL = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
_PYTHON = re.compile(r"(3\.[0-9]{1,3})?")


# ---------------------------------------------------------------- an actor


async def call_items(worker: ScriptWorker) -> dict[str, Any]:
    """Call the function for the actor's items; return their rows, or where they are."""
    params, given = worker.job.params, worker.input
    count: int = given["items"]
    parts = [(f"{given['blob']}:{given['at']}:{given['bytes']}", "##TMPDIR##/pymap/items")]
    if params.code:
        parts.append((f"{params.code}:0:-", "##TMPDIR##/pymap/code"))
    await worker.get_blobs(*parts)
    await worker.together(worker.seti("nonblock", 1), worker.seti("bg_silent", 1))
    worker.progress(0, count)
    told = {"call": params.call, "python": params.python, "tries": params.tries}
    words = shlex.quote(json.dumps(told | {"wire_bytes": WIRE_BYTES}))
    program = f'exec "$MU_PYTHON" -m mu_worker.calls ##TMPDIR##/pymap {words}'
    calls = await worker.start(worker.run(program, check=False))
    ran = await _look_at(worker, calls, count)
    if ran.status:
        output = readable(ran.output[-TAIL:]).strip()
        raise ActorFailed(f"exit status {ran.status}: {output}", is_final(ran.status, ran.output))
    answered = await worker.run("cat ##TMPDIR##/pymap/answer", quiet=True)
    try:
        answer = json.loads(answered.output)
    except ValueError:
        raise ActorFailed(
            "the results were cut: output_limit in the event must be 65536 at least", final=True
        ) from None
    worker.progress(count, count, answer["failed"])
    result = {"first": given["first"], "items": count, **answer}
    if "rows" in answer:
        return result
    if params.bucket:
        key = f"{params.prefix}{worker.job.id}/{given['first']:08d}.json"
        await worker.upload(key, RESULTS)
        return result | {"key": key}
    return result | {"blob": await worker.put_blob(RESULTS)}


async def _look_at(worker: ScriptWorker, calls: Started[Ran], count: int) -> Ran:
    """Show how many items are done from time to time; return how the program ended."""
    pause_s = FIRST_LOOK_S
    while True:
        with suppress(TimeoutError):
            return await worker.within(pause_s, calls)
        look = await worker.run("cat ##TMPDIR##/pymap/progress", check=False, quiet=True)
        if not look.status:
            done, failed = map(int, look.output.split())
            worker.progress(done, count, failed)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


# ---------------------------------------------------------------- the plan


def spans_of(blob: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield where each of the frames in a blob begins and ends. Raises ValueError."""
    at = 0
    while header := blob.read(HEADER_BYTES):
        if not re.fullmatch(rb"[0-9]{12} ", header):
            raise ValueError(f"params.arguments: no frame of an item at byte {at} of the blob")
        end = at + HEADER_BYTES + int(header)
        yield at, end
        at = end
        blob.seek(at)


class PyMap(Pipeline):
    name = "pymap"
    description = "Call a function of Python for each of some items."
    parameters = (
        Parameter("call", str, "MODULE:FUNCTION in the bundle, or of Python itself", ""),
        Parameter("items", list, "what to call it with, in JSON: one argument for each call", []),
        Parameter("code", str, "instead of call: the SHA-256 of a blob, a pickled function", ""),
        Parameter("arguments", str, "instead of items: that of a blob with their pickles", ""),
        Parameter(
            "chunk",
            int,
            "how many items each actor has; 0: as many as the order's workers need",
            0,
            minimum=0,
            maximum=10_000_000,
        ),
        Parameter(
            "tries", int, "how often to call it for an item that fails", 1, minimum=1, maximum=100
        ),
        Tolerance(
            "tolerate",
            str,
            "how many items may fail in a job that is done: a number, or a percentage such as 5%",
            "0",
        ),
        Parameter(
            "python", str, "the version of Python that must run them, such as 3.12; empty: any", ""
        ),
        Parameter("bucket", str, "the S3 bucket for large results; empty: they become blobs", ""),
        Parameter("prefix", str, "what the keys of large results begin with", "pymap/"),
    )

    def check(self, params: Params) -> None:
        check_key("params.prefix", f"{params.prefix}x")
        if params.bucket:
            check_bucket(params)
        if not _PYTHON.fullmatch(params.python):
            raise FieldError(
                "params.python",
                f"params.python must be a version such as 3.12, got {params.python!r:.200}",
            )
        for name in ("code", "arguments"):
            if params[name] and not _DIGEST.fullmatch(params[name]):
                raise FieldError(
                    f"params.{name}",
                    f"params.{name} must be a SHA-256 in 64 hex digits, got {params[name]!r:.200}",
                )
        if bool(params.call) == bool(params.code):
            raise FieldError("params.call", "give one of params.call and params.code")
        given = "items" if params.call else "arguments"
        other = "arguments" if params.call else "items"
        if not params[given] or params[other]:
            with_it = "call" if params.call else "code"
            words = f"params.{given} must be given with params.{with_it}, and params.{other} not"
            raise FieldError(f"params.{given}", words)
        if params.call and not _CALL.fullmatch(params.call):
            raise FieldError(
                "params.call", f"params.call must be MODULE:FUNCTION, got {params.call!r:.200}"
            )

    def plan(self, params: Params) -> list[ActorInput]:
        digest = params.arguments
        if not digest:
            items = params["items"]
            digest = shelf().add(b"".join(frame(json.dumps(item).encode()) for item in items))
        with shelf().open(digest) as blob:
            spans = list(spans_of(blob))
        chunk = params.chunk or -(-len(spans) // params.workers)
        chunks = [(first, spans[first : first + chunk]) for first in range(0, len(spans), chunk)]
        return [
            {
                "first": first,
                "items": len(own),
                "blob": digest,
                "at": own[0][0],
                "bytes": own[-1][1] - own[0][0],
            }
            for first, own in chunks
        ]

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        """Run the chunks again in which an item failed."""
        return {one.actor: dict(one.input) for one in outcomes if one.error or one.result["failed"]}

    def inputs(self, given: ActorInput) -> list[str]:
        return [str(number) for number in range(given["first"], given["first"] + given["items"])]

    def failed_inputs(self, result: Any) -> dict[str, str]:
        return {str(number): error for number, error in errors_in(result)}

    def may_mend(self, reply: str) -> bool:
        return may_mend(reply) and "no blob" not in reply and "no such command" not in reply

    def begin(self, worker: ScriptWorker) -> Script:
        return call_items(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Count the items. Raises JobFailed if more failed than are tolerated."""
        total = sum(one.input["items"] for one in outcomes)
        lost = sum(one.input["items"] for one in outcomes if one.error)
        results = [one.result for one in outcomes if not one.error]
        failed = sum(result["failed"] for result in results)
        known = [f"item {number}: {error}" for one in results for number, error in errors_in(one)]
        result = {"items": total, "failed": failed, "unknown": lost, "failures": known[:SHOWN]}
        if not tolerates(job.params.tolerate, failed + lost, total):
            why = [f"{total - failed - lost} of {total} items"]
            if failed:
                more = f"; and {failed - SHOWN} more" if failed > SHOWN else ""
                why.append(f"{failed} failed: {'; '.join(known[:SHOWN])}{more}")
            if lost:
                why.append(f"{lost} unknown: {next(one.error for one in outcomes if one.error)}")
            raise JobFailed("; ".join(why), result)
        return result


def errors_in(result: Any) -> Iterator[tuple[int, str]]:
    """Yield the failed items of an actor, and why, as far as its result has them itself."""
    for number, row in enumerate(result.get("rows", ()), result["first"]):
        if "error" in row:
            yield number, row["error"]


pymap = PyMap()
