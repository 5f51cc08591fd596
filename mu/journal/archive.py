"""Reads a journal, when a daemon starts or for `mu replay`."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mu.journal.database import open_database, unusable

NOTIFY = "notify:"
"""Begins the names of the facts that are notifications: the job's id follows."""


class Archive:
    """The jobs and records in a journal's file."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        """Raises JournalError, as all methods do."""
        self._path = path
        self._database = open_database(path, read_only)

    def close(self) -> None:
        self._database.close()

    def ended(self) -> Iterator[tuple[str, str]]:
        """Yield the JSON and the identity of each job that has ended, oldest first (see Past)."""
        yield from self._rows("select told, identity from past order by ended")

    def workers(self, job: str) -> str | None:
        """Return the JSON of the actors of a job that has ended, or None if it was deleted."""
        row = next(self._rows("select workers from past where job = ?", job), None)
        return None if row is None else str(row[0])

    def jobs(self) -> list[str]:
        """Return the ids of all jobs, ordered by their first records."""
        rows = self._rows("select job from records group by job order by min(number)")
        return [str(row[0]) for row in rows]

    def running(self) -> list[str]:
        """Return the ids of the jobs that have not ended, ordered by their first records."""
        rows = self._rows(
            "select job from records where job not in (select job from past)"
            " group by job order by min(number)"
        )
        return [str(row[0]) for row in rows]

    def lines(self, job: str) -> Iterator[str]:
        """Yield a job's records, oldest first."""
        for _, lines in self.groups(job):
            yield from lines

    def groups(self, job: str, after: int = 0) -> Iterator[tuple[int, list[str]]]:
        """Yield a job's records in groups, as they were committed, after the one with this number."""
        query = "select number, lines from records where job = ? and number > ? order by number"
        for number, lines in self._rows(query, job, after):
            if not isinstance(lines, bytes):
                raise ValueError(f"{lines!r:.80} is not a row of records")
            yield number, lines.decode("ascii").split("\n")

    def ports(self) -> dict[str, int]:
        """Return the ports of the last start, by name. Raises ValueError."""
        noted = self.fact("ports")
        ports = json.loads(noted or "{}")
        if not (isinstance(ports, dict) and all(map(_is_port, ports.values()))):
            raise ValueError(f"must map each name to a port, got {noted!r:.80}")
        return ports

    def notifications(self) -> Iterator[tuple[str, str]]:
        """Yield the jobs of whose end somebody must still be told, and the JSON of URL and time."""
        query = "select name, value from facts where name like ? order by name"
        for name, value in self._rows(query, f"{NOTIFY}%"):
            yield str(name).removeprefix(NOTIFY), str(value)

    def fact(self, name: str) -> str:
        """Return the value noted under that name, or an empty string."""
        row = next(self._rows("select value from facts where name = ?", name), None)
        return "" if row is None else str(row[0])

    def note(self, name: str, value: str) -> None:
        """Note a value that belongs to no job. It is on disk when this returns."""
        for _ in self._rows("insert or replace into facts values (?, ?)", name, value):
            pass

    def _rows(self, query: str, *values: str | int) -> Iterator[Any]:
        try:
            rows = self._database.execute(query, values)
            while (row := rows.fetchone()) is not None:
                yield row
        except sqlite3.Error as error:
            raise unusable(self._path, error) from None


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535
