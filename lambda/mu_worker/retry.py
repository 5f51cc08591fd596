"""When a worker that lost its coordinator tries again, and until when. Pure."""

from collections.abc import Callable
from math import inf

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
STEADY_S = 10.0
"""Only a connection that held so long lets the pauses begin small again: a coordinator that
welcomes a worker and fails at once is not to be asked ten times a second."""


class Retry:
    """Counts one absence of the coordinator after the other, in the seconds of `now`.

    `chance` returns a number from 0 to 1: workers that were lost together come back one by one.
    """

    def __init__(self, limit_s: float, chance: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._chance = chance
        self._pause_s = FIRST_PAUSE_S
        self._found_at = -inf
        self.until = inf
        """When this absence has lasted too long; inf: there is none."""

    def lost(self, now: float) -> float:
        """Count a lost connection, or an attempt that failed; return when to try again."""
        if self.until == inf:
            self.until = now + self._limit_s
            if now - self._found_at >= STEADY_S:
                self._pause_s = FIRST_PAUSE_S
        pause_s = self._pause_s * (0.5 + self._chance())
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return now + pause_s

    def found(self, now: float) -> None:
        """The coordinator answered a hello: the absence is over."""
        self.until = inf
        self._found_at = now
