"""The journal's SQLite file: its layout, its version, how it is opened."""

import sqlite3
from pathlib import Path

VERSION = 1
"""Of the database's layout and the records in it."""


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
    """The journal cannot be used: one sentence with what to do."""


def open_database(path: Path) -> sqlite3.Connection:
    """Return the database, made if it is not there. What it holds is on disk. Raises JournalError."""
    try:
        database = sqlite3.connect(path, isolation_level=None)
        version = int(database.execute("pragma user_version").fetchone()[0])
        if version not in (0, VERSION):
            raise JournalError(
                f"{path} is of version {version}, and this mu knows version {VERSION}: run the mu"
                " that wrote it, or move the file away to begin a new one"
            )
        if version == 0:
            database.execute("pragma auto_vacuum = incremental")
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        if version == 0:
            database.executescript(f"begin;{_TABLES}pragma user_version = {VERSION};commit;")
            path.chmod(0o600)
        # A killed daemon may have left commits that are whole, but not yet on disk.
        database.execute("pragma wal_checkpoint(truncate)")
    except sqlite3.Error as error:
        raise JournalError(
            f"{path} cannot be used: {error}; if it cannot be repaired, move it away to begin a new"
            " one (running jobs are lost with it)"
        ) from None
    return database
