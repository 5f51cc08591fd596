"""What a job asks its engine before it launches: how large its functions are."""

from twisted.internet.task import deferLater
from twisted.logger import Logger

from mu.invocations import Size, Unreached
from mu.jobs.coordinator import Coordinator
from mu.jobs.job import Job
from mu.plugins import Engine

OUTAGE_PAUSES_S = (0.5, 10.0)
"""The first and the longest pause between questions to an engine that cannot be reached."""

log = Logger()


async def find_sizes(engine: Engine, job: Job, coordinator: Coordinator) -> dict[str, Size]:
    """Return the sizes of the job's functions by region; empty: they are not known.

    Then the job's cost is not counted, and a job with a cost limit stops. An engine that cannot be
    reached is waited for, unless the job goes on after a restart: it has launches.
    """
    spec = job.spec
    sizes: dict[str, Size] = {}
    for region in dict.fromkeys(spec.regions):
        size = await _size(engine, region, job, coordinator)
        if isinstance(size, str):
            if not job.bill.counts and not job.launches:
                why = f"the size of function {spec.functions[0]} in {region} is unknown: {size}"
                if spec.max_cost_usd:
                    job.stop("failed", f"max_cost_usd cannot be kept: {why}")
                log.warn("job {job}: its cost is not counted: {why}", job=job.id, why=why)
            return {}
        sizes[region] = size
    return sizes


async def _size(engine: Engine, region: str, job: Job, coordinator: Coordinator) -> Size | str:
    pause_s, longest_s = OUTAGE_PAUSES_S
    until = coordinator.clock.seconds() + coordinator.config.launch.outage_s
    while True:
        size = await engine.size(job.spec.functions[0], region)
        if not isinstance(size, Unreached):
            return size
        goes_on = job.active and not coordinator.stopping and not job.launches
        if not goes_on or coordinator.clock.seconds() >= until:
            return size.reason
        await deferLater(coordinator.clock, pause_s)
        pause_s = min(2 * pause_s, longest_s)
