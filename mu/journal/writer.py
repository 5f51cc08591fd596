"""What happened, on disk: each job's records, appended as they come and committed in groups.

The file is a SQLite database in WAL mode, and a group of a job's records is one row of it. So the
hot path costs what an append-only file does (bench/journal.py compares the two), while whole
groups or nothing after a crash, checksums, pruning and a version come from a library. A commit
happens in the journal's own thread, as soon as somebody waits for it, or after `commit_s`.
"""

import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mu.journal.database import open_database
from mu.journal.ledger import Past
from mu.journal.records import Record, write_record


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
        open_database(path).close()  # an error is the caller's to see
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
        database = open_database(self._path)
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
