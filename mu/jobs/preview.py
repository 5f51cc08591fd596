"""What an order would start: its plan, and what its cost depends on."""

from dataclasses import asdict

from twisted.logger import Logger

from mu.engines.cost import Prices
from mu.invocations import Size
from mu.jobs.coordinator import Coordinator
from mu.jobs.plan import checked_plan
from mu.jobs.run import is_for_users, sentence
from mu.jobs.spec import JobSpec
from mu.journal.records import Planned
from mu.strict_json import JSON

log = Logger()


class PlanError(Exception):
    """The pipeline cannot plan an order; the text says why."""


async def preview(coordinator: Coordinator, spec: JobSpec, planned: Planned | None = None) -> JSON:
    """Return what an order would start; `planned` is the plan of a rerun. Raises PlanError.

    Without it, the pipeline's `plan` runs as for a job.
    """
    planned = planned or await _plan(coordinator, spec)
    named = planned.actors if planned.actors is not None else spec.actors
    numbers = named or range(len(planned.inputs))
    chosen = [planned.inputs[number] for number in numbers]
    stages = {name: len(set(numbers).intersection(actors)) for name, actors in planned.stages}
    size = await _size(coordinator, spec)
    return {
        "pipeline": spec.pipeline.name,
        "engine": spec.engine,
        "function": spec.function,
        "functions": spec.functions,
        "regions": list(spec.regions),
        "actors": len(chosen),
        "inputs": chosen,
        "stages": stages,
        "spares": spec.spares,
        "retries": spec.retries,
        "worker_timeout_s": spec.worker_timeout_s,
        "hello_timeout_s": coordinator.limits.hello_s,
        "deadline_s": spec.deadline_s,
        "max_cost_usd": spec.max_cost_usd,
        "size": asdict(size) if isinstance(size, Size) else None,
        "size_unknown": None if isinstance(size, Size) else size,
        "prices": _prices(coordinator.prices, size),
    }


async def _plan(coordinator: Coordinator, spec: JobSpec) -> Planned:
    try:
        inputs = await coordinator.in_thread(spec.pipeline.plan, spec.params)
        return checked_plan(spec, inputs, coordinator.config.jobs.max_workers)
    except Exception as error:  # a pipeline's author may raise anything
        if not is_for_users(error):
            log.failure("the plan of {pipeline} failed", pipeline=spec.pipeline.name)
        raise PlanError(f"the plan of {spec.pipeline.name} failed: {sentence(error)}") from error


async def _size(coordinator: Coordinator, spec: JobSpec) -> Size | str:
    """Return the largest size of the job's functions, or why it is unknown."""
    engine = coordinator.engines.get(spec.engine)
    if engine is None:
        return f"engine {spec.engine} does not tell it"
    sizes: list[Size] = []
    for region in dict.fromkeys(spec.regions):
        size = await engine.size(spec.functions[0], region)
        if not isinstance(size, Size):
            why = size if isinstance(size, str) else size.reason
            return f"function {spec.functions[0]} in {region}: {why}"
        sizes.append(size)
    return max(sizes, key=lambda size: coordinator.prices.usd(size, 1.0))


def _prices(prices: Prices, size: Size | str) -> JSON:
    """Return the prices of a GB-second, by architecture, and of a request."""
    if isinstance(size, str) or size.hour_usd is None:
        return {"gb_s": prices.gb_s, "request": prices.request}
    gb_s = prices.usd(size, 1.0) * 1024 / max(1, size.memory_mb)
    return {"gb_s": {size.architecture: gb_s}, "request": 0.0}
