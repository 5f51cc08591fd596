"""What the relay wants to know about jobs."""

import math

from mu.jobs.book import JobBook
from mu.jobs.job import Job


class RelayJobs:
    """Answers the relay's questions about jobs."""

    def __init__(self, book: JobBook) -> None:
        self._book = book

    def keeps(self, job_id: str) -> float:
        job = self._book.get(job_id)
        return math.inf if isinstance(job, Job) and not job.ended and job.relay_keep else 0.0

    def ended(self, job_id: str) -> bool:
        job = self._book.get(job_id)
        return job is not None and job.ended
