"""Recovers jobs from the journal, in the state they had when the daemon was killed or stopped."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twisted.logger import Logger

from mu.jobs.job import Job
from mu.jobs.spec import JobSpec
from mu.journal.archive import Archive
from mu.journal.records import (
    Assigned,
    AttemptEnded,
    Happened,
    Ordered,
    Record,
    Resumed,
    read_record,
    refuse_gaps,
    time_of,
)

log = Logger()


@dataclass(frozen=True, slots=True)
class Found:
    """A job that has not ended; `records` are those after its order."""

    id: str
    ordered: Ordered
    spec: JobSpec
    records: list[Record]
    event_bytes: int = 0
    """The size of the events among them, in the journal."""


def find(
    archive: Archive, read_spec: Callable[[Ordered], JobSpec]
) -> tuple[list[Found], dict[str, tuple[Ordered | None, str]], float]:
    """Return the running jobs, why others cannot resume, and when the last daemon was running.

    `read_spec` raises ValueError for an order that is no longer valid. Raises JournalError if the
    file is damaged.
    """
    found: list[Found] = []
    lost: dict[str, tuple[Ordered | None, str]] = {}
    last = 0.0
    for job_id in archive.running():
        ordered: Ordered | None = None
        try:
            lines = list(archive.lines(job_id))
            first, *records = map(read_record, lines)
            ordered = first if isinstance(first, Ordered) else None
            refuse_gaps([first, *records])
            if ordered is None:
                raise ValueError("its order is not in the journal")
            last = max(last, *map(time_of, _of_the_last_daemon([first, *records])))
            size = sum(len(line) for line in lines if line.startswith('["happened"'))
            found.append(Found(job_id, ordered, read_spec(ordered), records, size))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            lost[job_id] = ordered, str(error)
    return found, lost, last


def _of_the_last_daemon(records: list[Record]) -> list[Record]:
    """Return the records since the last restart: the clock may have been set back before it."""
    for place in range(len(records) - 1, 0, -1):
        if isinstance(records[place], Resumed):
            return records[place:]
    return records


def recover(job: Job, records: Iterable[Record], stopped_at: float) -> None:
    """Apply its records to a new job, and replay the attempts that were running.

    An attempt whose machine now acts differently is ended, and its actor begins again.
    """
    courses: dict[tuple[int, int], list[Happened | Resumed]] = {}
    for record in records:
        match record:
            case Happened():
                courses[record.actor, record.attempt].append(record)
                continue
            case Assigned():
                courses[record.actor, record.attempt] = []
            case AttemptEnded():
                courses.pop((record.actor, record.attempt), None)
            case Resumed():
                for course in courses.values():
                    course.append(record)
        job.apply(record)
    job.show_ends()
    for actor in job.actors:
        for attempt in list(actor.attempts):
            session = attempt.session
            if session is None:  # it ended meanwhile, because another attempt turned out to be done
                continue
            if job.stopped is not None:
                session.fence(job.stopped.reason)
                continue
            if actor.outcome is not None:
                session.fence("another attempt at its actor finished first")
                continue
            try:
                session.restore(courses[actor.number, attempt.number], attempt.began, stopped_at)
            except Exception as error:  # Diverged, or any error from a broken record
                log.warn(
                    "job {job}, actor {actor}: {error}",
                    job=job.id,
                    actor=actor.number,
                    error=str(error),
                )
                session.fence(f"it cannot resume after the restart: {error}", charged=False)
