"""Jobs: what a client does with one that it ordered or found, in threads or with asyncio."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from mu.client import calls
from mu.client.answers import ActorJson, EndJson, JobJson
from mu.client.calls import Call
from mu.client.errors import ClientError, JobError
from mu.client.html import card
from mu.timeline.shape import TimelineJson

T = TypeVar("T")
Sync = Callable[[Call[Any]], Any]
Async = Callable[[Call[Any]], Awaitable[Any]]

NEVER = 10**9
"""The number of an end that no job has."""
TICK_S = 0.5
POLL_S = 10.0
"""How long one request waits for the next result, in seconds."""


def _countdown(timeout: float | None, most: float = POLL_S) -> Callable[[], float]:
    """Return what says how long to wait now: `most`, or less when so many seconds are nearly over."""
    if timeout is None:
        return lambda: most
    deadline = time.monotonic() + timeout
    return lambda: min(most, max(0.0, deadline - time.monotonic()))


class _KnownJob:
    """What the last answer said."""

    def __init__(self, told: JobJson, url: str) -> None:
        self.id = told["id"]
        self.url = f"{url}/#/jobs/{self.id}"
        """Its page. `mu open JOB` gives a browser the right to see it."""
        self.told = told
        """GET /jobs/ID, as last heard."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.told['pipeline']}, {self.told['state']}>"

    def _repr_html_(self) -> str:
        return card(self.told, self.url)

    @property
    def _over(self) -> bool:
        return self.told["finished"] is not None

    def _late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"job {self.id} has not ended within {timeout:g} s")

    def _check(self) -> None:
        """Raise JobError if it has ended as anything but done."""
        if self.told["state"] != "done":
            raise JobError(self.told)


class Job(_KnownJob):
    """A job. Iterating over it yields how its actors end, until the job has ended.

    All methods raise the errors of ClientError.
    """

    def __init__(self, told: JobJson, url: str, send: Sync) -> None:
        super().__init__(told, url)
        self._send = send

    def _repr_html_(self) -> str:
        with suppress(ClientError):  # then it shows what was heard last
            self.refresh()
        return super()._repr_html_()

    @property
    def state(self) -> str:
        """launching, running, done, failed or cancelled: asked now, unless it has ended."""
        return self.refresh()["state"]

    def refresh(self) -> JobJson:
        """Return GET /jobs/ID: asked now, unless the job has ended."""
        if not self._over:
            self.told = self._send(calls.job(self.id))
        return self.told

    def wait(self, timeout: float | None = None) -> str:
        """Return its state once it has ended. Raises TimeoutError after `timeout` seconds."""
        left = _countdown(timeout)
        while not self._over:
            self._send(calls.results(self.id, NEVER, left()))
            self.refresh()
            if not (self._over or left()):
                raise self._late(timeout)
        return self.told["state"]

    def results(self, timeout: float | None = None) -> list[Any]:
        """Return the results of its actors, in their order, once it is done.

        Raises JobError if it fails or is cancelled, and TimeoutError after `timeout` seconds.
        """
        ends = sorted(self.ends(timeout), key=lambda end: end["actor"])
        self._check()
        return [end["result"] for end in ends if end["state"] == "done"]

    def __iter__(self) -> Iterator[EndJson]:
        return self.ends()

    def ends(
        self, timeout: float | None = None, tick: Callable[[], object] | None = None
    ) -> Iterator[EndJson]:
        """Yield how actors end, in this order. Raises TimeoutError after `timeout` seconds.

        `tick` is called after each TICK_S at most.
        """
        left = _countdown(timeout, TICK_S if tick else POLL_S)
        after = 0
        while True:
            over = self._over
            found = self._send(calls.results(self.id, after, 0 if over else left()))
            yield from found
            after += len(found)
            if over and not found:
                return
            if not found:
                self.refresh()
            if tick is not None:
                tick()
            if not (self._over or left()):
                raise self._late(timeout)

    def actors(self, **of: int | str) -> list[ActorJson]:
        """Return its actors; `limit`, `after`, `state` and `key` select some of them."""
        return self._get(calls.actors(self.id, **of))

    def log(self, **of: int | str) -> str:
        """Return what its commands printed; `actor`, `after` and `key` select a part of it."""
        return self._get(calls.log(self.id, **of)).body.decode("utf-8", "replace")

    def timeline(self, **of: int | str) -> TimelineJson:
        """Return what its actors did, and when; `detail="commands"` adds each command."""
        return self._get(calls.timeline(self.id, **of))

    def cancel(self) -> None:
        """Have its workers told to quit, unless it has ended."""
        self.told = self._get(calls.cancel(self.id))

    def _get(self, call: Call[T]) -> T:
        found: T = self._send(call)
        return found


class AsyncJob(_KnownJob):
    """The same for asyncio: the methods are coroutines, and `async for` yields the ends of actors."""

    def __init__(self, told: JobJson, url: str, send: Async) -> None:
        super().__init__(told, url)
        self._send = send

    @property
    def state(self) -> str:
        """As last heard: by `refresh`, `wait`, `results` or an iteration."""
        return self.told["state"]

    async def refresh(self) -> JobJson:
        if not self._over:
            self.told = await self._send(calls.job(self.id))
        return self.told

    async def wait(self, timeout: float | None = None) -> str:
        async with self._within(timeout):
            while not self._over:
                await self._send(calls.results(self.id, NEVER, POLL_S))
                await self.refresh()
        return self.state

    async def results(self, timeout: float | None = None) -> list[Any]:
        async with self._within(timeout):
            ends = sorted([end async for end in self], key=lambda end: end["actor"])
        self._check()
        return [end["result"] for end in ends if end["state"] == "done"]

    @asynccontextmanager
    async def _within(self, timeout: float | None) -> AsyncIterator[None]:
        import asyncio

        try:
            async with asyncio.timeout(timeout):
                yield
        except TimeoutError:
            raise self._late(timeout) from None

    async def __aiter__(self) -> AsyncIterator[EndJson]:
        after = 0
        while True:
            over = self._over
            found = await self._send(calls.results(self.id, after, 0 if over else POLL_S))
            for end in found:
                yield end
            after += len(found)
            if over and not found:
                return
            if not found:
                await self.refresh()

    async def actors(self, **of: int | str) -> list[ActorJson]:
        return await self._get(calls.actors(self.id, **of))

    async def log(self, **of: int | str) -> str:
        answer = await self._get(calls.log(self.id, **of))
        return answer.body.decode("utf-8", "replace")

    async def timeline(self, **of: int | str) -> TimelineJson:
        return await self._get(calls.timeline(self.id, **of))

    async def cancel(self) -> None:
        self.told = await self._get(calls.cancel(self.id))

    async def _get(self, call: Call[T]) -> T:
        found: T = await self._send(call)
        return found
