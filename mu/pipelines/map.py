"""map: run a shell command for each key of an S3 prefix, or of a list, and upload its output.

An actor may have several keys, which it handles one after the other: retrieve, run, upload.
`finish` writes a manifest with the outcome of each key, below the output prefix. A second run
writes to the same keys.
"""

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mu.events import Finish
from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import s3
from mu.pipelines.templates import ShellTemplate, fill, parse
from mu.pipelines.texts import (
    LONGEST_COMMAND,
    LONGEST_KEY,
    check_bucket,
    check_command,
    check_given,
    check_key,
    check_length,
    command_bytes,
    readable,
)
from mu.plugins import ActorInput, Pipeline
from mu.states import ActorFailed, JobFacts, Script, ScriptWorker

TRUSTED = ("in", "out", "actor")  # mu's own: two files below ##TMPDIR##, a number
UNTRUSTED = ("stem", "ext", "name", "key")  # from the key, which may contain anything

TAIL = 500
"""How many characters of the end of a failed command's output are kept."""
MOST_OF_KEY = 16 * LONGEST_KEY
"""More bytes than a key adds to a command: each of its names once, quoted."""
MOST = 999_999
"""More keys than one actor has, and more actors than a job has."""
SHOWN = 5
"""How many failed keys the job's result lists. The manifest lists all."""

Row = dict[str, Any]
"""The outcome of one key, in the manifest's form."""


# ---------------------------------------------------------------- names


class Names:
    """The names derived from a key: its files on the worker, its placeholders, its output in S3."""

    def __init__(self, params: Params) -> None:
        self.command = ShellTemplate(params.command, TRUSTED, UNTRUSTED)
        self._suffix = parse(params.suffix, ["ext"])
        self._folder = params.prefix[: params.prefix.rfind("/") + 1]
        self._out_prefix: str = params.out_prefix

    def out_key(self, key: str) -> str:
        return self._out_prefix + self._parts(key)["stem"] + self._own_suffix(key)

    def in_file(self, folder: str, key: str) -> str:
        return f"{folder}/in{_ending(self._parts(key)['ext'])}"

    def out_file(self, folder: str, key: str) -> str:
        return f"{folder}/out{_ending(self._own_suffix(key))}"

    def script(self, number: int, key: str, actor: int) -> str:
        """Return the worker's shell command for this key, its actor's `number`th."""
        folder = folder_of(number)
        files = {"in": self.in_file(folder, key), "out": self.out_file(folder, key)}
        tidy = f"rm -rf {folder_of(number - 1)}\n" if number else ""  # a worker's disk is small
        command = self.command.fill({**files, "actor": str(actor), **self._parts(key)})
        return f"{tidy}mkdir -p {folder}\n{command}"

    def _own_suffix(self, key: str) -> str:
        return fill(self._suffix, self._parts(key))

    def _parts(self, key: str) -> dict[str, str]:
        relative = key.removeprefix(self._folder)
        name = relative.rpartition("/")[2]
        dot = name.rfind(".")
        ext = name[dot:] if dot > 0 else ""
        return {"stem": relative.removesuffix(ext), "ext": ext, "name": name, "key": key}


def folder_of(number: int) -> str:
    """Return the worker's folder for its `number`th key."""
    return f"##TMPDIR##/{number}"


def _ending(name: str) -> str:
    """Return the plain extensions of a name, by which many programs choose a format."""
    found = re.search(r"(\.[A-Za-z0-9]{1,16})*\Z", name)
    return found[0] if found else ""


# ---------------------------------------------------------------- an actor


async def map_keys(worker: ScriptWorker) -> dict[str, list[Row]]:
    """Handle the actor's keys one after the other; return a row for each."""
    names = Names(worker.job.params)
    keep_going = worker.job.params.on_error == "keep"
    rows: list[Row] = []
    keys = worker.input["keys"]
    failed = 0
    for number, key in enumerate(keys):
        row: Row = {"key": key}
        worker.progress(number, len(keys), failed)
        try:
            await map_one(worker, names, row, number)
        except ActorFailed as error:
            failed += 1
            row["error"] = readable(str(error))
            if not keep_going:
                tail = f": {row['tail']}" if row.get("tail") else ""
                raise ActorFailed(f"{key!r}: {row['error']}{tail}") from error
        rows.append(row)
    worker.progress(len(keys), len(keys), failed)
    return {"keys": rows}


async def map_one(worker: ScriptWorker, names: Names, row: Row, number: int) -> None:
    """Retrieve, run, upload; put the outcome in the key's row. Raises ActorFailed."""
    key = row["key"]
    folder = folder_of(number)
    if "in" in names.command.names:
        await worker.retrieve(key, names.in_file(folder, key))
    begun = worker.now
    ran = await worker.run(names.script(number, key, worker.actor), check=False, source=key)
    row |= {"status": ran.status, "seconds": round(worker.now - begun, 3)}
    if ran.status:
        row["tail"] = readable(ran.output[-TAIL:])
        raise ActorFailed(f"exit status {ran.status}")
    if "out" in names.command.names:
        out = names.out_file(folder, key)
        counted = await worker.run(
            f"rm -f {names.in_file(folder, key)}; wc -c < {out}", check=False, quiet=True
        )
        if counted.status or not counted.output.strip().isdecimal():
            row["tail"] = readable(ran.output[-TAIL:])
            raise ActorFailed("the command exited with 0, but wrote no file {out}")
        await worker.upload(names.out_key(key), out)
        row |= {"bytes": int(counted.output), "out_key": names.out_key(key)}


# ---------------------------------------------------------------- the plan


def check(params: Params) -> None:
    """Raise FieldError for parameters that are invalid or contradict each other."""
    check_bucket(params)
    check_given(params, "command", "manifest")
    for key in params.keys:
        if not isinstance(key, str):
            raise FieldError("params.keys", f"params.keys must contain only strings, got {key!r}")
        if not key:
            raise FieldError("params.keys", "params.keys must not contain an empty key")
        check_length("params.keys", key)
    check_length("params.prefix", params.prefix)
    check_key("params.out_prefix", f"{params.out_prefix}x")
    check_key("params.suffix", f"x{params.suffix}")
    check_key("params.manifest", params.out_prefix + params.manifest)
    try:
        field = "params.command"
        ShellTemplate(params.command, TRUSTED, UNTRUSTED)
        field = "params.suffix"
        parse(params.suffix, ["ext"])
    except ValueError as error:
        raise FieldError(field, f"{field}: {error}") from None
    check_command("params.command", Names(params).script(MOST, "", MOST))
    _refuse_long_commands(params, params.keys)
    if not (params.keys or params.prefix or params.match):
        raise FieldError(
            "params.prefix",
            "give params.prefix or params.keys, or params.match '*' for the whole bucket",
        )
    if params.keys and params.match:
        raise FieldError(
            "params.match",
            "params.match applies to params.prefix, not to params.keys: give only one of match and keys",
        )
    if not params.keys and params.out_prefix == params.prefix and not params.match:
        raise FieldError(
            "params.out_prefix",
            "params.out_prefix must not be params.prefix, since a second run would take outputs as"
            " input: give another one, or a params.match that excludes outputs",
        )
    if params.on_error not in ("keep", "fail"):
        raise FieldError(
            "params.on_error", f"params.on_error must be keep or fail, got {params.on_error!r}"
        )


def input_keys(params: Params) -> list[str]:
    """Return the keys to handle: the given ones, or those in the bucket. Raises S3Error."""
    if params.keys:
        return list(params.keys)
    own = params.out_prefix
    below = own != params.prefix and own.startswith(params.prefix)
    return [
        key
        for key in s3.keys_below(params.bucket, params.prefix)
        if not (key.endswith("/") or (below and key.startswith(own)))
        and key != own + params.manifest
        and (not params.match or fnmatch.fnmatchcase(key.rpartition("/")[2], params.match))
    ]


def _refuse_long_commands(params: Params, keys: Sequence[str]) -> None:
    """Raise FieldError if a key makes the command too long for the worker's shell."""
    names = Names(params)
    if command_bytes(names.script(MOST, "", MOST)) + MOST_OF_KEY < LONGEST_COMMAND:
        return
    for key in keys:
        size = command_bytes(names.script(MOST, key, MOST))
        if size > LONGEST_COMMAND:
            raise FieldError(
                "params.command",
                f"params.command: with the key {key!r:.200} it has {size} bytes; Linux passes at most"
                f" {LONGEST_COMMAND} to a shell: put the script into the function's bundle",
            )


def _refuse_clashes(params: Params, keys: Sequence[str]) -> None:
    """Raise ValueError if an output would overwrite another one, an input or the manifest."""
    names = Names(params)
    (most, times), *_ = Counter(keys).most_common(1)
    if times > 1:
        raise FieldError("params.keys", f"params.keys contains {most!r} more than once")
    if "out" not in names.command.names:
        return
    inputs = set(keys)
    written: dict[str, str] = {}
    for key in keys:
        out_key = names.out_key(key)
        check_length("params.out_prefix", out_key)
        if out_key in inputs:
            raise ValueError(f"the output of {key!r} would overwrite the input {out_key!r}")
        if out_key == params.out_prefix + params.manifest:
            raise FieldError(
                "params.manifest", f"the manifest would overwrite the output of {key!r}"
            )
        if out_key in written:
            raise ValueError(
                f"the outputs of {written[out_key]!r} and {key!r} would both be {out_key!r}: put"
                " {ext} in params.suffix if the keys differ only in their extension"
            )
        written[out_key] = key


# ---------------------------------------------------------------- the pipeline


class Map(Pipeline):
    name = "map"
    description = (
        "Run a shell command for each key of an S3 prefix, and upload the files it writes."
    )
    parameters = (
        Parameter("bucket", str, "the S3 bucket of input and output"),
        Parameter(
            "command",
            str,
            "a shell command, run in the function's folder; {in} and {out} are files, {key} is the"
            " key, {name} its last part, {stem} and {ext} the key below prefix, {actor} the actor's"
            " number; for a literal brace write {{ or }}",
        ),
        Parameter("prefix", str, "handle the keys that begin with this", ""),
        Parameter("keys", list, "handle these keys, instead of those in the bucket", []),
        Parameter(
            "match", str, "handle only keys whose last part matches this pattern, such as *.png", ""
        ),
        Parameter(
            "out_prefix",
            str,
            "the prefix of the outputs, which are written to <out_prefix><stem><suffix>",
        ),
        Parameter(
            "suffix", str, "the end of output keys; {ext} is the extension of the input", "{ext}"
        ),
        Parameter(
            "per_worker",
            int,
            "keys per worker; 0: divide them evenly among the workers ordered",
            0,
            minimum=0,
        ),
        Parameter(
            "on_error",
            str,
            "if a key fails: keep (list it in the manifest) or fail (fail its actor)",
            "keep",
        ),
        Parameter(
            "manifest",
            str,
            "the name of the manifest, which is written to <out_prefix><manifest>",
            "manifest.json",
        ),
    )

    def check(self, params: Params) -> None:
        check(params)

    def plan(self, params: Params) -> list[ActorInput]:
        check(params)
        keys = input_keys(params)
        if not keys:
            matching = f" that matches {params.match}" if params.match else ""
            raise ValueError(
                f"there is no key below s3://{params.bucket}/{params.prefix}{matching}"
            )
        _refuse_clashes(params, keys)
        _refuse_long_commands(params, keys)
        each = params.per_worker
        actors = -(-len(keys) // each) if each else min(params.workers, len(keys))
        return [{"keys": keys[number::actors]} for number in range(actors)]

    def inputs(self, given: ActorInput) -> list[str]:
        keys: list[str] = given["keys"]
        return keys

    def begin(self, worker: ScriptWorker) -> Script:
        return map_keys(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, object]:
        params = job.params
        rows = [row for outcome in outcomes if not outcome.error for row in outcome.result["keys"]]
        rows.sort(key=lambda row: str(row["key"]))
        lost = [
            {"actor": number, "error": outcome.error}
            for number, outcome in enumerate(outcomes)
            if outcome.error
        ]
        known = {row["key"] for row in rows}
        unknown = [key for key in input_keys(params) if key not in known] if lost else []
        manifest = {
            "job": job.id,
            "bucket": params.bucket,
            "command": params.command,
            "keys": rows,
            "failed_actors": lost,
            "unknown": unknown,
        }
        where = params.out_prefix + params.manifest
        text = json.dumps(manifest, indent=1) + "\n"
        s3.put(params.bucket, where, text.encode(), "application/json")
        failed = [row for row in rows if "error" in row]
        return {
            "manifest": where,
            "done": len(rows) - len(failed),
            "failed": len(failed),
            "unknown": len(unknown),
            "bytes": sum(row.get("bytes", 0) for row in rows),
            "seconds": round(sum(row.get("seconds", 0.0) for row in rows), 3),
            "failures": failed[:SHOWN],
        }


map_pipeline = Map()
