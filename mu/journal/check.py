"""Checks a journal: SQLite's own check of the file, and the records of each job in it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mu.events import read_event
from mu.journal.archive import Archive
from mu.journal.database import JournalDamaged, open_database
from mu.journal.records import (
    Assigned,
    AttemptEnded,
    Happened,
    Ordered,
    read_record,
    refuse_gaps,
    time_of,
)

SHOWN = 10
"""How much of what SQLite finds is shown."""


@dataclass(slots=True)
class Checked:
    """What a check of a journal found."""

    damage: list[str] = field(default_factory=list)
    """What is wrong with the file; the jobs were not checked then."""
    running: int = 0
    ended: int = 0
    """The jobs in the journal."""
    records: int = 0
    """The records of all jobs."""
    bad: dict[str, str] = field(default_factory=dict)
    """For each job whose records are damaged: why."""


def check(path: Path) -> Checked:
    """Check a journal, without changing it. Raises JournalError if it cannot be opened."""
    checked = Checked()
    try:
        with closing(open_database(path, read_only=True)) as database:
            rows = database.execute(f"pragma integrity_check({SHOWN})").fetchall()
            checked.damage = [said for (said,) in rows if said != "ok"]
        if not checked.damage:
            with closing(Archive(path, read_only=True)) as archive:
                _check_jobs(archive, checked)
    except JournalDamaged as error:
        checked.damage = [error.reason]
    except sqlite3.Error as error:
        checked.damage = [str(error)]
    return checked


def _check_jobs(archive: Archive, checked: Checked) -> None:
    checked.ended = sum(1 for _ in archive.ended())
    running = archive.running()
    checked.running = len(running)
    for job in archive.jobs():
        try:
            checked.records += _check_records(archive, job)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            checked.bad[job] = str(error)


def _check_records(archive: Archive, job: str) -> int:
    """Return how many records a job has. Raises ValueError and others for a bad one."""
    running: set[tuple[int, int]] = set()
    count = 0
    for line in archive.lines(job):
        record = read_record(line)
        refuse_gaps([record])
        if isinstance(record, Ordered) != (count == 0):
            raise ValueError("the first of its records, and only that, must be its order")
        time_of(record)
        count += 1
        match record:
            case Assigned(actor=actor, attempt=attempt):
                running.add((actor, attempt))
            case Happened(actor=actor, attempt=attempt, event=event):
                read_event(event)
                if (actor, attempt) not in running:
                    raise ValueError(f"an event of actor {actor} is not of a running attempt")
            case AttemptEnded(actor=actor, attempt=attempt):
                running.discard((actor, attempt))
    return count
