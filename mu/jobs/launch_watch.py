"""Passes on to jobs what engines tell of their launches."""

from collections.abc import Callable, Iterable

from mu.jobs.job import Job


class LaunchWatch:
    """A mu.plugins.LaunchListener. `jobs` returns those that have not ended."""

    def __init__(self, jobs: Callable[[], Iterable[Job]]) -> None:
        self._jobs = jobs

    def ended(self, launch: str, why: str) -> None:
        job = self._job_of(launch)
        if job is not None:
            job.launch_ended(launch, why)

    def pending(self, launch: str, why: str) -> None:
        job = self._job_of(launch)
        if job is not None:
            job.launch_pending(launch, why)

    def _job_of(self, launch: str) -> Job | None:
        return next((job for job in self._jobs() if launch in job.launches), None)
