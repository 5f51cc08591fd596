"""The local engine's queue of invocations, with a fake clock."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mu.engines.local.errors import LambdaError
from mu.engines.local.functions import Function, InvokeConfig
from mu.engines.local.pool import InvocationResult
from mu.engines.local.queue import InvocationLimits, InvocationQueue


class Store:
    """A store with one function, in memory."""

    def __init__(self, **settings: Any) -> None:
        self.functions = {"f": Function("f", **settings)}

    def code_of(self, function: Function) -> Path:
        return Path("/nowhere")


class Pool:
    """Records what it is asked to run; end() ends the oldest invocation."""

    active = 0

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running: list[Deferred[InvocationResult]] = []

    def invoke(self, request: str, *_: object) -> Deferred[InvocationResult]:
        self.asked.append(request)
        self.running.append(Deferred())
        return self.running[-1]

    def end(self, failed: bool) -> None:
        self.running.pop(0).callback(InvocationResult(b"{}", failed, Path()))


class Queue:
    def __init__(self, limits: InvocationLimits, **settings: Any) -> None:
        self.clock, self.pool, self.store = Clock(), Pool(), Store(**settings)
        store: Any = self.store
        pool: Any = self.pool
        self.invocations = InvocationQueue(self.clock, store, pool, limits)

    def accept(self, payload: str = "{}") -> str:
        return self.invocations.accept(self.store.functions["f"], "eu-west-1", payload)


def test_a_throttled_event_is_retried_after_1_2_4_seconds_and_so_on() -> None:
    queue = Queue(InvocationLimits(concurrency=1))
    queue.accept()
    waiting = queue.accept()
    queue.clock.advance(1)
    queue.clock.advance(2)
    queue.pool.end(failed=False)
    queue.clock.advance(3.9)
    assert waiting not in queue.pool.asked
    queue.clock.advance(0.1)
    assert queue.pool.asked[-1] == waiting
    assert not queue.invocations.idle
    queue.pool.end(failed=False)
    assert queue.invocations.idle
    assert queue.clock.getDelayedCalls() == []


def test_a_throttled_event_is_dropped_when_it_is_too_old() -> None:
    queue = Queue(InvocationLimits(concurrency=1), invoke_config=InvokeConfig(0.0, event_age_s=60))
    queue.accept()
    queue.accept()
    queue.clock.pump([1, 2, 4, 8, 16])
    assert not queue.invocations.idle
    queue.clock.advance(29)  # the last retry is when it reaches its maximum age, not at 63 s
    queue.pool.end(failed=False)
    assert queue.invocations.idle
    assert len(queue.pool.asked) == 1


def test_a_failed_event_is_retried_after_one_minute_and_then_two() -> None:
    queue = Queue(InvocationLimits())
    request = queue.accept()
    for pause in (60, 120):
        queue.pool.end(failed=True)
        queue.clock.advance(pause - 0.1)
        assert queue.pool.running == []
        queue.clock.advance(0.1)
        assert len(queue.pool.running) == 1
    queue.pool.end(failed=True)
    assert queue.pool.asked == [request] * 3
    assert queue.invocations.idle


def test_the_queue_is_bounded() -> None:
    queue = Queue(InvocationLimits(concurrency=0))
    large = " " * 2**20
    for _ in range(256):
        queue.accept(large)
    with pytest.raises(LambdaError) as refused:
        queue.accept(large)
    assert refused.value.status == 429
    queue.invocations.forget("f")
    assert queue.clock.getDelayedCalls() == []
    queue.accept(large)
