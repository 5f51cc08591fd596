"""Asks the engine what became of workers that lost their connection: it may know that they ended."""

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.task import deferLater

from mu.invocations import BadEnding, function_of, region_of
from mu.jobs.coordinator import Coordinator
from mu.jobs.job import Job

PAUSES_S = 0.2, 0.8, 2.0, 5.0
"""The pauses before each question about a worker: an engine's log may be late."""
AT_ONCE = 4
"""How many questions about the workers of a job may be open at once: AWS limits their rate."""
EARLIER_S = 10.0
"""How much earlier than a launch its engine's clock may be, in seconds."""


class Inquiries:
    """The questions about the lost workers of one job."""

    def __init__(self, coordinator: Coordinator, job: Job) -> None:
        self._coordinator = coordinator
        self._job = job
        self._open: set[str] = set()
        self._turns = DeferredSemaphore(AT_ONCE)

    def lost(self, session: str) -> Deferred[None] | None:
        """Ask until the worker is back, or the engine knows how it ended; None: do not ask."""
        launch = self._job.launches.get(self._job.launches.of_session(session))
        if launch is None or not launch.request or session in self._open:
            return None
        self._open.add(session)
        return Deferred.fromCoroutine(self._ask(session))

    async def _ask(self, session: str) -> None:
        try:
            for pause_s in PAUSES_S:
                await deferLater(self._coordinator.clock, pause_s)
                ending = await self._turns.run(self._ending, session)
                if ending is not None:
                    self._job.worker_ended(session, ending)
                if not self._matters(session):
                    return
        finally:
            self._open.discard(session)

    def _ending(self, session: str) -> Deferred[BadEnding | None]:
        """Ask the engine once, unless the answer no longer matters."""
        if not self._matters(session):
            return succeed(None)
        spec, launches = self._job.spec, self._job.launches
        launch = launches[launches.of_session(session)]
        return self._coordinator.engines[spec.engine].ending_of(
            function_of(launch.number, spec.functions, spec.regions),
            region_of(launch.number, spec.regions),
            launch.request,
            launch.begun - EARLIER_S,
        )

    def _matters(self, session: str) -> bool:
        return self._job.is_away(session) and not self._coordinator.stopping
