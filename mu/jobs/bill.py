"""What one job costs: the sizes of its functions, and the meter of its workers."""

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
        """Count from now on, with these sizes by region."""
        self._sizes = {region: Size(*size) for region, size in record.sizes.items()}
        self._meter = Meter(self._prices)

    def invoked(self) -> None:
        """Count a request that an engine accepted."""
        if self._meter is not None:
            self._meter.invoked()

    def began(self, worker: str, launch: int | None, at: float) -> None:
        """Count a worker from its hello on; `launch` is the number of its launch, if known."""
        if self._meter is None:
            return
        if launch is None:
            size = next(iter(self._sizes.values()), None)
        else:
            size = self._sizes.get(region_of(launch, self._regions))
        if size is not None:
            self._meter.began(worker, at, size)

    def ended(self, worker: str, at: float) -> None:
        """Stop counting a worker, for good or until it comes back."""
        if self._meter is not None:
            self._meter.ended(worker, at)

    def lose(self, known: Set[str], at: float) -> None:
        """Stop counting all workers but the `known` ones, until they come back."""
        if self._meter is not None:
            for worker in self._meter.running - known:
                self._meter.ended(worker, at)

    def close(self, at: float) -> None:
        """Stop counting all workers."""
        if self._meter is not None:
            self._meter.stop(at)

    def usd(self, now: float) -> float | None:
        """Return the cost so far in US dollars, if it is known."""
        return None if self._meter is None else self._meter.usd(now)

    @property
    def gb_s(self) -> float | None:
        """The GB-seconds of the workers that have ended, if they are known."""
        return None if self._meter is None else self._meter.gb_s


def sized(sizes: Mapping[str, Size]) -> Sized:
    """Return the record of these sizes by region."""
    return Sized({region: [size.memory_mb, size.architecture] for region, size in sizes.items()})
