"""`map`: a function of Python, called for each of some items by a job's actors."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mu.client import calls
from mu.client.answers import EndJson
from mu.client.calls import Call
from mu.client.errors import ClientError, ItemError, JobError
from mu.client.function import PYTHON
from mu.client.pickles import error_of, modules_by_value, pickled, pickled_items, value_of
from mu.strict_json import JSON

if TYPE_CHECKING:
    from mu.client.jobs import Job

WORTH_ASKING = 2**16
"""From this size on, in bytes, it is asked whether the daemon has a blob already."""

Ask = Callable[[Call[Any]], Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What a map sends: two blobs, and the parameters that name them."""

    items: int
    chunk: int
    """How many items an actor has, the last one fewer."""
    workers: int
    params: Mapping[str, Any]
    blobs: Mapping[str, bytes]
    return_exceptions: bool

    @classmethod
    def of(
        cls,
        function: object,
        items: Iterable[object],
        workers: int,
        chunk: int,
        tries: int,
        bucket: str,
        return_exceptions: bool,
    ) -> Work:
        """Pickle a function and its items. `chunk` 0: enough for so many workers. Raises ClientError."""
        with modules_by_value():
            code = pickled(function, "the function")
            arguments, count = pickled_items(items)
        digests = [hashlib.sha256(one).hexdigest() for one in (code, arguments)]
        chunk = chunk or max(1, -(-count // workers))
        params = {"code": digests[0], "arguments": digests[1], "python": PYTHON, "chunk": chunk}
        params |= {"tries": tries, "bucket": bucket}
        params["tolerate"] = "100%" if return_exceptions else "0"
        blobs = dict(zip(digests, (code, arguments), strict=True))
        return cls(count, chunk, -(-count // chunk), params, blobs, return_exceptions)

    def values(self, end: EndJson, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Any]]:
        """Yield the numbers and values of an actor's items, or raise what one of them raised."""
        first = end["actor"] * self.chunk
        if end["state"] != "done":
            last = min(first + self.chunk, self.items) - 1
            if not self.return_exceptions:
                raise ItemError(f"items {first} to {last}: {end['error']}")
            for number in range(first, last + 1):
                yield number, ItemError(f"item {number}: {end['error']}")
        for number, row in enumerate(rows, first):
            failed = self.return_exceptions and "error" in row
            yield number, error_of(row, number) if failed else value_of(row, number)


class InOrder:
    """Puts what comes in any order in that of its numbers, if it is to be `ordered`."""

    def __init__(self, ordered: bool) -> None:
        self.count = 0
        """How many have come."""
        self._ordered = ordered
        self._next = 0
        self._waiting: dict[int, Any] = {}

    def add(self, values: Iterable[tuple[int, Any]]) -> Iterator[Any]:
        """Yield what is next."""
        for number, value in values:
            self.count += 1
            if not self._ordered:
                yield value
                continue
            self._waiting[number] = value
            while self._next in self._waiting:
                yield self._waiting.pop(self._next)
                self._next += 1


def send_blobs(ask: Ask, work: Work) -> None:
    """Have the daemon keep the blobs."""
    for digest, content in work.blobs.items():
        if len(content) < WORTH_ASKING or not ask(calls.has_blob(digest)):
            ask(calls.put_blob(digest, content))


def rows_of(ask: Ask, job: Job, end: EndJson) -> list[JSON]:
    """Return the rows of an actor's items: from its result, a blob, or S3."""
    result = end["result"] or {"rows": []}
    if "blob" in result:
        rows: list[JSON] = json.loads(ask(calls.get_blob(result["blob"])))
    elif "key" in result:
        rows = json.loads(_from_s3(ask, job, result["key"]))
    else:
        rows = result["rows"]
    return rows


def _from_s3(ask: Ask, job: Job, key: str) -> bytes:
    """Read an object of the job's bucket, with this process's credentials. Raises ClientError."""
    from mu.aws.s3 import S3Error, S3Place, explained

    place = ask(calls.s3(str(job.told["params"]["bucket"]), job.told.get("engine", "")))
    bucket, at = place["bucket"], (place["endpoint"] or "", place["region"] or "")
    where = S3Place(*at, place["addressing"], place["profile"] or "")
    try:
        with explained(f"read s3://{bucket}/{key}", "this client", "see docs/data.md"):
            client = where.bucket_client(bucket, "us-east-1")
            body: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            return body
    except S3Error as error:
        raise ClientError(str(error)) from None


class MapResults:
    """Iterates over what the calls of a map return. Nothing waits for the iteration: the job runs.

    What a call raised is raised, unless it is to be returned. Then, and at Ctrl-C while the iteration
    waits, the job is cancelled.
    """

    def __init__(
        self, ask: Ask, job: Job | None, work: Work, ordered: bool, progress: bool | None
    ) -> None:
        self.job = job
        """The job, whose actors call the function; None: there are no items."""
        self._values = iter(()) if job is None else _values(ask, job, work, ordered, progress)

    def __iter__(self) -> MapResults:
        return self

    def __next__(self) -> Any:
        return next(self._values)

    def __repr__(self) -> str:
        return f"<MapResults of {self.job!r}>"

    def _repr_html_(self) -> str:
        return "" if self.job is None else self.job._repr_html_()


def _values(ask: Ask, job: Job, work: Work, ordered: bool, progress: bool | None) -> Iterator[Any]:
    order = InOrder(ordered)
    shown = sys.stderr.isatty() if progress is None else progress
    try:
        with bar(job, work.items) if shown else nullcontext() as move:
            for end in job.ends(tick=move):
                yield from order.add(work.values(end, rows_of(ask, job, end)))
        if order.count < work.items:
            raise JobError(job.refresh())
    except GeneratorExit:  # the caller wants no more of them
        raise
    except BaseException:
        if job.told["finished"] is None:
            job.cancel()
        raise


@contextmanager
def bar(job: Job, items: int) -> Iterator[Callable[[], None]]:
    """Show on stderr how many items are done, and when all will be; yield what moves the bar."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"job {job.id}", total=items, failed="")

        def move() -> None:
            told = job.refresh().get("inputs")
            if told is not None:
                failed = f"{told['failed']} failed" if told["failed"] else ""
                progress.update(task, completed=told["done"] + told["failed"], failed=failed)

        yield move
