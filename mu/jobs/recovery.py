"""Jobs, back from the journal, as a coordinator left them that was killed or stopped."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from mu.jobs.job import Job
from mu.jobs.spec import JobSpec
from mu.journal.archive import Archive
from mu.journal.records import (
    Assigned,
    AttemptEnded,
    Happened,
    Launched,
    Launching,
    NobodyCame,
    Ordered,
    Planned,
    Resumed,
    Sized,
    Stopped,
    read_record,
)
from mu.journal.replay import Diverged

log = Logger()


@dataclass(frozen=True, slots=True)
class Found:
    """A job that has not ended, and its records after the first."""

    id: str
    ordered: Ordered
    spec: JobSpec
    records: list[Any]


def find(
    archive: Archive, read_spec: Callable[[Ordered], JobSpec]
) -> tuple[list[Found], dict[str, tuple[Ordered | None, str]], float]:
    """Return the jobs that run, why others cannot go on, and when anything was last recorded.

    `read_spec` raises ValueError for an order that cannot be taken any more.
    """
    found: list[Found] = []
    lost: dict[str, tuple[Ordered | None, str]] = {}
    last = 0.0
    for job_id in archive.running():
        ordered: Ordered | None = None
        try:
            ordered, *records = map(read_record, archive.lines(job_id))
            if not isinstance(ordered, Ordered):
                raise ValueError("its order is not in the journal")
            last = max(last, ordered.at, *map(_time, records))
            found.append(Found(job_id, ordered, read_spec(ordered), records))
        except ValueError as error:
            lost[job_id] = ordered, str(error)
    return found, lost, last


def _time(record: Any) -> float:
    if isinstance(record, Happened):
        return float(record.event[1])
    return float(getattr(record, "at", 0.0))


def recover(job: Job, records: Iterable[Any], stopped_at: float) -> None:
    """Bring a job that is new to where its records end.

    An attempt whose machine does not do again what it did is ended; its actor begins anew.
    """
    job.restoring = True
    courses: dict[tuple[int, int], list[Happened | Resumed]] = {}
    for record in records:
        match record:
            case Happened():
                courses[record.actor, record.attempt].append(record)
            case Resumed():
                job.downtime += record.at - record.stopped_at
                for course in courses.values():
                    course.append(record)
            case Assigned():
                courses[record.actor, record.attempt] = []
                job.restore_attempt(record)
            case AttemptEnded():
                courses.pop((record.actor, record.attempt), None)
                job.restore_end(record)
            case NobodyCame():
                job.restore_absence(record)
            case Planned(inputs=inputs, order=order):
                job.plan(inputs, order)
            case Sized():
                job.restore_sizes(record)
            case Launching() | Launched():
                job.restore_launch(record)
            case Stopped(state=state, reason=reason):
                job.verdict = state, reason
    for actor in job.actors:
        if actor.outcome is not None:
            actor.end_others()
        for attempt in list(actor.attempts):
            session = attempt.session
            if session is None:  # the attempt before it turned out to be done
                continue
            if job.verdict is not None:
                session.fence(job.verdict[1])
                continue
            try:
                session.restore(courses[actor.number, attempt.number], attempt.began, stopped_at)
            except (Diverged, ValueError) as error:
                log.warn(
                    "job {job}, actor {actor}: {error}",
                    job=job.id,
                    actor=actor.number,
                    error=str(error),
                )
                session.fence(f"it cannot go on after the restart: {error}", charged=False)
