"""Starts one job's workers: asks its engine what it can run, and launches no more than that."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu import hosts
from mu.aws.proxies import is_loopback
from mu.invocations import Accepted, Answer, Invocation, Refused, Size, Unknown, region_of
from mu.jobs.canary import Canary
from mu.jobs.coordinator import Coordinator
from mu.jobs.engine_facts import find_sizes
from mu.jobs.job import Job
from mu.jobs.job_places import JobPlaces
from mu.jobs.launches import LATE
from mu.jobs.reached import Way
from mu.jobs.unseen import longest_s
from mu.launch import Launcher, invocations
from mu.places import RegionPlaces
from mu.plugins import Engine
from mu.strict_json import JSON

LISTENS_HERE = ("0.0.0.0", "::")


class Staffing:
    """The launches of one job: its launcher, its places, and the canary that goes ahead.

    `event` returns the workers' event. `broken` is called with a Failure for a fault in mu or the
    engine.
    """

    log = Logger()

    def __init__(
        self,
        coordinator: Coordinator,
        job: Job,
        event: Callable[[], JSON],
        broken: Callable[[Failure], None],
    ) -> None:
        self._coordinator = coordinator
        self._job = job
        self._event = event
        self._broken = broken
        self._launcher: Launcher | None = None
        self._places = JobPlaces(coordinator, job)
        self._versions: dict[str, str] = {}  # of the function, by region, where they are known
        self._noted: set[str] = set()
        self._canary = Canary((), ())
        self._since = coordinator.clock.seconds()

    # ------------------------------------------------ what the engine can run

    async def look_up(self) -> None:
        """Ask the engine for the sizes of the job's functions, and how many workers it runs.

        If its actors need one another at once, wait until there are places for all of them.
        """
        job, engine = self._job, self._coordinator.engines.get(self._job.spec.engine)
        if engine is None:  # external
            return
        sizes = await find_sizes(engine, job, self._coordinator)
        timeouts = [size.timeout_s for size in sizes.values() if size.timeout_s]
        job.function_timeout_s = min(timeouts, default=0.0)
        # Later, only a part of the cost would be counted.
        if sizes and job.active and not job.bill.counts and not job.launches:
            job.measure(sizes, {region: self._longest_s(size) for region, size in sizes.items()})
        self._versions = {region: size.version for region, size in sizes.items() if size.version}
        known = self._coordinator.reached.knows
        unproven = [one for one, at in self._versions.items() if not known(self._way(one), at)]
        steps = () if self._surely_reached(engine) else self._coordinator.config.launch.canary
        self._canary = Canary(steps, unproven)
        await self._places.find_limits(engine, may_reserve=True)
        if job.spec.pipeline.all_at_once:
            await self._places.await_promise()

    def _longest_s(self, size: Size) -> float:
        """Return how long a worker that cannot reach the coordinator can run."""
        reconnect_s = self._job.spec.event.get(
            "reconnect_s", self._coordinator.config.worker.reconnect_s
        )
        return longest_s(size.timeout_s, float(reconnect_s))

    # ------------------------------------------------ launching

    def launch(self, launches: Sequence[str]) -> None:
        """Launch these, or hold some back until the canary's workers have connected."""
        by_region: dict[str, list[str]] = defaultdict(list)
        for launch_id in launches:
            by_region[self._region_of(launch_id)].append(launch_id)
        admitted: list[str] = []
        for region, ids in by_region.items():
            admitted += self._canary.admit(region, ids)
        self._launch(admitted)

    def _launch(self, launches: Sequence[str]) -> None:
        job, coordinator = self._job, self._coordinator
        if not launches:
            return
        if self._launcher is None:
            self._launcher = Launcher(
                coordinator.engines[job.spec.engine],
                coordinator.config.launch.in_flight,
                coordinator.clock,
                self._hear,
                self._broken,
                lambda invocation: job.invoked(invocation.launch),
                lambda invocation: self._places.of(invocation.region, invocation.function),
                coordinator.config.launch.outage_s,
                job.urgency,
                lambda launch_id: job.launches[launch_id].answer != LATE,
            )
        numbered = [(launch_id, job.launches[launch_id].number) for launch_id in launches]
        made = invocations(
            self._event(), job.spec.functions, job.spec.regions, numbered, job.spec.engine_options
        )
        self._launcher.add(made)

    def _hear(self, invocation: Invocation, answer: Answer) -> None:
        """Handle an engine's answer."""
        job = self._job
        self._coordinator.totals.launches[answer.kind] += 1
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

    def stop(self) -> None:
        """Launch nothing more; invocations in flight are still answered."""
        if self._launcher is not None:
            self._launcher.stop()

    def close(self) -> None:
        """Free everything: the job has ended."""
        self.stop()
        engine = self._coordinator.engines.get(self._job.spec.engine)
        if engine is not None:
            maybeDeferred(engine.cancel, self._job.id).addErrback(self._not_dropped)
        self._launcher = None
        self._places.release()

    def _not_dropped(self, failure: Failure) -> None:
        self.log.failure("job {job}: its engine could not drop it", failure, job=self._job.id)

    # ------------------------------------------------ places

    def hold_places(self) -> None:
        """Take the places of workers that run since before a restart."""
        self._places.hold()

    def freed(self, launch_id: str) -> None:
        if launch_id in self._job.launches:
            self._places.free(launch_id)

    def connected(self, launch_id: str) -> None:
        if launch_id not in self._job.launches:
            return
        self._places.connected(launch_id)
        region = self._region_of(launch_id)
        if region in self._versions and region not in self._noted:
            self._noted.add(region)  # once: meanwhile, the function may have been deployed again
            self._coordinator.reached.note(self._way(region), self._versions[region])

    def missed(self, launch_id: str) -> bool:
        return self._places.missed(launch_id)

    def had_no_place(self, launch_id: str) -> bool:
        return self._places.had_none(launch_id)

    def waits_for(self) -> str:
        """Describe for users what launches wait for; empty: no launch waits."""
        if self._places.waits_turn:
            return "places for all its actors at once"
        if self._canary.waits:
            return f"the first workers to connect to {self.address}"
        return f"a place: {places}" if (places := self._awaited_places) else ""

    @property
    def _awaited_places(self) -> RegionPlaces | None:
        return None if self._launcher is None else self._launcher.waits_for()

    async def ask_again(self) -> None:
        """Ask the engine for its limits again, if there may be others by now."""
        engine = self._coordinator.engines.get(self._job.spec.engine)
        if engine is not None and self._places.asks_again(self._awaited_places is not None):
            await self._places.find_limits(engine, may_reserve=self._launcher is None)

    def probe(self) -> None:
        """Find out now and then whether there are more places."""
        self._places.probe()

    def _region_of(self, launch_id: str) -> str:
        return region_of(self._job.launches[launch_id].number, self._job.spec.regions)

    # ------------------------------------------------ the canary

    @property
    def unproven(self) -> Collection[str]:
        """The regions from which no worker has connected, though the canary waits for one."""
        return self._canary.unproven

    @property
    def holds_back(self) -> bool:
        """Whether launches wait for the canary."""
        return self._canary.waits

    @property
    def host(self) -> str:
        """The host that workers connect to."""
        return str(self._job.spec.event.get("addr", self._coordinator.config.launch.public_host))

    @property
    def address(self) -> str:
        """HOST:PORT that workers connect to."""
        port = int(self._job.spec.event.get("port", self._coordinator.worker_port))
        return hosts.join(self.host, port)

    def _way(self, region: str) -> Way:
        return Way(self._job.spec.engine, self._job.spec.functions[0], region, self.host)

    def _surely_reached(self, engine: Engine) -> bool:
        """Return whether workers on this machine connect to an address where the daemon listens."""
        listens = self._coordinator.config.worker.host in (*LISTENS_HERE, self.host)
        return engine.on_this_machine and is_loopback(self.host) and listens

    def move_canary(self) -> str:
        """Launch what the canary no longer holds back.

        Return the region from which more workers than `retries` could not connect; empty: there is
        none.
        """
        job, known = self._job, self._coordinator.reached.knows
        for region in list(self._canary.unproven):
            if known(self._way(region), self._versions[region]):  # also through another job
                self._launch(self._canary.prove(region))
        if not self._canary.unproven:
            return ""
        late = job.launches.overdue(self._coordinator.clock.seconds())
        placeless = [one for one in late if not late[one].answer or self.had_no_place(one)]
        for region in list(self._canary.unproven):
            self._canary.miss(region, late, placeless)
            if self._canary.failed(region) > job.spec.retries:
                return region
            self._launch(self._canary.release(region))
        return ""

    async def unreached(self, region: str) -> str:
        """Return a sentence about a region whose workers cannot connect, with what its log says."""
        spec, config = self._job.spec, self._coordinator.config.launch
        function, failed = spec.functions[0], self._canary.failed(region)
        workers = "1 worker" if failed == 1 else f"{failed} workers"
        log = await self._coordinator.engines[spec.engine].log_of(function, region, self._since)
        return (
            f"{workers} of function {function!r} in {region} did not connect to {self.address}"
            f" (public_host in mu.conf) within {config.hello_timeout_s:g} s, nor has any other since"
            f" its last deployment, so mu started no more: {log}"
        )
