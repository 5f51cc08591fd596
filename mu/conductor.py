"""Takes each job from its order to its end: plan, launch, deadline, finish."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mu.config import Config
from mu.dealing import first_come, is_order
from mu.events import Finish
from mu.invocations import Accepted, Answer, Invocation, Refused, Throttled, Unknown, Unreached
from mu.jobs import EXTERNAL, Actor, Job, JobBook, JobSpec, Limits
from mu.launch import Engine, invocations, launch_all, new_launch_ids, worker_event
from mu.tls import Authority

CERTIFICATE_MARGIN_S = 600.0


class Conductor:
    """Starts, cancels and ends jobs. `threads` is the pool for what pipelines may block on."""

    log = Logger()

    def __init__(
        self,
        config: Config,
        book: JobBook,
        authority: Authority,
        engines: Mapping[str, Engine],
        threads: Any,
        reactor: Any,
    ) -> None:
        self._config = config
        self._book = book
        self._authority = authority
        self._engines = engines
        self._threads = threads
        self._reactor = reactor
        self._timers: dict[str, list[Any]] = {}
        self.stopping = False
        self.worker_port = 0
        """Where workers find us; known once the port listens."""

    def start(self, spec: JobSpec) -> Job:
        """Begin a job."""
        job = Job(
            secrets.token_hex(6),
            spec,
            uniq=secrets.token_hex(8),
            created=self._reactor.seconds(),
            limits=Limits(
                self._config.worker.log_bytes,
                self._config.worker.max_held,
                self._config.worker.max_info,
            ),
            on_end=self._ended,
        )
        self._book.add(job)
        late = f"the deadline of {spec.deadline_s:g} s has passed"
        self._later(job, spec.deadline_s, job.stop, "failed", late)
        self.log.info(
            "job {job}: {pipeline} with {workers} workers on engine {engine}",
            job=job.id,
            pipeline=spec.pipeline.name,
            workers=spec.workers,
            engine=spec.engine,
        )
        running = Deferred.fromCoroutine(self._run(job))
        running.addErrback(self._broken, job)
        return job

    def event(self, job: Job) -> dict[str, Any]:
        """Return the event of a job's workers, with a certificate made for it now."""
        identity = self._authority.mint_job(job.id, job.spec.deadline_s + CERTIFICATE_MARGIN_S)
        host = self._config.launch.public_host
        return worker_event(job, identity, self._authority.pem, host, self.worker_port)

    def cancel(self, job: Job) -> None:
        """Stop a job: its workers are told to quit, launching stops."""
        job.stop("cancelled", "cancelled by request")

    def stop(self) -> None:
        """Stop all jobs, because the daemon stops, and begin no more."""
        self.stopping = True
        for job in self._book.all():
            job.stop("cancelled", "the coordinator was stopped")

    # ------------------------------------------------ one job's course

    async def _run(self, job: Job) -> None:
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
        if job.stopping:
            return
        job.launches = dict.fromkeys(new_launch_ids(len(spec.actors or inputs)), False)
        job.plan(inputs, order)
        if spec.engine != EXTERNAL:
            await launch_all(
                self._engines[spec.engine],
                invocations(self.event(job), spec.function, spec.regions, job.launches),
                self._config.launch.in_flight,
                self._reactor,
                lambda: job.stopping,
                lambda invocation, answer: self._hear(job, invocation, answer),
            )
            job.launched = self._reactor.seconds()
        if job.stopping:
            return
        job.state = "running"
        if spec.engine != EXTERNAL:
            self._later(job, self._config.launch.hello_timeout_s, self._nobody_came, job)

    def _nobody_came(self, job: Job) -> None:
        launch = self._config.launch
        reason = (
            f"no worker came within {launch.hello_timeout_s:g} s of the last launch: see what the log"
            f" of function {job.spec.function!r} says, and whether workers can reach"
            f" {launch.public_host}:{self.worker_port} (public_host in mu.conf)"
        )
        job.give_up_waiting(reason, self._reactor.seconds())

    def _hear(self, job: Job, invocation: Invocation, answer: Answer) -> None:
        """Note what became of an invocation."""
        job.launch_counts[type(answer).__name__.lower()] += 1
        match answer:
            case Accepted():
                pass
            case Throttled(reason=reason) | Unreached(reason=reason) | Unknown(reason=reason):
                self.log.warn(
                    "job {job}, launch {launch}: {answer}: {reason}",
                    job=job.id,
                    launch=invocation.launch,
                    answer=type(answer).__name__,
                    reason=reason,
                )
            case Refused(reason=reason):
                job.stop("failed", f"engine {job.spec.engine} refused to launch: {reason}")

    def _ended(self, job: Job) -> None:
        ending = Deferred.fromCoroutine(self._end(job))
        ending.addErrback(self._broken, job)

    async def _end(self, job: Job) -> None:
        if job.verdict is not None:
            state, reason = job.verdict
            job.end(state, self._reactor.seconds(), reason)
        else:
            error = job.failures()
            result = None
            outcomes = [_outcome(actor) for actor in job.actors]
            try:
                result = await self._in_thread(job.spec.pipeline.finish, job.facts, outcomes)
                json.dumps(result, allow_nan=False)
            except Exception as raised:  # a pipeline's author may raise anything
                self.log.failure("job {job}: its finish failed", job=job.id)
                error = error or (
                    f"the finish of {job.spec.pipeline.name} failed: {_sentence(raised)}"
                )
                result = None
            if job.ended:  # it was stopped meanwhile
                return
            job.end("failed" if error else "done", self._reactor.seconds(), error, result)
        self._cancel_timers(job)
        self.log.info(
            "job {job} is {state}{why}",
            job=job.id,
            state=job.state,
            why=f": {job.error}" if job.error else "",
        )

    def _later(self, job: Job, seconds: float, call: Any, *args: Any) -> None:
        """Call once the time has passed, unless the job has ended before."""
        timer = self._reactor.callLater(seconds, call, *args)
        self._timers.setdefault(job.id, []).append(timer)

    def _cancel_timers(self, job: Job) -> None:
        for timer in self._timers.pop(job.id, []):
            if timer.active():
                timer.cancel()

    def _in_thread(self, call: Any, *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._threads, call, *args)

    def _broken(self, failure: Any, job: Job) -> None:
        """A fault of ours, or of an engine: say so, and end the job rather than leave it hanging."""
        failure = getattr(failure.value, "subFailure", failure)  # gatherResults wraps it
        self.log.failure("job {job} broke", failure, job=job.id)
        words = f"a fault in mu: {failure.getErrorMessage()}"
        job.stop("failed", words)
        self._cancel_timers(job)
        job.end("failed", self._reactor.seconds(), words)


def _outcome(actor: Actor) -> Finish:
    return Finish(actor.error, actor.result)


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
