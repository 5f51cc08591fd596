"""Repairs a damaged journal: copies the rows that can still be read into a new file.

A row that cannot be read is skipped, by its number. The index of the table tells to which job it
belonged. A job that lost rows cannot resume: an `Incomplete` record says why.
"""

import json
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mu.journal.database import VERSION, JournalError, log_of, open_database
from mu.journal.records import Incomplete, read_record, write_record

_LOGS = ("-wal", "-shm")
"""What SQLite appends to a database's name for its files beside it."""


class _Layout(NamedTuple):
    """How a table is read."""

    columns: str
    """The first two are the key, and the owner: what a lost row is lost for."""
    key: str
    owner: str
    index_name: str
    """Has the key and the owner of each row."""


_TABLES = {
    "records": _Layout("number, job, lines", "number", "job", "of_a_job"),
    "past": _Layout(
        "rowid, job, ended, bytes, told, workers, identity",
        "rowid",
        "job",
        "sqlite_autoindex_past_1",
    ),
    "facts": _Layout("rowid, name, value", "rowid", "name", "sqlite_autoindex_facts_1"),
}
_ID = re.compile("[0-9a-f]{12}")
"""The id of a job; a damaged index may have other texts in its place."""
_BEYOND = 10_000
"""How many keys to try beyond the last known one, if the end of a table cannot be read."""


@dataclass(slots=True)
class Salvaged:
    """What was saved and what was lost."""

    kept: Path
    """The damaged file, under its new name."""
    rows: int = 0
    """The groups of records that were saved."""
    incomplete: dict[str, str] = field(default_factory=dict)
    """For each job that is there, but lost records: which."""
    forgotten: dict[str, str] = field(default_factory=dict)
    """For each job that is no longer there: why."""
    unnamed: bool = False
    """Whether more is lost, of jobs that the file no longer names."""

    @property
    def lost(self) -> dict[str, str]:
        """For each job that lost something: what."""
        return self.incomplete | self.forgotten


def repair(path: Path) -> Salvaged:
    """Replace a damaged journal by what can be read of it, and keep it under another name.

    No daemon may be running. Needs free space of twice the journal's size. Raises JournalError and
    OSError; then the journal is as it was.
    """
    new, scratch = path.with_name(path.name + ".new"), path.with_name(path.name + ".scratch")
    _remove(new, scratch)
    try:
        fresh = open_database(new)
        with closing(fresh):
            first_page = _first_page(new)
            with closing(_open_damaged(path, scratch, first_page)) as damaged:
                fresh.execute("begin")
                saved = _copy(damaged, fresh)
                if not saved.rows and not fresh.execute("select count(*) from past").fetchone()[0]:
                    raise JournalError(
                        f"nothing in {path} can be read: move it away to start a new one (its jobs"
                        " are lost)"
                    )
                fresh.execute("commit")
        saved.kept = _replace(path, new)
    except sqlite3.Error as error:
        raise JournalError(f"cannot repair {path}: {error}") from None
    finally:
        _remove(new, scratch)
    return saved


# ---------------------------------------------------------------- files


def _open_damaged(path: Path, scratch: Path, first_page: bytes) -> sqlite3.Connection:
    """Return a copy of the damaged database, opened so that SQLite reads what it can."""
    for end in _parts(path):
        shutil.copyfile(f"{path}{end}", f"{scratch}{end}")
        os.chmod(f"{scratch}{end}", 0o600)
    database = _tolerant(scratch)
    try:
        version = database.execute("pragma user_version").fetchone()[0]
        tables = {name for (name,) in database.execute("select name from sqlite_schema")}
        if tables >= _TABLES.keys():
            if version == VERSION:
                return database
            database.close()
            raise JournalError(f"{path} has format version {version}: this mu repairs {VERSION}")
    except sqlite3.Error:
        pass
    database.close()
    # All journals have the same first page, but for its count of pages.
    with scratch.open("r+b") as file:
        pages = os.path.getsize(scratch) // len(first_page)
        file.write(first_page[:28] + pages.to_bytes(4) + first_page[32:])
    return _tolerant(scratch)


def _tolerant(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma writable_schema = on")  # reads a file that has lost its end
    database.execute("pragma cell_size_check = on")  # notices half-written pages
    return database


def _first_page(path: Path) -> bytes:
    """Return the first page of an empty journal."""
    with path.open("rb") as file:
        header = file.read(100)
        size = int.from_bytes(header[16:18])
        return header + file.read(size - len(header))


def _replace(path: Path, new: Path) -> Path:
    """Put the new file in the place of the damaged one; return the latter's new name."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for end in _parts(path):
        os.link(f"{path}{end}", f"{kept}{end}")
    for end in _LOGS:
        Path(f"{path}{end}").unlink(missing_ok=True)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return kept


def _parts(path: Path) -> list[str]:
    """Return what to append to the database's name for its files that hold anything."""
    log = log_of(path)
    return ["", "-wal"] if log.exists() and log.stat().st_size else [""]


def _remove(*paths: Path) -> None:
    for path in paths:
        for end in ("", *_LOGS):
            Path(f"{path}{end}").unlink(missing_ok=True)


# ---------------------------------------------------------------- rows


class _Table:
    """One table of a damaged database."""

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        self._database = database
        self._name = name
        self._layout = _TABLES[name]
        self.owners: dict[int, str] = {}
        """By key, the owners of the rows that are in the index, and were not read yet."""
        self.disputed: list[str] = []
        """The owners of the rows for which the index has another one."""
        self.indexed = True
        """Whether the whole index can be read, and lists all rows."""
        self.whole = True
        """Whether all rows could be read."""
        self._read_index()
        self._last = self._find_last()

    def _read_index(self) -> None:
        """Read the index from its beginning; if that fails somewhere, also from its end."""
        _, key, owner, index = self._layout
        for order in ("asc", "desc"):
            try:
                for number, name in self._database.execute(
                    f"select {key}, {owner} from {self._name} indexed by {index}"
                    f" order by {owner} {order}, {key} {order}"
                ):
                    if not (isinstance(number, int) and isinstance(name, str)):
                        raise sqlite3.DatabaseError("a page is half-written")
                    self.owners[number] = name
            except sqlite3.Error:
                self.indexed = False
            else:
                return

    def _find_last(self) -> int:
        """Return the largest key that a row may have."""
        last = max(self.owners, default=0)
        try:
            found = self._database.execute(
                f"select max({self._layout.key}) from {self._name} not indexed"
            )
            return max(last, found.fetchone()[0] or 0)
        except sqlite3.Error:
            return last if self.indexed else last + _BEYOND

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that can be read, unless they contradict the index."""
        at = 1
        while at <= self._last:
            try:
                for row in self._rows_from(at):
                    number, owner = row[:2]
                    if number < at:
                        raise sqlite3.DatabaseError("a page is out of order")
                    at = number + 1
                    self.indexed &= number in self.owners
                    listed = self.owners.get(number, owner)
                    if listed == owner and _is_sound(self._name, row):
                        self.owners.pop(number, None)
                        yield row
                    else:
                        self.whole = False
                        if listed != owner:
                            self.disputed.append(str(owner))
                return
            except sqlite3.Error:
                self.whole = False
                at += 1

    def _rows_from(self, at: int) -> sqlite3.Cursor:
        columns, key, _, _ = self._layout
        return self._database.execute(
            f"select {columns} from {self._name} not indexed where {key} >= ? order by {key}",
            (at,),
        )


def _is_sound(table: str, row: tuple[Any, ...]) -> bool:
    """Whether a row has what such rows have: pages of long rows have no other check."""
    try:
        match table, row[2:]:
            case "records", (bytes(lines),):
                for line in lines.decode("ascii").split("\n"):
                    read_record(line)
            case "past", (_, _, *texts):
                for text in texts:
                    json.loads(text)
            case "facts", (str(),):
                pass
            case _:
                return False
    except (TypeError, ValueError):
        return False
    return True


def _copy(damaged: sqlite3.Connection, fresh: sqlite3.Connection) -> Salvaged:
    saved = Salvaged(Path())
    past = _Table(damaged, "past")
    ended = set()
    for _, job, *columns in past.rows():
        ended.add(job)
        fresh.execute("insert or replace into past values (?, ?, ?, ?, ?, ?)", (job, *columns))
    for job in past.owners.values():
        saved.forgotten[job] = "it had ended, and how is lost; it is left out"
    records = _Table(damaged, "records")
    jobs: dict[str, None] = {}
    for number, job, lines in records.rows():
        if job not in saved.forgotten:
            jobs[job] = None
            fresh.execute("insert into records values (?, ?, ?)", (number, job, lines))
            saved.rows += 1
    for _, name, value in _Table(damaged, "facts").rows():
        fresh.execute("insert or replace into facts values (?, ?)", (name, value))
    unsure = not (records.whole or records.indexed), not (past.whole or past.indexed)
    counts = Counter([*records.owners.values(), *records.disputed])
    names = [job for job in counts if job in jobs or _ID.fullmatch(job)]
    saved.unnamed = any(unsure) or len(names) < len(counts)
    for job in dict.fromkeys([*jobs, *names]):
        reason = _why_incomplete(counts[job], job not in ended, *unsure)
        if reason and job not in saved.forgotten:
            saved.incomplete[job] = reason
            line = write_record(Incomplete(f"the journal was damaged, and {reason}"))
            fresh.execute(
                "insert into records (job, lines) values (?, ?)", (job, line.encode("ascii"))
            )
    return saved


def _why_incomplete(count: int, running: bool, rows_unsure: bool, ends_unsure: bool) -> str:
    """Say what a job has lost; nothing: all of it is there."""
    if count:
        return f"{count} of its groups of records {'is' if count == 1 else 'are'} lost"
    if rows_unsure:
        return "some records are lost, perhaps of this job"
    if running and ends_unsure:
        return "it is lost which jobs had ended, perhaps this one"
    return ""
