"""Places: how many workers an engine can run at once, shared by all jobs.

Above that limit, an engine still accepts an event with a 202, but then delays or drops it
(docs/aws.md). So launches wait here until a place is free. This is pure: time is an argument.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

RETRY, FIRST, SPARE = 0, 1, 2
"""What the next launch is for: an actor that failed, one that never had a worker, or a spare."""

GROWTH_S = 10.0
"""In this time, a function may start `growth` workers (1,000 on AWS Lambda, November 2026)."""
QUEUED_S = 30.0
"""Lambda retries a queued event after 1, 2, 4 ... s, so that it finds a place that becomes free sooner."""
EXCUSES = 3
"""How often a lack of places is the excuse of a function of which no worker connects."""


class Waiter(Protocol):
    """Has launches that wait for a place."""

    def wanted(self) -> int | None:
        """Return what its next launch is for; None: it no longer needs a place."""

    def resume(self) -> None:
        """Launch, since a place is free."""


@dataclass(slots=True)
class _Taken:
    """A place that a launch has taken."""

    function: str
    at: float
    connected: bool = False


@dataclass(slots=True)
class _Absence:
    """How often launches of a function were missed while none of its workers ran; when last."""

    times: int = 0
    at: float = -1.0


class RegionPlaces:
    """The places of an engine in one region, or those reserved for one function there."""

    def __init__(self) -> None:
        self.growth = 0
        """How many workers of one function may start within GROWTH_S seconds; 0: any number."""
        self.promised: dict[str, int] = {}
        """How many places each job whose actors all need one another has been promised."""
        self._told: int | None = None
        self._learned: int | None = None
        self._changed_at = 0.0  # when _learned changed
        self._step = 1  # by how much to raise _learned the next time
        self._connected_since = 0  # how many workers have connected since then
        self._taken: dict[str, _Taken] = {}  # by launch id
        self._running: Counter[str] = Counter()  # how many of their workers run, by function
        self._busiest: list[tuple[float, int]] = []  # falling numbers of them, as of when
        self._last_ran: dict[str, float] = {}  # by function, of those that do not run
        self._absences: dict[str, _Absence] = {}  # by function
        self._waiters: dict[Waiter, None] = {}  # in rotation
        self._offered: int | None = None  # how many places the waiter may take; None: not offering
        self._started: dict[str, tuple[float, float]] = {}  # function: tokens left, as of when

    @property
    def limit(self) -> int | None:
        """How many workers may run at once; None: unknown."""
        return self._told if self._learned is None else self._learned

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
        self._forget_learned()
        self.offer()

    def _forget_learned(self) -> None:
        """The engine's own limit counts again, where what was learned is no less."""
        if self._learned is not None and self._told is not None and self._learned >= self._told:
            self._learned = None

    # ------------------------------------------------ places

    def take(self, launch: str, function: str, now: float) -> bool:
        """Take a place for a launch of a function, if one is free."""
        if launch not in self._taken:
            if self.full or self._offered == 0:
                return False
            if self._offered is not None:
                self._offered -= 1
            self._taken[launch] = _Taken(function, now)
        return True

    def hold(self, launch: str, function: str, connected: bool, now: float) -> None:
        """Count a launch from before a restart, even above the limit."""
        self._taken.setdefault(launch, _Taken(function, now))
        if connected:
            self._connect(launch, now)

    def connected(self, launch: str, function: str, now: float) -> None:
        """Note that the worker of a launch has connected: it has a place, even above the limit."""
        self._taken.setdefault(launch, _Taken(function, now))
        if self._connect(launch, now) and self._learned is not None:
            self._connected_since += 1
            most = max(self._running.total(), self._connected_since)
            if self._step > 1 and most >= self._learned:
                self._raise(now)  # all of the last raise connected, so there may be more places

    def _connect(self, launch: str, now: float) -> bool:
        """Return whether it had not connected before."""
        taken = self._taken[launch]
        if taken.connected:
            return False
        taken.connected = True
        self._absences.pop(taken.function, None)
        self._count(taken.function, 1, now)
        return True

    def free(self, launch: str, now: float) -> None:
        """Free a launch's place: its worker has ended, or was never started."""
        taken = self._taken.pop(launch, None)
        if taken is not None:
            if taken.connected:
                self._last_ran[taken.function] = now
                self._count(taken.function, -1, now)
            self.offer()

    def move(self, launch: str, to: "RegionPlaces", now: float) -> None:
        """Have a launch take a place of others instead."""
        taken = self._taken.get(launch)
        if taken is not None and to is not self:
            to.hold(launch, taken.function, taken.connected, now)
            self.free(launch, now)

    def _count(self, function: str, change: int, now: float) -> None:
        self._running[function] += change
        running = self._running.total()
        while self._busiest and self._busiest[-1][1] <= running:
            self._busiest.pop()
        self._busiest.append((now, running))

    def _most_since(self, then: float) -> int:
        """Return how many workers ran at once at most since then."""
        since = bisect_left(self._busiest, then, key=lambda one: one[0])
        return self._busiest[max(0, since - 1)][1] if self._busiest else 0

    # ------------------------------------------------ learning the limit

    def miss(self, launch: str, now: float) -> bool:
        """Return whether a worker that did not connect may have found no place.

        This is the case if others ran while its event was queued. Then it learns that the limit is
        how many of them ran at once. But if none of them was of the same function, this function may
        be broken, and is not excused for ever.
        """
        taken = self._taken.get(launch)
        most = self._most_since(taken.at + QUEUED_S) if taken is not None else 0
        if taken is None or not most:
            return False
        if times := self._times_absent(taken):
            absence = self._absences.setdefault(taken.function, _Absence())
            if times > absence.times:
                absence.times, absence.at = times, now
            if times > EXCUSES:
                return False
        self._learned = most if self.limit is None else min(self.limit, most)
        self._changed_at, self._step, self._connected_since = now, 1, 0
        return True

    def _times_absent(self, taken: _Taken) -> int:
        """Return how often a function's workers did not connect, with this one; 0: others of it run."""
        function = taken.function
        if self._running[function] or self._last_ran.get(function, -1.0) >= taken.at:
            return 0
        absence = self._absences.get(function, _Absence())
        return absence.times + (taken.at >= absence.at)  # those of one wave are missed together

    def none_was_free(self, launch: str) -> bool:
        """Return whether a worker that did not connect surely found no place, so that it never ran.

        That is so while others are running, unless the engine reports more places than those, or
        the lack of places no longer excuses its function.
        """
        taken, running = self._taken.get(launch), self._running.total()
        if taken is None or not running or running < (self._told or 0):
            return False
        return self._times_absent(taken) <= EXCUSES

    def probe(self, now: float, every_s: float) -> None:
        """Raise the learned limit after `every_s` seconds: there may be more places by now.

        It is raised by one, then, if the workers come, at once by 2, by 4 and so on.
        """
        since = self._changed_at
        if self._learned is None or now - since < every_s:
            return
        if not any(one.at >= since and not one.connected for one in self._taken.values()):
            self._raise(now)

    def _raise(self, now: float) -> None:
        assert self._learned is not None
        self._learned += self._step
        self._changed_at, self._step, self._connected_since = now, 2 * self._step, 0
        self._forget_learned()
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

    # ------------------------------------------------ waiting launches

    def wait(self, waiter: Waiter) -> None:
        """Offer it the next free place, in turn with the others."""
        self._waiters.setdefault(waiter, None)

    def offer(self) -> None:
        """Offer free places, one at a time: to retries first, spares last, to all in rotation."""
        if self._offered is not None:  # a launch may be refused at once, which frees its place
            return
        try:
            while not self.full and (waiter := self._next()) is not None:
                self._offered = 1
                del self._waiters[waiter]
                waiter.resume()
                if self._offered and waiter in self._waiters:
                    break  # it is paused and launches nothing now
        finally:
            self._offered = None

    def _next(self) -> Waiter | None:
        wanted = dict(self._wanted())
        return min(wanted, key=wanted.__getitem__, default=None)  # the first of the most urgent

    def _wanted(self) -> Iterator[tuple[Waiter, int]]:
        for waiter in list(self._waiters):
            urgency = waiter.wanted()
            if urgency is None:
                del self._waiters[waiter]
            else:
                yield waiter, urgency


class Places:
    """The places of all engines."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str, str], RegionPlaces] = {}
        self._asking: dict[str, None] = {}  # jobs that wait for a promise, in order

    def of(self, engine: str, region: str, function: str = "") -> RegionPlaces:
        """Return the places of an engine in a region; with `function`, those reserved for it."""
        return self._all.setdefault((engine, region, function), RegionPlaces())

    def promise(self, job: str, wanted: Mapping[RegionPlaces, int], running: bool = False) -> bool:
        """Return whether a job whose actors all need one another may begin.

        Two such jobs that each had a part of the places would wait for ever. So all that begin must
        fit in together; others wait in the order in which they ask. One that is `running` already,
        from before a restart, may go on.
        """
        self._asking.setdefault(job)
        first = next(iter(self._asking)) == job
        fits = all(
            places.limit is None or sum(places.promised.values()) + count <= places.limit
            for places, count in wanted.items()
        )
        if not running and not (first and fits):
            return False
        del self._asking[job]
        for places, count in wanted.items():
            places.promised[job] = count
        return True

    def release(self, job: str) -> None:
        """Take back what was promised to a job that has ended."""
        self._asking.pop(job, None)
        for places in self._all.values():
            places.promised.pop(job, None)
