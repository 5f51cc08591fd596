"""The entry points: a client of one daemon, in threads or with asyncio."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from mu.aws.s3 import EMBEDDED_BUCKET
from mu.client import calls
from mu.client.address import Address, find_address
from mu.client.answers import JobJson
from mu.client.calls import Call
from mu.client.control_port import TIMEOUT_S, ControlPort
from mu.client.errors import ClientError, NoAddress, NotRunning
from mu.client.function import PythonFunction
from mu.client.jobs import AsyncJob, Job

if TYPE_CHECKING:
    from mu.client.mapping import MapResults

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

MOST_WORKERS = 100
"""How many workers a map on AWS has by default."""

PATIENCE_S = 60.0
"""How long a question waits for a daemon that was there before, such as one that restarts."""
PAUSE_S = 0.5


class _Daemon:
    """Where the daemon is, and how long to wait for it."""

    def __init__(
        self,
        config: str | Path | None,
        home: str | Path | None,
        url: str | None,
        token: str | None,
        patience_s: float,
    ) -> None:
        chosen = {"config": config, "home": home, "url": url}
        self.given = {name: str(one) for name, one in chosen.items() if one is not None}
        self._environ = {**os.environ, "MU_TOKEN": token} if token is not None else os.environ
        self._patience_s = patience_s
        if token is not None and url is None:
            raise NoAddress("token belongs to url: without one, the token is the one in the home")
        self.address = self.find()
        self._functions: dict[Hashable, tuple[str, str]] = {}
        self.heard = False
        """Whether it has answered before."""

    def find(self) -> Address:
        return find_address(self.given, self._environ)

    def pauses(self, call: Call[Any]) -> Iterator[float]:
        """Yield how long to wait before each further try, in seconds; orders are not repeated."""
        deadline = time.monotonic() + (self._patience_s if self.heard else 0.0)
        while call.method == "GET" and time.monotonic() < deadline:
            yield PAUSE_S
            with suppress(NoAddress, NotRunning):
                self.address = self.find()

    def deployed(self, made: PythonFunction, ask: Callable[[Call[Any]], Any]) -> tuple[str, str]:
        """Return the engine and the name of a function, which is deployed once. Raises ClientError."""

        def is_there(engine: str, name: str, region: str) -> bool:
            order = {"pipeline": "hello", "engine": engine, "function": name, "regions": [region]}
            return ask(calls.post("/plan", order))["size"] is not None

        key = made.key()
        if key not in self._functions:
            self._functions[key] = made.deploy(self.given, self._environ, is_there)
        return self._functions[key]

    @property
    def url(self) -> str:
        return self.address.url


def order_of(pipeline: str, order: dict[str, object]) -> dict[str, object]:
    """Return the body of POST /jobs; fields that are None are left out."""
    return {"pipeline": pipeline, **{n: one for n, one in order.items() if one is not None}}


class _OfDaemon:
    """What both clients have: the daemon that they ask."""

    def __init__(
        self,
        *,
        config: str | Path | None = None,
        home: str | Path | None = None,
        url: str | None = None,
        token: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._daemon = _Daemon(config, home, url, token, patience_s)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.url}>"

    @property
    def url(self) -> str:
        """The URL of the control port."""
        return self._daemon.url


class Client(_OfDaemon):
    """A client of one daemon, which it finds as the command `mu` does.

    `home` is the daemon's home folder, `config` its mu.conf, `url` the control port of a daemon
    elsewhere, whose token is `token` or in MU_TOKEN. At most one of these three is given. Without them,
    it is the first of MU_HOME, ./etc/mu.conf, /etc/mu.conf and ~/.mu that exists.

    A daemon that restarts is waited for, `patience_s` at most. Raises NoAddress and NotRunning.
    """

    @classmethod
    def _of(cls, daemon: _Daemon) -> Client:
        client = cls.__new__(cls)
        client._daemon = daemon
        return client

    def launch(self, pipeline: str, *, idempotency_key: str = "", **order: object) -> Job:
        """Start a job, and return it at once. `order` has the fields of POST /jobs.

        Raises RequestRefused, whose `field` is the one that is wrong, and NotRunning. It is not
        repeated if its answer is lost: with an `idempotency_key`, a second call starts no second job.
        """
        return self._job(self._send(calls.order(order_of(pipeline, order), idempotency_key)))

    def job(self, job_id: str) -> Job:
        """Return a job by its id."""
        return self._job(self._send(calls.job(job_id)))

    def jobs(self, **having: int | str) -> list[Job]:
        """Return the jobs with this `name` and `state`, oldest first; `last`: only so many."""
        return [self._job(told) for told in self._send(calls.jobs(**having))]

    def map(
        self,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        /,
        *,
        function: str | None = None,
        memory: int | None = None,
        requirements: str | Path | None = None,
        role: str | None = None,
        engine: str | None = None,
        regions: Sequence[str] = (),
        workers: int | None = None,
        chunk: int = 0,
        item_retries: int = 0,
        return_exceptions: bool = False,
        ordered: bool = True,
        progress: bool | None = None,
        bucket: str = "",
        **order: object,
    ) -> MapResults:
        """Call `fn` for each item, on workers; return an iterator over what the calls return.

        The job has started when this returns. `fn` may be any function: it is sent along, and so
        are the modules of yours that it needs. Packages are named in the file `requirements`.
        Without a `function`, one is deployed for this Python: with this `memory` in MB, on AWS
        with this IAM `role`. It is deployed once, not each time.

        Items are dealt in chunks of neighbours, one for each of the `workers`, or of `chunk` items.
        A worker calls `fn` for its chunk in one process. A call that raises is repeated `item_retries`
        times, and then what it raised is raised here; with `return_exceptions`, it is returned in
        place of a value. Values come in the order of the items, or as they come if not `ordered`.

        On a terminal, `progress` shows how many items are done; True and False decide that. Large
        results go through S3 if there is a `bucket`. `order` has further fields of POST /jobs,
        such as `retries`, for workers that are lost, `deadline_s` and `max_cost_usd`.

        Raises ClientError.
        """
        from mu.client.mapping import MapResults, Work, send_blobs

        if bucket == EMBEDDED_BUCKET:
            raise ClientError(
                f"bucket {bucket} is on the daemon's machine: without a bucket, large results become"
                " blobs there"
            )
        most = workers or (2 * (os.cpu_count() or 1) if engine != "lambda" else MOST_WORKERS)
        work = Work.of(fn, items, most, chunk, item_retries + 1, bucket, return_exceptions)
        if not work.items:
            return MapResults(self._send, None, work, ordered, progress)
        if function is None:
            made = PythonFunction(engine, tuple(regions), memory, requirements, role)
            engine, function = self._daemon.deployed(made, self._send)
        send_blobs(self._send, work)
        given: dict[str, object] = {
            "engine": engine,
            "function": function,
            "regions": list(regions) or None,
        }
        given |= {"workers": work.workers, "params": dict(work.params)}
        job = self._job(self._send(calls.order(order_of("pymap", given | order))))
        return MapResults(self._send, job, work, ordered, progress)

    def _job(self, told: JobJson) -> Job:
        return Job(told, self.url, self._send)

    def _send(self, call: Call[T]) -> T:
        pauses = self._daemon.pauses(call)
        while True:
            try:
                answer = ControlPort(self._daemon.address, TIMEOUT_S).send(call)
                self._daemon.heard = True
                return answer
            except NotRunning:
                if (pause := next(pauses, None)) is None:
                    raise
                time.sleep(pause)


def _called_as(
    one: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Give a method the parameters of another one, for help() and for type checkers."""

    def change(other: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        returns = inspect.signature(other).return_annotation
        signature = inspect.signature(one).replace(return_annotation=returns)
        other.__signature__ = signature  # type: ignore[attr-defined]
        return other

    return change


class AsyncClient(_OfDaemon):
    """The same for asyncio. Making one reads files, and connects to nothing."""

    async def launch(
        self, pipeline: str, *, idempotency_key: str = "", **order: object
    ) -> AsyncJob:
        """Start a job, and return it at once; see Client.launch."""
        return self._job(await self._send(calls.order(order_of(pipeline, order), idempotency_key)))

    async def job(self, job_id: str) -> AsyncJob:
        """Return a job by its id."""
        return self._job(await self._send(calls.job(job_id)))

    async def jobs(self, **having: int | str) -> list[AsyncJob]:
        """Return the jobs with this `name` and `state`, oldest first; `last`: only so many."""
        return [self._job(told) for told in await self._send(calls.jobs(**having))]

    @_called_as(Client.map)
    async def map(self, *given: Any, **options: Any) -> AsyncIterator[Any]:
        """Yield what the calls return; the arguments are those of Client.map. It works in a thread.

        If the iteration is cancelled, so is the job.
        """
        import asyncio

        client = Client._of(self._daemon)
        results = await asyncio.to_thread(client.map, *given, **options)
        done = object()
        try:
            while (value := await asyncio.to_thread(next, results, done)) is not done:
                yield value
        except asyncio.CancelledError:
            if results.job is not None:
                await asyncio.to_thread(results.job.cancel)
            raise

    def _job(self, told: JobJson) -> AsyncJob:
        return AsyncJob(told, self.url, self._send)

    async def _send(self, call: Call[T]) -> T:
        import asyncio

        from mu.client import async_port

        pauses = self._daemon.pauses(call)
        while True:
            try:
                answer = await async_port.send(self._daemon.address, call)
                self._daemon.heard = True
                return answer
            except NotRunning:
                if (pause := next(pauses, None)) is None:
                    raise
                await asyncio.sleep(pause)
