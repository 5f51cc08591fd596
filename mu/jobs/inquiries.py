"""Asks the engine what became of workers that lost their connection: it may know that they ended."""

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mu.invocations import function_of, region_of
from mu.jobs.coordinator import Coordinator
from mu.jobs.job import Job

PAUSES_S = 0.2, 0.8, 2.0, 5.0
"""The pauses before each question about a worker: an engine's log may be late."""
MOST = 10
"""About how many workers of a job the engine is asked at once; more are not asked about."""
EARLIER_S = 10.0
"""How much earlier than a launch its engine's clock may be, in seconds."""


class Inquiries:
    """The questions about the lost workers of one job."""

    def __init__(self, coordinator: Coordinator, job: Job) -> None:
        self._coordinator = coordinator
        self._job = job
        self._open: set[str] = set()

    def lost(self, session: str) -> Deferred[None] | None:
        """Ask until the worker is back, or the engine knows how it ended; None: do not ask."""
        launch = self._job.launches.get(self._job.launches.of_session(session))
        if launch is None or not launch.request or session in self._open or len(self._open) >= MOST:
            return None
        self._open.add(session)
        return Deferred.fromCoroutine(self._ask(session))

    async def _ask(self, session: str) -> None:
        job, spec = self._job, self._job.spec
        launch = job.launches[job.launches.of_session(session)]
        function = function_of(launch.number, spec.functions, spec.regions)
        region = region_of(launch.number, spec.regions)
        try:
            for pause_s in PAUSES_S:
                await deferLater(self._coordinator.clock, pause_s)
                if self._coordinator.stopping or not job.is_away(session):
                    return
                ending = await self._coordinator.engines[spec.engine].ending_of(
                    function, region, launch.request, launch.begun - EARLIER_S
                )
                if ending is not None:
                    job.worker_ended(session, ending)
                    return
        finally:
            self._open.discard(session)
