"""The journal for tests: one in memory, whose disk is the test's; a real one, whose turns are."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kit.parts import Reactor
from mu.journal.archive import Archive
from mu.journal.records import Launching, read_record, write_record
from mu.journal.writer import Journal


class HeldJournal:
    """A journal in memory (a mu.journal.ledger.Ledger), and an Archive of what it holds.

    What was written is on disk once `sync` says so. `unheld` names calls, and steps of sessions,
    that do not wait for the disk: only worlds that are broken on purpose have any.
    """

    keeps = True
    unheld: Any = ()

    def __init__(
        self,
        entries: Iterable[tuple[str, Any]] = (),
        watch: Callable[[Any], None] = lambda record: None,
    ) -> None:
        self.written = self.synced = 0
        self._entries = list(entries)
        self._watch = watch
        self._waiting: deque[tuple[int, Any, Any]] = deque()

    def write(self, job: str, line: str) -> None:
        self._entries.append((job, line))
        self.written += 1
        self._watch(read_record(line))

    def record(self, job: str, record: Any) -> None:
        self.write(job, write_record(record))

    def end(self, job: str, past: Any) -> None:
        self._entries.append((job, past))
        self.written += 1

    def on_disk(self, call: Any, *args: Any) -> None:
        name = getattr(call, "__name__", "")
        if self.synced == self.written or (args[0] if name == "_on_disk" else name) in self.unheld:
            call(*args)
        else:
            self._waiting.append((self.written, call, args))

    later_on_disk = on_disk

    def sync(self, upto: int | None = None) -> None:
        """A commit of what was written up to there, or of everything, is on disk."""
        self.synced = self.written if upto is None else upto
        while self._waiting and self._waiting[0][0] <= self.synced:
            _, call, args = self._waiting.popleft()
            call(*args)

    def after_crash(self, lost: int) -> "HeldJournal":
        """Return what is there after a crash that takes the last records."""
        return HeldJournal(self._entries[: len(self._entries) - lost], self._watch)

    @property
    def records(self) -> list[Any]:
        """All records of jobs, on disk or not."""
        return [read_record(entry) for _, entry in self._entries if isinstance(entry, str)]

    def launches(self) -> set[str]:
        """Return the launches that are on disk."""
        synced = self._entries[: len(self._entries) - (self.written - self.synced)]
        records = [read_record(entry) for _, entry in synced if isinstance(entry, str)]
        return {record.launch for record in records if isinstance(record, Launching)}

    # ------------------------------------------------ as an archive

    def running(self) -> list[str]:
        over = {job for job, _ in self.ended()}
        return [job for job in dict.fromkeys(job for job, _ in self._entries) if job not in over]

    def lines(self, job: str) -> list[str]:
        return [line for _, (line,) in self.groups(job)]

    def groups(self, job: str, after: int = 0) -> list[tuple[int, list[str]]]:
        return [
            (number, [line])
            for number, (of, line) in enumerate(self._entries, 1)
            if of == job and isinstance(line, str) and number > after
        ]

    def ended(self) -> list[tuple[str, Any]]:
        return [(job, past) for job, past in self._entries if not isinstance(past, str)]


class Turns(Reactor):
    """A clock whose calls from threads wait until the test takes a turn."""

    def __init__(self):
        super().__init__()
        self._calls = []
        self._came = threading.Condition()

    def callFromThread(self, call, *args):
        with self._came:
            self._calls.append((call, args))
            self._came.notify()

    def turn(self):
        """Wait for the next call from a thread, and make it."""
        with self._came:
            assert self._came.wait_for(lambda: self._calls, 10)
            call, args = self._calls.pop(0)
        call(*args)


class Bench:
    def __init__(self, folder):
        self.path = folder / "journal.db"
        self.clock = Turns()
        self.failures = []
        self.journal = Journal(self.path, self.clock, 1.0, self.failures.append)

    def close(self):
        closed = self.journal.close()
        while not closed.called:
            self.clock.advance(0)
            self.clock.turn()

    def commit(self):
        """Have all that was written so far on disk."""
        called = []
        self.journal.on_disk(called.append, 1)
        self.clock.advance(0)
        while not called:
            self.clock.turn()

    def read(self):
        archive = Archive(self.path)
        told = {job: list(archive.lines(job)) for job in archive.running()}
        archive.close()
        return told
