"""Bounds the cost that no hello shows: of workers that never come, and before the hello of others.

A worker that cannot reach the coordinator runs until it gives up, and nobody hears of it. So each
accepted launch counts from its acceptance on, until its worker tells what it has used.
"""

from dataclasses import dataclass, replace
from math import inf

from mu.aws.limits import INIT
from mu.engines.cost import Prices
from mu.invocations import Size
from mu.messages import Use
from mu.worker_code.mu_worker.connection import DIAL_TIMEOUT_S

DIAL_S = 2 * DIAL_TIMEOUT_S
"""The longest a worker takes to find that it cannot connect: TCP, then TLS."""


def longest_s(timeout_s: float, reconnect_s: float) -> float:
    """Return how long a worker that cannot reach the coordinator can run, in seconds.

    `timeout_s` is its function's; 0: unknown. `reconnect_s` is its event's.
    """
    gives_up_s = DIAL_S + reconnect_s
    return INIT.most + (min(timeout_s, gives_up_s) if timeout_s else gives_up_s)


def before_hello_s(use: Use, there_was: float) -> float:
    """Return for how many seconds a worker says that it ran before its hello.

    It may say anything: what is no number counts as 0, and no more counts than `there_was`.
    """
    there_was = max(0.0, there_was)  # the clock may have been set back
    told = (use.values.get(name) for name in ("init_s", "hello_s"))
    seconds = (min(one, there_was) for one in told if isinstance(one, int | float) and one >= 0)
    return round(min(sum(seconds), there_was), 3)


@dataclass(frozen=True, slots=True)
class _UnseenRun:
    """What the worker of one launch may have run without a hello."""

    since: float
    longest_s: float
    usd_s: float
    """Its price in US dollars for each second."""

    def usd(self, until: float) -> float:
        return min(max(0.0, until - self.since), self.longest_s) * self.usd_s


class Unseen:
    """The launches of one job whose workers may have run unseen."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._absent: dict[str, _UnseenRun] = {}
        self._before_hello: dict[str, float] = {}  # the cost before the hello, in US dollars
        self._before_hello_usd = 0.0  # their sum
        self._closed_usd: float | None = None  # after the end: the sum of the absent ones

    def accepted(self, launch: str, at: float, size: Size, longest_s: float) -> None:
        """Count the worker of an accepted launch."""
        if launch not in self._before_hello:
            self._absent.setdefault(launch, _UnseenRun(at, longest_s, self._prices.usd(size, 1.0)))

    def connected(self, launch: str, at: float) -> None:
        """Note a worker's hello: what it ran before it is bounded by then."""
        run = self._take(launch)
        if run is not None:
            self._before_hello[launch] = run.usd(at)
            self._before_hello_usd += self._before_hello[launch]

    def forget(self, launch: str) -> None:
        """Count a worker no longer: what it used is known, or it cannot have run."""
        self._take(launch)
        self._before_hello_usd -= self._before_hello.pop(launch, 0.0)

    def move(self, seconds: float) -> None:
        """Move the times of those that have not connected by `seconds`."""
        for launch, run in self._absent.items():
            self._absent[launch] = replace(run, since=run.since + seconds)

    def close(self) -> None:
        """Count those that have not connected with all that they can still run."""
        self._closed_usd = sum(run.usd(inf) for run in self._absent.values())

    @property
    def absent(self) -> int:
        """How many workers have not connected."""
        return len(self._absent)

    def usd(self, now: float) -> float:
        """Return what they can have cost so far, at most, in US dollars."""
        absent = self._closed_usd
        if absent is None:
            absent = sum(run.usd(now) for run in self._absent.values())
        return absent + self._before_hello_usd

    def _take(self, launch: str) -> _UnseenRun | None:
        run = self._absent.pop(launch, None)
        if run is not None and self._closed_usd is not None:
            self._closed_usd -= run.usd(inf)
        return run
