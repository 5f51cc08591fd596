"""Takes each job from its order to its end: plan, launch, deadline, finish; and on after a restart."""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mu.config import Config
from mu.engines.cost import Prices
from mu.events import Finish
from mu.invocations import Accepted, Answer, Invocation, Refused, Throttled, Unknown, Unreached
from mu.jobs.actors import Actor
from mu.jobs.book import JobBook, PastJob
from mu.jobs.job import Job
from mu.jobs.launches import Launch
from mu.jobs.recovery import Found, recover
from mu.jobs.run import worker_event
from mu.jobs.spec import EXTERNAL, JobSpec, Limits
from mu.journal.ledger import Ledger, Past
from mu.journal.records import Ordered, Planned, Resumed
from mu.launch import Launcher, invocations
from mu.net.certificates import Authority
from mu.pipelines.dealing import first_come, is_order
from mu.plugins import Engine

CERTIFICATE_MARGIN_S = 600.0
CHECK_S = 1.0
"""How often jobs are looked at for launches and actors that take too long."""


class Conductor:
    """Starts, cancels and ends jobs. `threads` is the pool for what pipelines may block on."""

    log = Logger()

    def __init__(
        self,
        config: Config,
        book: JobBook,
        ledger: Ledger,
        authority: Authority,
        engines: Mapping[str, Engine],
        threads: Any,
        reactor: Any,
    ) -> None:
        self._config = config
        self._book = book
        self._ledger = ledger
        self._authority = authority
        self._engines = engines
        self._threads = threads
        self._reactor = reactor
        self._timers: dict[str, list[Any]] = {}
        self._launchers: dict[str, Launcher] = {}
        self._events: dict[str, dict[str, Any]] = {}
        self._resuming: dict[Job, dict[str, Launch]] = {}
        self._limits = Limits(
            log_bytes=config.worker.log_bytes,
            max_held=config.worker.max_held,
            max_info=config.worker.max_info,
            hold_s=config.worker.hold_s,
            retry_pause_s=config.jobs.retry_pause_s,
            hello_s=config.launch.hello_timeout_s,
            accept_s=config.launch.accept_timeout_s,
        )
        self.stopping = False
        self.worker_port = 0
        """Where workers find us; known once the port listens."""
        self.relay = ""
        """HOST:PORT of the relay, if there is one."""

    def start(self, spec: JobSpec) -> Deferred[Job]:
        """Begin a job; the Deferred fires with it once it is on disk."""
        job = self._job(secrets.token_hex(6), spec, secrets.token_hex(8), self.relay)
        ordered = Ordered(job.created, job.uniq, spec.order, spec.key, spec.digest, job.relay)
        self._ledger.record(job.id, ordered)
        self._book.add(job)
        self.log.info(
            "job {job}: {pipeline} with {workers} workers on engine {engine}",
            job=job.id,
            pipeline=spec.pipeline.name,
            workers=spec.workers,
            engine=spec.engine,
        )
        told: Deferred[Job] = Deferred()
        self._ledger.on_disk(self._recorded, job, told)
        return told

    def event(self, job: Job) -> dict[str, Any]:
        """Return the event of a job's workers, with a certificate that is made for it once."""
        event = self._events.get(job.id)
        if event is None:
            identity = self._authority.mint_job(job.id, job.spec.deadline_s + CERTIFICATE_MARGIN_S)
            host, reconnect_s = self._config.launch.public_host, self._config.worker.reconnect_s
            event = self._events[job.id] = worker_event(
                job, identity, self._authority.pem, host, self.worker_port, reconnect_s
            )
        return event

    def cancel(self, job: Job) -> Deferred[None]:
        """Stop a job: its workers are told to quit, launching stops. Fires once it is over."""
        job.stop("cancelled", "cancelled by request")
        return job.when_over()

    def stop(self, keep: bool) -> None:
        """Begin no more, because the daemon stops; the jobs are kept for the next, or cancelled."""
        self.stopping = True
        for job in self._book.live():
            if keep:
                self._let_go(job)
            else:
                job.stop("cancelled", "the coordinator was stopped")

    # ------------------------------------------------ after a restart

    def restore(self, found: Iterable[Found], stopped_at: float) -> None:
        """Take up the jobs that a journal has, which a coordinator left at `stopped_at`."""
        now = self._reactor.seconds()
        for one in found:
            ordered = one.ordered
            job = self._job(one.id, one.spec, ordered.uniq, ordered.relay, ordered.at)
            job.recorded = True
            self._book.add(job)
            try:
                recover(job, one.records, stopped_at)
                job.downtime += now - stopped_at
                self._ledger.record(job.id, Resumed(now, stopped_at))
                self._resuming[job] = job.restored()
            except Exception:  # records that no mu writes
                self.log.failure("job {job} cannot go on", job=job.id)
                job.end("failed", "its records in the journal cannot be read; the log says more")

    def bury(self, job_id: str, ordered: Ordered | None, reason: str) -> None:
        """Note that a job of the journal cannot go on."""
        self.log.error("job {job} cannot go on: {reason}", job=job_id, reason=reason)
        now = self._reactor.seconds()
        order = ordered.order if ordered else {}
        told = {
            "id": job_id,
            "pipeline": order.get("pipeline", ""),
            "workers": order.get("workers", 0),
            "state": "failed",
            "counts": dict.fromkeys(("waiting", "running", "done", "failed"), 0),
            "created": ordered.at if ordered else now,
            "finished": now,
            "params": order.get("params", {}),
            "error": f"after the coordinator's restart it cannot go on: {reason}",
            "cost_usd": None,
            "result": None,
        }
        key, body = (ordered.key, ordered.digest) if ordered else ("", "")
        identity = json.dumps({"key": key, "digest": body})
        self._ledger.end(job_id, Past(now, json.dumps(told), "[]", identity))
        self._book.add(PastJob(json.dumps(told), identity, lambda _: "[]"))

    def resume(self) -> None:
        """Go on with the jobs that were restored."""
        for job, unanswered in self._resuming.items():
            self.log.info("job {job} goes on", job=job.id)
            if job.verdict is not None:
                self._ended(job)
                continue
            self._watch(job)
            if not job.actors:
                self._begin(job)
            elif job.settling:
                job.settle()
            else:
                job.begin()
                self._launch(job, unanswered)
        self._resuming.clear()

    # ------------------------------------------------ one job's course

    def _job(
        self, job_id: str, spec: JobSpec, uniq: str, relay: str, created: float | None = None
    ) -> Job:
        job = Job(job_id, spec, uniq, self._reactor, self._ledger, self._limits, created, relay)
        job.on_end = self._ended
        job.on_need = self._launch
        job.on_over = self._over
        cost = self._config.cost
        job.prices = Prices(
            {"x86_64": cost.x86_gb_s_usd, "arm64": cost.arm_gb_s_usd}, cost.request_usd
        )
        return job

    def _recorded(self, job: Job, told: Deferred[Job]) -> None:
        job.recorded = True
        told.callback(job)
        if not self.stopping:
            self._watch(job)
            self._begin(job)

    def _watch(self, job: Job) -> None:
        """Look after its time limits."""
        spent = self._reactor.seconds() - job.created - job.downtime
        late = f"the deadline of {job.spec.deadline_s:g} s has passed"
        self._later(job, max(0.0, job.spec.deadline_s - spent), job.stop, "failed", late)
        self._later(job, CHECK_S, self._check, job)

    def _check(self, job: Job) -> None:
        launch = self._config.launch
        job.check(
            f"no worker came within {launch.hello_timeout_s:g} s of its launch: see what the log"
            f" of function {job.spec.function!r} says, and whether workers can reach"
            f" {launch.public_host}:{self.worker_port} (public_host in mu.conf)"
        )
        if not job.stopping:
            self._timers[job.id] = [call for call in self._timers[job.id] if call.active()]
            self._later(job, CHECK_S, self._check, job)

    def _begin(self, job: Job) -> None:
        beginning = Deferred.fromCoroutine(self._plan(job))
        beginning.addErrback(self._broken, job)

    async def _plan(self, job: Job) -> None:
        spec = job.spec
        try:
            inputs = await self._in_thread(spec.pipeline.plan, spec.params)
            _check_plan(inputs, self._config.jobs.max_workers, spec.actors)
            order = _order(spec.pipeline, spec.params, len(inputs))
        except Exception as error:  # a pipeline's author may raise anything
            if not isinstance(error, ValueError):  # which is for people, and says all
                self.log.failure("job {job}: its plan failed", job=job.id)
            job.stop("failed", f"the plan of {spec.pipeline.name} failed: {_sentence(error)}")
            return
        if job.stopping or self.stopping:
            return
        self._ledger.record(job.id, Planned(inputs, order))
        job.plan(inputs, order)
        await self._measure(job)
        if job.stopping or self.stopping:
            return
        job.begin()
        if spec.engine == EXTERNAL:
            job.state = "running"

    async def _measure(self, job: Job) -> None:
        """Find out what counts for the job's cost, if its engine can tell."""
        spec = job.spec
        measure = getattr(self._engines.get(spec.engine), "size", None)
        why = f"engine {spec.engine} does not tell what its functions are like"
        if measure is not None:
            sizes = {}
            for region in dict.fromkeys(spec.regions):
                size = await measure(spec.functions[0], region)
                if isinstance(size, str):
                    why = f"what function {spec.functions[0]} is like in {region} is not known: {size}"
                    break
                sizes[region] = size
            else:
                job.measure(sizes)
                return
        if spec.max_cost_usd:
            job.stop("failed", f"max_cost_usd cannot be kept: {why}")
        elif spec.engine != EXTERNAL:
            self.log.warn("job {job}: its cost is not counted: {why}", job=job.id, why=why)

    def _launch(self, job: Job, launches: Mapping[str, Launch]) -> None:
        if not launches or job.stopping or self.stopping:
            return
        launcher = self._launchers.get(job.id)
        if launcher is None:
            launcher = self._launchers[job.id] = Launcher(
                self._engines[job.spec.engine],
                self._config.launch.in_flight,
                self._reactor,
                lambda invocation, answer: self._hear(job, invocation, answer),
                lambda: self._all_launched(job),
                lambda failure: self._broken(failure, job),
            )
        spec = job.spec
        numbered = [(name, launch.number) for name, launch in launches.items()]
        launcher.add(invocations(self.event(job), spec.functions, spec.regions, numbered))

    def _all_launched(self, job: Job) -> None:
        job.launched = job.launched or self._reactor.seconds()
        if not job.stopping:
            job.state = "running"

    def _hear(self, job: Job, invocation: Invocation, answer: Answer) -> None:
        """Note what became of an invocation."""
        name = answer.kind
        job.launch_counts[name] += 1
        match answer:
            case Throttled(reason=reason) | Unreached(reason=reason) | Unknown(reason=reason):
                self.log.warn(
                    "job {job}, launch {launch}: {answer}: {reason}",
                    job=job.id,
                    launch=invocation.launch,
                    answer=name,
                    reason=reason,
                )
            case Refused(reason=reason):
                job.stop("failed", f"engine {job.spec.engine} refused to launch: {reason}")
        if isinstance(answer, Accepted | Unknown) and not job.stopping:
            job.answered(invocation.launch, name)

    def _ended(self, job: Job) -> None:
        if job.id in self._launchers:
            self._launchers[job.id].stop()
        ending = Deferred.fromCoroutine(self._end(job))
        ending.addErrback(self._broken, job)

    async def _end(self, job: Job) -> None:
        if job.verdict is not None:
            job.end(*job.verdict)
            return
        error = job.failures() if job.counts["failed"] > job.spec.tolerate else None
        result = None
        outcomes = [_outcome(actor) for actor in job.actors]
        try:
            result = await self._in_thread(job.spec.pipeline.finish, job.facts, outcomes)
            json.dumps(result, allow_nan=False)
        except Exception as raised:  # a pipeline's author may raise anything
            self.log.failure("job {job}: its finish failed", job=job.id)
            error = error or f"the finish of {job.spec.pipeline.name} failed: {_sentence(raised)}"
            result = None
        if not self.stopping:
            job.end("failed" if error else "done", error, result)

    def _over(self, job: Job) -> None:
        self._let_go(job)
        self.log.info(
            "job {job} is {state}{why}",
            job=job.id,
            state=job.state,
            why=f": {job.error}" if job.error else "",
        )

    def _let_go(self, job: Job) -> None:
        """Do nothing more for a job."""
        for timer in self._timers.pop(job.id, []):
            if timer.active():
                timer.cancel()
        launcher = self._launchers.pop(job.id, None)
        if launcher is not None:
            launcher.stop()
        self._events.pop(job.id, None)

    def _later(self, job: Job, seconds: float, call: Any, *args: Any) -> None:
        """Call once the time has passed, unless the job has ended before."""
        timer = self._reactor.callLater(seconds, call, *args)
        self._timers.setdefault(job.id, []).append(timer)

    def _in_thread(self, call: Any, *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._threads, call, *args)

    def _broken(self, failure: Any, job: Job) -> None:
        """A fault of ours, or of an engine: say so, and end the job rather than leave it hanging."""
        self.log.failure("job {job} broke", failure, job=job.id)
        words = f"a fault in mu: {failure.getErrorMessage()}"
        job.stop("failed", words)
        job.end("failed", words)


def _outcome(actor: Actor) -> Finish:
    assert actor.outcome is not None
    return actor.outcome


def _check_plan(inputs: Any, most: int, actors: Sequence[int]) -> None:
    if not isinstance(inputs, list) or not all(isinstance(given, dict) for given in inputs):
        raise TypeError(f"plan must return a list of dicts, one for each actor, not {inputs!r:.80}")
    if not inputs:
        raise ValueError("there is nothing to do: it gives no actor any input")
    if len(inputs) > most:
        raise ValueError(f"it asks for {len(inputs)} actors; max_workers is {most}")
    if actors and max(actors) >= len(inputs):
        raise ValueError(f"actor {max(actors)} was asked for; it has 0 to {len(inputs) - 1}")


def _order(pipeline: Any, params: Any, actors: int) -> list[int]:
    """Return the order in which actors get workers: the pipeline's own, or first come."""
    if not hasattr(pipeline, "order"):
        return first_come(actors)
    order = pipeline.order(params, actors)
    if not is_order(order, actors):
        raise ValueError(f"its order must name each actor once; {order!r:.200} came")
    return list(order)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
