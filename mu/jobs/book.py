"""The book of all jobs: finds jobs by id or key, and passes workers to their jobs."""

import json
from collections.abc import Callable, Iterator

from mu.jobs.driver import WorkerLine
from mu.jobs.job import Job
from mu.jobs.overview import Glance, overview
from mu.jobs.summary import JobSummary, tally_json
from mu.jobs.usage import Usage
from mu.messages import Hello, Use
from mu.strict_json import JSON


class PastJob:
    """A job that ended before the daemon started, as recorded in the journal."""

    ended = recorded = True

    def __init__(self, told: str, identity: str, workers: Callable[[str], str | None]) -> None:
        self._summary = JobSummary.read(json.loads(told))
        self._workers = workers
        self.id, self.name = self._summary.id, self._summary.name
        self.state = self._summary.state
        known: dict[str, str] = json.loads(identity)
        self.key = known.get("key", "")
        self.digest = known.get("digest", "")

    def describe(self) -> JSON:
        """Return its JSON for users."""
        return self._summary.json()

    def overview(self) -> JSON:
        """Return its JSON as an overview: its actors wait for nothing."""
        return overview(self.describe(), map(Glance.read, self.workers()))

    def workers(self) -> list[JSON]:
        """Return the JSON of each actor for users."""
        told: list[JSON] = json.loads(self._workers(self.id) or "[]")
        return [
            {"stage": "", "inputs": _one_input(row["state"]), "used": Usage().json()} | row
            for row in told
        ]

    def workers_after(self, number: int) -> Iterator[JSON]:
        """Yield the JSON of each actor with a number above this."""
        return (row for row in self.workers() if row["actor"] > number)


def _one_input(state: str) -> dict[str, int]:
    """Return the inputs of an actor that an earlier version recorded without."""
    return tally_json((1, int(state == "done"), int(state == "failed")))


class JobBook:
    """All known jobs, oldest first. It keeps at most `keep` jobs that have ended."""

    def __init__(
        self, keep: int = 1000, forgotten: Callable[[list[str]], object] = lambda jobs: None
    ) -> None:
        """`forgotten` is called with the ids of jobs that it no longer keeps."""
        self._keep = keep
        self._forgotten = forgotten
        self._jobs: dict[str, Job | PastJob] = {}
        self._by_key: dict[str, Job | PastJob] = {}

    def add(self, job: Job | PastJob) -> None:
        self._jobs[job.id] = job
        if job.key:
            self._by_key.setdefault(job.key, job)
        if len(self._jobs) <= self._keep:
            return
        ended = [known.id for known in self._jobs.values() if known.ended]
        gone = ended[: max(0, len(ended) - self._keep)]
        for job_id in gone:
            old = self._jobs.pop(job_id)
            if self._by_key.get(old.key) is old:
                del self._by_key[old.key]
        if gone:
            self._forgotten(gone)

    def get(self, job_id: str) -> Job | PastJob | None:
        return self._jobs.get(job_id)

    def all(self) -> list[Job | PastJob]:
        return list(self._jobs.values())

    def live(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in self._jobs.values() if isinstance(job, Job) and not job.ended]

    def with_key(self, key: str) -> Job | PastJob | None:
        """Return the job ordered with this Idempotency-Key."""
        return self._by_key.get(key)

    def join(self, job_id: str, hello: Hello, line: WorkerLine) -> None:
        """Pass a worker that said hello to its job, or dismiss it if that job has ended."""
        job = self._jobs.get(job_id)
        if job is None:
            line.dismiss(f"job {job_id} is not known")
        elif isinstance(job, PastJob):
            line.dismiss(f"job {job_id} has ended")
        else:
            job.join(hello, line)

    def used(self, job_id: str, hello: Hello, use: Use) -> None:
        """Tell the job what a worker without an actor says that it used."""
        job = self._jobs.get(job_id)
        if isinstance(job, Job):
            job.used(hello.session, use)

    def leave(self, job_id: str, line: WorkerLine, hello: Hello) -> None:
        """Tell the job that a worker's connection is lost."""
        job = self._jobs.get(job_id)
        if isinstance(job, Job):
            job.leave(line, hello)
