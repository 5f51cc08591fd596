"""A job becomes payloads, payloads become workers.

An engine answers for each invocation what became of it. Launching tries again where nothing can have
run, since the engine was busy or out of reach.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mu.invocations import Answer, Invocation, Refused, Throttled, Unreached
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


def worker_event(job: Job, identity: Identity, cacert: str, host: str, port: int) -> dict[str, Any]:
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
    }
    if "bucket" in spec.params:
        event["bucket"] = spec.params.bucket
    return event | dict(spec.event)


def invocations(
    event: Mapping[str, Any], function: str, regions: Sequence[str], launches: Iterable[str]
) -> Iterator[Invocation]:
    """Yield an invocation for each launch id, region by region in turn.

    ##ID## anywhere in the event becomes the launch's number.
    """
    slot = f"##LAUNCH-{secrets.token_hex(8)}##"
    template = json.dumps({**event, "launch": slot}, separators=(",", ":"))
    numbered = "##ID##" in template
    for number, launch in enumerate(launches):
        text = template.replace(slot, launch)
        if numbered:
            text = text.replace("##ID##", str(number))
        yield Invocation(launch, function, regions[number % len(regions)], text.encode("utf-8"))


def new_launch_ids(count: int) -> list[str]:
    return [secrets.token_hex(8) for _ in range(count)]


async def launch_all(
    engine: Engine,
    planned: Iterator[Invocation],
    in_flight: int,
    clock: Any,
    stopped: Callable[[], bool],
    tell: Callable[[Invocation, Answer], None],
) -> None:
    """Launch all that is planned, at most `in_flight` at once, until `stopped()`.

    `tell` hears each answer. After a Throttled one the same invocation is tried again, and after
    an Unreached one so often that a short failure does no harm; then it counts as Refused.
    """

    async def one(invocation: Invocation) -> None:
        pause, unreached = FIRST_PAUSE_S, 0
        while not stopped():
            answer = await engine.launch(invocation)
            wait: float | None = None
            if isinstance(answer, Unreached):
                unreached += 1
                if unreached == UNREACHED_TRIES:
                    answer = Refused(f"{answer.reason} (tried {unreached} times)")
            elif isinstance(answer, Throttled):
                wait = None if answer.wait_s is None else min(answer.wait_s, LONGEST_WAIT_S)
            tell(invocation, answer)
            if not isinstance(answer, Throttled | Unreached):
                return
            jitter = 1 + secrets.randbelow(500) / 1000
            await deferLater(clock, jitter * (pause if wait is None else wait), lambda: None)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def lane() -> None:
        for invocation in planned:
            if stopped():
                return
            await one(invocation)

    await gatherResults([Deferred.fromCoroutine(lane()) for _ in range(in_flight)])
