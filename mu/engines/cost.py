"""What a job costs: its workers' running time in GB-seconds, and its requests.

The default prices are AWS Lambda's list prices in us-east-1 as of November 2026, for the first tier,
without the free tier and without /tmp beyond 512 MB (https://aws.amazon.com/lambda/pricing/). A few
regions cost more; `[cost]` in mu.conf sets other prices.
"""

from collections.abc import Set
from dataclasses import dataclass, field

from mu.invocations import Size

GB_S_USD = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
REQUEST_USD = 2e-07


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a GB-second, by architecture, and for a request."""

    gb_s: dict[str, float] = field(default_factory=lambda: dict(GB_S_USD))
    request: float = REQUEST_USD

    def usd(self, size: Size, seconds: float) -> float:
        """Return the price of one worker's running time."""
        if size.hour_usd is not None:
            return size.hour_usd * seconds / 3600
        return self.gb_s.get(size.architecture, 0.0) * size.memory_mb / 1024 * seconds


class Meter:
    """Measures the running time of one job's workers, from hello to the end of the connection.

    Before its hello, a worker takes 0.1 to 0.5 s: `before` adds that.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._running: dict[str, tuple[float, Size]] = {}
        self._ended: dict[str, tuple[float, float, Size]] = {}
        self._before: set[str] = set()
        self._usd = 0.0
        self._stopped = False
        self.gb_s = 0.0
        self.requests = 0

    @property
    def running(self) -> Set[str]:
        """The workers that are running now."""
        return self._running.keys()

    def invoked(self, size: Size | None = None) -> None:
        """Count one accepted request for a worker of that size; None: its size is unknown."""
        self.requests += 1
        if size is None or size.hour_usd is None:
            self._usd += self._prices.request

    def began(self, worker: str, at: float, size: Size) -> None:
        """Count a worker from its hello on. If it said hello before, it ran in between."""
        if self._stopped or worker in self._running:
            return
        before = self._ended.pop(worker, None)
        if before is not None:
            since, until, size = before
            self._add(size, since - until)
            at = since
        self._running[worker] = at, size

    def ended(self, worker: str, at: float) -> None:
        """Stop counting a worker, for good or until it reconnects. The latest time counts."""
        if self._stopped:
            return
        if worker in self._ended:
            since, until, size = self._ended[worker]
            if at > until:
                self._ended[worker] = since, at, size
                self._add(size, at - until)
        elif worker in self._running:
            since, size = self._running.pop(worker)
            self._ended[worker] = since, at, size
            self._add(size, at - since)

    def move(self, seconds: float) -> None:
        """Move all times so far by `seconds`."""
        for worker, (since, size) in self._running.items():
            self._running[worker] = since + seconds, size
        for worker, (since, until, size) in self._ended.items():
            self._ended[worker] = since + seconds, until + seconds, size

    def before(self, worker: str, seconds: float) -> None:
        """Count what a known worker ran before its hello; only the first call for it counts."""
        known = self._running.get(worker) or self._ended.get(worker)
        if known is not None and worker not in self._before and not self._stopped:
            self._before.add(worker)
            self._add(known[-1], seconds)

    def stop(self, at: float) -> None:
        """End all workers that are still running; from now on, the sums do not change."""
        for worker in list(self._running):
            self.ended(worker, at)
        self._stopped = True

    def usd(self, now: float) -> float:
        """Return the cost so far."""
        return self._usd + sum(
            self._prices.usd(size, now - since) for since, size in self._running.values()
        )

    def _add(self, size: Size, seconds: float) -> None:
        self.gb_s += size.memory_mb / 1024 * seconds
        self._usd += self._prices.usd(size, seconds)
