"""A job becomes payloads, payloads become workers.

An engine answers for each invocation what became of it. Launching tries again where nothing can have
run, since the engine was busy or out of reach.
"""

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mu.invocations import Answer, Invocation, Refused, Throttled, Unreached, region_of
from mu.jobs import Job
from mu.tls import SERVER_NAME, Identity

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
LONGEST_WAIT_S = 60.0
"""However long an engine says to wait."""
UNREACHED_TRIES = 5


class Engine(Protocol):
    """A mu.interfaces.IEngine."""

    name: str

    def launch(self, invocation: Invocation) -> Deferred[Answer]: ...
    def cancel(self, job_id: str) -> Deferred[None]: ...


def worker_event(
    job: Job, identity: Identity, cacert: str, host: str, port: int, reconnect_s: float
) -> dict[str, Any]:
    """Return the event of a job's workers, but for the launch id."""
    spec = job.spec
    event: dict[str, Any] = {
        "mode": 1,
        "addr": host,
        "port": port,
        "server_name": SERVER_NAME,
        "cacert": cacert,
        "srvcrt": identity.certificate,
        "srvkey": identity.key,
        "region": spec.regions[0],
        "job": job.id,
        "reconnect_s": reconnect_s,
    }
    if "bucket" in spec.params:
        event["bucket"] = spec.params.bucket
    return event | dict(spec.event)


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


class Launcher:
    """Has one job's launches made, at most `in_flight` at once.

    `tell` hears each answer. After a Throttled one the same invocation is tried again, and after
    an Unreached one so often that a short failure does no harm; then it counts as Refused. `idle`
    is called whenever all is answered, `broken` with a Failure of ours or of the engine's.
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
        self._queue: deque[Invocation] = deque()
        self._lanes = 0
        self._stopped = False

    def add(self, more: Iterable[Invocation]) -> None:
        """Launch these, too."""
        self._queue.extend(more)
        while self._lanes < min(self._in_flight, len(self._queue)) and not self._stopped:
            self._lanes += 1
            Deferred.fromCoroutine(self._lane()).addErrback(self._broken)

    def stop(self) -> None:
        """Launch no more; what is under way is still told."""
        self._stopped = True
        self._queue.clear()

    async def _lane(self) -> None:
        try:
            while self._queue:
                await self._launch(self._queue.popleft())
        finally:
            self._lanes -= 1
        if not self._lanes and not self._stopped:
            self._idle()

    async def _launch(self, invocation: Invocation) -> None:
        pause, unreached = FIRST_PAUSE_S, 0
        while not self._stopped:
            answer = await self._engine.launch(invocation)
            wait: float | None = None
            if isinstance(answer, Unreached):
                unreached += 1
                if unreached == UNREACHED_TRIES:
                    answer = Refused(f"{answer.reason} (tried {unreached} times)")
            elif isinstance(answer, Throttled):
                wait = None if answer.wait_s is None else min(answer.wait_s, LONGEST_WAIT_S)
            self._tell(invocation, answer)
            if not isinstance(answer, Throttled | Unreached):
                return
            jitter = 1 + secrets.randbelow(500) / 1000
            await deferLater(self._clock, jitter * (pause if wait is None else wait), lambda: None)
            pause = min(2 * pause, LONGEST_PAUSE_S)
