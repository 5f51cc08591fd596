"""mapreduce: run a shell command for each key, as map does, and another over all their outputs.

The second command gets at most `fan_in` files, in the order of the keys, and writes one. It runs
over the outputs of the first, then over its own, until one is left. Each run begins as soon as the
files that it needs are there.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mu.aws.keys import no_files
from mu.aws.s3 import EMBEDDED_BUCKET
from mu.parameters import FieldError, Parameter, Params
from mu.pipelines.map import (
    Names,
    checked_inputs,
    folder_of,
    map_keys,
    map_pipeline,
    with_sizes,
)
from mu.pipelines.map import check as check_map
from mu.pipelines.templates import ShellTemplate
from mu.pipelines.texts import check_command, check_key, check_length
from mu.pipelines.transfers import AT_ONCE
from mu.plugins import ActorInput, JobFailed, Outcome, Pipeline, Staged
from mu.states import ActorFailed, JobFacts, Script, ScriptWorker

MOST_FAN_IN = 1000
NAMES = ("in", "out")
"""The placeholders of `reduce`: its files and the one that it writes, all below ##TMPDIR##."""


def evenly(items: Sequence[Any], parts: int) -> Iterator[Sequence[Any]]:
    """Yield that many consecutive parts, which differ in length by at most one.

    >>> [list(part) for part in evenly(range(5), 2)]
    [[0, 1], [2, 3, 4]]
    """
    for part in range(parts):
        yield items[part * len(items) // parts : (part + 1) * len(items) // parts]


def groups(items: Sequence[Any], most: int) -> list[list[Any]]:
    """Return consecutive parts with at most `most` items, as few and as even as possible."""
    return [list(part) for part in evenly(items, -(-len(items) // most))]


def out_key_of(params: Params, level: int, number: int) -> str:
    """Return the key of what one run of `reduce` writes, unless it is the last one."""
    return f"{params.out_prefix}reduced/{level}-{number:06d}"


async def reduce_outputs(worker: ScriptWorker) -> dict[str, object]:
    """Run `reduce` over the outputs of the actors before; return its key, and of how many keys.

    The key is None if all of those failed.
    """
    found = list(_outputs(worker))
    if not found:
        return {"out_key": None, "of": 0}
    folder = folder_of(0)
    files = [f"{folder}/in{number:04d}" for number in range(len(found))]
    await worker.run(f"mkdir -p {folder}", quiet=True)
    if worker.numbered:
        await worker.together(worker.seti("nonblock", 1), worker.seti("bg_silent", 1))
    wanted = list(zip((key for key, _ in found), files, strict=True))
    for part in groups(wanted, AT_ONCE if worker.numbered else 1):
        await worker.together(*(worker.retrieve(key, file) for key, file in part))
    out = f"{folder}/out"
    command = ShellTemplate(worker.job.params.reduce, NAMES, ())
    await worker.run(command.fill({"in": " ".join(files), "out": out}), source=worker.out_key)
    looked = await worker.run(f"test -f {out}", check=False, quiet=True)
    if looked.status:
        raise ActorFailed("reduce exited with 0, but wrote no file {out}")
    await worker.upload(worker.out_key, out)
    return {"out_key": worker.out_key, "of": sum(count for _, count in found)}


def _outputs(worker: ScriptWorker) -> Iterator[tuple[str, int]]:
    """Yield the keys of the outputs to reduce, and of how many keys each one is."""
    before = [result for result in worker.before.values() if result]
    if "of_keys" not in worker.input:
        yield from ((one["out_key"], one["of"]) for one in before if one["out_key"])
        return
    rows = {row["key"]: row for one in before for row in one["keys"]}
    for key in worker.of_keys:
        if "out_key" in rows.get(key, {}):
            yield rows[key]["out_key"], 1


class MapReduce(Pipeline):
    name = "mapreduce"
    description = (
        "Run a shell command for each key, and another over their outputs, down to one file."
    )
    parameters = (
        *(one for one in map_pipeline.parameters if one.name != "skip_existing"),
        Parameter(
            "reduce",
            str,
            "a shell command that makes one file {out} of several, {in}, in the order of their keys",
        ),
        Parameter("fan_in", int, "how many files reduce gets at most", 16, 2, MOST_FAN_IN),
        Parameter(
            "result",
            str,
            "the name of the result, which is written to <out_prefix><result>",
            "result",
        ),
    )

    def check(self, params: Params) -> None:
        check_map(_of_map(params))
        if "out" not in Names(params).command.names:
            raise FieldError(
                "params.command",
                "params.command must contain {out}, because params.reduce needs its outputs",
            )
        try:
            template = ShellTemplate(params.reduce, NAMES, ())
        except ValueError as error:
            raise FieldError("params.reduce", f"params.reduce: {error}") from None
        for name in sorted({*NAMES} - template.names):
            raise FieldError("params.reduce", f"params.reduce needs {{{name}}}")
        longest = [f"{folder_of(0)}/in{number:04d}" for number in range(params.fan_in)]
        check_command(
            "params.reduce", template.fill({"in": " ".join(longest), "out": f"{folder_of(0)}/out"})
        )
        check_key("params.result", params.out_prefix + params.result)
        check_length("params.out_prefix", out_key_of(params, 10, 0))
        if params.result in ("", params.manifest):
            raise FieldError(
                "params.result",
                "params.result must not be empty, nor the name of the manifest, got"
                f" {params.result!r:.200}",
            )

    def plan(self, params: Params) -> list[ActorInput | Staged]:
        self.check(params)
        keys, sizes = checked_inputs(_of_map(params))
        _refuse_overwritten(params, keys)
        each = params.per_worker
        actors = -(-len(keys) // each) if each else min(params.workers, len(keys))
        planned: list[ActorInput | Staged] = []
        holder: dict[str, int] = {}  # by key, its actor
        for part in evenly(keys, actors):
            holder |= dict.fromkeys(part, len(planned))
            planned.append(Staged(with_sizes(list(part), sizes), stage="map"))
        parts = groups(keys, params.fan_in)
        waits = [sorted({holder[key] for key in part}) for part in parts]
        level = 1
        while True:
            begun, last = len(planned), len(waits) == 1
            for number, after in enumerate(waits):
                out_key = out_key_of(params, level, number)
                given: ActorInput = {
                    "out_key": params.out_prefix + params.result if last else out_key
                }
                if level == 1:
                    given["of_keys"] = parts[number]
                planned.append(Staged(given, after, f"reduce {level}"))
            if last:
                return planned
            waits = groups(range(begun, len(planned)), params.fan_in)
            level += 1

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        """Run the actors that failed or of which a key failed; those that waited for them follow."""
        return {
            one.actor: one.input
            for one in outcomes
            if one.error or any("error" in row for row in one.result.get("keys", ()))
        }

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["keys"]) if "keys" in given else [given["out_key"]]

    def begin(self, worker: ScriptWorker) -> Script:
        return map_keys(worker) if "keys" in worker.input else reduce_outputs(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Write the manifest of the keys. Raises JobFailed if too many failed, or reduce did."""
        mapped = [one for one in outcomes if "keys" in one.input]
        reduced = [one for one in outcomes if "keys" not in one.input]
        last = reduced[-1]
        made: dict[str, object] = {"keys": [], "of": 0}
        if not last.error and last.result["of"]:
            made = {"keys": [last.result["out_key"]], "of": last.result["of"]}
        try:
            result = map_pipeline.finish(job, mapped) | made
        except JobFailed as failed:
            told: Any = failed.result
            raise JobFailed(str(failed), told | made) from None
        failures = [f"actor {one.actor}: {one.error}" for one in reduced if one.error]
        if failures:
            raise JobFailed(f"reduce failed: {failures[0]}", result)
        return result


def _of_map(params: Params) -> Params:
    """Return the parameters that map has, too."""
    return Params({**params, "skip_existing": False})


def _refuse_overwritten(params: Params, keys: Sequence[str]) -> None:
    """Raise ValueError if the result, or what is on the way to it, would overwrite another object."""
    names = Names(params)
    taken = {*keys, *map(names.out_key, keys)}
    result = params.out_prefix + params.result
    if result in taken:
        raise FieldError(
            "params.result", f"the result would overwrite {result!r}: name another one"
        )
    below = out_key_of(params, 0, 0).removesuffix("0-000000")
    for key in taken:
        if key.startswith(below):
            raise ValueError(f"{key!r} is below {below!r}, which is for the outputs of reduce")
    if params.bucket == EMBEDDED_BUCKET:  # its objects are files
        for refused, why in no_files([*taken, result, out_key_of(params, 1, 0)]):
            raise ValueError(f"the embedded S3 server cannot hold {refused!r}: {why}")


mapreduce = MapReduce()
