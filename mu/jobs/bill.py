"""What one job costs: the sizes of its functions, and its workers' running time."""

from collections.abc import Mapping, Sequence, Set

from mu.engines.cost import Meter, Prices
from mu.invocations import Size, region_of
from mu.journal.records import Sized


class Bill:
    """Counts nothing until the sizes of the job's functions are known."""

    def __init__(self, prices: Prices, regions: Sequence[str]) -> None:
        self._prices = prices
        self._regions = regions
        self._sizes: Mapping[str, Size] = {}
        self._meter: Meter | None = None

    @property
    def counts(self) -> bool:
        """Whether the cost is known."""
        return self._meter is not None

    def measure(self, record: Sized) -> None:
        """Count from now on, using these sizes, by region."""
        self._sizes = {region: Size(*size) for region, size in record.sizes.items()}
        self._meter = Meter(self._prices)

    def invoked(self) -> None:
        """Count a request that an engine accepted."""
        if self._meter is not None:
            self._meter.invoked()

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
        """Add that to all times so far: the clock was set, or no worker ran for so long."""
        if self._meter is not None:
            self._meter.move(seconds)

    def close(self, at: float) -> None:
        """Stop counting all workers."""
        if self._meter is not None:
            self._meter.stop(at)

    def usd(self, now: float) -> float | None:
        """Return the cost so far in US dollars, if it is known."""
        return None if self._meter is None else self._meter.usd(now)

    @property
    def gb_s(self) -> float | None:
        """The GB-seconds used by workers that have ended, if known."""
        return None if self._meter is None else self._meter.gb_s


def sized(sizes: Mapping[str, Size]) -> Sized:
    """Return the record for these sizes, by region."""
    return Sized({region: [size.memory_mb, size.architecture] for region, size in sizes.items()})
