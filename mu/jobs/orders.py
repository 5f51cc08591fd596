"""Orders at the control port: what a POST /jobs may say, checked once and made a JobSpec."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from mu.config import Config
from mu.jobs.spec import EXTERNAL, JobSpec
from mu.parameters import FieldError, Parameter, Params, read_fields


def job_fields(config: Config) -> tuple[Parameter, ...]:
    """Return what an order consists of."""
    jobs, launch = config.jobs, config.launch
    return (
        Parameter("pipeline", str, "which kind of job"),
        Parameter("workers", int, "how many workers", 1, 1, jobs.max_workers),
        Parameter("actors", list, "the actors to run, by number (default: all)", []),
        Parameter("params", dict, "the pipeline's parameters", {}),
        Parameter("engine", str, "where workers run: local, lambda or external", launch.engine),
        Parameter("function", str, "the function to invoke (default: the pipeline's name)", ""),
        Parameter("regions", list, "AWS regions, used in turn", [launch.region]),
        Parameter("spares", int, "workers to spare", jobs.spares, 0, jobs.max_workers),
        Parameter("retries", int, "attempts after an actor's first", jobs.retries, 0, 1000),
        Parameter("on_failure", str, "finish the other actors, or stop", "finish"),
        Parameter("tolerate", int, "actors that may fail", 0, 0, jobs.max_workers),
        Parameter("stragglers", float, "times the median before a spare helps", jobs.stragglers, 0),
        Parameter("worker_timeout_s", float, "an actor's limit", jobs.worker_timeout_s, 1, YEAR_S),
        Parameter("deadline_s", float, "the job's limit", jobs.deadline_s, 1, YEAR_S),
        Parameter("max_cost_usd", float, "the job fails at this cost (0: none)", 0.0, 0),
        Parameter("copies", int, "copies of the function, name-0 on, used in turn", 0, 0, 1000),
        Parameter("event", dict, "more for the workers' event, say env", {}),
    )


YEAR_S = 366 * 86400.0
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_FUNCTION = re.compile(r"[A-Za-z0-9_:.$-]{1,170}")


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def read_order(
    body: bytes,
    config: Config,
    pipelines: Mapping[str, Any],
    engines: Collection[str],
    key: str = "",
) -> JobSpec:
    """Return what was ordered. Raises FieldError."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:  # not UTF-8, too
        raise FieldError("", f"the body must be a JSON object: {error}") from None
    order = read_fields(job_fields(config), given, known="fields")
    pipeline = _one_of(pipelines, order.pipeline, "pipeline")
    regions = tuple(order.regions)
    if not regions or not all(
        isinstance(region, str) and _REGION.fullmatch(region) for region in regions
    ):
        raise FieldError("regions", f"regions must be a list of names; {order.regions!r} came")
    if order.on_failure not in ("finish", "stop"):
        raise FieldError(
            "on_failure", f"on_failure must be finish or stop; {order.on_failure!r:.200} came"
        )
    params = read_fields(pipeline.parameters, order.params, "params")
    workers = _workers(order, "workers" in given, config.jobs.max_workers)
    if order.function and not _FUNCTION.fullmatch(order.function):
        raise FieldError(
            "function", f"function must be a name or an ARN; {order.function!r:.200} came"
        )
    if order.engine not in engines:
        known = ", ".join(sorted(engines))
        raise FieldError("engine", f"engine {order.engine!r} is not known; there are {known}")
    if order.max_cost_usd and order.engine == EXTERNAL:
        raise FieldError(
            "max_cost_usd", "max_cost_usd cannot be kept: what external workers cost is not known"
        )
    return JobSpec(
        pipeline=pipeline,
        workers=len(order.actors) or workers,
        params=_checked(pipeline, Params(params, workers=workers)),
        actors=tuple(order.actors),
        engine=order.engine,
        function=order.function or pipeline.name,
        regions=regions,
        deadline_s=order.deadline_s,
        worker_timeout_s=order.worker_timeout_s,
        spares=order.spares,
        retries=order.retries,
        on_failure=order.on_failure,
        tolerate=order.tolerate,
        stragglers=order.stragglers,
        max_cost_usd=order.max_cost_usd,
        copies=order.copies,
        order={**order, "workers": workers, "params": _given(params)},
        event=order.event,
        key=key,
        digest=digest(body),
    )


def _given(params: Params) -> dict[str, Any]:
    """Return parameters as they can be given again."""
    return {name: value for name, value in dict(params).items() if value is not None}


def _checked(pipeline: Any, params: Params) -> Params:
    """Let the pipeline refuse what its parameters' types cannot. Raises FieldError."""
    if hasattr(pipeline, "check"):
        pipeline.check(params)
    return params


def _workers(order: Params, said: bool, most: int) -> int:
    """Return for how many workers to plan: with explicit actors, enough for the last of them."""
    actors: list[Any] = order.actors
    if not all(type(number) is int and 0 <= number < most for number in actors):
        raise FieldError(
            "actors", f"actors must be numbers from 0 to {most - 1}; {actors!r:.200} came"
        )
    if len(set(actors)) < len(actors):
        raise FieldError("actors", f"actors must name each number once; {actors!r:.200} came")
    workers: int = order.workers
    if actors and not said:
        return int(max(actors)) + 1
    if actors and max(actors) >= workers:
        raise FieldError(
            "actors", f"with {workers} workers actors go to {workers - 1}; {max(actors)} came"
        )
    return workers


def _one_of(known: Mapping[str, Any], name: str, field: str) -> Any:
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise FieldError(field, f"{field} {name!r} is not known; there are {names}")
    return known[name]
