"""Restores the jobs in the journal when a daemon starts: the running and the ended ones."""

import json
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

from twisted.logger import Logger

from mu.config import Config
from mu.jobs.book import JobBook, PastJob
from mu.jobs.conductor import Conductor
from mu.jobs.orders import read_order
from mu.jobs.recovery import find
from mu.jobs.spec import JobSpec
from mu.journal.archive import Archive
from mu.journal.ledger import Notification
from mu.journal.records import Ordered
from mu.registry import Registry

log = Logger()


def restore(
    archive: Archive,
    path: Path,
    config: Config,
    registry: Registry,
    engines: Set[str],
    book: JobBook,
    conductor: Conductor,
) -> None:
    """Add all jobs to the book; those that cannot resume end as failed. Raises JournalError.

    `path` is the journal's, for messages.
    """
    for told, identity in archive.ended():
        try:
            book.add(PastJob(told, identity, archive.workers))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            log.error(
                "{path}: an ended job cannot be read and is left out: {error}: {told}",
                path=str(path),
                error=str(error),
                told=f"{told!r:.200}",
            )

    def read_spec(ordered: Ordered) -> JobSpec:
        body = json.dumps(ordered.order).encode("ascii")
        spec = read_order(
            body,
            config,
            registry.pipelines,
            engines,
            ordered.key,
            plugged=registry.engines,
        )
        return replace(spec, digest=ordered.digest)

    found, lost, stopped_at = find(archive, read_spec)
    conductor.restore(found, stopped_at)
    for job_id, (ordered, reason) in lost.items():
        conductor.bury(job_id, ordered, f"{reason} ({path})")
    for job_id, value in archive.notifications():
        try:
            url, since = json.loads(value)
            conductor.coordinator.notify(Notification(job_id, str(url), float(since)))
        except (TypeError, ValueError) as error:
            log.error(
                "{path}: the notification of the end of job {job} cannot be read and is left out:"
                " {error}",
                path=str(path),
                job=job_id,
                error=str(error),
            )
