"""Reads a job's timeline from the journal, in a thread, whether the job runs or ended long ago.

For a running job, what was read is kept for a while, so that the next answer reads only what is new.
"""

import sqlite3
import zlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mu.in_thread import InThread
from mu.jobs.book import PastJob
from mu.jobs.job import Job
from mu.journal.database import JournalError
from mu.journal.ledger import Ledger
from mu.timeline.answer import timeline_json
from mu.timeline.course import JobCourse

AT_ONCE = 2
"""How many timelines are made at once: a large one needs much memory, and time of the daemon."""
MOST_KEPT = 2
"""How many jobs are kept; the least recently requested ones are forgotten first."""
MOST_RECORDS = 500_000
"""A job with more records is not kept: each takes some 200 bytes."""
KEPT_S = 60.0
"""How long a job is kept after the last request."""


class NoTimeline(Exception):
    """There is no timeline of a job; the text says why."""


class ReadCourse:
    """What was read of a job so far. One thread at a time may go on, with its `turn`."""

    def __init__(self, course: JobCourse) -> None:
        self.course = course
        self.turn = DeferredLock()
        self.forget: IDelayedCall | None = None
        self.records = 0
        self._last = 0  # the number of the last group

    def read_on(self, ledger: Ledger, job: str) -> JobCourse:
        """Read the new records. Raises JournalError, sqlite3.Error and ValueError."""
        for number, lines in ledger.groups(job, self._last):
            self.course.read(lines)
            self.records += len(lines)
            self._last = number
        return self.course


class Timelines:
    """Makes the answers to GET /jobs/ID/timeline."""

    def __init__(self, ledger: Ledger, clock: IReactorTime, in_thread: InThread) -> None:
        self._ledger = ledger
        self._clock = clock
        self._in_thread = in_thread
        self._turns = DeferredSemaphore(AT_ONCE)
        self._kept: dict[str, ReadCourse] = {}  # the one asked for last comes last

    async def read(
        self,
        job: Job | PastJob,
        after: int | None,
        most: int | None,
        commands: bool,
        packed: bool = False,
    ) -> bytes:
        """Return the JSON of a job's timeline: of at most `most` actors, after one of them.

        `packed` compresses it with gzip. Raises NoTimeline.
        """
        if not self._ledger.keeps:
            raise NoTimeline(
                f"job {job.id} has no timeline: it is drawn from the journal, and mu.conf has"
                " [journal] enabled = no"
            )
        recorded: Deferred[None] = Deferred()
        self._ledger.on_disk(recorded.callback, None)
        await recorded
        finished, ended = job.describe()["finished"], job.ended
        until = self._clock.seconds() if finished is None else float(finished)
        if ended:
            self._forget(job.id)
            known = ReadCourse(JobCourse(after, most))
        else:
            known = self._keep(job.id)
        first = -1 if after is None else after

        def read() -> bytes:
            course = known.read_on(self._ledger, job.id)
            told = timeline_json(job.id, course, until, ended, commands, first, most)
            answer = told + b"\n"
            return pack(answer) if packed else answer

        try:
            answer = await self._in_turn(known, read)
        except (JournalError, sqlite3.Error) as error:
            raise NoTimeline(f"the records of job {job.id} cannot be read: {error}") from None
        except ValueError as error:
            self._forget(job.id)
            raise NoTimeline(f"the records of job {job.id} are damaged: {error}") from None
        if known.records > MOST_RECORDS:
            self._forget(job.id)
        if not known.course.created:
            raise NoTimeline(
                f"the records of job {job.id} are no longer in the journal (see keep_days and"
                " max_bytes in mu.conf)"
            )
        return answer

    def _keep(self, job_id: str) -> ReadCourse:
        """Return what was read of a running job, and keep it for a while longer."""
        known = self._kept.pop(job_id, None) or ReadCourse(JobCourse())
        if known.forget is not None:
            known.forget.cancel()
        known.forget = self._clock.callLater(KEPT_S, self._forget, job_id)
        self._kept[job_id] = known
        while len(self._kept) > MOST_KEPT:
            self._forget(next(iter(self._kept)))
        return known

    def _forget(self, job_id: str) -> None:
        known = self._kept.pop(job_id, None)
        if known is not None and known.forget is not None:
            if known.forget.active():
                known.forget.cancel()
            known.forget = None

    async def _in_turn(self, known: ReadCourse, read: Callable[[], bytes]) -> bytes:
        """Make a call in a thread. If its client goes, the turns still last as long as the call."""
        await known.turn.acquire()
        try:
            await self._turns.acquire()
        except BaseException:
            known.turn.release()
            raise
        answer: Deferred[bytes] = Deferred()
        self._in_thread(read).addBoth(self._end_turn, known).chainDeferred(answer)
        return await answer

    def _end_turn(self, result: Any, known: ReadCourse) -> Any:
        self._turns.release()
        known.turn.release()
        return result


def pack(text: bytes) -> bytes:
    """Return a text in the format of gzip, quickly."""
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(text) + packer.flush()
