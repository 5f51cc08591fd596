"""Ends the engine when it is no longer needed."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger


class Lifetime:
    """Calls `end` after `linger_s` seconds without a daemon, a running invocation or a request.

    `idle` returns whether no invocation is running or queued.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        idle: Callable[[], bool],
        linger_s: float,
        end: Callable[[], None],
    ) -> None:
        self._clock, self._idle, self._linger_s, self._end = clock, idle, linger_s, end
        self._attached = 0
        self._timer: IDelayedCall | None = None
        self.touched()

    def attached(self, lost: Deferred[None]) -> None:
        """Note that a daemon is connected until `lost` fires."""
        self._attached += 1
        lost.addBoth(self._detached)

    def touched(self) -> None:
        """Start the countdown again, since the engine is in use."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(self._linger_s)
        else:
            self._timer = self._clock.callLater(self._linger_s, self._check)

    def _detached(self, _: object) -> None:
        self._attached -= 1
        self.touched()

    def _check(self) -> None:
        if self._attached:
            return
        if not self._idle():
            self.touched()
            return
        self.log.info("no daemon and no invocation for {linger_s} s", linger_s=self._linger_s)
        self._end()
