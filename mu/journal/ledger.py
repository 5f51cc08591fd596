"""What jobs and sessions need of a journal."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mu.journal.records import Record


@dataclass(frozen=True, slots=True)
class Past:
    """What is told of a job that has ended, as JSON."""

    ended: float
    """Seconds since the epoch."""
    told: str
    workers: str
    identity: str
    """Its Idempotency-Key and its order's digest."""

    @classmethod
    def of(cls, ended: float, job: Any, workers: Any, key: str, digest: str) -> "Past":
        """Return it for the JSON values of a job and of its workers."""
        identity = json.dumps({"key": key, "digest": digest})
        return cls(ended, json.dumps(job), json.dumps(workers), identity)


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
