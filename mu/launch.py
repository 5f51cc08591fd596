"""Launches a job's workers: makes an invocation for each launch and hands it to an engine.

An engine answers each invocation. The launcher retries if nothing can have run because the engine
was busy or could not be reached.
"""

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mu.invocations import Answer, Invocation, Refused, Throttled, Unreached, region_of
from mu.places import FIRST, RETRY, SPARE, RegionPlaces
from mu.plugins import Engine

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
LONGEST_WAIT_S = 60.0
"""The longest wait that an engine may ask for."""


def invocations(
    event: Mapping[str, object],
    functions: Sequence[str],
    regions: Sequence[str],
    launches: Iterable[tuple[str, int]],
) -> Iterator[Invocation]:
    """Yield an invocation for each launch id and number: all regions in turn, then all functions.

    ##ID## anywhere in the event is replaced by the number.
    """
    slot = f"##LAUNCH-{secrets.token_hex(8)}##"
    template = json.dumps({**event, "launch": slot}, separators=(",", ":"))
    numbered = "##ID##" in template
    for launch, number in launches:
        text = template.replace(slot, launch)
        if numbered:
            text = text.replace("##ID##", str(number))
        region = region_of(number, regions)
        function = functions[number // len(regions) % len(functions)]
        yield Invocation(launch, function, region, text.encode("utf-8"))


@dataclass(slots=True)
class _Region:
    """The invocations for one region, and how fast to make them."""

    name: str
    window: float
    """How many may be in flight: halved when the region is busy, then slowly increased."""
    places: RegionPlaces
    queues: tuple[deque[Invocation], ...] = field(
        default_factory=lambda: tuple(deque() for _ in (RETRY, FIRST, SPARE))
    )
    in_flight: int = 0
    pause_s: float = FIRST_PAUSE_S
    unreached_since: float | None = None
    launching: bool = False
    timer: IDelayedCall | None = None

    @property
    def urgency(self) -> int | None:
        """The next queue; None: all are empty."""
        return next((n for n, queue in enumerate(self.queues) if queue), None)


class Launcher:
    """Makes one job's launches, at most `in_flight` at once in each region.

    Each launch takes a place of `places(region)` and keeps it until somebody frees it; while there
    is none, it waits. `started` is called when an invocation is made, `tell` with each answer. If a
    region is busy or cannot be reached, its invocations are retried with the same id, after a pause
    and more slowly, without delaying other regions. A region that cannot be reached for `outage_s`
    seconds counts as Refused. `broken` is called with a Failure for a fault in mu or the engine.
    """

    def __init__(
        self,
        engine: Engine,
        in_flight: int,
        clock: IReactorTime,
        tell: Callable[[Invocation, Answer], None],
        broken: Callable[[Failure], None],
        started: Callable[[Invocation], None] = lambda invocation: None,
        places: Callable[[str], RegionPlaces] = RegionPlaces,
        outage_s: float = 600.0,
    ) -> None:
        self._engine = engine
        self._in_flight = in_flight
        self._clock = clock
        self._tell = tell
        self._broken = broken
        self._started = started
        self._places = places
        self._outage_s = outage_s
        self._regions: dict[str, _Region] = {}
        self._stopped = False

    def add(self, more: Iterable[Invocation], urgency: int = FIRST) -> None:
        """Launch these as well. `urgency` is RETRY, FIRST or SPARE of mu.places."""
        for invocation in more:
            region = self._regions.get(invocation.region)
            if region is None:
                name = invocation.region
                region = _Region(name, self._in_flight, self._places(name))
                self._regions[name] = region
            region.queues[urgency].append(invocation)
        for region in self._regions.values():
            self._launch(region)

    def stop(self) -> None:
        """Launch nothing more; invocations in flight are still answered."""
        self._stopped = True
        for region in self._regions.values():
            for queue in region.queues:
                queue.clear()
            if region.timer is not None:
                region.timer.cancel()
                region.timer = None

    def _launch(self, region: _Region) -> None:
        if region.launching:  # an engine that answers at once would make this recurse
            return
        region.launching = True
        while region.timer is None and region.in_flight < int(region.window):
            invocation = self._next(region)
            if invocation is None:
                break
            region.in_flight += 1
            self._started(invocation)
            asking = maybeDeferred(self._engine.launch, invocation)
            asking.addCallback(self._answered, region, invocation).addErrback(self._broken)
        region.launching = False

    def _next(self, region: _Region) -> Invocation | None:
        """Return the invocation to make now; None: there is none, or it must wait."""
        urgency = region.urgency
        if urgency is None:
            return None
        queue, places = region.queues[urgency], region.places
        if not places.take(queue[0].launch):
            places.wait(self)
            return None
        wait_s = places.wait_s(queue[0].function, self._clock.seconds())
        if wait_s:
            region.timer = self._clock.callLater(wait_s, self._resume, region)
            return None
        return queue.popleft()

    # ------------------------------------------------ places (mu.places.Waiter)

    def wanted(self, region: str) -> int | None:
        """Return the purpose of the most urgent launch; None: none waits."""
        return self._regions[region].urgency

    def resume(self, region: str) -> None:
        """Launch, since a place is free."""
        self._launch(self._regions[region])

    # ------------------------------------------------ answers

    def _answered(self, answer: Answer, region: _Region, invocation: Invocation) -> None:
        region.in_flight -= 1
        if isinstance(answer, Unreached):
            now = self._clock.seconds()
            since = region.unreached_since
            region.unreached_since = since = now if since is None else since
            if now - since >= self._outage_s:
                answer = Refused(f"{answer.reason} (for {now - since:.0f} s)")
        else:
            region.unreached_since = None
        self._tell(invocation, answer)
        if self._stopped:
            return
        if isinstance(answer, Throttled | Unreached):
            region.queues[RETRY].appendleft(invocation)
            self._slow_down(region, answer)
            return
        region.window = min(self._in_flight, region.window + 1 / region.window)
        region.pause_s = FIRST_PAUSE_S
        self._launch(region)

    def _slow_down(self, region: _Region, answer: Throttled | Unreached) -> None:
        """Pause a region; of the invocations in flight, the first busy answer sets the pause."""
        if region.timer is not None:
            return
        asked = answer.wait_s if isinstance(answer, Throttled) else None
        pause = region.pause_s if asked is None else min(asked, LONGEST_WAIT_S)
        jitter = 1 + secrets.randbelow(500) / 1000
        region.window = max(1.0, region.window / 2)
        region.pause_s = min(2 * region.pause_s, LONGEST_PAUSE_S)
        region.timer = self._clock.callLater(jitter * pause, self._resume, region)

    def _resume(self, region: _Region) -> None:
        region.timer = None
        self._launch(region)
