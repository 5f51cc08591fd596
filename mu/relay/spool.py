"""The relay on disk: a SQLite database (WAL) for counts and small frames, files for large frames.

Two threads: one only commits, in groups; the other reads frames, and writes large ones while they
arrive. A file is valid once a row of the database names it; files without a row are leftovers.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from mu.relay.effects import Forget, Give
from mu.relay.limits import BLOB, MIB
from mu.relay.parties import Frame, Name

VERSION = 1
LAZY_S = 0.1
"""Maximum commit delay, in seconds, for changes that nobody waits for."""
BEHIND = 2 * MIB
"""Bytes of a frame that may wait to be written before its sender is paused."""

_TABLES = """
create table names (
    job text, uniq text, number text, held integer not null, count integer not null,
    given integer not null, primary key (job, uniq, number)
) without rowid;
create table frames (
    id integer primary key, job text not null, uniq text not null, name text not null,
    number integer not null, at real not null, size integer not null, body blob
);
create index of_a_name on frames (job, uniq, name, number);
"""
_NAME = (
    "insert into names values (?, ?, ?, ?, ?, ?) on conflict do update set"
    " held = max(held, excluded.held), count = max(count, excluded.count)"
)


class SpoolError(Exception):
    """The disk cannot be used; the message says why."""


class Kept(NamedTuple):
    """What was on disk at the start."""

    names: list[tuple[Name, int, int, int]]
    """Each with its counts: held, count, given."""
    frames: list[tuple[Name, int, int, float, int]]
    """Each with its number, size, time and place: mailbox by mailbox, in order."""


class SpoolReactor(Protocol):
    """What the spool needs of the reactor."""

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object
    ) -> IDelayedCall: ...

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None: ...


class _File:
    """The body of a frame that is written while it arrives."""

    __slots__ = ("chunks", "descriptor", "waiting", "writing")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.writing = 0
        self.waiting: Callable[[], object] | None = None
        self.descriptor = -1  # used by the thread only

    @property
    def busy(self) -> bool:
        return bool(self.writing or self.chunks)


_Change = Frame | Give | Forget | int
"""A frame to be stored, a Give, a Forget, or the place of a frame to be deleted."""
_Work = Callable[[sqlite3.Connection], object]


class Spool:
    """One folder. To be used in the reactor's thread; `stored`, `gave` and `failed` are called there.

    After `close` or a failure it calls none of them any more.
    """

    def __init__(
        self,
        folder: Path,
        reactor: SpoolReactor,
        stored: Callable[[list[Frame]], object],
        gave: Callable[[Name], object],
        failed: Callable[[str], object],
    ) -> None:
        """Raises SpoolError."""
        self._folder = folder
        self._reactor = reactor
        self._tell_stored, self._tell_gave, self._tell_failed = stored, gave, failed
        self._pending: list[_Change] = []
        self._committing = False
        self._timer: IDelayedCall | None = None
        self._soon = False
        self._broken = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = _open(folder / "relay.db")
            try:
                self.kept = _load(database, folder)
            finally:
                database.close()
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"cannot use the relay's folder {folder}: {error}") from None
        self._next = 1 + max((place for *_, place in self.kept.frames), default=0)
        self._commits: SimpleQueue[_Work | None] = SimpleQueue()
        self._files: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads = [
            Thread(target=self._run, args=(work,), name=name, daemon=True)
            for work, name in (
                (self._commits, "mu-relay-commits"),
                (self._files, "mu-relay-files"),
            )
        ]
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------ the database

    def store(self, frame: Frame) -> None:
        """Write a frame to disk, not before the frames that were stored earlier."""
        if frame.place is None:
            frame.place = self._new_place()
        self._pending.append(frame)
        self._commit_soon()

    def give(self, effect: Give) -> None:
        self._pending.append(effect)
        self._commit_soon()

    def forget(self, effect: Forget) -> None:
        self._pending.append(effect)
        self._commit_later()

    def drop(self, frame: Frame) -> None:
        place, file = frame.place, frame.body
        if place is None:
            return
        if frame.stored or frame.storing:
            self._pending.append(place)
            self._commit_later()
        elif isinstance(file, _File):
            file.chunks.clear()
            self._files.put(lambda _: self._discard(file, place))

    def _commit_soon(self) -> None:
        """Commit in the reactor's next turn, so that all changes of this turn go together."""
        if self._committing or self._soon or self._broken:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._soon = True
        self._timer = self._reactor.callLater(0, self._commit)

    def _commit_later(self) -> None:
        if not (self._committing or self._timer is not None or self._broken):
            self._timer = self._reactor.callLater(LAZY_S, self._commit)

    def _commit(self) -> None:
        self._timer, self._soon = None, False
        ready = len(self._pending)
        for place, one in enumerate(self._pending):
            if isinstance(one, Frame) and isinstance(one.body, _File) and one.body.busy:
                ready = place  # committed once its file is written
                break
        group, self._pending = self._pending[:ready], self._pending[ready:]
        if group:
            self._committing = True
            self._commits.put(lambda database: self._commit_group(database, group))

    def _commit_group(self, database: sqlite3.Connection, group: list[_Change]) -> None:
        _commit(database, self._folder, group)
        self._reactor.callFromThread(self._committed, group)

    def _committed(self, group: list[_Change]) -> None:
        if self._broken:
            return
        self._committing = False
        if any(isinstance(one, Frame | Give) for one in self._pending):
            self._commit_soon()
        elif self._pending:
            self._commit_later()
        frames = [one for one in group if isinstance(one, Frame)]
        for frame in frames:
            if frame.file:
                frame.body = None
        if frames:
            self._tell_stored(frames)
        for one in group:
            if isinstance(one, Give):
                self._tell_gave(one.name)

    # ------------------------------------------------ bodies

    def append(self, frame: Frame, chunk: bytes) -> None:
        """Write the next part of the body of a frame that has a file."""
        file, place = frame.body, frame.place
        if place is None or not isinstance(file, _File):
            frame.place, frame.body = place, file = self._new_place(), _File()
        file.chunks.append(chunk)
        if not file.writing:
            self._write(file, place)

    def is_behind(self, frame: Frame, call: Callable[[], object]) -> bool:
        """Return whether too much of a frame is still unwritten; if so, `call` once it is written."""
        file = frame.body
        if not isinstance(file, _File) or file.writing < BEHIND:
            return False
        file.waiting = call
        return True

    def read(self, frame: Frame, offset: int, length: int, tell: Callable[[bytes], object]) -> None:
        """Read a part of the body of a frame that is not in memory; b"" if the frame is gone."""
        assert frame.place is not None
        place, is_blob = frame.place, frame.stored and frame.size <= BLOB and not frame.file
        file = frame.body if isinstance(frame.body, _File) else None

        def work(database: sqlite3.Connection) -> None:
            part = b""
            if is_blob:
                row = database.execute("select body from frames where id = ?", (place,)).fetchone()
                part = b"" if row is None or row[0] is None else row[0][offset : offset + length]
            with suppress(FileNotFoundError):  # it was dropped meanwhile
                if not part:
                    with _path(self._folder, place).open("rb") as opened:
                        part = os.pread(opened.fileno(), length, offset)
            self._reactor.callFromThread(tell, part)

        if file is not None and file.busy:
            file.waiting = lambda: self._files.put(work)
        else:
            self._files.put(work)

    def _write(self, file: _File, place: int) -> None:
        chunks, file.chunks = file.chunks, []
        file.writing = sum(map(len, chunks))

        def work(_: sqlite3.Connection) -> None:
            if file.descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                file.descriptor = os.open(_path(self._folder, place), flags, 0o600)
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(file.descriptor, view) :]
            self._reactor.callFromThread(self._written, file, place)

        self._files.put(work)

    def _written(self, file: _File, place: int) -> None:
        file.writing = 0
        if file.chunks:
            self._write(file, place)
        waiting, file.waiting = file.waiting, None
        if waiting is not None:
            waiting()
        if not file.busy and self._pending:
            self._commit_soon()

    def _discard(self, file: _File, place: int) -> None:
        if file.descriptor >= 0:
            os.close(file.descriptor)
            _path(self._folder, place).unlink(missing_ok=True)

    def _new_place(self) -> int:
        self._next += 1
        return self._next - 1

    # ------------------------------------------------ the threads

    def close(self) -> Deferred[None]:
        """Commit all complete frames that are left; fires once nothing more will be written."""
        closed: Deferred[None] = Deferred()
        self._files.put(None)
        if self._timer is not None:
            self._timer.cancel()
        if not self._broken:
            self._commit()
        self._broken = True  # later calls change nothing
        self._commits.put(None)

        def wait() -> None:
            for thread in self._threads:
                thread.join()
            self._reactor.callFromThread(closed.callback, None)

        Thread(target=wait, daemon=True).start()
        return closed

    def _run(self, queue: SimpleQueue[_Work | None]) -> None:
        database = None
        try:
            database = _open(self._folder / "relay.db")
            while (work := queue.get()) is not None:
                work(database)
        except (sqlite3.Error, OSError) as error:
            sentence = f"cannot read or write the relay's folder {self._folder}: {error}"
            self._reactor.callFromThread(self._fail, sentence)
        finally:
            if database is not None:
                database.close()

    def _fail(self, sentence: str) -> None:
        if not self._broken:
            self._broken = True
            self._tell_failed(sentence)


# ---------------------------------------------------------------- the disk


def _path(folder: Path, place: int) -> Path:
    return folder / f"{place}.frame"


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    version = int(database.execute("pragma user_version").fetchone()[0])
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(
            f"{path} has format version {version}; this mu supports version {VERSION}"
        )
    if version == 0:
        database.execute("pragma auto_vacuum = incremental")
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    if version == 0:
        database.executescript(f"begin;{_TABLES}pragma user_version = {VERSION};commit;")
        path.chmod(0o600)
    return database


def _load(database: sqlite3.Connection, folder: Path) -> Kept:
    """Delete what is incomplete or already delivered, and return the rest."""
    database.execute("begin immediate")
    database.execute(
        "delete from frames where number <= (select given from names"
        " where names.job = frames.job and names.uniq = frames.uniq and names.number = frames.name)"
    )
    rows = database.execute(
        "select job, uniq, name, number, size, at, id, body is null from frames"
        " order by job, uniq, name, number"
    ).fetchall()
    known: set[str] = set()
    frames = []
    for job, uniq, name, number, size, at, place, in_file in rows:
        path = _path(folder, place)
        if in_file and not (path.exists() and path.stat().st_size == size):
            database.execute("delete from frames where id = ?", (place,))
            continue
        known.add(path.name)
        frames.append((Name(job, uniq, name), number, size, at, place))
    names = database.execute("select job, uniq, number, held, count, given from names").fetchall()
    database.execute("commit")
    database.execute("pragma incremental_vacuum").fetchall()
    for path in folder.glob("*.frame"):
        if path.name not in known:
            path.unlink()
    return Kept(
        [
            (Name(job, uniq, name), held, count, given)
            for job, uniq, name, held, count, given in names
        ],
        frames,
    )


def _commit(database: sqlite3.Connection, folder: Path, group: list[_Change]) -> None:
    """Commit a group of changes, all of them or none; they are on disk when this returns."""
    files = False
    for frame in group:
        if isinstance(frame, Frame) and (frame.file or frame.size > BLOB):
            _sync_file(folder, frame)
            files = True
    if files:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    deleted = []
    database.execute("begin immediate")
    for one in group:
        match one:
            case Frame():
                name = one.party.name
                body = None
                if one.size <= BLOB and isinstance(one.body, list):
                    body = b"".join(one.body)
                row = (one.place, *name, one.number, one.at, one.size, body)
                database.execute("insert into frames values (?, ?, ?, ?, ?, ?, ?, ?)", row)
                database.execute(_NAME, (*name, 0, one.number, 0))
                if one.sender is not None:
                    database.execute(_NAME, (*one.sender.name, one.sender_number, 0, 0))
            case Give(name=name, number=number):
                database.execute(_NAME, (*name, 0, 0, 0))
                database.execute(
                    "update names set given = ? where job = ? and uniq = ? and number = ?",
                    (number, *name),
                )
            case Forget(name=name):
                database.execute(
                    "delete from names where job = ? and uniq = ? and number = ?", name
                )
            case int():
                database.execute("delete from frames where id = ?", (one,))
                deleted.append(one)
    database.execute("commit")
    for place in deleted:
        _path(folder, place).unlink(missing_ok=True)


def _sync_file(folder: Path, frame: Frame) -> None:
    if isinstance(frame.body, _File):
        descriptor, frame.body.descriptor = frame.body.descriptor, -1
    else:  # it was in memory until now
        assert frame.place is not None
        assert isinstance(frame.body, list)
        descriptor = os.open(_path(folder, frame.place), os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.writelines(frame.body)
    os.fsync(descriptor)
    os.close(descriptor)
