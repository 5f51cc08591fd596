"""The relay's folder: its database and files. Call these functions only in the spool's threads."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mu.relay.effects import Forget, Give
from mu.relay.limits import BLOB
from mu.relay.parties import Frame, Name

VERSION = 1

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


class Kept(NamedTuple):
    """The names and frames on disk at the start."""

    names: list[tuple[Name, int, int, int]]
    """The names, each with its counts: held, count, given."""
    frames: list[tuple[Name, int, int, float, int]]
    """The frames, each with its number, size, time and place; mailbox by mailbox, in order."""


class BodyFile:
    """The file for a frame's body that is written while the frame arrives."""

    __slots__ = ("chunks", "descriptor", "waiting", "writing")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.writing = 0
        self.waiting: Callable[[], object] | None = None
        self.descriptor = -1  # only used in the thread

    @property
    def busy(self) -> bool:
        return bool(self.writing or self.chunks)


Change = Frame | Give | Forget | int
"""A frame to be stored, a Give, a Forget, or the place of a frame to be deleted."""


def frame_path(folder: Path, place: int) -> Path:
    return folder / f"{place}.frame"


def open_database(path: Path) -> sqlite3.Connection:
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


def load(database: sqlite3.Connection, folder: Path) -> Kept:
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
        path = frame_path(folder, place)
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


def commit(database: sqlite3.Connection, folder: Path, group: list[Change]) -> None:
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
        frame_path(folder, place).unlink(missing_ok=True)


def _sync_file(folder: Path, frame: Frame) -> None:
    if isinstance(frame.body, BodyFile):
        descriptor, frame.body.descriptor = frame.body.descriptor, -1
    else:  # it was in memory until now
        assert frame.place is not None
        assert isinstance(frame.body, list)
        descriptor = os.open(frame_path(folder, frame.place), os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.writelines(frame.body)
    os.fsync(descriptor)
    os.close(descriptor)
