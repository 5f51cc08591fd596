"""Reads a job's timeline from the journal, in a thread, whether the job runs or ended long ago."""

import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from mu.jobs.book import PastJob
from mu.jobs.job import Job
from mu.journal.database import JournalError
from mu.journal.ledger import Ledger
from mu.strict_json import dumps
from mu.timeline.answer import timeline_json
from mu.timeline.course import JobCourse

AT_ONCE = 2
"""How many timelines are made at once: a large one needs much memory, and time of the daemon."""


class NoTimeline(Exception):
    """There is no timeline of a job; the text says why."""


class Timelines:
    """Makes the answers to GET /jobs/ID/timeline."""

    def __init__(
        self, ledger: Ledger, clock: IReactorTime, in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._in_thread = in_thread
        self._turns = DeferredSemaphore(AT_ONCE)

    async def read(
        self, job: Job | PastJob, after: int | None, most: int | None, commands: bool
    ) -> bytes:
        """Return the JSON of a job's timeline: of at most `most` actors, after one of them.

        Raises NoTimeline.
        """
        if not self._ledger.keeps:
            raise NoTimeline(
                f"job {job.id} has no timeline: it is drawn from the journal, and mu.conf has"
                " [journal] enabled = no"
            )
        recorded: Deferred[None] = Deferred()
        self._ledger.on_disk(recorded.callback, None)
        await recorded
        finished = job.describe()["finished"]
        until = self._clock.seconds() if finished is None else float(finished)
        course = JobCourse(after, most)

        def read() -> bytes:
            told = timeline_json(
                job.id, course.read(self._ledger.lines(job.id)), until, job.ended, commands
            )
            return dumps(told, compact=True).encode("ascii") + b"\n"

        try:
            answer = await self._in_turn(read)
        except (JournalError, sqlite3.Error) as error:
            raise NoTimeline(f"the records of job {job.id} cannot be read: {error}") from None
        except ValueError as error:
            raise NoTimeline(f"the records of job {job.id} are damaged: {error}") from None
        if not course.created:
            raise NoTimeline(
                f"the records of job {job.id} are no longer in the journal (see keep_days and"
                " max_bytes in mu.conf)"
            )
        return answer

    async def _in_turn(self, read: Callable[[], bytes]) -> bytes:
        """Make a call in a thread. If its client goes, the turn still lasts as long as the call."""
        await self._turns.acquire()
        answer: Deferred[bytes] = Deferred()
        self._in_thread(read).addBoth(self._end_turn).chainDeferred(answer)
        return await answer

    def _end_turn(self, result: Any) -> Any:
        self._turns.release()
        return result
