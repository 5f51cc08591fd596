"""What one job costs: the sizes of its functions, and its workers' running time."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from mu.engines.cost import Meter, Prices
from mu.invocations import Size, region_of
from mu.jobs.unseen import Unseen
from mu.journal.records import Sized


class Bill:
    """Counts nothing until the sizes of the job's functions are known."""

    def __init__(self, prices: Prices, regions: Sequence[str]) -> None:
        self._prices = prices
        self._regions = regions
        self._sizes: Mapping[str, Size] = {}
        self._longest: Mapping[str, float] = {}
        self._meter: Meter | None = None
        self._unseen = Unseen(prices)

    @property
    def counts(self) -> bool:
        """Whether the cost is known."""
        return self._meter is not None

    def measure(self, record: Sized) -> None:
        """Count from now on, using these sizes, by region."""
        self._sizes = {region: Size(*size) for region, size in record.sizes.items()}
        self._longest = record.longest
        self._meter = Meter(self._prices)

    def invoked(self, launch: str, number: int, at: float, seen: bool = False) -> None:
        """Count a request that an engine accepted, and its worker until that is `seen`."""
        if self._meter is None:
            return
        region = region_of(number, self._regions)
        self._meter.invoked(self._sizes.get(region))
        if not seen and region in self._sizes and region in self._longest:
            self._unseen.accepted(launch, at, self._sizes[region], self._longest[region])

    def began(self, worker: str, launch: int | None, at: float) -> None:
        """Count a worker from its hello on; `launch` is its launch number, if known."""
        if self._meter is None:
            return
        if launch is None:
            size = next(iter(self._sizes.values()), None)
        else:
            size = self._sizes.get(region_of(launch, self._regions))
        if size is not None:
            self._meter.began(worker, at, size)

    def ended(self, worker: str, at: float) -> None:
        """Stop counting a worker, for good or until it reconnects."""
        if self._meter is not None:
            self._meter.ended(worker, at)

    def lose(self, known: Set[str], at: float) -> None:
        """Stop counting all workers except the `known` ones, until they reconnect."""
        if self._meter is not None:
            for worker in self._meter.running - known:
                self._meter.ended(worker, at)

    def move(self, seconds: float) -> None:
        """Move all times so far by `seconds`: the clock was set, or no daemon was running."""
        if self._meter is not None:
            self._meter.move(seconds)
        self._unseen.move(min(0.0, seconds))  # they ran on without a daemon, up to a limit

    # ------------------------------------------------ what no hello shows

    def connected(self, launch: str, at: float) -> None:
        """Note the hello of a launch's worker."""
        self._unseen.connected(launch, at)

    def never_ran(self, launch: str) -> None:
        """Note that the worker of a launch cannot have run."""
        self._unseen.forget(launch)

    def used_before(self, worker: str, launch: str, seconds: float) -> None:
        """Count what a worker ran before its hello; only the first call for it counts."""
        if self._meter is not None:
            self._meter.before(worker, seconds)
            self._unseen.forget(launch)

    @property
    def absent(self) -> int:
        """How many workers may be running, or have run, without a hello."""
        return self._unseen.absent

    # ------------------------------------------------ sums

    def close(self, at: float) -> None:
        """Stop counting all workers."""
        if self._meter is not None:
            self._meter.stop(at)
            self._unseen.close()

    def usd(self, now: float) -> float | None:
        """Return the cost so far in US dollars, if it is known."""
        return None if self._meter is None else self._meter.usd(now)

    def usd_at_most(self, now: float) -> float | None:
        """Return what it can have cost so far, with workers that nobody has seen, if known."""
        return None if self._meter is None else self._meter.usd(now) + self._unseen.usd(now)

    def over(self, limit: float, now: float) -> str:
        """Return a sentence if the job has cost `limit`, or may have; empty: it has not, or 0."""
        usd, at_most = self.usd(now), self.usd_at_most(now)
        if not limit or usd is None or at_most is None or at_most < limit:
            return ""
        unseen = ""
        if usd < limit:
            unseen = (
                f", and up to ${at_most:.4f} with {self.absent} workers that have not connected"
            )
        return f"it has cost ${usd:.4f}{unseen}; max_cost_usd is {limit:g}"

    @property
    def gb_s(self) -> float | None:
        """The GB-seconds used by workers that have ended, if known."""
        return None if self._meter is None else self._meter.gb_s


def sized(sizes: Mapping[str, Size], longest: Mapping[str, float]) -> Sized:
    """Return the record for these sizes, and how long an unseen worker can run, by region."""
    known = {region: _recorded(size) for region, size in sizes.items()}
    return Sized(known, dict(longest))


def _recorded(size: Size) -> list[Any]:
    recorded: list[Any] = [size.memory_mb, size.architecture]
    return recorded if size.hour_usd is None else [*recorded, 0.0, "", size.hour_usd]
