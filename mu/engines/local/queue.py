"""Which invocations run now, which wait, and which run again.

An event (InvocationType Event) is accepted at once and then waits, as AWS has it: throttled, it
is tried again after a second, after two, and so on; after an error of the function, when its
pause is over, with the same request id. Queued events are kept in memory only.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mu.engines.local.errors import too_many, too_often
from mu.engines.local.functions import Function
from mu.engines.local.pool import Outcome, SandboxPool
from mu.engines.local.store import FunctionStore

FIRST_THROTTLE_S, LONGEST_THROTTLE_S = 1.0, 300.0
EVENTS_LIMIT, BYTES_LIMIT = 100_000, 2**28


@dataclass(frozen=True, slots=True)
class Limits:
    """How many run at once; invocations per second, 0: any; pauses before events run again, in s."""

    concurrency: int = 1000
    invoke_rate: float = 0.0
    retry_pauses: tuple[float, float] = (60.0, 120.0)


@dataclass(slots=True, eq=False)
class _Event:
    """An event that has been accepted, until it has been run or dropped."""

    request: str
    function: str
    region: str
    payload: str
    accepted: float
    failures: int = 0
    throttle_s: float = FIRST_THROTTLE_S
    timer: Any = None


class Invocations:
    """Runs invocations of the store's functions in the pool's sandboxes, within the limits."""

    log = Logger()

    def __init__(
        self, reactor: Any, store: FunctionStore, pool: SandboxPool, limits: Limits
    ) -> None:
        self._reactor, self._store, self._pool, self._limits = reactor, store, pool, limits
        self._running: Counter[str] = Counter()
        self._events: dict[str, _Event] = {}
        self._bytes = 0
        self._dropped = 0
        self._tokens, self._counted = limits.invoke_rate, reactor.seconds()

    @property
    def idle(self) -> bool:
        return not self._events and not self._pool.active

    @property
    def unreserved(self) -> int:
        """How many invocations all functions share that have reserved none."""
        reserved = sum(each.reserved or 0 for each in self._store.functions.values())
        return self._limits.concurrency - reserved

    def admit(self) -> None:
        """Count one call of Invoke. Raises Refused if there were too many of late."""
        if not (rate := self._limits.invoke_rate):
            return
        now = self._reactor.seconds()
        self._tokens = min(max(rate, 1.0), self._tokens + (now - self._counted) * rate)
        self._counted = now
        if self._tokens < 1:
            raise too_often((1 - self._tokens) / rate)
        self._tokens -= 1

    def answer(self, function: Function, region: str, event: str) -> tuple[str, Deferred[Outcome]]:
        """Run it now; return its request id at once. Raises Refused where too many run."""
        if reason := self._why_throttled(function):
            raise too_many(reason)
        request = str(uuid4())
        return request, self._run(request, function, region, event)

    def accept(self, function: Function, region: str, event: str, late_s: float = 0.0) -> str:
        """Run it as soon as may be, or `late_s` seconds later; return its request id.

        Raises Refused if the queue is full.
        """
        if len(self._events) >= EVENTS_LIMIT or self._bytes + len(event) > BYTES_LIMIT:
            raise too_often(FIRST_THROTTLE_S)
        accepted = _Event(str(uuid4()), function.name, region, event, self._reactor.seconds())
        self._events[accepted.request] = accepted
        self._bytes += len(event)
        if late_s:
            accepted.timer = self._reactor.callLater(late_s, self._attempt, accepted)
        else:
            self._attempt(accepted)
        return accepted.request

    def forget(self, name: str) -> None:
        """Let no event of that function start any more."""
        for event in [event for event in self._events.values() if event.function == name]:
            self._drop(event, "the function was deleted")

    def _attempt(self, event: _Event) -> None:
        event.timer = None
        function = self._store.functions[event.function]
        left = event.accepted + function.event_age_s - self._reactor.seconds()
        if left <= 0:
            self._drop(event, f"it has waited for {function.event_age_s} s")
        elif self._why_throttled(function):
            event.timer = self._reactor.callLater(min(event.throttle_s, left), self._attempt, event)
            event.throttle_s = min(2 * event.throttle_s, LONGEST_THROTTLE_S)
        else:
            running = self._run(event.request, function, event.region, event.payload)
            running.addCallback(self._ended, event)

    def _ended(self, outcome: Outcome, event: _Event) -> None:
        if event.request not in self._events:
            return  # its function was deleted
        if not outcome.failed:
            self._remove(event)
            return
        function = self._store.functions[event.function]
        if event.failures == function.retries:
            self._drop(event, f"it has failed, attempts: {event.failures + 1}")
            return
        pause = self._limits.retry_pauses[event.failures]
        event.failures += 1
        if self._reactor.seconds() + pause > event.accepted + function.event_age_s:
            self._drop(event, f"it would be older than {function.event_age_s} s")
        else:
            event.timer = self._reactor.callLater(pause, self._attempt, event)

    def _drop(self, event: _Event, why: str) -> None:
        self._remove(event)
        self._dropped += 1
        self.log.info(
            "event {request} of {function} is dropped ({dropped} so far): {why}",
            request=event.request,
            function=event.function,
            dropped=self._dropped,
            why=why,
        )

    def _remove(self, event: _Event) -> None:
        del self._events[event.request]
        self._bytes -= len(event.payload)
        if event.timer is not None:
            event.timer.cancel()

    def _run(self, request: str, function: Function, region: str, event: str) -> Deferred[Outcome]:
        self._running[function.name] += 1
        done = self._pool.invoke(request, function, self._store.code_of(function), region, event)
        return done.addCallback(self._free, function.name)

    def _free(self, outcome: Outcome, name: str) -> Outcome:
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]
        return outcome

    def _why_throttled(self, function: Function) -> str:
        """Return AWS's reason not to run it now, or nothing."""
        if function.reserved is not None:
            if self._running[function.name] >= function.reserved:
                return "ReservedFunctionConcurrentInvocationLimitExceeded"
            return ""
        if self._running_unreserved() >= self.unreserved:
            return "ConcurrentInvocationLimitExceeded"
        return ""

    def _running_unreserved(self) -> int:
        known = self._store.functions
        return sum(
            count
            for name, count in self._running.items()
            if name not in known or known[name].reserved is None
        )
