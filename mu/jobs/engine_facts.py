"""What a job asks its engine before it launches: how large its functions are, and how many may run."""

from twisted.logger import Logger

from mu.invocations import Size
from mu.jobs.job import Job
from mu.places import Places
from mu.plugins import Engine

log = Logger()


async def find_sizes(engine: Engine, job: Job) -> dict[str, Size]:
    """Return the sizes of the job's functions by region; empty: they are not known.

    Then the job's cost is not counted, and a job with a cost limit stops.
    """
    spec = job.spec
    sizes: dict[str, Size] = {}
    for region in dict.fromkeys(spec.regions):
        size = await engine.size(spec.functions[0], region)
        if isinstance(size, str):
            if not job.bill.counts and not job.launches:
                why = f"the size of function {spec.functions[0]} in {region} is unknown: {size}"
                if spec.max_cost_usd:
                    job.stop("failed", f"max_cost_usd cannot be kept: {why}")
                log.warn("job {job}: its cost is not counted: {why}", job=job.id, why=why)
            return {}
        sizes[region] = size
    return sizes


async def find_places(engine: Engine, job: Job, all_places: Places) -> None:
    """Learn how many workers the engine runs at once. A job that needs more at once stops."""
    spec = job.spec
    limits = []
    for region in dict.fromkeys(spec.regions):
        limit = await engine.concurrency(spec.functions[0], region)
        limits.append(limit)
        places = all_places.of(spec.engine, region)
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
