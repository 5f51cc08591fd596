"""Writes the journal: the records of each job, committed in groups.

The file is a SQLite database in WAL mode; each row is a group of records of one job. So the hot
path costs no more than appending to a file (bench/journal.py compares the two), while a library
provides atomic commits, checksums, pruning and a version. The journal's own thread commits as soon
as anything is waiting for the disk, and otherwise after `commit_s` seconds.
"""

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import perf_counter

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from mu.home import Presence
from mu.journal.archive import NOTIFY, Archive
from mu.journal.database import log_of, open_database, unusable
from mu.journal.ledger import Past
from mu.journal.records import Record, write_record
from mu.totals import SHORT_BOUNDS, Durations

Work = Callable[[sqlite3.Connection], bool]
"""What the thread runs; it returns whether it was a commit."""


class JournalReactor(IReactorFromThreads, IReactorTime):
    """What a journal needs from the reactor."""


class Journal:
    """Collects records, which a thread commits. Call its methods in the reactor's thread only.

    `failed` is called with the reason when a commit fails; nothing is saved after that.
    """

    log = Logger()
    keeps = True

    def __init__(
        self,
        path: Path,
        reactor: JournalReactor,
        commit_s: float,
        failed: Callable[[str], object],
        commits: Durations | None = None,
    ) -> None:
        """`commits` is told how long each commit takes. Raises JournalError."""
        self.written = self.synced = 0
        self._path = path
        self._reactor = reactor
        self._commit_s = commit_s
        self._on_failure = failed
        self._pending: dict[str, list[str]] = {}
        self._past: list[tuple[str, Past]] = []
        self._notified: list[str] = []
        self._urgent = 0  # the last position that someone waits for who cannot wait for `commit_s`
        self._waiting: deque[tuple[int, Callable[..., object], tuple[object, ...]]] = deque()
        self._commits = commits or Durations(SHORT_BOUNDS)
        self._since = 0.0  # when the oldest of the pending records was written
        self._committing_since = 0.0  # and the oldest of those that are being committed
        self._committing = 0  # the position that the running commit will reach; 0: none is running
        self._timer: IDelayedCall | None = None
        self._timer_is_prompt = False
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        open_database(path).close()  # raises in the caller's thread
        self._thread = Thread(target=self._commit_all, name="mu-journal", daemon=True)
        self._thread.start()

    def write(self, job: str, line: str) -> None:
        lines = self._pending.get(job)
        if lines is None:
            self._note_time()
            lines = self._pending[job] = []
        lines.append(line)
        self.written += 1
        if self._timer is None:
            self._commit_later()

    def record(self, job: str, record: Record) -> None:
        self.write(job, write_record(record))

    def end(self, job: str, past: Past) -> None:
        self._note_time()
        self._past.append((job, past))
        self.written += 1

    def notified(self, job: str) -> None:
        self._note_time()
        self._notified.append(job)
        self.written += 1
        self._commit_soon()

    def _note_time(self) -> None:
        """Note when the first record since the last commit was written."""
        if not (self._pending or self._past or self._notified):
            self._since = self._reactor.seconds()

    def on_disk(self, call: Callable[..., object], *args: object) -> None:
        if self.synced == self.written:
            call(*args)
            return
        self._waiting.append((self.written, call, args))
        self._urgent = self.written
        self._commit_soon()

    def later_on_disk(self, call: Callable[..., object], *args: object) -> None:
        if self.synced == self.written:
            call(*args)
        else:
            self._waiting.append((self.written, call, args))
            self._commit_later()

    def lines(self, job: str) -> Iterator[str]:
        archive = Archive(self._path, read_only=True)
        try:
            yield from archive.lines(job)
        finally:
            archive.close()

    def groups(self, job: str, after: int) -> Iterator[tuple[int, list[str]]]:
        archive = Archive(self._path, read_only=True)
        try:
            yield from archive.groups(job, after)
        finally:
            archive.close()

    @property
    def lag_s(self) -> float:
        """How long the oldest record that is not on disk has waited, in seconds."""
        if self.written == self.synced:
            return 0.0
        since = self._committing_since if self._committing else self._since
        return max(0.0, self._reactor.seconds() - since)

    def prune(
        self,
        keep: int,
        max_age_s: float,
        max_bytes: int,
        pruned: Callable[[list[str]], object] = lambda jobs: None,
    ) -> None:
        """Delete ended jobs: all but the last `keep`, older ones, the oldest beyond `max_bytes`.

        `pruned` is called with their ids.
        """
        since = self._reactor.seconds() - max_age_s

        def work(database: sqlite3.Connection) -> bool:
            if gone := _prune(database, keep, since, max_bytes):
                self._reactor.callFromThread(pruned, gone)
            return False  # this is no commit of records

        self._work.put(work)

    def close(self) -> Deferred[None]:
        """Commit everything; the Deferred fires once the thread has ended."""
        closed: Deferred[None] = Deferred()
        self.on_disk(lambda: self._work.put(None))
        Thread(target=self._report_end, args=(closed,), daemon=True).start()
        return closed

    def _report_end(self, closed: Deferred[None]) -> None:
        self._thread.join()
        self._reactor.callFromThread(closed.callback, None)

    # ------------------------------------------------ the reactor's side

    def _commit_soon(self) -> None:
        """Commit in the reactor's next turn, with everything that this turn still writes."""
        if self._committing or (self._timer is not None and self._timer_is_prompt):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.callLater(0, self._commit)
        self._timer_is_prompt = True

    def _commit_later(self) -> None:
        """Commit in `commit_s`, unless a commit is due or running: then this one follows it."""
        if self._timer is None and not self._committing:
            self._timer = self._reactor.callLater(self._commit_s, self._commit)

    def _commit(self) -> None:
        self._timer, self._timer_is_prompt = None, False
        pending, self._pending = self._pending, {}
        past, self._past = self._past, []
        notified, self._notified = self._notified, []
        self._committing, self._committing_since = self.written, self._since
        self._work.put(lambda database: _store(database, pending, past, notified))

    def _committed(self) -> None:
        self.synced, self._committing = self._committing, 0
        while self._waiting and self._waiting[0][0] <= self.synced:
            _, call, args = self._waiting.popleft()
            try:
                call(*args)
            except Exception:  # the next calls must still be made
                self.log.failure("{call}, which waited for the disk, failed", call=call)
        if self._urgent > self.synced:
            self._commit_soon()
        elif self.written > self.synced:
            self._commit_later()

    # ------------------------------------------------ the thread's side

    def _commit_all(self) -> None:
        database = open_database(self._path)
        files = Presence(self._path, log_of(self._path))
        try:
            while (work := self._work.get()) is not None:
                began = perf_counter()
                if work(database):
                    self._commits.add(perf_counter() - began)  # in this thread only
                    if gone := files.gone():  # SQLite goes on writing to a file without a name
                        raise sqlite3.OperationalError(f"{gone} was removed while mu was running")
                    self._reactor.callFromThread(self._committed)
        except sqlite3.Error as error:
            self._reactor.callFromThread(
                self._on_failure, str(unusable(self._path, error, "write"))
            )
        finally:
            database.close()


# ---------------------------------------------------------------- the database


def _store(
    database: sqlite3.Connection,
    pending: dict[str, list[str]],
    past: list[tuple[str, Past]],
    notified: list[str],
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
    database.executemany(
        "insert or replace into facts values (?, ?)",
        [
            (NOTIFY + job, json.dumps([one.notify_url, one.ended]))
            for job, one in past
            if one.notify_url
        ],
    )
    database.executemany("delete from facts where name = ?", [(NOTIFY + job,) for job in notified])
    database.execute("commit")
    return True


def _prune(database: sqlite3.Connection, keep: int, since: float, max_bytes: int) -> list[str]:
    """Delete ended jobs beyond these limits, and return their ids."""
    size, gone = 0, []
    rows = database.execute("select job, ended, bytes from past order by ended desc").fetchall()
    for place, (job, ended, length) in enumerate(rows):
        size += length
        if place >= keep or ended < since or size > max_bytes:
            gone.append(job)
    if gone:
        database.execute("begin immediate")
        rows = [(job,) for job in gone]
        database.executemany("delete from records where job = ?", rows)
        database.executemany("delete from past where job = ?", rows)
        database.executemany(
            "delete from facts where name = ? || ?", [(NOTIFY, job) for job in gone]
        )
        database.execute("commit")
        database.execute("pragma incremental_vacuum").fetchall()
    return gone
