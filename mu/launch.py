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
from mu.plugins import Engine

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
LONGEST_WAIT_S = 60.0
"""The longest wait that an engine may ask for."""
UNREACHED_TRIES = 5


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

    window: float
    """How many may be in flight: halved when the region is busy, then slowly increased."""
    queue: deque[Invocation] = field(default_factory=deque)
    in_flight: int = 0
    pause_s: float = FIRST_PAUSE_S
    unreached: int = 0
    launching: bool = False
    timer: IDelayedCall | None = None


class Launcher:
    """Makes one job's launches, at most `in_flight` at once in each region.

    `tell` is called with each answer. If a region is busy or cannot be reached, its invocations are
    retried with the same id, after a pause and more slowly, without delaying other regions.
    UNREACHED_TRIES failures in a row to reach a region count as Refused. `broken` is called with a
    Failure for a fault in mu or the engine.
    """

    def __init__(
        self,
        engine: Engine,
        in_flight: int,
        clock: IReactorTime,
        tell: Callable[[Invocation, Answer], None],
        broken: Callable[[Failure], None],
    ) -> None:
        self._engine = engine
        self._in_flight = in_flight
        self._clock = clock
        self._tell = tell
        self._broken = broken
        self._regions: dict[str, _Region] = {}
        self._stopped = False

    def add(self, more: Iterable[Invocation]) -> None:
        """Launch these as well."""
        for invocation in more:
            region = self._regions.get(invocation.region)
            if region is None:
                region = self._regions[invocation.region] = _Region(self._in_flight)
            region.queue.append(invocation)
        for region in self._regions.values():
            self._launch(region)

    def stop(self) -> None:
        """Launch nothing more; invocations in flight are still answered."""
        self._stopped = True
        for region in self._regions.values():
            region.queue.clear()
            if region.timer is not None:
                region.timer.cancel()
                region.timer = None

    def _launch(self, region: _Region) -> None:
        if region.launching:  # an engine that answers at once would make this recurse
            return
        region.launching = True
        while region.queue and region.timer is None and region.in_flight < int(region.window):
            invocation = region.queue.popleft()
            region.in_flight += 1
            asking = maybeDeferred(self._engine.launch, invocation)
            asking.addCallback(self._answered, region, invocation).addErrback(self._broken)
        region.launching = False

    def _answered(self, answer: Answer, region: _Region, invocation: Invocation) -> None:
        region.in_flight -= 1
        if isinstance(answer, Unreached):
            region.unreached += 1
            if region.unreached >= UNREACHED_TRIES:
                answer = Refused(f"{answer.reason} (tried {region.unreached} times)")
        else:
            region.unreached = 0
        self._tell(invocation, answer)
        if self._stopped:
            return
        if isinstance(answer, Throttled | Unreached):
            region.queue.appendleft(invocation)
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
