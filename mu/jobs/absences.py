"""The workers of one job that have lost their connection while they had an actor."""

from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from mu.jobs.driver import SessionDriver
from mu.jobs.launches import Launches

ENDED_S = 0.5
"""How long to wait for what a worker sent before it ended: it may have connected again."""


class Absences:
    """Which sessions wait for their workers, and which of these will wait in vain.

    `sessions` are the job's running ones, by name.
    """

    def __init__(
        self, sessions: Mapping[str, SessionDriver], launches: Launches, clock: IReactorTime
    ) -> None:
        self._sessions = sessions
        self._launches = launches
        self._clock = clock
        self._left: list[str] = []  # sessions whose worker was away when last seen

    def is_away(self, name: str) -> bool:
        """Return whether a worker with an actor has lost its connection and has no newer one."""
        session = self._sessions.get(name)
        return session is not None and session.away_since is not None

    def begin(self, name: str) -> None:
        """Note that the worker of a session has lost its connection."""
        self._left.append(name)
        self.end_soon(self._launches.of_session(name))

    def sessions(self) -> list[SessionDriver]:
        """Return the sessions whose workers are away, those first that left first."""
        self._left = [name for name in self._left if self.is_away(name)]
        return [self._sessions[name] for name in self._left]

    def end_soon(self, launch_id: str) -> None:
        """Give up a worker that has ended, unless it has said hello again before it did."""
        launch = self._launches.get(launch_id)
        if launch is not None and launch.ended and launch.session and self.is_away(launch.session):
            self._clock.callLater(ENDED_S, self.end, launch.session, launch.ended)

    def end(self, name: str, how: str) -> None:
        """Give up a worker that is away; `how` says how it ended."""
        if self.is_away(name):
            self._sessions[name].give_up(f"its worker {how}")
