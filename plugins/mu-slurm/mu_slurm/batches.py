"""Batches of launches: one job array each, with its files on the shared file system.

A batch's folder is written before sbatch is called, so that a daemon that was killed in between finds
it, and asks Slurm for an array of that name before it submits anything again. The folder's `event` has
the private key of the job: it is removed when the array has ended.
"""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from mu.invocations import Invocation

PREFIX = "mu-"
"""The beginning of the names of arrays, and of their folders."""


@dataclass(slots=True)
class Batch:
    """Some launches of one job; the place of a launch is its index in the array."""

    folder: Path
    job: str
    function: str
    launches: tuple[str, ...]
    array: int = 0
    """Slurm's id of the array; 0: it is not known whether there is one."""
    left_over: bool = False
    """Whether an earlier daemon wrote it."""
    unsure: bool = False
    """Whether sbatch was called and has not answered."""
    ended: set[int] = field(default_factory=set)
    """The indices of tasks that have ended."""
    dropped_at: float | None = None
    """When its job ended, in the reactor's seconds; None: it has not."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def event(self) -> Path:
        return self.folder / "event"

    @property
    def keys(self) -> Path:
        """The file with what is different in the event of each task, one in each line."""
        return self.folder / "launches"

    @property
    def is_over(self) -> bool:
        return len(self.ended) == len(self.launches)

    def open_indices(self) -> set[int]:
        """Return the indices of tasks that are not known to have ended."""
        return set(range(len(self.launches))) - self.ended

    def remove(self) -> None:
        """Remove its files; a task that begins later fails at once."""
        with suppress(OSError):
            self.event.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


def write_batch(place: Path, invocations: Sequence[Invocation]) -> Batch:
    """Write the files of a new batch for invocations of one job and function. Raises OSError."""
    folder = place / f"{PREFIX}{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700, parents=True)
    first = invocations[0]
    batch = Batch(folder, first.job, first.function, tuple(one.launch for one in invocations))
    events: list[dict[str, Any]] = [json.loads(one.payload) for one in invocations]
    shared = {key: value for key, value in events[0].items() if _same(events, key)}
    own = [{key: value for key, value in one.items() if key not in shared} for one in events]
    _write(batch.keys, "".join(f"{json.dumps(keys)}\n" for keys in own))
    _write(batch.event, json.dumps(shared))
    known = {"job": batch.job, "function": batch.function, "launches": batch.launches}
    _write(folder / "batch.part", json.dumps(known))
    os.replace(folder / "batch.part", folder / "batch")
    return batch


def _same(events: Sequence[dict[str, Any]], key: str) -> bool:
    return key != "launch" and all(one.get(key) == events[0][key] for one in events)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def read_batches(place: Path) -> Iterator[Batch]:
    """Yield the batches of an earlier daemon; what one has not finished writing is removed."""
    for folder in sorted(place.glob(f"{PREFIX}*")):
        try:
            known = json.loads((folder / "batch").read_text())
            yield Batch(
                folder, known["job"], known["function"], tuple(known["launches"]), left_over=True
            )
        except (OSError, ValueError, LookupError):
            shutil.rmtree(folder, ignore_errors=True)


def unpack(bundle: Path, folder: Path) -> None:
    """Unpack a zip with the modes of its files. Raises OSError."""
    try:
        with ZipFile(bundle) as archive:
            for info in archive.infolist():
                path = Path(archive.extract(info, folder))
                if path.is_file():
                    path.chmod(stat.S_IMODE(info.external_attr >> 16) or 0o644)
    except BadZipFile as error:
        raise OSError(f"{bundle} is no zip file: {error}") from None
