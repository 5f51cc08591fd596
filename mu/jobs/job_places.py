"""One job's share of an engine's places: which of them its launches use, and how many there are."""

from collections import Counter
from collections.abc import Mapping

from twisted.internet.task import deferLater

from mu.invocations import function_of, region_of
from mu.jobs.coordinator import Coordinator
from mu.jobs.job import Job
from mu.places import RegionPlaces
from mu.plugins import Engine

TURN_S = 1.0
"""How often a job that waits for places for all its actors looks for them."""
LIMITS_S = 60.0
"""How often a job that waits for places, or does not know how many there are, asks for them again."""


class JobPlaces:
    """The places that a job's launches take: those of all functions, or reserved for its own."""

    def __init__(self, coordinator: Coordinator, job: Job) -> None:
        self._coordinator = coordinator
        self._job = job
        self._functions = job.spec.functions
        self._reserved: set[str] = set()  # regions where its functions have places of their own
        self._known = True  # whether the engine said how many there are
        self._asked_at = 0.0  # when it was asked
        self.waits_turn = False
        """Whether the job waits until there are places for all its actors at once."""

    # ------------------------------------------------ how many there are

    async def find_limits(self, engine: Engine, may_reserve: bool) -> None:
        """Ask the engine how many workers it runs at once. A job that needs more at once stops.

        `may_reserve`: whether its functions may get places of their own, since no launch waits for
        others yet.
        """
        job, spec = self._job, self._job.spec
        self._asked_at = self._coordinator.clock.seconds()
        told: dict[RegionPlaces, int] = {}
        self._known = True
        for region in dict.fromkeys(spec.regions):
            found = await engine.concurrency(self._functions[0], region)
            if found is not None and found.reserved and may_reserve:
                self._reserve(region)
            self._known = self._known and found is not None
            for places in self._of_region(region):
                places.growth = engine.growth
                if found is not None and found.reserved == (region in self._reserved):
                    places.tell(found.most)
                    told[places] = found.most
            if found is not None and found.reserved and not found.most:
                why = f"function {self._functions[0]} may not run in {region}"
                job.stop("failed", f"{why}: its reserved concurrency is 0")
                return
        if spec.pipeline.all_at_once and not job.launches:
            self._check_all_at_once(told)

    def _reserve(self, region: str) -> None:
        """Use places of the functions' own in a region: AWS reserves them. All copies have as many."""
        if region in self._reserved:
            return
        shared = self.of(region, "")
        self._reserved.add(region)
        now = self._coordinator.clock.seconds()
        for launch_id in self._job.launches:
            shared.move(launch_id, self._of_launch(launch_id), now)

    def _check_all_at_once(self, limits: Mapping[RegionPlaces, int]) -> None:
        """Stop the job if its actors need one another at once, and places are too few."""
        spec, actors = self._job.spec, len(self._job.actors)
        for places, count in self._all_at_once().items():
            most = limits.get(places, count)
            if most < count:
                where = "" if count == actors else f" where {count} of them would start"
                self._job.stop(
                    "failed",
                    f"{spec.pipeline.name} needs all of its {actors} actors at once, but engine"
                    f" {spec.engine} runs at most {most} workers{where}",
                )
                return

    def _all_at_once(self) -> Counter[RegionPlaces]:
        """Return how many of which places all actors need."""
        regions = self._job.spec.regions
        return Counter(
            self.of(region_of(number, regions), function_of(number, self._functions, regions))
            for number in range(len(self._job.actors))
        )

    def asks_again(self, waits: bool) -> bool:
        """Return whether to ask for the limits again; `waits`: whether launches wait for a place."""
        asked_s = self._coordinator.clock.seconds() - self._asked_at
        return asked_s >= LIMITS_S and (waits or not self._known)

    def probe(self) -> None:
        """Find out now and then whether there are more places than was learned."""
        now = self._coordinator.clock.seconds()
        every_s = self._coordinator.config.launch.hello_timeout_s
        for region in dict.fromkeys(self._job.spec.regions):
            for places in self._of_region(region):
                places.probe(now, every_s)

    async def await_promise(self) -> None:
        """Wait until there are places for all actors, which need one another at once."""
        job, coordinator, wanted = self._job, self._coordinator, self._all_at_once()
        self.waits_turn = True
        while job.active and not coordinator.stopping:
            if coordinator.places.promise(job.id, wanted, running=bool(job.launches)):
                break
            await deferLater(coordinator.clock, TURN_S)
        self.waits_turn = False

    # ------------------------------------------------ the places of launches

    def of(self, region: str, function: str) -> RegionPlaces:
        """Return the places in a region: the function's own, or those of all functions."""
        name, engine = self._job.spec.engine, self._coordinator.engines.get(self._job.spec.engine)
        regional = engine is None or engine.regional
        own = function if region in self._reserved else ""
        return self._coordinator.places.of(name, region if regional else "", own)

    def hold(self) -> None:
        """Take the places of workers that run since before a restart."""
        now = self._coordinator.clock.seconds()
        for launch_id, connected in self._job.workers_expected():
            function = self._function_of(launch_id)
            self._of_launch(launch_id).hold(launch_id, function, connected, now)

    def connected(self, launch_id: str) -> None:
        """Note that the worker of a launch has connected."""
        now, function = self._coordinator.clock.seconds(), self._function_of(launch_id)
        self._of_launch(launch_id).connected(launch_id, function, now)

    def missed(self, launch_id: str) -> bool:
        """Return whether a worker that did not connect may have found no place."""
        return self._of_launch(launch_id).miss(launch_id, self._coordinator.clock.seconds())

    def had_none(self, launch_id: str) -> bool:
        """Return whether a worker that did not connect surely found no place."""
        return self._of_launch(launch_id).none_was_free(launch_id)

    def free(self, launch_id: str) -> None:
        """Free the place of a launch."""
        self._of_launch(launch_id).free(launch_id, self._coordinator.clock.seconds())

    def release(self) -> None:
        """Free all places: the job has ended."""
        for launch_id in self._job.launches:
            self.free(launch_id)
        self._coordinator.places.release(self._job.id)

    def _of_region(self, region: str) -> list[RegionPlaces]:
        functions = self._functions if region in self._reserved else [""]
        return [self.of(region, function) for function in functions]

    def _of_launch(self, launch_id: str) -> RegionPlaces:
        region = region_of(self._job.launches[launch_id].number, self._job.spec.regions)
        return self.of(region, self._function_of(launch_id))

    def _function_of(self, launch_id: str) -> str:
        spec, number = self._job.spec, self._job.launches[launch_id].number
        return function_of(number, self._functions, spec.regions)
