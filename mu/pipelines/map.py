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
from mu.plugins import ActorInput, Pipeline
from mu.states import ActorFailed, JobFacts, Script, ScriptWorker

TRUSTED = ("in", "out", "actor")  # mu's own: two files below ##TMPDIR##, a number
UNTRUSTED = ("stem", "ext", "name", "key")  # from the key, which may contain anything

TAIL = 500
"""How many characters of the end of a failed command's output are kept."""
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

    def filled(self, folder: str, key: str, actor: int) -> str:
        """Return the command for this key."""
        files = {"in": self.in_file(folder, key), "out": self.out_file(folder, key)}
        return self.command.fill({**files, "actor": str(actor), **self._parts(key)})

    def _own_suffix(self, key: str) -> str:
        return fill(self._suffix, self._parts(key))

    def _parts(self, key: str) -> dict[str, str]:
        relative = key.removeprefix(self._folder)
        name = relative.rpartition("/")[2]
        dot = name.rfind(".")
        ext = name[dot:] if dot > 0 else ""
        return {"stem": relative.removesuffix(ext), "ext": ext, "name": name, "key": key}


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
    for number, key in enumerate(worker.input["keys"]):
        row: Row = {"key": key}
        try:
            await map_one(worker, names, row, number)
        except ActorFailed as error:
            row["error"] = _clean(str(error))
            if not keep_going:
                tail = f": {row['tail']}" if row.get("tail") else ""
                raise ActorFailed(f"{key!r}: {row['error']}{tail}") from error
        rows.append(row)
    return {"keys": rows}


async def map_one(worker: ScriptWorker, names: Names, row: Row, number: int) -> None:
    """Retrieve, run, upload; put the outcome in the key's row. Raises ActorFailed."""
    key = row["key"]
    folder = f"##TMPDIR##/{number}"
    if "in" in names.command.names:
        await worker.retrieve(key, names.in_file(folder, key))
    begun = worker.now
    tidy = f"rm -rf ##TMPDIR##/{number - 1}\n" if number else ""  # the disk of a worker is small
    command = names.filled(folder, key, worker.actor)
    ran = await worker.run(f"{tidy}mkdir -p {folder}\n{command}", check=False)
    row |= {"status": ran.status, "seconds": round(worker.now - begun, 3)}
    if ran.status:
        row["tail"] = _clean(ran.output[-TAIL:])
        raise ActorFailed(f"exit status {ran.status}")
    if "out" in names.command.names:
        out = names.out_file(folder, key)
        counted = await worker.run(
            f"rm -f {names.in_file(folder, key)}; wc -c < {out}", check=False
        )
        if counted.status or not counted.output.strip().isdecimal():
            row["tail"] = _clean(ran.output[-TAIL:])
            raise ActorFailed("the command exited with 0, but wrote no file {out}")
        await worker.upload(names.out_key(key), out)
        row |= {"bytes": int(counted.output), "out_key": names.out_key(key)}


def _clean(output: str) -> str:
    """Return the output of a program as text that can be encoded in UTF-8."""
    return output.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# ---------------------------------------------------------------- the plan


def check(params: Params) -> None:
    """Raise FieldError for parameters that are invalid or contradict each other."""
    for name in ("bucket", "command", "prefix", "match", "out_prefix", "suffix", "manifest"):
        _check_text(f"params.{name}", params[name])
        if not params[name] and name in ("bucket", "command", "manifest"):
            raise FieldError(f"params.{name}", f"params.{name} must not be empty")
    for key in params.keys:
        _check_text("params.keys", key)
        if not key:
            raise FieldError("params.keys", "params.keys must not contain an empty key")
    try:
        field = "params.command"
        ShellTemplate(params.command, TRUSTED, UNTRUSTED)
        field = "params.suffix"
        parse(params.suffix, ["ext"])
    except ValueError as error:
        raise FieldError(field, f"{field}: {error}") from None
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


def _check_text(field: str, text: object) -> None:
    if not isinstance(text, str):
        raise FieldError(field, f"{field} must contain only strings, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FieldError(field, f"{field} must be valid Unicode, got {text!r}") from None
    if "\0" in text:
        raise FieldError(field, f"{field} must not contain a NUL, got {text!r}")


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
        each = params.per_worker
        actors = -(-len(keys) // each) if each else min(params.workers, len(keys))
        return [{"keys": keys[number::actors]} for number in range(actors)]

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
