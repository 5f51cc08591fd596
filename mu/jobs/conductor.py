"""Starts and cancels jobs, and resumes them after a restart: one Run for each."""

import secrets
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mu.config import Config
from mu.engines.cost import Prices
from mu.in_thread import InThread
from mu.jobs.book import JobBook, PastJob
from mu.jobs.coordinator import Coordinator
from mu.jobs.job import Job
from mu.jobs.launch_watch import LaunchWatch
from mu.jobs.preview import preview
from mu.jobs.recovery import Found
from mu.jobs.rerun import EarlierJob, NoRerun, plan_rerun, read_earlier
from mu.jobs.run import Run
from mu.jobs.spec import JobSpec, Limits
from mu.jobs.summary import JSON, JobSummary
from mu.jobs.timelines import Timelines
from mu.journal.ledger import Ledger, Notification, Past
from mu.journal.records import Ordered, Planned
from mu.net.certificates import Authority
from mu.plugins import Engine
from mu.totals import Totals


class Conductor:
    """Holds the Run of each job that has not ended.

    `in_thread` runs a blocking call in a thread, and returns a Deferred of its result.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        book: JobBook,
        ledger: Ledger,
        authority: Authority,
        engines: Mapping[str, Engine],
        in_thread: InThread,
        clock: IReactorTime,
        totals: Totals | None = None,
    ) -> None:
        self._book = book
        self._runs: dict[str, Run] = {}
        self.coordinator = Coordinator(
            config,
            ledger,
            authority,
            engines,
            clock,
            in_thread,
            _limits(config),
            _prices(config),
            totals=totals or Totals(),
        )
        self.timelines = Timelines(ledger, clock, in_thread)
        self.watch = LaunchWatch(lambda: [run.job for run in self._runs.values()])

    def reload(self, config: Config) -> None:
        """Take a new configuration for the jobs that begin from now on."""
        self.coordinator.config = config
        self.coordinator.limits = _limits(config)
        self.coordinator.prices = _prices(config)

    @property
    def stopping(self) -> bool:
        """Whether the daemon is shutting down, so that no job may begin."""
        return self.coordinator.stopping

    async def earlier(self, job_id: str) -> EarlierJob:
        """Return a job that has ended, from the journal. Raises NoRerun."""
        job = self._book.get(job_id)
        if job is None or not job.recorded:
            raise NoRerun(f"there is no job {job_id!r:.200}: it was dropped, or never ordered here")
        if not job.ended:
            raise NoRerun(f"job {job_id} still runs: wait for its end, or cancel it")
        state, ledger = job.describe()["state"], self.coordinator.ledger
        if not ledger.keeps:
            raise NoRerun("there is no journal to rerun from: [journal] enabled = no")
        earlier: EarlierJob = await self.coordinator.in_thread(
            lambda: read_earlier(job_id, state, ledger.lines(job_id))
        )
        return earlier

    async def plan_rerun(self, spec: JobSpec, earlier: EarlierJob) -> Planned:
        """Return the plan of a job that reruns what failed in an earlier one. Raises NoRerun."""
        try:
            plan: Planned = await self.coordinator.in_thread(plan_rerun, spec, earlier)
            return plan
        except NoRerun as refused:
            if refused.__cause__ is not None:  # the pipeline's code is wrong
                self.log.failure("the rerun of job {job} failed", job=earlier.id)
            raise

    def start(self, spec: JobSpec, plan: Planned | None = None) -> Deferred[Job]:
        """Begin a job; the Deferred fires with it once its order is on disk.

        `plan` is that of a rerun.
        """
        job_id, uniq = secrets.token_hex(6), secrets.token_hex(8)
        run = self._add(Run(self.coordinator, job_id, spec, uniq, self.coordinator.relay))
        self.log.info(
            "job {job}: {pipeline} with {workers} workers on engine {engine}{rerun}",
            job=job_id,
            pipeline=spec.pipeline.name,
            workers=spec.workers,
            engine=spec.engine,
            rerun=f", a rerun of job {spec.rerun}" if spec.rerun else "",
        )
        return run.start(plan)

    def recorded(self, job: Job) -> Deferred[None]:
        """Return a Deferred that fires once a job's order is on disk."""
        recorded: Deferred[None] = Deferred()
        if job.recorded:
            recorded.callback(None)
        else:
            self.coordinator.ledger.on_disk(recorded.callback, None)
        return recorded

    def event(self, job: Job) -> JSON:
        """Return the Lambda event for a job's workers."""
        return self._runs[job.id].event()

    def preview(self, spec: JobSpec, plan: Planned | None) -> Coroutine[Any, Any, JSON]:
        """Return what an order would start; `plan` is that of a rerun. Raises PlanError."""
        return preview(self.coordinator, spec, plan)

    def cancel(self, job: Job) -> Deferred[None]:
        """Stop a job's workers and launches; the Deferred fires once the job has ended."""
        job.stop("cancelled", "cancelled by request")
        return job.when_over()

    def stop(self, keep: bool) -> None:
        """Begin nothing more: the daemon is stopping. Keep jobs for the next start, or cancel."""
        self.coordinator.stopping = True
        for run in list(self._runs.values()):
            if keep:
                run.let_go()
            else:
                run.job.stop("cancelled", "the coordinator was stopped")

    # ------------------------------------------------ after a restart

    def restore(self, found: Iterable[Found], stopped_at: float) -> None:
        """Restore the jobs of a journal; its last daemon was running until about `stopped_at`."""
        for one in found:
            ordered = one.ordered
            run = Run(self.coordinator, one.id, one.spec, ordered.uniq, ordered.relay, ordered.at)
            try:
                run.restore(one, stopped_at)
            except Exception:  # no version of mu writes such records
                self.log.failure("job {job} cannot resume", job=one.id)
                self.bury(
                    one.id, ordered, "its records in the journal are damaged; the log says more"
                )
            else:
                self._add(run)
                self.coordinator.totals.ended_usd -= run.job.cost_usd or 0.0

    def bury(self, job_id: str, ordered: Ordered | None, reason: str) -> None:
        """End a job from the journal as failed, because it cannot resume."""
        self.log.error("job {job} cannot resume: {reason}", job=job_id, reason=reason)
        now = self.coordinator.clock.seconds()
        order = ordered.order if ordered and isinstance(ordered.order, dict) else {}
        summary = JobSummary(
            id=job_id,
            name=order.get("name", ""),
            pipeline=order.get("pipeline", ""),
            workers=order.get("workers", 0),
            state="failed",
            created=ordered.at if ordered else now,
            finished=now,
            params=order.get("params", {}),
            engine=order.get("engine", ""),
            function=order.get("function", ""),
            spares=order.get("spares", 0),
            retries=order.get("retries", 0),
            error=f"it cannot resume after the coordinator's restart: {reason}",
        )
        key, body = (ordered.key, ordered.digest) if ordered else ("", "")
        url = order.get("notify_url", "")
        past = Past.of(now, summary.json(), [], key, body, url)
        self.coordinator.ledger.end(job_id, past)
        if url:
            told = Notification(job_id, url, now)
            self.coordinator.ledger.on_disk(self.coordinator.notify, told)
        self.coordinator.totals.jobs["failed"] += 1
        self._book.add(PastJob(past.told, past.identity, lambda _: "[]"))

    @property
    def running(self) -> set[str]:
        """The ids of the jobs that have not ended."""
        return set(self._runs)

    def resume(self) -> None:
        """Resume the restored jobs."""
        for run in list(self._runs.values()):
            run.resume()

    def _ended(self, job: Job) -> None:
        totals = self.coordinator.totals
        totals.jobs[job.state] += 1
        totals.ended_usd += job.cost_usd or 0.0
        if job.spec.notify_url and job.finished is not None:
            self.coordinator.notify(Notification(job.id, job.spec.notify_url, job.finished))
        del self._runs[job.id]
        self.coordinator.output.end(job.id)

    def _add(self, run: Run) -> Run:
        job = run.job
        self._runs[job.id] = run
        job.when_over().addCallback(lambda _: self._ended(job))
        self._book.add(job)
        return run


def _limits(config: Config) -> Limits:
    return Limits(
        max_held=config.worker.max_held,
        max_info=config.worker.max_info,
        attempt_bytes=config.journal.max_attempt_bytes,
        job_bytes=config.journal.max_job_bytes,
        hold_s=config.worker.hold_s,
        blocked_s=config.jobs.blocked_s,
        retry_pause_s=config.jobs.retry_pause_s,
        hello_s=config.launch.hello_timeout_s,
        accept_s=config.launch.accept_timeout_s,
        reconnect_s=config.worker.reconnect_s,
        ahead_s=config.launch.ahead_s,
    )


def _prices(config: Config) -> Prices:
    return Prices(
        {"x86_64": config.cost.x86_gb_s_usd, "arm64": config.cost.arm_gb_s_usd},
        config.cost.request_usd,
    )
