"""What happened, on disk: each job's records, appended as they come and committed in groups.

The file is a SQLite database in WAL mode, and a group of a job's records is one row of it. So the
hot path costs what an append-only file does (bench/journal.py compares the two), while whole
groups or nothing after a crash, checksums, pruning and a version come from a library. A commit
happens in the journal's own thread, as soon as somebody waits for it, or after `commit_s`.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mu.records import Record, write_record

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


@dataclass(frozen=True, slots=True)
class Past:
    """What is told of a job that has ended, as JSON."""

    ended: float
    """Seconds since the epoch."""
    told: str
    workers: str
    identity: str
    """Its Idempotency-Key and its order's digest."""


class Ledger(Protocol):
    """What jobs and sessions need of a journal."""

    keeps: bool
    """Whether it keeps records at all: if not, they need not be made."""
    written: int
    """Records written so far; a record's position is this count just after it was written."""
    synced: int
    """How many of them are on disk."""

    def write(self, job: str, line: str) -> None:
        """Append a record, a line of ASCII, to a job's."""

    def record(self, job: str, record: Record) -> None:
        """Write a record that is no event."""

    def end(self, job: str, past: Past) -> None:
        """Note that a job has ended: its records need not be replayed any more."""

    def on_disk(self, call: Callable[..., Any], *args: Any) -> None:
        """Call once all that was written so far is on disk: at once, if it is."""


class NoJournal:
    """Keeps nothing, so nobody waits: what jobs are given where the journal is switched off."""

    keeps = False

    def __init__(self) -> None:
        self.written = self.synced = 0

    def write(self, job: str, line: str) -> None:
        pass

    def record(self, job: str, record: Record) -> None:
        pass

    def end(self, job: str, past: Past) -> None:
        pass

    def on_disk(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)


class Journal:
    """Gathers records, and has its thread commit them. Only for the reactor's thread.

    `failed` is called with a sentence when a commit fails: nothing after it is safe.
    """

    log = Logger()
    keeps = True

    def __init__(
        self, path: Path, reactor: Any, commit_s: float, failed: Callable[[str], Any]
    ) -> None:
        """Raises JournalError."""
        self.written = self.synced = 0
        self._path = path
        self._reactor = reactor
        self._commit_s = commit_s
        self._on_failure = failed
        self._pending: dict[str, list[str]] = {}
        self._past: list[tuple[str, Past]] = []
        self._waiting: deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._committing = 0  # the position up to which a commit is under way; 0: none is
        self._timer: Any = None
        self._timer_is_prompt = False
        self._work: SimpleQueue[Any] = SimpleQueue()
        _open(path).close()  # an error is the caller's to see
        self._thread = Thread(target=self._commit_all, name="mu-journal", daemon=True)
        self._thread.start()

    def write(self, job: str, line: str) -> None:
        lines = self._pending.get(job)
        if lines is None:
            lines = self._pending[job] = []
        lines.append(line)
        self.written += 1
        if self._timer is None and not self._committing:
            self._timer = self._reactor.callLater(self._commit_s, self._commit)

    def record(self, job: str, record: Record) -> None:
        self.write(job, write_record(record))

    def end(self, job: str, past: Past) -> None:
        self._past.append((job, past))
        self.written += 1

    def on_disk(self, call: Callable[..., Any], *args: Any) -> None:
        if self.synced == self.written:
            call(*args)
            return
        self._waiting.append((self.written, call, args))
        self._commit_soon()

    def prune(self, keep: int, max_age_s: float, max_bytes: int) -> None:
        """Forget jobs that have ended: all but `keep`, those that are older, the oldest of too many."""
        now = self._reactor.seconds()
        self._work.put(lambda database: _prune(database, keep, now - max_age_s, max_bytes))

    def close(self) -> Deferred[None]:
        """Commit what is left; the Deferred fires once nothing more will be written."""
        closed: Deferred[None] = Deferred()
        self.on_disk(lambda: self._work.put(None))
        Thread(target=self._report_end, args=(closed,), daemon=True).start()
        return closed

    def _report_end(self, closed: Deferred[None]) -> None:
        self._thread.join()
        self._reactor.callFromThread(closed.callback, None)

    # ------------------------------------------------ the reactor's side

    def _commit_soon(self) -> None:
        """Commit in the reactor's next turn, so that all of this turn goes together."""
        if self._committing or (self._timer is not None and self._timer_is_prompt):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.callLater(0, self._commit)
        self._timer_is_prompt = True

    def _commit(self) -> None:
        self._timer, self._timer_is_prompt = None, False
        pending, self._pending = self._pending, {}
        past, self._past = self._past, []
        self._committing = self.written
        self._work.put(lambda database: _store(database, pending, past))

    def _committed(self) -> None:
        self.synced, self._committing = self._committing, 0
        while self._waiting and self._waiting[0][0] <= self.synced:
            _, call, args = self._waiting.popleft()
            try:
                call(*args)
            except Exception:  # whoever waits next must not suffer
                self.log.failure("what waited for the disk failed: {call}", call=call)
        if self._waiting:
            self._commit_soon()
        elif self.written > self.synced and self._timer is None:
            self._timer = self._reactor.callLater(self._commit_s, self._commit)

    # ------------------------------------------------ the thread's side

    def _commit_all(self) -> None:
        database = _open(self._path)
        try:
            while (work := self._work.get()) is not None:
                told = work(database)
                if told:
                    self._reactor.callFromThread(self._committed)
        except sqlite3.Error as error:
            sentence = f"{self._path} cannot be written: {error}"
            self._reactor.callFromThread(self._on_failure, sentence)
        finally:
            database.close()


# ---------------------------------------------------------------- the database


def _open(path: Path) -> sqlite3.Connection:
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


def _store(
    database: sqlite3.Connection, pending: dict[str, list[str]], past: list[tuple[str, Past]]
) -> bool:
    database.execute("begin immediate")
    database.executemany(
        "insert into records (job, lines) values (?, ?)",
        [(job, "\n".join(lines).encode("ascii")) for job, lines in pending.items()],
    )
    database.executemany(
        "insert or replace into past values (?1, ?2,"
        " (select coalesce(sum(length(lines)), 0) from records where job = ?1)"
        " + length(?3) + length(?4), ?3, ?4, ?5)",
        [(job, one.ended, one.told, one.workers, one.identity) for job, one in past],
    )
    database.execute("commit")
    return True


def _prune(database: sqlite3.Connection, keep: int, since: float, max_bytes: int) -> bool:
    """Delete the jobs that are too many, too old or too large; return that nobody waits for it."""
    size, gone = 0, []
    rows = database.execute("select job, ended, bytes from past order by ended desc").fetchall()
    for place, (job, ended, length) in enumerate(rows):
        size += length
        if place >= keep or ended < since or size > max_bytes:
            gone.append((job,))
    if gone:
        database.execute("begin immediate")
        database.executemany("delete from records where job = ?", gone)
        database.executemany("delete from past where job = ?", gone)
        database.execute("commit")
        database.execute("pragma incremental_vacuum").fetchall()
    return False


class Archive:
    """What a journal holds, to be read: by a daemon that starts, or by `mu replay`."""

    def __init__(self, path: Path) -> None:
        """Raises JournalError."""
        self._database = _open(path)

    def close(self) -> None:
        self._database.close()

    def ended(self) -> Iterator[tuple[str, str]]:
        """Yield what is told of each job that has ended, the oldest first, and its identity."""
        yield from self._database.execute("select told, identity from past order by ended")

    def workers(self, job: str) -> str | None:
        """Return what is told of the workers of a job that has ended, or None if it is forgotten."""
        row = self._database.execute("select workers from past where job = ?", (job,)).fetchone()
        return None if row is None else str(row[0])

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
