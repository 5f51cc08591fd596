"""The pauses of one job before it retries failed actors."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mu.jobs.actors import Actor

LONGEST_S = 60.0
"""The longest pause between two attempts at an actor."""


class RetryPauses:
    """Keeps each failed actor for a time that doubles with every failure, then calls `over`."""

    def __init__(self, clock: IReactorTime, first_s: float, over: Callable[[Actor], None]) -> None:
        self._clock = clock
        self._first_s = first_s
        self._over = over
        self._running: dict[int, IDelayedCall] = {}  # by the actor's number

    def begin(self, actor: Actor) -> bool:
        """Begin the actor's pause; return False if it needs none, as after its first failure."""
        pause = min(self._first_s * 2 ** (actor.spent - 2), LONGEST_S)
        if actor.spent < 2 or pause <= 0:
            return False
        actor.pause_until = self._clock.seconds() + pause
        self._running[actor.number] = self._clock.callLater(pause, self._end, actor)
        return True

    def cancel(self) -> None:
        for call in self._running.values():
            call.cancel()
        self._running.clear()

    def _end(self, actor: Actor) -> None:
        del self._running[actor.number]
        actor.pause_until = None
        self._over(actor)
