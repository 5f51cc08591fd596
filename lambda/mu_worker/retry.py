"""Decides when a worker that lost a connection reconnects, and when it gives up. Pure."""

from collections.abc import Callable
from math import inf

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
STEADY_S = 10.0
"""Only a connection that lasted this long resets the pauses: otherwise a coordinator that welcomes
workers and then fails at once would get ten connections a second from each."""


class Retry:
    """Exponential backoff with jitter and a time limit, on the clock of `now`.

    `chance` returns a random number from 0 to 1: workers that were cut off together reconnect at
    different times.
    """

    def __init__(self, limit_s: float, chance: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._chance = chance
        self._pause_s = FIRST_PAUSE_S
        self._found_at = -inf
        self.until = inf
        """When to give up; inf: the connection is not lost."""

    def lost(self, now: float) -> float:
        """Return when to try again, after a connection was lost or could not be made."""
        if self.until == inf:
            self.until = now + self._limit_s
            if now - self._found_at >= STEADY_S:
                self._pause_s = FIRST_PAUSE_S
        pause_s = self._pause_s * (0.5 + self._chance())
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return now + pause_s

    def found(self, now: float) -> None:
        """Note that the peer answered on a new connection."""
        self.until = inf
        self._found_at = now
