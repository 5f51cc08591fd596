"""Launches a job's workers: makes an invocation for each launch and hands it to an engine.

An engine answers each invocation. The launcher retries if nothing can have run because the engine
was busy or could not be reached.
"""

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mu.invocations import (
    Answer,
    Invocation,
    Refused,
    Throttled,
    Unreached,
    function_of,
    region_of,
)
from mu.places import FIRST, RegionPlaces
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
    options: Mapping[str, object] | None = None,
) -> Iterator[Invocation]:
    """Yield an invocation for each launch id and number: all regions in turn, then all functions.

    ##ID## anywhere in the event is replaced by the number. `options` are those that the order sets
    of the engine's.
    """
    job, options = str(event.get("job", "")), options or {}
    slot = f"##LAUNCH-{secrets.token_hex(8)}##"
    template = json.dumps({**event, "launch": slot}, separators=(",", ":"))
    numbered = "##ID##" in template
    for launch, number in launches:
        text = template.replace(slot, launch)
        if numbered:
            text = text.replace("##ID##", str(number))
        region = region_of(number, regions)
        function = function_of(number, functions, regions)
        yield Invocation(launch, function, region, text.encode("utf-8"), job, options)


class _Lane:
    """The invocations of one region that share places, and how fast to make them."""

    def __init__(
        self,
        window: float,
        places: RegionPlaces,
        urgency: Callable[[], int],
        launch: Callable[["_Lane"], None],
    ) -> None:
        self.window = window
        """How many may be in flight: halved when the region is busy, then slowly increased."""
        self.places = places
        self.again: deque[Invocation] = deque()
        """Those to retry, which have their places."""
        self.queue: deque[Invocation] = deque()
        self.in_flight = 0
        self.pause_s = FIRST_PAUSE_S
        self.unreached_since: float | None = None
        self.launching = False
        self.timer: IDelayedCall | None = None
        self._urgency = urgency
        self._launch = launch

    def wanted(self) -> int | None:
        """Return what the next launch is for (mu.places); None: none waits."""
        return self._urgency() if self.queue else None

    def resume(self) -> None:
        """Launch, since a place is free or the pause is over."""
        self._launch(self)


class Launcher:
    """Makes one job's launches, with at most `in_flight` requests at once in each region.

    A request has as many launches as the engine takes in one.

    Each launch takes a place of `places(invocation)` and keeps it until somebody frees it; while
    there is none, it waits. Which launch it is does not matter, so `urgency` tells what the next one
    is for: RETRY, FIRST or SPARE. `started` is called when an invocation is made, `tell` with each
    answer. If a region is busy or cannot be reached, its invocations are retried with the same id,
    after a pause and more slowly, without delaying other regions, unless they are no longer
    `expected`. A region that cannot be reached for `outage_s` seconds counts as Refused. `broken` is
    called with a Failure for a fault in mu or the engine.
    """

    def __init__(
        self,
        engine: Engine,
        in_flight: int,
        clock: IReactorTime,
        tell: Callable[[Invocation, Answer], None],
        broken: Callable[[Failure], None],
        started: Callable[[Invocation], None] = lambda invocation: None,
        places: Callable[[Invocation], RegionPlaces] | None = None,
        outage_s: float = 600.0,
        urgency: Callable[[], int] = lambda: FIRST,
        expected: Callable[[str], bool] = lambda launch: True,
    ) -> None:
        self._engine = engine
        self._in_flight = in_flight
        self._clock = clock
        self._tell = tell
        self._broken = broken
        self._started = started
        unlimited = RegionPlaces()
        self._places = places or (lambda invocation: unlimited)
        self._outage_s = outage_s
        self._urgency = urgency
        self._expected = expected
        self._lanes: dict[tuple[str, RegionPlaces], _Lane] = {}
        self._stopped = False

    def add(self, more: Iterable[Invocation]) -> None:
        """Launch these as well."""
        for invocation in more:
            places = self._places(invocation)
            lane = self._lanes.get((invocation.region, places))
            if lane is None:
                lane = _Lane(self._in_flight, places, self._urgency, self._launch)
                self._lanes[invocation.region, places] = lane
            lane.queue.append(invocation)
        for lane in list(self._lanes.values()):
            self._launch(lane)

    def waits_for(self) -> RegionPlaces | None:
        """Return the places that launches wait for; None: no launch waits for one."""
        waiting = (lane.places for lane in self._lanes.values() if lane.queue)
        return next((places for places in waiting if places.full), None)

    def stop(self) -> None:
        """Launch nothing more; invocations in flight are still answered."""
        self._stopped = True
        for lane in self._lanes.values():
            lane.again.clear()
            lane.queue.clear()
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None

    def _launch(self, lane: _Lane) -> None:
        if lane.launching:  # an engine that answers at once would make this recurse
            return
        lane.launching = True
        while lane.timer is None and lane.in_flight < int(lane.window):
            batch: list[Invocation] = []
            while len(batch) < self._engine.batch and (one := self._next(lane)) is not None:
                self._started(one)
                batch.append(one)
            if not batch:
                break
            lane.in_flight += 1
            asking = maybeDeferred(self._engine.launch_many, batch)
            asking.addCallback(self._answered, lane, batch).addErrback(self._broken)
        lane.launching = False

    def _next(self, lane: _Lane) -> Invocation | None:
        """Return the invocation to make now; None: there is none, or it must wait."""
        while lane.again:
            invocation = lane.again.popleft()
            if self._expected(invocation.launch):
                return invocation
        if not lane.queue:
            return None
        first, places, now = lane.queue[0], lane.places, self._clock.seconds()
        if not places.take(first.launch, first.function, now):
            places.wait(lane)
            return None
        wait_s = places.wait_s(first.function, now)
        if wait_s:
            lane.timer = self._clock.callLater(wait_s, self._resume, lane)
            return None
        return lane.queue.popleft()

    # ------------------------------------------------ answers

    def _answered(
        self, answers: Sequence[Answer], lane: _Lane, batch: Sequence[Invocation]
    ) -> None:
        lane.in_flight -= 1
        for invocation, answer in zip(batch, answers, strict=True):
            self._heard(answer, lane, invocation)
        if not self._stopped:
            self._launch(lane)

    def _heard(self, answer: Answer, lane: _Lane, invocation: Invocation) -> None:
        if isinstance(answer, Unreached):
            now = self._clock.seconds()
            since = lane.unreached_since
            lane.unreached_since = since = now if since is None else since
            if now - since >= self._outage_s:
                answer = Refused(f"{answer.reason} (for {now - since:.0f} s)")
        else:
            lane.unreached_since = None
        self._tell(invocation, answer)
        if self._stopped:
            return
        if isinstance(answer, Throttled | Unreached):
            lane.again.append(invocation)
            self._slow_down(lane, answer)
            return
        lane.window = min(self._in_flight, lane.window + 1 / lane.window)
        lane.pause_s = FIRST_PAUSE_S

    def _slow_down(self, lane: _Lane, answer: Throttled | Unreached) -> None:
        """Pause a region; of the invocations in flight, the first busy answer sets the pause."""
        if lane.timer is not None:
            return
        asked = answer.wait_s if isinstance(answer, Throttled) else None
        pause = lane.pause_s if asked is None else min(asked, LONGEST_WAIT_S)
        jitter = 1 + secrets.randbelow(500) / 1000
        lane.window = max(1.0, lane.window / 2)
        lane.pause_s = min(2 * lane.pause_s, LONGEST_PAUSE_S)
        lane.timer = self._clock.callLater(jitter * pause, self._resume, lane)

    def _resume(self, lane: _Lane) -> None:
        lane.timer = None
        self._launch(lane)
