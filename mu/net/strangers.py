"""Connections that have not shown a certificate yet: few of them, and few lines about them in the log."""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel

SUM_S = 10.0
"""Within this many seconds, each reason is logged once; what follows is counted."""
MOST_REASONS = 20
"""How many different reasons are told apart within that time."""


class Stranger(Protocol):
    """A connection whose TLS handshake has not finished."""

    def drop(self, reason: str) -> None:
        """Close the connection."""

    def __hash__(self) -> int: ...


class Strangers:
    """The strangers of one port, at most `limit`; the oldest makes way for a new one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Stranger, None] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, stranger: Stranger) -> None:
        self._waiting[stranger] = None
        if len(self._waiting) > self._limit:
            self.drop_oldest()

    def discard(self, stranger: Stranger) -> None:
        """It has shown its certificate, or is gone."""
        self._waiting.pop(stranger, None)

    def drop_oldest(self) -> bool:
        """Close the connection that has waited longest; return whether there was one."""
        if not self._waiting:
            return False
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        oldest.drop("others connected before its TLS handshake had finished (max_handshakes)")
        return True


class SumClock(Protocol):
    """What the sums need of the reactor."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., object]) -> IDelayedCall: ...


class LogSums:
    """Logs what happens to connections: the first of each reason at once, then one line of sums.

    `line` and `sums` are formats, of {peer} and {reason}, and of {count}, {seconds} and {reasons}.
    """

    def __init__(
        self, log: Logger, clock: SumClock, line: str, sums: str, level: LogLevel = LogLevel.warn
    ) -> None:
        self._log = log
        self._clock = clock
        self._line = line
        self._sums = sums
        self._level = level
        self._seen: set[str] = set()
        self._more: Counter[str] = Counter()  # since the last line, by reason
        self._since = 0.0
        self._timer: IDelayedCall | None = None

    def add(self, peer: object, reason: str) -> None:
        """It happened to a connection, for this reason."""
        now = self._clock.seconds()
        if self._timer is None and now - self._since >= SUM_S:
            self._seen.clear()
            self._since = now
        if reason not in self._seen and len(self._seen) < MOST_REASONS:
            self._seen.add(reason)
            self._log.emit(self._level, self._line, peer=peer, reason=reason)
            return
        self._more[reason if reason in self._seen else "other reasons"] += 1
        if self._timer is None:
            self._timer = self._clock.callLater(self._since + SUM_S - now, self._sum_up)

    def _sum_up(self) -> None:
        self._timer = None
        more, self._more = self._more, Counter()
        if more:
            self._log.emit(
                self._level,
                self._sums,
                count=more.total(),
                seconds=f"{SUM_S:g}",
                reasons="; ".join(f"{count} x {reason}" for reason, count in more.most_common()),
            )
