"""The journal's SQLite file: its tables, its version, how it is opened."""

import errno
import os
import shlex
import sqlite3
from pathlib import Path
from urllib.parse import quote

VERSION = 1
"""The version of the tables and of the records in them."""


_TABLES = """
create table records (number integer primary key, job text not null, lines blob not null);
create index of_a_job on records (job, number);
create table past (
    job text primary key, ended real not null, bytes integer not null, told text not null,
    workers text not null, identity text not null
);
create table facts (name text primary key, value text not null);
"""


class JournalError(Exception):
    """The journal cannot be used; the text says why, and what to do."""


class JournalDamaged(JournalError):
    """The journal's file is damaged."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged: {reason}. To save what can be read of it: mu --home"
            f" {shlex.quote(str(path.parent))} doctor --journal --repair. To start without it, move"
            " it away (its running jobs are lost)"
        )
        self.reason = reason


def open_database(path: Path, read_only: bool = False) -> sqlite3.Connection:
    """Return the database. Raises JournalError.

    For writing, it is created if it does not exist, and its contents are on disk when this returns.
    """
    try:
        database = _open_to_read(path) if read_only else _open_to_write(path)
    except FileNotFoundError:
        raise JournalError(
            f"there is no journal at {path}: no daemon has run there yet, or its mu.conf has"
            " [journal] enabled = no"
        ) from None
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise unusable(path, error) from None
    database.text_factory = _text
    return database


def log_of(path: Path) -> Path:
    """Return the log in which SQLite keeps what was committed last."""
    return Path(f"{path}-wal")


def _text(value: bytes) -> str:
    """Return a text, also a damaged one, which is then refused where its meaning is read."""
    return value.decode("utf-8", "replace")


def unusable(path: Path, error: sqlite3.Error, verb: str = "use") -> JournalError:
    """Return the error for a journal that SQLite cannot use, read or write."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return JournalDamaged(path, str(error))
    return JournalError(f"cannot {verb} {path}: {error}")


def _open_to_write(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    version = _checked_version(database, path, 0, VERSION)
    if version == 0:
        database.execute("pragma auto_vacuum = incremental")
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    if version == 0:
        database.executescript(f"begin;{_TABLES}pragma user_version = {VERSION};commit;")
        path.chmod(0o600)
    # A killed daemon may have left commits that are complete, but not on disk yet.
    database.execute("pragma wal_checkpoint(truncate)")
    return database


def _open_to_read(path: Path) -> sqlite3.Connection:
    # Never open and close the file itself: that drops the locks of this process's connections, and
    # the next process that closes the database would delete the log under them
    # (https://www.sqlite.org/howtocorrupt.html, 2.2).
    path.stat()
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    _checked_version(database, path, VERSION)
    return database


def _checked_version(database: sqlite3.Connection, path: Path, *known: int) -> int:
    version = int(database.execute("pragma user_version").fetchone()[0])
    if version not in known:
        database.close()
        raise JournalError(
            f"{path} has format version {version}, but this mu reads version {VERSION}: use the"
            " version of mu that wrote it, or move the file away to start a new one"
        )
    return version
