"""Runs one job from its order to its end: its plan, launches, time limits and finish."""

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu.jobs.coordinator import Coordinator
from mu.jobs.inquiries import Inquiries
from mu.jobs.job import Job
from mu.jobs.life import JobState
from mu.jobs.plan import checked_plan
from mu.jobs.recovery import Found, recover
from mu.jobs.spec import JobSpec
from mu.jobs.staffing import Staffing
from mu.jobs.worker_event import event_for
from mu.journal.records import Ordered, Planned, Resumed
from mu.plugins import JobFailed
from mu.states.origin import explained, is_deliberate
from mu.strict_json import JSON

CHECK_S = 1.0
"""How often a job checks for launches and actors that take too long."""


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
            coordinator.totals,
            coordinator.output,
        )
        self._timers: dict[str, IDelayedCall] = {}
        self._event: JSON | None = None
        self._staffing = Staffing(coordinator, self.job, self.event, self._broken)
        self._inquiries = Inquiries(coordinator, self.job)
        self._unanswered: Sequence[str] = ()  # launches from before a restart
        self._begun = False
        self._giving_up = False

    # ------------------------------------------------ beginning

    def start(self, plan: Planned | None = None) -> Deferred[Job]:
        """Begin the job; the Deferred fires with the job once its order is on disk.

        `plan` is that of a rerun, which the pipeline does not make again.
        """
        job, spec = self.job, self.job.spec
        ordered = Ordered(job.created, job.uniq, spec.order, spec.key, spec.digest, job.relay)
        job.ledger.record(job.id, ordered)
        if plan is not None:
            job.record(plan)
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
        self._staffing.hold_places()

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
        await self._staffing.look_up()
        if not self._may_begin:
            return
        self._begun = True
        job.begin()
        self.launch(self._unanswered)

    @property
    def _may_begin(self) -> bool:
        return self.job.active and not self._coordinator.stopping

    async def _plan(self) -> Planned | None:
        """Return the pipeline's plan; None: it failed, and the job with it."""
        spec = self.job.spec
        pipeline, most = spec.pipeline, self._coordinator.config.jobs.max_workers
        try:
            inputs = await self._coordinator.in_thread(pipeline.plan, spec.params)
            return checked_plan(spec, inputs, most)
        except Exception as error:  # a pipeline's author may raise anything
            if not is_for_users(error):
                self.log.failure(
                    "job {job}: the plan of {pipeline} failed",
                    job=self.job.id,
                    pipeline=pipeline.name,
                )
            self.job.stop("failed", f"the plan of {pipeline.name} failed: {sentence(error)}")
            return None

    # ------------------------------------------------ for the job

    def changed(self) -> None:
        if self._begun and not self._coordinator.stopping:
            self.job.advance()

    def freed(self, launch_id: str) -> None:
        self._staffing.freed(launch_id)

    def connected(self, launch_id: str) -> None:
        self._staffing.connected(launch_id)
        if self._staffing.holds_back and "canary" not in self._timers:
            self._later("canary", 0, self._move_canary)

    def lost(self, session: str) -> None:
        asking = self._inquiries.lost(session)
        if asking is not None:
            asking.addErrback(self._unanswered_inquiry)

    def _unanswered_inquiry(self, failure: Failure) -> None:
        self.log.failure("job {job}: the engine failed to answer", failure, job=self.job.id)

    def missed(self, launch_id: str) -> bool:
        return self._staffing.missed(launch_id)

    def had_no_place(self, launch_id: str) -> bool:
        return self._staffing.had_no_place(launch_id)

    def waits_for_place(self) -> str:
        return self._staffing.waits_for()

    def launch(self, launches: Sequence[str]) -> None:
        if launches and self._may_begin:
            self._staffing.launch(launches)

    def settled(self) -> None:
        self._staffing.stop()
        self._carry(self._end())

    def over(self) -> None:
        job = self.job
        self.let_go()
        self._event = None  # the job keeps its run
        self._staffing.close()
        self.log.info(
            "job {job} is {state}{why}",
            job=job.id,
            state=job.state,
            why=f": {job.error}" if job.error else "",
        )

    def event(self) -> JSON:
        """Return the event for the job's workers; its certificate is made once."""
        if self._event is None:
            self._event = event_for(self.job, self._coordinator)
        return self._event

    # ------------------------------------------------ time

    def _check(self) -> None:
        self.job.keep_records()
        if not self._move_canary():
            return
        launch = self._coordinator.config.launch
        if self._begun:
            self.job.check(
                f"no worker connected within {launch.hello_timeout_s:g} s of its launch: see the log"
                f" of function {self.job.spec.function!r}, and whether workers can reach"
                f" {self._staffing.address} (public_host in mu.conf)"
            )
        if self.job.active:
            self._staffing.probe()
            if self._begun:
                self._carry(self._staffing.ask_again())
            self._later("check", CHECK_S, self._check)

    def _move_canary(self) -> bool:
        """Return whether the job goes on; else the canary's workers could not connect."""
        self._timers.pop("canary", None)
        region = self._staffing.move_canary() if self._begun and self._may_begin else ""
        if region and not self._giving_up:
            self._giving_up = True
            self._carry(self._give_up(region))
        return not region

    async def _give_up(self, region: str) -> None:
        """Stop the job, unless a worker connects from the region after all."""
        why = await self._staffing.unreached(region)
        self._giving_up = False
        if not self._may_begin:
            return
        if region in self._staffing.unproven:
            self.job.stop("failed", why)
        else:
            self._check()

    def _later(self, timer: str, seconds: float, call: Callable[[], object]) -> None:
        """Call after that time, unless the job has ended by then."""
        self._timers[timer] = self._coordinator.clock.callLater(seconds, call)

    # ------------------------------------------------ the end

    async def _end(self) -> None:
        job, pipeline = self.job, self.job.spec.pipeline
        if job.stopped is not None:
            job.end(job.stopped.state, job.stopped.reason)
            return
        error = job.failures()
        result = None
        outcomes = job.outcomes()
        try:
            try:
                result = await self._coordinator.in_thread(pipeline.finish, job.facts, outcomes)
            except JobFailed as failed:  # it knows better than mu what the job was for
                error, result = str(failed), failed.result
            json.dumps(result, allow_nan=False)
        except Exception as raised:  # a pipeline's author may raise anything
            self.log.failure(
                "job {job}: the finish of {pipeline} failed", job=job.id, pipeline=pipeline.name
            )
            error = error or f"the finish of {pipeline.name} failed: {sentence(raised)}"
            result = None
        if not self._coordinator.stopping:
            job.end("failed" if error else "done", error, result)

    def let_go(self) -> None:
        """Cancel the job's timers and stop launching."""
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self._staffing.stop()

    def _carry(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        """Log a fault in mu or an engine, and fail the job rather than leave it hanging."""
        self.log.failure("job {job}: a fault in mu", failure, job=self.job.id)
        words = f"a fault in mu: {failure.getErrorMessage()}"
        self.job.stop("failed", words)
        self.job.end("failed", words)


def sentence(error: Exception) -> str:
    """Return an error for users; the text of a deliberate ValueError is written for them."""
    return str(error) if is_for_users(error) else explained(error)


def is_for_users(error: Exception) -> bool:
    return isinstance(error, ValueError) and is_deliberate(error)
