"""map: run a shell command for each key of an S3 prefix, or of a list, and upload its output.

An actor may have several keys: retrieve, run, upload. While the command runs on one key, the inputs
of the next are retrieved and the outputs of those before are uploaded, if the worker numbers its
replies. Otherwise, an actor handles one key after the other.

`finish` writes a manifest with the outcome of each key, below the output prefix. A second run
writes to the same keys.
"""

import fnmatch
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from os.path import commonprefix
from typing import Any

from mu.aws.keys import no_files
from mu.aws.s3 import EMBEDDED_BUCKET
from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import s3
from mu.pipelines.mending import NOT_THERE, ProgramsMissing, first_program, is_final, may_mend, need
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
from mu.pipelines.tolerance import Tolerance, tolerates
from mu.pipelines.transfers import AT_ONCE
from mu.plugins import ActorInput, JobFailed, Outcome, Pipeline
from mu.states import ActorFailed, CommandFailed, JobFacts, Script, ScriptWorker, Started

TRUSTED = ("in", "out", "actor")  # mu's own: two files below ##TMPDIR##, a number
UNTRUSTED = ("stem", "ext", "name", "key")  # from the key, which may contain anything

TAIL = 500
"""How many characters of the end of a failed command's output are kept."""
MOST_OF_KEY = 16 * LONGEST_KEY
"""More bytes than a key adds to a command: each of its names once, quoted."""
MOST = 999_999
"""More keys than one actor has, and more actors than a job has."""
SHOWN = 5
"""How many failed keys the job's result and error list. The manifest lists all."""
SHOWN_TAIL = 100
"""How many characters of the end of a failed command's output the job's error has."""

MB = 1_000_000

Row = dict[str, Any]
"""The outcome of one key, in the manifest's form."""
_LOST: Row = {"error": "its actor failed"}


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

    def script(self, number: int, key: str, actor: int, used: Iterable[int]) -> str:
        """Return the worker's shell command for this key, its actor's `number`th.

        It first removes the files of the keys `used`, since a worker's disk is small.
        """
        folder = folder_of(number)
        files = {"in": self.in_file(folder, key), "out": self.out_file(folder, key)}
        folders = " ".join(map(folder_of, used))
        tidy = f"rm -rf {folders}\n" if folders else ""
        command = self.command.fill({**files, "actor": str(actor), **self._parts(key)})
        return f"{tidy}mkdir -p {folder}\n{command}"

    def longest_script(self, key: str = "") -> str:
        """Return the command for a key at its longest, whatever the numbers."""
        return self.script(MOST, key, MOST, [MOST] * (AT_ONCE + 2))

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


class Item:
    """One of the actor's keys, its `number`th: what is done with it, and its row in the manifest."""

    def __init__(self, worker: ScriptWorker, names: Names, number: int, key: str) -> None:
        self.number = number
        self.row: Row = {"key": key}
        self.held = 0
        """The size of an output that is not uploaded yet, in bytes; an estimate until `measured`."""
        self.measured = False
        self._tail = ""  # the end of what the command printed
        self._worker = worker
        self._names = names

    @property
    def _in_file(self) -> str:
        return self._names.in_file(folder_of(self.number), self.row["key"])

    @property
    def _out_file(self) -> str:
        return self._names.out_file(folder_of(self.number), self.row["key"])

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Note in the row why the key fails, and raise that again if it is to fail the actor."""
        row = self.row
        try:
            yield
        except ProgramsMissing:  # no key can do without them
            raise
        except ActorFailed as error:
            row["error"] = readable(str(error))
            if self._worker.job.params.on_error != "keep":
                tail = f": {row['tail']}" if row.get("tail") else ""
                words = f"{row['key']!r}: {row['error']}{tail}"
                raise ActorFailed(words, error.final) from error

    async def retrieve(self) -> None:
        if "in" not in self._names.command.names:
            return
        try:
            await self._worker.retrieve(self.row["key"], self._in_file)
        except CommandFailed as failed:
            if self._worker.numbered or "NoSuchKey" in failed.reply:
                raise
            # a worker of the original mu makes no folder for a file
            await self._worker.run(f"mkdir -p {folder_of(self.number)}", quiet=True)
            await self._worker.retrieve(self.row["key"], self._in_file)

    async def run(self, used: Iterable[int]) -> None:
        """Remove the files of the keys `used`, and run the command. Raises ActorFailed."""
        row, worker = self.row, self._worker
        begun = worker.now
        script = self._names.script(self.number, row["key"], worker.actor, used)
        ran = await worker.run(script, check=False, source=row["key"])
        row |= {"status": ran.status, "seconds": round(worker.now - begun, 3)}
        self._tail = readable(ran.output[-TAIL:])
        if ran.status:
            row["tail"] = self._tail
            if ran.status in NOT_THERE:
                await need(worker, *first_program(worker.job.params.command))
            raise ActorFailed(f"exit status {ran.status}", is_final(ran.status, ran.output))

    async def measure(self) -> None:
        """Remove the input, and look how much the command has written. Raises ActorFailed."""
        self.measured = True
        if "out" not in self._names.command.names:
            return
        counted = await self._worker.run(
            f"rm -f {self._in_file}; wc -c < {self._out_file}", check=False, quiet=True
        )
        if counted.status or not counted.output.strip().isdecimal():
            self.row["tail"] = self._tail
            raise ActorFailed("the command exited with 0, but wrote no file {out}")
        self.held = int(counted.output)

    async def upload(self) -> None:
        """Upload the output of a command that has succeeded. Raises ActorFailed."""
        if "out" in self._names.command.names:
            out_key = self._names.out_key(self.row["key"])
            await self._worker.upload(out_key, self._out_file)
            self.row |= {"bytes": self.held, "out_key": out_key}


class Tally:
    """Counts the actor's items that have ended, as its progress."""

    def __init__(self, worker: ScriptWorker, items: int) -> None:
        self._worker = worker
        self._items = items
        self._done = self._failed = 0
        worker.progress(0, items)

    def add(self, item: Item) -> None:
        """Count an item that has ended."""
        self._done += 1
        self._failed += "error" in item.row
        self._worker.progress(self._done, self._items, self._failed)


async def map_keys(worker: ScriptWorker) -> dict[str, list[Row]]:
    """Handle the actor's keys; return a row for each."""
    names = Names(worker.job.params)
    items = [Item(worker, names, *one) for one in enumerate(worker.input["keys"])]
    count = Tally(worker, len(items))
    if worker.numbered and worker.job.params.ahead_mb:
        await overlapping(worker, items, count)
    else:
        for item in items:
            with item.failing():
                await item.retrieve()
                await item.run(used=range(item.number)[-1:])
                await item.measure()
                await item.upload()
            count.add(item)
    return {"keys": [item.row for item in items]}


async def overlapping(worker: ScriptWorker, items: Sequence[Item], count: Tally) -> None:
    """Run the commands one after the other, and copy other keys' files meanwhile.

    When a command begins, the inputs of later keys have at most `ahead_mb` together, as far as
    their sizes are known, and so have the outputs of earlier ones that wait for their upload. One
    that is not measured yet counts as the largest of the last ones.
    """
    limit = worker.job.params.ahead_mb * MB
    coming: deque[Started[None]] = deque()  # retrievals, from the current item's on
    leaving: deque[tuple[Item, Started[None]]] = deque()  # uploads
    outputs: deque[int] = deque(maxlen=AT_ONCE)  # the sizes of the last ones
    used: list[int] = []  # items whose files are no longer needed

    async def measure(item: Item) -> None:
        await item.measure()
        outputs.append(item.held)

    async def leave(item: Item) -> None:
        with item.failing():
            if "error" not in item.row:
                if not item.measured:
                    await measure(item)
                await item.upload()
        item.held = 0
        used.append(item.number)
        count.add(item)

    await worker.together(worker.seti("nonblock", 1), worker.seti("bg_silent", 1))
    for item in items:
        following = item.number + len(coming)
        for later in items[following : item.number + 1 + ahead(worker.input, item.number, limit)]:
            coming.append(await worker.start(later.retrieve()))
        with item.failing():
            await coming.popleft()
            done, used[:] = used[:], []
            await item.run(done)
            if not outputs:  # how large they are is not known yet
                await measure(item)
        if not item.measured:
            item.held = max(outputs, default=0)
        leaving.append((item, await worker.start(leave(item))))
        while sum(one.held for one, _ in leaving) > limit or len(leaving) > AT_ONCE:
            await leaving.popleft()[1]
    for _, stored in leaving:
        await stored


def ahead(given: Mapping[str, Any], number: int, limit: int) -> int:
    """Return how many inputs to retrieve before the command runs on the actor's `number`th key.

    As many of the next as have at most `limit` bytes together, or one if the sizes are unknown.
    """
    most = min(AT_ONCE, len(given["keys"]) - number - 1)
    if "sizes" not in given:
        return min(1, most)
    totals = accumulate(given["sizes"][number + 1 : number + 1 + most])
    return sum(total <= limit for total in totals)


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
    check_command("params.command", params.command)
    check_command("params.command", Names(params).longest_script())
    _refuse_long_commands(params, params.keys)
    if params.skip_existing and "out" not in Names(params).command.names:
        raise FieldError(
            "params.skip_existing",
            "params.skip_existing needs {out} in params.command: there are no outputs to look for",
        )
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


def inputs(params: Params) -> tuple[list[str], list[int]]:
    """Return the keys to handle: the given ones, or those in the bucket with their sizes in bytes.

    Raises S3Error.
    """
    if params.keys:
        return list(params.keys), []
    own = params.out_prefix
    below = own != params.prefix and own.startswith(params.prefix)
    found = [
        (key, one.size)
        for one in s3.objects_below(params.bucket, params.prefix)
        if not ((key := one.key).endswith("/") or (below and key.startswith(own)))
        and key != own + params.manifest
        and (not params.match or fnmatch.fnmatchcase(key.rpartition("/")[2], params.match))
    ]
    return [key for key, _ in found], [size for _, size in found]


def checked_inputs(params: Params) -> tuple[list[str], dict[str, int]]:
    """Return the keys to handle, and their sizes in bytes as far as they are known.

    Raises ValueError if there is none, or one cannot be handled, and S3Error.
    """
    check(params)
    keys, sizes = inputs(params)
    if not keys:
        matching = f" that matches {params.match}" if params.match else ""
        raise ValueError(f"there is no key below s3://{params.bucket}/{params.prefix}{matching}")
    _refuse_clashes(params, keys)
    _refuse_long_commands(params, keys)
    return keys, dict(zip(keys, sizes, strict=False))


def with_sizes(keys: list[str], sizes: Mapping[str, int]) -> ActorInput:
    """Return an actor's input, with the sizes of its keys in bytes if they are known."""
    known = [sizes[key] for key in keys if key in sizes]
    return {"keys": keys, "sizes": known} if len(known) == len(keys) > 0 else {"keys": keys}


def up_to_date(params: Params, keys: Sequence[str]) -> list[Row]:
    """Return the rows of keys whose output is there, and not older than the input. Raises S3Error."""
    names = Names(params)
    start = commonprefix(keys)  # noqa: RUF071, a prefix is no folder
    sources = {one.key: one for one in s3.objects_below(params.bucket, start)}
    outputs = {one.key: one for one in s3.objects_below(params.bucket, params.out_prefix)}
    rows = []
    for key in keys:
        source, made = sources.get(key), outputs.get(names.out_key(key))
        if source and made and made.modified >= source.modified:
            rows.append({"key": key, "skipped": True, "bytes": made.size, "out_key": made.key})
    return rows


def _refuse_long_commands(params: Params, keys: Sequence[str]) -> None:
    """Raise FieldError if a key makes the command too long for the worker's shell."""
    names = Names(params)
    if command_bytes(names.longest_script()) + MOST_OF_KEY < LONGEST_COMMAND:
        return
    for key in keys:
        size = command_bytes(names.longest_script(key))
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
    if params.bucket == EMBEDDED_BUCKET:  # its objects are files
        there = s3.keys_below(params.bucket, params.out_prefix)
        for refused, why in no_files(
            [*keys, *written, params.out_prefix + params.manifest, *there]
        ):
            raise ValueError(f"the embedded S3 server cannot hold {refused!r}: {why}")


# ---------------------------------------------------------------- the pipeline


class Map(Pipeline):
    name = "map"
    may_mend = staticmethod(may_mend)
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
            "ahead_mb",
            int,
            "how many MB of inputs to retrieve before their turn, one input where sizes are unknown,"
            " and of outputs to upload later; 0: one key after the other",
            32,  # the smallest /tmp of a function has 512 MB
            minimum=0,
        ),
        Parameter(
            "on_error",
            str,
            "if a key fails: keep (continue with the next one) or fail (fail its actor)",
            "keep",
        ),
        Parameter(
            "skip_existing",
            bool,
            "skip the keys whose output is there already, and not older than the input",
            False,
        ),
        Tolerance(
            "tolerate",
            str,
            "how many keys may fail in a job that is done: a number, or a percentage such as 5%",
            "0",
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
        keys, known_sizes = checked_inputs(params)
        skipped = up_to_date(params, keys) if params.skip_existing else []
        known = {row["key"] for row in skipped}
        keys = [key for key in keys if key not in known]
        each = params.per_worker
        actors = -(-len(keys) // each) if each else min(params.workers, len(keys))
        planned = [with_sizes(keys[number::actors], known_sizes) for number in range(actors)]
        if skipped:  # the first actor has their rows, for the manifest; a plan needs an actor
            planned = planned or [{"keys": []}]
            planned[0]["skipped"] = skipped
        return planned

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        """Run the keys that failed or are unknown, each in its actor."""
        rows = rows_of(outcomes)
        planned: dict[int, ActorInput] = {}
        sizes: dict[str, int] = {}
        for outcome in outcomes:
            sizes |= zip(outcome.input["keys"], outcome.input.get("sizes", ()), strict=False)
            keys = [key for key in outcome.input["keys"] if "error" in rows.get(key, _LOST)]
            if keys:
                before = planned.get(outcome.actor, {"keys": []})["keys"]
                others = {name: one for name, one in outcome.input.items() if name != "sizes"}
                again = with_sizes(list(dict.fromkeys([*before, *keys])), sizes)
                planned[outcome.actor] = {**others, **again}
        return planned

    def inputs(self, given: ActorInput) -> list[str]:
        keys: list[str] = given["keys"]
        return keys

    def failed_inputs(self, result: Any) -> dict[str, str]:
        return {row["key"]: row["error"] for row in result["keys"] if "error" in row}

    def begin(self, worker: ScriptWorker) -> Script:
        return map_keys(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Write the manifest. Raises JobFailed if more keys failed than are tolerated."""
        params = job.params
        rows = rows_of(outcomes)
        lost = [outcome for outcome in outcomes if outcome.error]
        unknown = [key for outcome in lost for key in outcome.input["keys"] if key not in rows]
        known = sorted(rows.values(), key=lambda row: str(row["key"]))
        manifest = {
            "job": job.id,
            "bucket": params.bucket,
            "command": params.command,
            "keys": known,
            "failed_actors": [{"actor": one.actor, "error": one.error} for one in lost],
            "unknown": sorted(unknown),
        }
        where = params.out_prefix + params.manifest
        text = json.dumps(manifest, indent=1) + "\n"
        s3.put(params.bucket, where, text.encode(), "application/json")
        failed = [row for row in known if "error" in row]
        result = {
            "manifest": where,
            "done": len(known) - len(failed),
            "failed": len(failed),
            "unknown": len(unknown),
            "skipped": sum("skipped" in row for row in known),
            "bytes": sum(row.get("bytes", 0) for row in known),
            "seconds": round(sum(row.get("seconds", 0.0) for row in known), 3),
            "failures": failed[:SHOWN],
        }
        total = len(known) + len(unknown)
        if not tolerates(params.tolerate, len(failed) + len(unknown), total):
            why = [f"{len(known) - len(failed)} of {total} keys"]
            if failed:
                why.append(f"{len(failed)} failed: {_listed(map(_why, failed))}")
            if unknown:
                actors = (f"actor {outcome.actor}: {outcome.error}" for outcome in lost)
                why.append(f"{len(unknown)} unknown: {_listed(actors)}")
            raise JobFailed("; ".join(why), result)
        return result


def rows_of(outcomes: Sequence[Outcome]) -> dict[str, Row]:
    """Return the rows of all keys whose outcome is known, by key."""
    rows: dict[str, Row] = {}
    for outcome in outcomes:
        done = [] if outcome.error else outcome.result["keys"]
        rows |= {row["key"]: row for row in [*outcome.input.get("skipped", []), *done]}
    return rows


def _why(row: Row) -> str:
    """Return why a key failed, such as `a.txt: exit status 1: the end of its output`."""
    tail = " ".join(row.get("tail", "").split())[-SHOWN_TAIL:]
    return ": ".join(word for word in (row["key"], row["error"], tail) if word)


def _listed(sentences: Iterable[str]) -> str:
    listed = list(sentences)
    more = f"; and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return "; ".join(listed[:SHOWN]) + more


map_pipeline = Map()
