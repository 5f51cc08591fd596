"""Decides when invocations run: queueing, throttling and retries, as on AWS.

An event (InvocationType Event) is accepted at once and queued, in memory only. If it is throttled,
it is retried after 1 s, 2 s, 4 s and so on; after a function error, it is retried with the same
request id once the retry pause is over.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mu.engines.local.errors import too_many, too_often
from mu.engines.local.functions import Function
from mu.engines.local.pool import InvocationResult, SandboxPool
from mu.engines.local.store import FunctionStore

FIRST_THROTTLE_S, LONGEST_THROTTLE_S = 1.0, 300.0
EVENTS_LIMIT, BYTES_LIMIT = 100_000, 2**28


@dataclass(frozen=True, slots=True)
class InvocationLimits:
    """`invoke_rate` is in calls per second, 0 for no limit; `retry_pauses` are in seconds."""

    concurrency: int = 1000
    invoke_rate: float = 0.0
    retry_pauses: tuple[float, float] = (60.0, 120.0)


@dataclass(slots=True, eq=False)
class _Event:
    """An accepted event that has not succeeded and was not dropped."""

    request: str
    function: str
    region: str
    payload: str
    accepted: float
    failures: int = 0
    throttle_s: float = FIRST_THROTTLE_S
    timer: IDelayedCall | None = None


class InvocationQueue:
    """Runs invocations of the store's functions in the pool's sandboxes, within `limits`."""

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: FunctionStore,
        pool: SandboxPool,
        limits: InvocationLimits,
        on_begin: Callable[[str], None] = lambda event: None,
        on_end: Callable[[str, InvocationResult], None] = lambda event, result: None,
    ) -> None:
        """`on_begin` is called with the payload of each invocation, `on_end` also with its result."""
        self._on_begin, self._on_end = on_begin, on_end
        self._clock, self._store, self._pool, self._limits = clock, store, pool, limits
        self._running: Counter[str] = Counter()
        self._events: dict[str, _Event] = {}
        self._bytes = 0
        self._dropped = 0
        self._tokens, self._counted = limits.invoke_rate, clock.seconds()

    @property
    def idle(self) -> bool:
        return not self._events and not self._pool.active

    @property
    def unreserved(self) -> int:
        """The concurrency shared by all functions without reserved concurrency."""
        reserved = sum(each.reserved or 0 for each in self._store.functions.values())
        return self._limits.concurrency - reserved

    def admit(self) -> None:
        """Count one call of Invoke. Raises LambdaError if it exceeds the rate limit."""
        rate = self._limits.invoke_rate
        if not rate:
            return
        now = self._clock.seconds()
        self._tokens = min(max(rate, 1.0), self._tokens + (now - self._counted) * rate)
        self._counted = now
        if self._tokens < 1:
            raise too_often((1 - self._tokens) / rate)
        self._tokens -= 1

    def run_now(
        self, function: Function, region: str, event: str
    ) -> tuple[str, Deferred[InvocationResult]]:
        """Run an invocation now; return its request id. Raises LambdaError if it is throttled."""
        if reason := self._why_throttled(function):
            raise too_many(reason)
        request = str(uuid4())
        return request, self._run(request, function, region, event)

    def accept(self, function: Function, region: str, event: str, late_s: float = 0.0) -> str:
        """Queue an event, to start at once or `late_s` seconds later; return its request id.

        Raises LambdaError if the queue is full.
        """
        if len(self._events) >= EVENTS_LIMIT or self._bytes + len(event) > BYTES_LIMIT:
            raise too_often(FIRST_THROTTLE_S)
        accepted = _Event(str(uuid4()), function.name, region, event, self._clock.seconds())
        self._events[accepted.request] = accepted
        self._bytes += len(event)
        if late_s:
            accepted.timer = self._clock.callLater(late_s, self._attempt, accepted)
        else:
            self._attempt(accepted)
        return accepted.request

    def forget(self, name: str) -> None:
        """Drop all events of a deleted function."""
        for event in [event for event in self._events.values() if event.function == name]:
            self._drop(event, "the function was deleted")

    def _attempt(self, event: _Event) -> None:
        event.timer = None
        function = self._store.functions[event.function]
        left = event.accepted + function.event_age_s - self._clock.seconds()
        if left <= 0:
            self._drop(event, f"it is older than {function.event_age_s} s")
        elif self._why_throttled(function):
            event.timer = self._clock.callLater(min(event.throttle_s, left), self._attempt, event)
            event.throttle_s = min(2 * event.throttle_s, LONGEST_THROTTLE_S)
        else:
            running = self._run(event.request, function, event.region, event.payload)
            running.addCallback(self._ended, event)

    def _ended(self, result: InvocationResult, event: _Event) -> None:
        if event.request not in self._events:
            return  # its function was deleted
        if not result.failed:
            self._remove(event)
            return
        function = self._store.functions[event.function]
        if event.failures == function.retries:
            self._drop(event, f"it failed, attempts: {event.failures + 1}")
            return
        pause = self._limits.retry_pauses[event.failures]
        event.failures += 1
        if self._clock.seconds() + pause > event.accepted + function.event_age_s:
            self._drop(event, f"it would be older than {function.event_age_s} s")
        else:
            event.timer = self._clock.callLater(pause, self._attempt, event)

    def _drop(self, event: _Event, why: str) -> None:
        self._remove(event)
        self._dropped += 1
        self.log.info(
            "dropped event {request} of {function} ({dropped} so far): {why}",
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

    def _run(
        self, request: str, function: Function, region: str, event: str
    ) -> Deferred[InvocationResult]:
        self._running[function.name] += 1
        self._on_begin(event)
        done = self._pool.invoke(request, function, self._store.code_of(function), region, event)
        return done.addCallback(self._free, function.name, event)

    def _free(self, result: InvocationResult, name: str, event: str) -> InvocationResult:
        self._on_end(event, result)
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]
        return result

    def _why_throttled(self, function: Function) -> str:
        """Return AWS's reason for throttling an invocation now, or ""."""
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
