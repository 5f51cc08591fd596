"""The engine: launches become arrays, and what becomes of their tasks is told to mu."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from mu.findings import Finding
from mu.invocations import Accepted, Answer, Invocation, Refused, Size, Unreached
from mu.parameters import Params
from mu.plugins import Engine, EngineSite, LaunchListener
from mu_slurm.batches import Batch
from mu_slurm.cluster import Cluster, SlurmError
from mu_slurm.examination import examine
from mu_slurm.options import OPTIONS, ORDER_OPTIONS, check
from mu_slurm.tasks import Task

T = TypeVar("T")
THREADS = 4
"""How many of Slurm's commands may run at once."""
SOON_S = 1.0
"""How long after a change to ask for states, unless that was done less than poll_s ago."""
GOODBYE_S = 10.0
"""How long workers may take to quit when their job has ended, before they are cancelled."""


class SlurmEngine(Engine):
    """Starts workers as tasks of job arrays, one array for each batch of launches."""

    name = "slurm"
    regional = False
    batch = 1000
    options = OPTIONS
    order_options = ORDER_OPTIONS
    log = Logger()

    _cluster: Cluster
    _threads: "_Threads"

    def __init__(self) -> None:
        self._listener: LaunchListener | None = None
        self._batches: dict[str, Batch] = {}
        self._by_launch: dict[str, Batch] = {}
        self._polling: IDelayedCall | None = None
        self._polled_at = 0.0
        self._silent = False
        self._found: Deferred[None] | None = None

    def check(self, options: Params) -> None:
        check(options)

    def start(self, site: EngineSite) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._cluster = Cluster(site.options, _daemon_id(site.folder))
        self._threads = _Threads(0, THREADS, "mu-slurm")
        self._threads.start()
        if site.options.folder:
            self._found = self._in_thread(self._cluster.left_over).addCallback(self._take_over)
            self._found.addErrback(self._failed)

    def stop(self) -> Deferred[None]:
        if self._polling is not None and self._polling.active():
            self._polling.cancel()
        self._cluster.commands.stop()
        Thread(target=self._threads.stop, daemon=True).start()
        return super().stop()

    def watch(self, listener: LaunchListener) -> None:
        self._listener = listener

    def examine(self, site: EngineSite, functions: Sequence[str]) -> Iterable[Finding]:
        return examine(Cluster(site.options), site, functions)

    # ------------------------------------------------ launching

    def launch(self, invocation: Invocation) -> Deferred[Answer]:
        return self.launch_many([invocation]).addCallback(lambda answers: answers[0])

    def launch_many(self, invocations: Sequence[Invocation]) -> Deferred[list[Answer]]:
        return Deferred.fromCoroutine(self._launch_many(invocations))

    async def _launch_many(self, invocations: Sequence[Invocation]) -> list[Answer]:
        if not self._cluster.options.folder:
            return [Refused("[slurm] folder is not set in mu.conf")] * len(invocations)
        if self._found is not None:
            await DeferredList([self._found])  # which leaves it its result
        answers: dict[str, Answer] = {}
        asked = {one.launch: self._by_launch.get(one.launch) for one in invocations}
        for batch in {one.name: one for one in asked.values() if one is not None}.values():
            answer = await self._answer_before(batch)
            if answer is not None:
                answers |= dict.fromkeys(batch.launches, answer)
        most = await self._in_thread(self._cluster.largest_array)
        if not most:
            return [Refused("this cluster allows no job arrays: its MaxArraySize is 0")] * len(
                invocations
            )
        functions = dict.fromkeys(one.function for one in invocations)
        for function in functions:
            new = [
                one for one in invocations if one.function == function and one.launch not in answers
            ]
            for first in range(0, len(new), most):
                some = new[first : first + most]
                answer = await self._submit(some)
                answers |= {one.launch: answer for one in some}
        return [answers[one.launch] for one in invocations]

    async def _answer_before(self, batch: Batch) -> Answer | None:
        """Return the answer for a batch that may have been submitted before; None: it was not."""
        if not batch.array:
            try:
                tasks = await self._in_thread(self._cluster.tasks, batch.name)
            except SlurmError as error:
                return Unreached(str(error))
            if not tasks:
                self._forget(batch)
                return None
            batch.array = tasks[0].job
            self._poll_soon()
        return Accepted()

    async def _submit(self, invocations: Sequence[Invocation]) -> Answer:
        function = invocations[0].function
        options = Params({**self._cluster.options, **invocations[0].options})
        if await self._in_thread(self._cluster.bundle_of, function) is None:
            both = f"{self._cluster.functions}/{function}.zip"
            return Refused(f"there is no bundle of function {function!r}: no {both}, and no folder")
        batch = None
        try:
            batch = await self._in_thread(self._cluster.write, invocations)
            self._add(batch)
            batch.array = await self._in_thread(self._cluster.submit, batch, options)
        except (SlurmError, OSError) as error:
            answer = (
                error.answer
                if isinstance(error, SlurmError)
                else Refused(f"cannot write in [slurm] folder: {error}")
            )
            if batch is not None and isinstance(answer, Unreached):
                batch.unsure = True  # the answer may be lost: Slurm is asked before a retry
                self._poll_soon()
            elif batch is not None:
                self._forget(batch)
            return answer
        self._poll_soon()
        return Accepted()

    def cancel(self, job_id: str) -> Deferred[None]:
        """Cancel what is queued at once, and later what has not quit by itself."""
        mine = [batch for batch in self._batches.values() if batch.job == job_id]
        for batch in mine:
            batch.dropped_at = self._reactor.seconds()
        if not mine:
            return super().cancel(job_id)
        self._poll_soon()
        arrays = [batch.array for batch in mine if batch.array]
        return self._in_thread(self._cluster.cancel, arrays, "--state=PENDING").addErrback(
            self._unanswered
        )

    # ------------------------------------------------ batches

    def _take_over(self, batches: Sequence[Batch]) -> None:
        """Take over the batches of an earlier daemon."""
        for batch in batches:
            self._add(batch)
        if batches:
            self._poll_soon()

    def _add(self, batch: Batch) -> None:
        self._batches[batch.name] = batch
        self._by_launch |= dict.fromkeys(batch.launches, batch)

    def _forget(self, batch: Batch) -> None:
        self._batches.pop(batch.name, None)
        for launch in batch.launches:
            if self._by_launch.get(launch) is batch:
                del self._by_launch[launch]
        self._in_thread(batch.remove).addErrback(self._failed)

    # ------------------------------------------------ states

    def _poll_soon(self) -> None:
        if self._polling is None:
            least_s = self._polled_at + self._cluster.options.poll_s - self._reactor.seconds()
            self._polling = self._reactor.callLater(max(SOON_S, least_s), self._poll)

    def _poll(self) -> None:
        """Ask for the states of all tasks."""
        self._polled_at = self._reactor.seconds()
        # Of others, Slurm may not know yet when it answers.
        asked = [one for one in self._batches.values() if one.array or one.left_over or one.unsure]
        places = {one.name: one.open_indices() for one in asked}
        asking = self._in_thread(self._cluster.tasks_of, places)
        asking.addCallback(self._hear, asked).addErrback(self._unanswered)
        asking.addErrback(self._failed).addBoth(self._polled)

    def _polled(self, _: object) -> None:
        self._polling = None
        if self._batches:
            self._poll_soon()

    def _hear(self, tasks: Sequence[Task], asked: Sequence[Batch]) -> None:
        self._silent = False
        by_place = {(task.name, task.index): task for task in tasks}
        of_job = {batch.name: batch.job for batch in asked}
        queued = [task for task in tasks if task.queued and task.name in of_job]
        waiting = Counter(of_job[task.name] for task in queued)
        known = {task.name for task in tasks}
        for batch in asked:
            if batch.unsure and not batch.array and batch.name not in known:
                self._forget(batch)  # it was not submitted, and mu was told so
                continue
            self._hear_of(batch, by_place, waiting[batch.job])
            if batch.is_over and batch.name in self._batches:
                self._forget(batch)

    def _hear_of(self, batch: Batch, by_place: dict[tuple[str, int], Task], waiting: int) -> None:
        assert self._listener is not None
        requeued: list[str] = []
        for index, launch in enumerate(batch.launches):
            if index in batch.ended:
                continue
            task = by_place.get((batch.name, index))
            if task is not None:
                batch.array = task.job
            if task is None or task.ended:
                batch.ended.add(index)
                why = "ended: Slurm no longer knows it" if task is None else task.why_ended
                self._listener.ended(launch, why)
            elif task.restarts:  # its launch has had a worker
                self._listener.ended(launch, f"ended: Slurm requeued task {task.job}_{index}")
                requeued.append(f"{task.job}_{index}")
            elif task.queued:
                self._listener.pending(launch, f"{waiting:,} pending ({task.reason})")
        late = batch.dropped_at is not None and self._polled_at - batch.dropped_at > GOODBYE_S
        unwanted = [str(batch.array)] if late and batch.array and not batch.is_over else requeued
        if unwanted:
            self._in_thread(self._cluster.cancel, unwanted).addErrback(self._unanswered)

    # ------------------------------------------------ facts

    def size(self, function: str, region: str) -> Deferred[Size | Unreached | str]:
        options = self._cluster.options
        if not options.node_hour_usd:
            return succeed("[slurm] node_hour_usd is not set in mu.conf")
        hour_usd = options.node_hour_usd / options.workers_per_node
        return succeed(Size(options.memory_mb, timeout_s=options.time_s, hour_usd=hour_usd))

    def log_of(self, function: str, region: str, since: float) -> Deferred[str]:
        return self._in_thread(self._cluster.last_words, function, since)

    # ------------------------------------------------ threads

    def _in_thread(self, call: Callable[..., T], *args: object) -> "Deferred[T]":
        return deferToThreadPool(self._reactor, self._threads, call, *args)

    def _unanswered(self, failure: Any) -> None:
        """Say once that Slurm does not answer; it is asked again, and nobody counts as dead."""
        failure.trap(SlurmError)
        if not self._silent:
            self.log.warn("Slurm does not answer: {why}", why=str(failure.value))
        self._silent = True

    def _failed(self, failure: Any) -> None:
        self.log.failure("a fault in mu-slurm", failure)


class _DaemonThread(Thread):
    """A thread that does not keep the process alive: a shared file system may never answer."""

    daemon = True


class _Threads(ThreadPool):
    threadFactory = _DaemonThread


def _daemon_id(folder: Path) -> str:
    """Return the id of the daemon with this home, which is made once. Raises ValueError."""
    path = folder / "id"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(f"daemon-{secrets.token_hex(8)}")
        return path.read_text().strip()
    except OSError as error:
        raise ValueError(f"engine slurm cannot use {path}: {error.strerror}") from None
