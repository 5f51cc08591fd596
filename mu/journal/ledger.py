"""What jobs and sessions need from a journal."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from mu.journal.records import Record


@dataclass(frozen=True, slots=True)
class Past:
    """A job that has ended, as JSON for users."""

    ended: float
    """Seconds since the epoch."""
    told: str
    """The job, as in GET /jobs/<id>."""
    workers: str
    """Its actors, as in GET /jobs/<id>/workers."""
    identity: str
    """Its Idempotency-Key and the digest of its order."""

    @classmethod
    def of(cls, ended: float, job: object, workers: object, key: str, digest: str) -> "Past":
        """Make one from the JSON values of a job and of its actors."""
        identity = json.dumps({"key": key, "digest": digest})
        return cls(ended, json.dumps(job), json.dumps(workers), identity)


class Ledger(Protocol):
    """What jobs and sessions need from a journal."""

    keeps: bool
    """Whether it keeps records at all; if not, callers need not make any."""
    written: int
    """How many records were written; a record's position is this count just after its writing."""
    synced: int
    """How many of them are on disk and survive a power loss."""

    def write(self, job: str, line: str) -> None:
        """Append a record to those of a job; it must be a line of ASCII."""

    def record(self, job: str, record: Record) -> None:
        """Append a record to those of a job."""

    def end(self, job: str, past: Past) -> None:
        """Note that a job has ended, so that its records need not be replayed."""

    def on_disk(self, call: Callable[..., object], *args: object) -> None:
        """Call once everything written so far is on disk; at once if it already is."""

    def lines(self, job: str) -> Iterable[str]:
        """Yield the records of a job that are on disk, oldest first, in any one thread.

        Raises JournalError, sqlite3.Error and ValueError.
        """


class NoJournal:
    """Keeps nothing, so that nothing waits: for daemons with [journal] enabled = no."""

    keeps = False

    def __init__(self) -> None:
        self.written = self.synced = 0

    def write(self, job: str, line: str) -> None:
        pass

    def record(self, job: str, record: Record) -> None:
        pass

    def end(self, job: str, past: Past) -> None:
        pass

    def on_disk(self, call: Callable[..., object], *args: object) -> None:
        call(*args)

    def lines(self, job: str) -> Iterable[str]:
        return ()
