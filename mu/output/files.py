"""The files with the logs of jobs: `JOB/ACTOR.log` while a job runs, then `JOB.log.gz`.

All methods block. Only one thread may call those of OutputFiles; any may read.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import BinaryIO

from mu.output.archive import member, read_index, read_member
from mu.output.pieces import (
    CUT,
    FILL,
    ONCE,
    PLACE,
    TEXT,
    WHOLE,
    Piece,
    excerpt,
    lines_of,
    read_entries,
)
from mu.output.transcript import Transcript

PACKED = ".log.gz"
UNFINISHED = ".new"
MOST_KNOWN = 8
"""How many logs a reader remembers."""
MOST_LINES = 2**18
"""How much is added to a log at once, in bytes."""


ActorOfJob = tuple[str, int]


class NoRoom(OSError):
    """The logs of running jobs take all the space that logs may take."""


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How much of what commands print is kept, in bytes."""

    actor_bytes: int = 2**20
    """Of each actor: its beginning and its end."""
    total_bytes: int = 2**31
    """Of all jobs together."""


class OutputFiles:
    """Writes the logs in a folder, and keeps them within their limits."""

    def __init__(self, folder: Path, limits: OutputLimits) -> None:
        self.limits = limits
        self._folder = folder
        self._sizes: dict[str, int] = {}  # of each job's logs, the oldest first
        self._total = 0
        self._running: set[str] = set()
        self.shortened: Counter[ActorOfJob] = Counter()
        """How often the middle of a log was cut out."""

    def open(self, running: Set[str]) -> None:
        """Find what there is; pack the logs of jobs that ended while no daemon ran. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._running, self._sizes, self._total = set(running), {}, 0
        left: list[str] = []
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime):
            if path.name.endswith(PACKED):
                self._grow(path.name.removesuffix(PACKED), path.stat().st_size)
            elif path.name.endswith(f"{PACKED}{UNFINISHED}"):
                path.unlink()  # the daemon was killed while it packed
            elif not _is_of_job(path):
                continue
            elif (self._folder / f"{path.name}{PACKED}").exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                self._grow(path.name, sum(one.stat().st_size for one in path.iterdir()))
                left.append(path.name)
        for job in left:
            if job not in running:
                self.pack(job)
                continue
            for path in _logs_in(self._folder / job):
                _end_line(path)
        self._make_room(0)

    def append(self, job: str, actor: int, pieces: list[Piece]) -> None:
        """Add pieces to an actor's log. Raises OSError; then the last ones of them are not in it."""
        if not self.limits.actor_bytes:
            return
        path = _path(self._folder, job, actor)
        lines = bytearray()
        for piece in excerpt(pieces, self.limits.actor_bytes):
            if piece.kind in (WHOLE, ONCE) and lines:
                self._add(job, actor, lines)
                lines = bytearray()
            for more in self._as_lines(path, actor, piece):
                lines += more
                if len(lines) > MOST_LINES:
                    self._add(job, actor, lines)
                    lines = bytearray()
        if lines:
            self._add(job, actor, lines)

    def _as_lines(self, path: Path, actor: int, piece: Piece) -> Iterator[bytes]:
        """Yield the lines of a piece; of a whole output, only what the log lacks."""
        if piece.kind == ONCE:
            if not _transcript(path).has_output(piece.attempt, piece.command):
                yield from lines_of(actor, piece._replace(kind=TEXT))
            return
        if piece.kind != WHOLE:
            yield from lines_of(actor, piece)
            return
        lacks = _transcript(path).missing(piece.attempt, piece.command, piece.text)
        if lacks is None:
            return
        place = b"%d %d %d" % lacks.place
        yield from lines_of(actor, piece._replace(text=place, kind=PLACE))
        yield from lines_of(actor, piece._replace(text=lacks.text, kind=FILL))

    def _add(self, job: str, actor: int, lines: bytearray) -> None:
        path = _path(self._folder, job, actor)
        self._running.add(job)
        self._make_room(len(lines))
        size = _append(path, lines)
        self._grow(job, len(lines))
        if size > self.limits.actor_bytes:
            self._grow(job, _shorten(path, self.limits.actor_bytes) - size)
            self.shortened[job, actor] += 1

    def _grow(self, job: str, by: int) -> None:
        self._sizes[job] = self._sizes.get(job, 0) + by
        self._total += by

    def _make_room(self, more: int) -> None:
        """Drop the logs of the oldest jobs that have ended, until `more` bytes fit in."""
        most = self.limits.total_bytes - more
        for job in list(self._sizes) if self._total > most else []:
            if job not in self._running:
                self.drop(job)
                if self._total <= most:
                    return
        if more and self._total > most:
            raise NoRoom(ENOSPC, f"running jobs take all of total_bytes, {self.limits.total_bytes}")

    def pack(self, job: str) -> None:
        """Pack the logs of a job that has ended, also if it printed nothing. Raises OSError."""
        folder, packed = self._folder / job, self._folder / f"{job}{PACKED}"
        unfinished = packed.with_name(packed.name + UNFINISHED)
        try:
            with _private(unfinished) as file:
                for path in sorted(_logs_in(folder), key=_actor_of):
                    file.write(member(_actor_of(path), path.read_bytes()))
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise
        unfinished.replace(packed)
        shutil.rmtree(folder, ignore_errors=True)
        self._forget(job)
        self._grow(job, packed.stat().st_size)

    def drop(self, job: str) -> None:
        """Delete the logs of a job."""
        self._forget(job)
        with suppress(FileNotFoundError):
            (self._folder / f"{job}{PACKED}").unlink()
        shutil.rmtree(self._folder / job, ignore_errors=True)

    def _forget(self, job: str) -> None:
        self._running.discard(job)
        for key in [key for key in self.shortened if key[0] == job]:
            del self.shortened[key]
        self._total -= self._sizes.pop(job, 0)


# ---------------------------------------------------------------- reading


class LogReader:
    """Reads the logs in a folder, and of one that has grown since, only what is new.

    Any thread may use it. `shortened` counts how often the middle of an actor's log was cut out.
    """

    def __init__(self, folder: Path, shortened: Mapping[ActorOfJob, int]) -> None:
        self._folder = folder
        self._shortened = shortened
        self._known: dict[ActorOfJob, tuple[tuple[int, int], int, Transcript]] = {}
        self._index: tuple[Path, int, dict[int, tuple[int, int]]] | None = None

    def read(self, job: str, actor: int) -> Transcript | None:
        """Return an actor's log; None: nothing is kept of its job. Raises OSError, ValueError."""
        try:
            return self._read_plain(job, actor)
        except FileNotFoundError:
            pass
        try:
            return self._read_packed(self._folder / f"{job}{PACKED}", actor)
        except FileNotFoundError:
            return Transcript([]) if (self._folder / job).is_dir() else None

    def _read_packed(self, path: Path, actor: int) -> Transcript:
        inode, last = path.stat().st_ino, self._index
        index = last[2] if last is not None and last[:2] == (path, inode) else read_index(path)
        self._index = path, inode, index
        place = index.get(actor)
        return Transcript(list(read_entries(read_member(path, place))) if place else [])

    def _read_plain(self, job: str, actor: int) -> Transcript:
        key, cuts = (job, actor), self._shortened.get((job, actor), 0)
        with _path(self._folder, job, actor).open("rb") as file:
            found = os.fstat(file.fileno())
            version = found.st_ino, cuts  # an inode may be used again
            known, size, transcript = self._known.pop(key, (version, 0, Transcript([])))
            if known != version or size > found.st_size:
                size, transcript = 0, Transcript([])
            file.seek(size)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]  # the last line may be being written
        transcript = Transcript([*transcript.entries, *read_entries(data, transcript.end)])
        self._known[key] = version, size + len(data), transcript
        for oldest in list(self._known)[:-MOST_KNOWN]:
            self._known.pop(oldest, None)
        return transcript


# ---------------------------------------------------------------- one file


def _path(folder: Path, job: str, actor: int) -> Path:
    return folder / job / f"{actor}.log"


def _actor_of(path: Path) -> int:
    return int(path.stem)


def _logs_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.log") if path.stem.isdecimal())


def _is_of_job(path: Path) -> bool:
    """Return whether it is a folder with nothing but logs."""
    if not path.is_dir():
        return False
    names = (one.name.removesuffix(UNFINISHED) for one in path.iterdir())
    return all(name.endswith(".log") for name in names)


def _end_line(path: Path) -> None:
    """End the last line of a log, of which a machine that lost power may have written only half."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if size and file.read() != b"\n":
            file.write(b"\n")


def _private(path: Path) -> BinaryIO:
    """Open a new file that only its owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _append(path: Path, lines: bytearray) -> int:
    """Add lines to a file, and return its size. Raises OSError; then the file is as before."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = 0
            while written < len(lines):
                written += os.write(descriptor, memoryview(lines)[written:])
        except OSError:
            os.ftruncate(descriptor, before)
            raise
        return before + len(lines)
    finally:
        os.close(descriptor)


def _transcript(path: Path) -> Transcript:
    try:
        return Transcript(list(read_entries(path.read_bytes())))
    except FileNotFoundError:
        return Transcript([])


def _shorten(path: Path, limit: int) -> int:
    """Cut the middle out of a log, and return its size. Raises OSError; then it is as before.

    Its beginning has half the limit and its end a quarter, so that it is not soon too long again.
    """
    data = path.read_bytes()
    head = data.rfind(b"\n", 0, limit // 2) + 1
    tail = data.find(b"\n", len(data) - limit // 4) + 1 or len(data)
    cut = list(read_entries(data[head:tail]))
    if not cut:
        return len(data)
    first = cut[0]
    width = b"%d" % (cut[-1].end - first.start)
    actor = _actor_of(path)
    mark = b"".join(lines_of(actor, Piece(0, first.attempt, first.command, "", width, CUT)))
    mark = first.time + mark[mark.index(b" ") :]
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with _private(unfinished) as file:
            file.write(data[:head] + mark + data[tail:])
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    return head + len(mark) + len(data) - tail
