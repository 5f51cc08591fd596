"""What jobs and sessions need from a journal."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from mu.journal.records import Record


@dataclass(frozen=True, slots=True)
class Notification:
    """Somebody is to be told that a job has ended."""

    job: str
    url: str
    since: float
    """When it ended, in seconds since the epoch."""

    @property
    def event(self) -> str:
        """The same id in each attempt, so that a receiver notices a repetition."""
        return f"{self.job}.ended"


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
    notify_url: str = ""
    """The URL to notify; empty: none."""

    @classmethod
    def of(
        cls,
        ended: float,
        job: object,
        workers: object,
        key: str,
        digest: str,
        notify_url: str = "",
    ) -> "Past":
        """Make one from the JSON values of a job and of its actors."""
        identity = json.dumps({"key": key, "digest": digest})
        return cls(ended, json.dumps(job), json.dumps(workers), identity, notify_url)


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
        """Note that a job has ended, so that its records need not be replayed.

        If it has a `notify_url`, a Notification is kept until `notified` is called.
        """

    def notified(self, job: str) -> None:
        """Drop the Notification of a job: it was delivered, or given up."""

    def on_disk(self, call: Callable[..., object], *args: object) -> None:
        """Call once everything written so far is on disk; at once if it already is."""

    def later_on_disk(self, call: Callable[..., object], *args: object) -> None:
        """The same, but do not commit for it: it waits for the next commit."""

    def lines(self, job: str) -> Iterable[str]:
        """Yield the records of a job that are on disk, oldest first, in any one thread.

        Raises JournalError, sqlite3.Error and ValueError.
        """

    def groups(self, job: str, after: int) -> Iterable[tuple[int, list[str]]]:
        """Yield the same in groups with growing numbers, those after this number; 0: all."""


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

    def notified(self, job: str) -> None:
        pass

    def on_disk(self, call: Callable[..., object], *args: object) -> None:
        call(*args)

    later_on_disk = on_disk

    def lines(self, job: str) -> Iterable[str]:
        return ()

    def groups(self, job: str, after: int) -> Iterable[tuple[int, list[str]]]:
        return ()
