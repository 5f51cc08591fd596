"""The time of a process, which a change of the system's clock does not disturb.

Twisted's timers use the system's clock: if it is set forward by an hour, all of them elapse; if it is
set back, they wait for an hour more.
"""

import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

CHECK_S = 1.0
NOTICED_S = 5.0
"""How far the system's clock must be set to be logged."""

log = Logger()


class SteadyClock:
    """Counts on from the system's time at its making, by the time since the machine started.

    The time during which the machine sleeps counts.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        since_boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall = wall
        self._since_boot = since_boot
        self._booted = wall() - since_boot()

    def seconds(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._booted + self._since_boot()

    def ahead(self) -> float:
        """Return how far the system's clock is ahead of this one by now, in seconds."""
        return self._wall() - self.seconds()


def keep_steady(reactor: IReactorTime, clock: SteadyClock | None = None) -> None:
    """Have a reactor use a steady clock, before it has timers; log when the system's clock was set.

    Signatures and certificates need the system's time all the same.
    """
    clock = clock or SteadyClock()
    reactor.seconds = clock.seconds  # type: ignore[method-assign]
    reactor.callLater(CHECK_S, _watch, reactor, clock, 0.0)


def _watch(reactor: IReactorTime, clock: SteadyClock, known: float) -> None:
    ahead = clock.ahead()
    if abs(ahead - known) >= NOTICED_S:
        log.warn(
            "the system's clock was set {way} by {seconds} s. Timers are not affected; the times that"
            " mu shows follow at its next start",
            way="forward" if ahead > known else "back",
            seconds=round(abs(ahead - known)),
        )
        known = ahead
    reactor.callLater(CHECK_S, _watch, reactor, clock, known)
