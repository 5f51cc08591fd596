"""Places: how many workers an engine can run at once in a region, shared by all jobs.

Above that limit, an engine still accepts an event with a 202, but then delays or drops it
(docs/aws.md). So launches wait here until a place is free. This is pure: time is an argument.
"""

from collections.abc import Iterator
from typing import Protocol

RETRY, FIRST, SPARE = 0, 1, 2
"""The purpose of a launch: an actor that failed, one that never had a worker, or a spare."""

GROWTH_S = 10.0
"""In this time, a function may start `growth` workers (1,000 on AWS Lambda, November 2026)."""


class Waiter(Protocol):
    """A launcher with launches that wait for a place."""

    def wanted(self, region: str) -> int | None:
        """Return the purpose of its most urgent launch; None: it no longer needs a place."""

    def resume(self, region: str) -> None:
        """Launch, since a place is free."""


class RegionPlaces:
    """The places of one engine in one region."""

    def __init__(self, region: str) -> None:
        self.growth = 0
        """How many workers of one function may start within GROWTH_S seconds; 0: any number."""
        self._region = region
        self._told: int | None = None
        self._learned: int | None = None
        self._learned_at = 0.0
        self._taken: dict[str, bool] = {}  # launch id to whether its worker has connected
        self._waiters: dict[Waiter, None] = {}  # in rotation
        self._offering = False
        self._started: dict[str, tuple[float, float]] = {}  # function: tokens left, as of when

    @property
    def limit(self) -> int | None:
        """How many workers may run at once; None: unknown."""
        known = [limit for limit in (self._told, self._learned) if limit is not None]
        return min(known) if known else None

    @property
    def in_use(self) -> int:
        return len(self._taken)

    @property
    def full(self) -> bool:
        return self.limit is not None and len(self._taken) >= self.limit

    def __str__(self) -> str:
        return f"{self.in_use} of {self.limit} in use"

    def tell(self, limit: int) -> None:
        """Use the limit that the engine reports."""
        self._told = max(1, limit)
        self.offer()

    # ------------------------------------------------ places

    def take(self, launch: str) -> bool:
        """Take a place for a launch, if one is free."""
        if launch not in self._taken:
            if self.full:
                return False
            self._taken[launch] = False
        return True

    def hold(self, launch: str, connected: bool) -> None:
        """Count a launch from before a restart, even above the limit."""
        self._taken[launch] = connected

    def connected(self, launch: str) -> None:
        """Note that the worker of a launch has connected."""
        if launch in self._taken:
            self._taken[launch] = True

    def free(self, launch: str) -> None:
        """Free a launch's place: its worker has ended, or was never started."""
        if self._taken.pop(launch, None) is not None:
            self.offer()

    def miss(self, launch: str, now: float) -> bool:
        """Return whether a worker that did not connect may have found no place.

        This is the case while others are running. Then it learns that the limit is the number of
        running workers.
        """
        running = sum(self._taken.values())
        if not running:
            return False
        self._learned, self._learned_at = running, now
        return True

    def none_was_free(self) -> bool:
        """Return whether a worker that did not connect surely found no place, so that it never ran.

        That is so while others are running, unless the engine reports more places than those.
        """
        running = sum(self._taken.values())
        return running > 0 and (self._told is None or running >= self._told)

    def probe(self, now: float, every_s: float) -> None:
        """Raise the learned limit by one every `every_s` seconds: there may be more places by now."""
        if self._learned is not None and now - self._learned_at >= every_s:
            self._learned, self._learned_at = self._learned + 1, now
            self.offer()

    def wait_s(self, function: str, now: float) -> float:
        """Count a start of a function and return 0; or return how many seconds it must wait."""
        if not self.growth:
            return 0.0
        full = float(self.growth)
        tokens, at = self._started.get(function, (full, now))
        tokens = min(full, tokens + (now - at) * self.growth / GROWTH_S)
        if tokens < 1:
            self._started[function] = tokens, now
            return (1 - tokens) * GROWTH_S / self.growth
        self._started[function] = tokens - 1, now
        return 0.0

    # ------------------------------------------------ waiting launchers

    def wait(self, waiter: Waiter) -> None:
        """Offer a launcher the next free place, in turn with the others."""
        self._waiters.setdefault(waiter, None)

    def offer(self) -> None:
        """Offer free places: to retries first, spares last, and to all jobs in rotation."""
        if self._offering:  # a launch may be refused at once, which frees its place
            return
        self._offering = True
        try:
            while not self.full and (waiter := self._next()) is not None:
                before = self.in_use
                del self._waiters[waiter]
                waiter.resume(self._region)
                if self.in_use == before and waiter in self._waiters:
                    break  # it is paused and launches nothing now
        finally:
            self._offering = False

    def _next(self) -> Waiter | None:
        wanted = dict(self._wanted())
        return min(wanted, key=wanted.__getitem__, default=None)  # the first of the most urgent

    def _wanted(self) -> Iterator[tuple[Waiter, int]]:
        for waiter in list(self._waiters):
            urgency = waiter.wanted(self._region)
            if urgency is None:
                del self._waiters[waiter]
            else:
                yield waiter, urgency


class Places:
    """The places of all engines, by engine and region."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], RegionPlaces] = {}

    def of(self, engine: str, region: str) -> RegionPlaces:
        """Return the places of an engine in a region."""
        found = self._all.get((engine, region))
        if found is None:
            found = self._all[engine, region] = RegionPlaces(region)
        return found
