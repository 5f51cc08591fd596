"""Copies files between this machine and S3: only those that differ, with a progress bar.

An object is up to date if it has its file's size and is younger than the file's last change, be it of
its content or of its place (a file that was moved here is a change, too). Times are compared by S3's
clock. A downloaded file gets its object's time, by which the next download recognizes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mu.aws.s3 import S3Error, S3Place, answer_of, explained
from mu.cli.display.text import console, many
from mu.cli.files import LocalFile, listed, refuse_names, shown
from mu.cli.options import CliError, the_home, where
from mu.client.local import local_key

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mu.client.answers import PlaceJson

AT_ONCE = 8
"""Requests to S3 at the same time."""
PART_BYTES = 16 * 2**20
"""The size of the parts of a large file; a file of more than 10,000 parts gets larger ones."""
CLOCK_S = 2.0
"""How exactly the clock of another machine is known, in seconds."""
REMEDY = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the shell that runs mu;"
    " docs/data.md says more"
)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says about an object."""

    size: int
    stored: float
    """When it was stored, by S3's clock, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did."""

    files: int
    size: int
    """Of the files copied, in bytes."""
    same: int
    """How many files were up to date."""
    deleted: int = 0

    def sentence(self, done: str, where: str) -> str:
        from rich.filesize import decimal

        what = f"{done} {many(self.files, 'file')} ({decimal(self.size)}) to {where}"
        same = f"; {self.same} up to date" if self.same else ""
        return what + same + (f"; {self.deleted} deleted there" if self.deleted else "") + "."


def store_of(told: PlaceJson) -> FileStore:
    """Return the store of the bucket that the daemon has told. Raises CliError if it is out of reach."""
    bucket, remote = told["bucket"], "url" in where()
    endpoint = told["endpoint"] or ""
    if remote and (told["embedded"] or _is_loopback(endpoint)):
        what = "the embedded S3 server" if told["embedded"] else f"the S3 server at {endpoint}"
        raise CliError(
            f"--url: {what} is on the daemon's machine, and can be reached only there: name a bucket"
            " that both machines reach, with -p bucket=NAME, or in [s3] of the daemon's mu.conf"
            " (docs/data.md)"
        )
    if told["embedded"]:
        from mu.engines.local.key import S3_KEY

        key = local_key(the_home(), S3_KEY)
        place = S3Place(endpoint, "", told["addressing"], "", key.access_key, key.secret_key)
    else:
        profile = "" if remote else told["profile"] or ""  # another machine has its own profiles
        place = S3Place(endpoint, told["region"] or "", told["addressing"], profile)
    return FileStore(place, bucket)


def _is_loopback(url: str) -> bool:
    from mu.aws.proxies import is_loopback

    return bool(url) and is_loopback(urlsplit(url).hostname or "")


class FileStore:
    """One bucket, for this command line. Its methods raise mu.aws.s3.S3Error."""

    def __init__(self, place: S3Place, bucket: str) -> None:
        self._place, self._bucket = place, bucket
        self._ahead_s = 0.0
        """How far S3's clock may be ahead of this machine's; the embedded server has the same."""
        self._made: Any = None

    @property
    def bucket(self) -> str:
        return self._bucket

    def url(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def upload(self, files: Sequence[LocalFile], prefix: str, ours: bool) -> Copied:
        """Make the objects below the prefix those of the files.

        If the prefix is `ours`, objects of files that are gone are deleted.
        """
        there = self.listed(prefix)
        wanted = {prefix + file.name: file for file in files}
        gone = [key for key in there if key not in wanted] if ours else []
        if self._place.embedded:  # its disk cannot hold what another bucket could
            refuse_names([*wanted, *(there.keys() - wanted.keys() - set(gone))], "the S3 server")
        self._delete(gone)
        changed = {
            key: file for key, file in wanted.items() if not self._is_same(file, there.get(key))
        }
        size = sum(file.size for file in changed.values())
        with (
            _local_errors("read"),
            explained(f"upload to {self.url(prefix)}", "this command line", REMEDY),
            self._manager() as manager,
            _bar("Uploading", len(changed), size) as heard,
        ):
            _wait(
                manager.upload(str(file.path), self._bucket, key, subscribers=[heard])
                for key, file in changed.items()
            )
        moving = [key for key, file in changed.items() if not file.is_unchanged()]
        if moving:  # the next upload must not take them for copies
            self._delete(moving)
            names = listed([shown(changed[key].path) for key in moving])
            raise CliError(f"{many(len(moving), 'file')} changed during the upload:\n{names}")
        return Copied(len(changed), size, len(wanted) - len(changed), len(gone))

    def download(self, names: Mapping[str, str], folder: Path, prefix: str) -> Copied:
        """Copy objects to files below the folder; `names` has each key's file. Keys share the prefix."""
        refuse_names([*names.values()], shown(folder))
        there = self.listed(prefix)
        missing = [key for key in names if key not in there]
        if missing:
            lines = listed([self.url(key) for key in missing])
            raise CliError(f"{many(len(missing), 'file')} of the job no longer exist:\n{lines}")
        wanted = {key: folder / name for key, name in names.items()}
        changed = {key: path for key, path in wanted.items() if not _is_copy(path, there[key])}
        size = sum(there[key].size for key in changed)
        with (
            _local_errors("write"),
            explained(f"download from {self.url(prefix)}", "this command line", REMEDY),
            self._manager() as manager,
            _bar("Downloading", len(changed), size) as heard,
        ):
            for path in changed.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            _wait(
                manager.download(self._bucket, key, str(path), subscribers=[heard])
                for key, path in changed.items()
            )
            for key, path in changed.items():
                os.utime(path, (there[key].stored, there[key].stored))
        return Copied(len(changed), size, len(wanted) - len(changed))

    def read(self, key: str) -> bytes:
        with explained(f"read {self.url(key)}", "this command line", REMEDY):
            body: bytes = self._client().get_object(Bucket=self._bucket, Key=key)["Body"].read()
            return body

    def listed(self, prefix: str) -> dict[str, StoredObject]:
        """Return all objects below a prefix, by key."""
        found: dict[str, StoredObject] = {}
        with explained(f"list {self.url(prefix)}", "this command line", REMEDY):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                self._note_clock(page)
                for one in page.get("Contents", ()):
                    found[one["Key"]] = StoredObject(one["Size"], one["LastModified"].timestamp())
        return found

    def _note_clock(self, page: Mapping[str, Any]) -> None:
        date = page["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
        if date and not self._place.embedded:
            with contextlib.suppress(ValueError):
                ahead_s = parsedate_to_datetime(date).timestamp() - time.time()
                self._ahead_s = ahead_s + CLOCK_S

    def _is_same(self, file: LocalFile, there: StoredObject | None) -> bool:
        if there is None or there.size != file.size:
            return False
        return file.changed + self._ahead_s < there.stored

    def _delete(self, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), 1000):
            some = [{"Key": key} for key in keys[at : at + 1000]]
            with explained(f"delete in {self.url('')}", "this command line", REMEDY):
                request = {"Objects": some, "Quiet": True}
                told = self._client().delete_objects(Bucket=self._bucket, Delete=request)
            for failed in told.get("Errors", ()):
                url, why = self.url(failed["Key"]), answer_of({"Error": failed})
                raise S3Error(f"cannot delete {url}: {why}")

    def _manager(self) -> Any:
        """Return a transfer manager, to be used in `with`."""
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        config = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=AT_ONCE
        )
        return create_transfer_manager(self._client(), config)

    def _client(self) -> Any:
        if self._made is None:
            retries = {"mode": "standard", "total_max_attempts": 5}
            self._made = self._place.bucket_client(
                self._bucket, "us-east-1", retries=retries, max_pool_connections=2 * AT_ONCE
            )
        return self._made


def _is_copy(path: Path, there: StoredObject) -> bool:
    """Whether the file is a copy of this object that nobody has changed."""
    try:
        known = path.stat()
    except OSError:
        return False
    return known.st_size == there.size and abs(known.st_mtime - there.stored) < 1e-3


def _wait(transfers: Iterable[Any]) -> None:
    """Start all transfers, then wait for each of them; the first that failed raises."""
    for transfer in list(transfers):
        transfer.result()


@contextlib.contextmanager
def _local_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" {shown(error.filename)}" if error.filename else ""
        raise CliError(f"cannot {doing}{where}: {error.strerror or error}") from None


class _Heard:
    """A subscriber of transfers, which moves the bar. They call it in threads of their own."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._files = itertools.count(1)

    def on_queued(self, **of: object) -> None: ...

    def on_progress(self, bytes_transferred: int, **of: object) -> None:
        self._progress.advance(self._task, bytes_transferred)

    def on_done(self, **of: object) -> None:
        self._progress.update(self._task, done=next(self._files))


@contextlib.contextmanager
def _bar(what: str, files: int, size: int) -> Iterator[_Heard]:
    """Show a bar on stderr if that is a terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    columns = (
        TextColumn("{task.description} {task.fields[done]}/{task.fields[files]}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(),
    )
    screen = console(stderr=True)
    shown = bool(files) and screen.is_terminal
    with Progress(
        *columns, console=screen, transient=True, expand=True, disable=not shown
    ) as progress:
        yield _Heard(progress, progress.add_task(what, total=size, files=files, done=0))
