"""Runs one job from its order to its end: its plan, launches, time limits and finish."""

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu.config import Config
from mu.engines.cost import Prices
from mu.hosts import join
from mu.invocations import Accepted, Answer, Invocation, Refused, Size, Unknown, region_of
from mu.jobs.job import Job
from mu.jobs.life import JobState
from mu.jobs.recovery import Found, recover
from mu.jobs.spec import JobSpec, Limits
from mu.jobs.summary import JSON
from mu.journal.ledger import Ledger
from mu.journal.records import Ordered, Planned, Resumed
from mu.launch import Launcher, invocations
from mu.net.certificates import SERVER_NAME, Authority, Identity
from mu.parameters import Params
from mu.pipelines.dealing import is_order
from mu.places import FIRST, Places, RegionPlaces
from mu.plugins import Engine, Pipeline

CERTIFICATE_MARGIN_S = 86400.0
"""How long a job's certificate outlives its deadline: clocks differ, and are set."""
CHECK_S = 1.0
"""How often a job checks for launches and actors that take too long."""


@dataclass(slots=True)
class Coordinator:
    """What all jobs of a daemon share."""

    config: Config
    ledger: Ledger
    authority: Authority
    engines: Mapping[str, Engine]
    clock: IReactorTime
    in_thread: Callable[..., Deferred[Any]]
    """Runs a call that may block in a thread; the Deferred fires with its result."""
    limits: Limits
    prices: Prices
    stopping: bool = False
    """Whether the daemon is shutting down: nothing new begins."""
    worker_port: int = 0
    """The port that workers connect to; 0: it does not listen yet."""
    relay: str = ""
    """HOST:PORT of the relay; empty: there is none."""
    places: Places = field(default_factory=Places)
    """How many workers each engine runs at once, for all jobs."""


class Run:
    """Takes one job from its order to its end."""

    log = Logger()

    def __init__(
        self,
        coordinator: Coordinator,
        job_id: str,
        spec: JobSpec,
        uniq: str,
        relay: str,
        created: float | None = None,
    ) -> None:
        self._coordinator = coordinator
        self.job = Job(
            job_id,
            spec,
            uniq,
            coordinator.clock,
            self,
            coordinator.ledger,
            coordinator.limits,
            created,
            relay,
            coordinator.prices,
        )
        self._timers: dict[str, IDelayedCall] = {}
        self._launcher: Launcher | None = None
        self._event: JSON | None = None
        self._unanswered: Sequence[str] = ()  # launches from before a restart
        self._begun = False

    # ------------------------------------------------ beginning

    def start(self) -> Deferred[Job]:
        """Begin the job; the Deferred fires with the job once its order is on disk."""
        job, spec = self.job, self.job.spec
        ordered = Ordered(job.created, job.uniq, spec.order, spec.key, spec.digest, job.relay)
        job.ledger.record(job.id, ordered)
        started: Deferred[Job] = Deferred()
        job.ledger.on_disk(self._recorded, started)
        return started

    def _recorded(self, started: Deferred[Job]) -> None:
        self.job.order_recorded()
        started.callback(self.job)
        if self._may_begin:
            self._begin()

    def restore(self, found: Found, stopped_at: float) -> None:
        """Recover the job from its records. Raises LookupError, TypeError, ValueError."""
        self.job.order_recorded()
        self.job.allowance.left -= found.event_bytes
        recover(self.job, found.records, stopped_at)
        self.job.record(Resumed(self._coordinator.clock.seconds(), stopped_at))
        self._unanswered = self.job.restart()
        for launch_id, connected in self.job.workers_expected():
            self._places_of(launch_id).hold(launch_id, connected)

    def resume(self) -> None:
        """Resume a restored job."""
        self.log.info("job {job} resumes", job=self.job.id)
        if self.job.life is JobState.STOPPING:
            self.settled()
        else:
            self._begin()

    def _begin(self) -> None:
        job, deadline_s = self.job, self.job.spec.deadline_s
        spent = self._coordinator.clock.seconds() - job.created - job.downtime
        late = f"the deadline of {deadline_s:g} s has passed"
        self._later("deadline", max(0.0, deadline_s - spent), lambda: job.stop("failed", late))
        self._later("check", CHECK_S, self._check)
        self._carry(self._plan_and_launch())

    async def _plan_and_launch(self) -> None:
        job = self.job
        if not job.planned:
            planned = await self._plan()
            if planned is None or not self._may_begin:
                return
            job.record(planned)
        if (
            not job.bill.counts and not job.launches
        ):  # later, only a part of the cost would be counted
            await self._measure()
        await self._find_limits()
        if not self._may_begin:
            return
        self._begun = True
        job.begin()
        self.launch(self._unanswered, FIRST)

    @property
    def _may_begin(self) -> bool:
        return self.job.active and not self._coordinator.stopping

    async def _plan(self) -> Planned | None:
        """Return the pipeline's plan; None: it failed, and the job with it."""
        spec = self.job.spec
        pipeline, most = spec.pipeline, self._coordinator.config.jobs.max_workers
        try:
            inputs, sizes = await self._coordinator.in_thread(_planned, pipeline, spec, most)
            order = _order(pipeline, spec.params, len(inputs))
            return Planned(inputs, order, sizes)
        except Exception as error:  # a pipeline's author may raise anything
            if not isinstance(error, ValueError):  # whose text is written for users
                self.log.failure("job {job}: its plan failed", job=self.job.id)
            self.job.stop("failed", f"the plan of {pipeline.name} failed: {_sentence(error)}")
            return None

    async def _measure(self) -> None:
        """Ask the engine for the sizes of the job's functions, which determine its cost."""
        job, spec = self.job, self.job.spec
        engine = self._coordinator.engines.get(spec.engine)
        if engine is None:  # external
            return
        sizes: dict[str, Size] = {}
        for region in dict.fromkeys(spec.regions):
            size = await engine.size(spec.functions[0], region)
            if isinstance(size, str):
                why = f"the size of function {spec.functions[0]} in {region} is unknown: {size}"
                if spec.max_cost_usd:
                    job.stop("failed", f"max_cost_usd cannot be kept: {why}")
                self.log.warn("job {job}: its cost is not counted: {why}", job=job.id, why=why)
                return
            sizes[region] = size
        if job.active:
            job.measure(sizes)

    async def _find_limits(self) -> None:
        """Ask the engine how many workers it runs at once."""
        job, spec = self.job, self.job.spec
        engine = self._coordinator.engines.get(spec.engine)
        if engine is None:  # external
            return
        limits = []
        for region in dict.fromkeys(spec.regions):
            limit = await engine.concurrency(spec.functions[0], region)
            limits.append(limit)
            places = self._coordinator.places.of(spec.engine, region)
            places.growth = engine.growth
            if limit is not None:
                places.tell(limit)
        most = sum(limit or 0 for limit in limits)
        if spec.pipeline.all_at_once and None not in limits and most < len(job.actors):
            job.stop(
                "failed",
                f"{spec.pipeline.name} needs all of its {len(job.actors)} actors at once, but engine"
                f" {spec.engine} runs at most {most} workers",
            )

    # ------------------------------------------------ for the job

    def changed(self) -> None:
        if self._begun and not self._coordinator.stopping:
            self.job.advance()

    def freed(self, launch_id: str) -> None:
        if launch_id in self.job.launches:
            self._places_of(launch_id).free(launch_id)

    def connected(self, launch_id: str) -> None:
        if launch_id in self.job.launches:
            self._places_of(launch_id).connected(launch_id)

    def missed(self, launch_id: str) -> bool:
        return self._places_of(launch_id).miss(launch_id, self._coordinator.clock.seconds())

    def waits_for_place(self) -> str:
        for region in dict.fromkeys(self.job.spec.regions):
            places = self._coordinator.places.of(self.job.spec.engine, region)
            if places.full and self._launcher and self._launcher.wanted(region) is not None:
                return f"a place: {places}"
        return ""

    def _places_of(self, launch_id: str) -> RegionPlaces:
        spec, number = self.job.spec, self.job.launches[launch_id].number
        return self._coordinator.places.of(spec.engine, region_of(number, spec.regions))

    def launch(self, launches: Sequence[str], urgency: int) -> None:
        job, coordinator = self.job, self._coordinator
        if not launches or not self._may_begin:
            return
        if self._launcher is None:
            self._launcher = Launcher(
                coordinator.engines[job.spec.engine],
                coordinator.config.launch.in_flight,
                coordinator.clock,
                self._hear,
                self._broken,
                lambda invocation: job.invoked(invocation.launch),
                lambda region: coordinator.places.of(job.spec.engine, region),
                coordinator.config.launch.outage_s,
            )
        numbered = [(name, job.launches[name].number) for name in launches]
        spec = job.spec
        made = invocations(self.event(), spec.functions, spec.regions, numbered)
        self._launcher.add(made, urgency)

    def settled(self) -> None:
        if self._launcher is not None:
            self._launcher.stop()
        self._carry(self._end())

    def over(self) -> None:
        job = self.job
        self.let_go()
        self._launcher = self._event = None  # the job keeps its run
        for launch_id in job.launches:
            self.freed(launch_id)
        self.log.info(
            "job {job} is {state}{why}",
            job=job.id,
            state=job.state,
            why=f": {job.error}" if job.error else "",
        )

    # ------------------------------------------------ launches

    def event(self) -> JSON:
        """Return the event for the job's workers; its certificate is made once."""
        if self._event is None:
            job, coordinator = self.job, self._coordinator
            config = coordinator.config
            life_s = job.spec.deadline_s + CERTIFICATE_MARGIN_S
            self._event = worker_event(
                job,
                coordinator.authority.mint_job(job.id, life_s),
                coordinator.authority.pem,
                config.launch.public_host,
                coordinator.worker_port,
                config.worker.reconnect_s,
            )
        return self._event

    def _hear(self, invocation: Invocation, answer: Answer) -> None:
        """Handle an engine's answer."""
        job = self.job
        if isinstance(answer, Accepted | Unknown):
            job.answered(invocation.launch, answer.kind)
        else:
            job.count(answer.kind)
        if isinstance(answer, Refused):
            job.stop("failed", f"engine {job.spec.engine} refused to launch: {answer.reason}")
        elif not isinstance(answer, Accepted):
            self.log.warn(
                "job {job}, launch {launch}: {answer}: {reason}",
                job=job.id,
                launch=invocation.launch,
                answer=answer.kind,
                reason=answer.reason,
            )

    # ------------------------------------------------ time

    def _check(self) -> None:
        launch = self._coordinator.config.launch
        address = join(launch.public_host, self._coordinator.worker_port)
        self.job.check(
            f"no worker connected within {launch.hello_timeout_s:g} s of its launch: see the log"
            f" of function {self.job.spec.function!r}, and whether workers can reach"
            f" {address} (public_host in mu.conf)"
        )
        if self.job.active:
            now = self._coordinator.clock.seconds()
            for region in dict.fromkeys(self.job.spec.regions):
                places = self._coordinator.places.of(self.job.spec.engine, region)
                places.probe(now, launch.hello_timeout_s)
            self._later("check", CHECK_S, self._check)

    def _later(self, timer: str, seconds: float, call: Callable[[], object]) -> None:
        """Call after that time, unless the job has ended by then."""
        self._timers[timer] = self._coordinator.clock.callLater(seconds, call)

    # ------------------------------------------------ the end

    async def _end(self) -> None:
        job, pipeline = self.job, self.job.spec.pipeline
        if job.stopped is not None:
            job.end(job.stopped.state, job.stopped.reason)
            return
        error = job.failures() if job.counts["failed"] > job.spec.tolerate else None
        result = None
        outcomes = [actor.outcome for actor in job.actors]
        try:
            result = await self._coordinator.in_thread(pipeline.finish, job.facts, outcomes)
            json.dumps(result, allow_nan=False)
        except Exception as raised:  # a pipeline's author may raise anything
            self.log.failure("job {job}: its finish failed", job=job.id)
            error = error or f"the finish of {pipeline.name} failed: {_sentence(raised)}"
            result = None
        if not self._coordinator.stopping:
            job.end("failed" if error else "done", error, result)

    def let_go(self) -> None:
        """Cancel the job's timers and stop launching."""
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
        if self._launcher is not None:
            self._launcher.stop()

    def _carry(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        """Log a fault in mu or an engine, and fail the job rather than leave it hanging."""
        self.log.failure("job {job}: a fault in mu", failure, job=self.job.id)
        words = f"a fault in mu: {failure.getErrorMessage()}"
        self.job.stop("failed", words)
        self.job.end("failed", words)


def worker_event(
    job: Job, identity: Identity, cacert: str, host: str, port: int, reconnect_s: float
) -> JSON:
    """Return the event for a job's workers, without the launch id."""
    spec = job.spec
    event: JSON = {
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
        "relay_ext": 1,
    }
    if "bucket" in spec.params:
        event["bucket"] = spec.params["bucket"]
    return event | dict(spec.event)


def _check_plan(inputs: object, most: int, actors: Sequence[int]) -> None:
    """Raise TypeError or ValueError for a plan that cannot be carried out."""
    if not isinstance(inputs, list) or not all(isinstance(given, dict) for given in inputs):
        raise TypeError(
            f"plan() must return a list of dicts, one for each actor, not {inputs!r:.80}"
        )
    if not inputs:
        raise ValueError("there is nothing to do: the plan has no actors")
    if len(inputs) > most:
        raise ValueError(f"it has {len(inputs)} actors, but max_workers is {most}")
    if actors and max(actors) >= len(inputs):
        raise ValueError(
            f"actor {max(actors)} was ordered, but it has only actors 0 to {len(inputs) - 1}"
        )


def _planned(pipeline: Pipeline, spec: JobSpec, most: int) -> tuple[list[JSON], list[int]]:
    """Return the plan, and how many inputs each actor has; empty: one each. Runs in a thread."""
    inputs = pipeline.plan(spec.params)
    _check_plan(inputs, most, spec.actors)
    sizes = [len(pipeline.inputs(given)) for given in inputs]
    return inputs, sizes if any(size != 1 for size in sizes) else []


def _order(pipeline: Pipeline, params: Params, actors: int) -> list[int]:
    """Return the order in which actors get workers."""
    order = pipeline.order(params, actors)
    if not is_order(order, actors):
        raise ValueError(f"order() must name each actor once, got {order!r:.200}")
    return list(order)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
