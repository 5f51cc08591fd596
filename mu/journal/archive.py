"""What a journal holds, to be read: by a daemon that starts, or by `mu replay`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mu.journal.database import open_database


class Archive:
    """What a journal holds, to be read: by a daemon that starts, or by `mu replay`."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        """Raises JournalError."""
        self._database = open_database(path, read_only)

    def close(self) -> None:
        self._database.close()

    def ended(self) -> Iterator[tuple[str, str]]:
        """Yield what is told of each job that has ended, the oldest first, and its identity."""
        yield from self._database.execute("select told, identity from past order by ended")

    def workers(self, job: str) -> str | None:
        """Return what is told of the workers of a job that has ended, or None if it is forgotten."""
        row = self._database.execute("select workers from past where job = ?", (job,)).fetchone()
        return None if row is None else str(row[0])

    def jobs(self) -> list[str]:
        """Return the ids of all jobs, in the order of their first records."""
        rows = self._database.execute("select job from records group by job order by min(number)")
        return [str(row[0]) for row in rows]

    def running(self) -> list[str]:
        """Return the ids of the jobs that have not ended, in the order of their first records."""
        rows = self._database.execute(
            "select job from records where job not in (select job from past)"
            " group by job order by min(number)"
        )
        return [str(row[0]) for row in rows]

    def lines(self, job: str) -> Iterator[str]:
        """Yield a job's records in their order."""
        rows: Iterable[Any] = self._database.execute(
            "select lines from records where job = ? order by number", (job,)
        )
        for (lines,) in rows:
            yield from lines.decode("ascii").split("\n")

    def fact(self, name: str) -> str:
        """Return what was noted under that name; empty: nothing."""
        row = self._database.execute("select value from facts where name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    def note(self, name: str, value: str) -> None:
        """Note something that is no job's, on disk when this returns."""
        self._database.execute("insert or replace into facts values (?, ?)", (name, value))
