"""A job becomes payloads, payloads become workers.

An engine answers for each invocation what became of it. Launching tries again where nothing can have
run, since the engine was busy or out of reach.
"""

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import maybeDeferred

from mu.invocations import Answer, Invocation, Refused, Throttled, Unreached, region_of
from mu.plugins import Engine

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
LONGEST_WAIT_S = 60.0
"""However long an engine says to wait."""
UNREACHED_TRIES = 5


def invocations(
    event: Mapping[str, Any],
    functions: Sequence[str],
    regions: Sequence[str],
    launches: Iterable[tuple[str, int]],
) -> Iterator[Invocation]:
    """Yield an invocation for each launch id and its number: all regions in turn, then all copies.

    ##ID## anywhere in the event becomes the number.
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
    """What is to be launched in one region, and how fast that goes."""

    window: float
    """How many invocations may be under way: fewer after it said that it is busy, then more again."""
    queue: deque[Invocation] = field(default_factory=deque)
    under_way: int = 0
    pause_s: float = FIRST_PAUSE_S
    unreached: int = 0
    going_on: bool = False
    timer: Any = None


class Launcher:
    """Has one job's launches made, in each region at most `in_flight` at once.

    `tell` hears each answer. What a region is too busy for is tried again after a pause, with the
    same id and more slowly, without holding up other regions; and so is what did not reach it, but
    after UNREACHED_TRIES in a row that counts as Refused. `idle` is called whenever all is
    answered, `broken` with a Failure of ours or of the engine's.
    """

    def __init__(
        self,
        engine: Engine,
        in_flight: int,
        clock: Any,
        tell: Callable[[Invocation, Answer], None],
        idle: Callable[[], None],
        broken: Callable[[Any], None],
    ) -> None:
        self._engine = engine
        self._in_flight = in_flight
        self._clock = clock
        self._tell = tell
        self._idle = idle
        self._broken = broken
        self._regions: dict[str, _Region] = {}
        self._left = 0
        self._stopped = False

    def add(self, more: Iterable[Invocation]) -> None:
        """Launch these, too."""
        for invocation in more:
            region = self._regions.get(invocation.region)
            if region is None:
                region = self._regions[invocation.region] = _Region(self._in_flight)
            region.queue.append(invocation)
            self._left += 1
        for region in self._regions.values():
            self._go_on(region)

    def stop(self) -> None:
        """Launch no more; what is under way is still told."""
        self._stopped = True
        for region in self._regions.values():
            region.queue.clear()
            if region.timer is not None:
                region.timer.cancel()
                region.timer = None

    def _go_on(self, region: _Region) -> None:
        if region.going_on:  # an engine that answers at once would have us here ever deeper
            return
        region.going_on = True
        while region.queue and region.timer is None and region.under_way < int(region.window):
            invocation = region.queue.popleft()
            region.under_way += 1
            asking = maybeDeferred(self._engine.launch, invocation)
            asking.addCallback(self._answered, region, invocation).addErrback(self._broken)
        region.going_on = False

    def _answered(self, answer: Answer, region: _Region, invocation: Invocation) -> None:
        region.under_way -= 1
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
        self._left -= 1
        if self._left:
            self._go_on(region)
        else:
            self._idle()

    def _slow_down(self, region: _Region, answer: Throttled | Unreached) -> None:
        """Let the region be for a while; the first of those that are under way counts."""
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
        self._go_on(region)
