"""Orders: checks the body of POST /jobs and turns it into a JobSpec."""

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from mu.aws.s3 import EMBEDDED_BUCKET
from mu.config import YEAR_S, Config, read_typed
from mu.jobs.body import read_body
from mu.jobs.event_keys import check_event
from mu.jobs.function_name import FunctionName
from mu.jobs.spec import EXTERNAL, ORIGINAL, JobSpec, left_out
from mu.parameters import RESTART, FieldError, Parameter, Params, read_fields
from mu.plugins import Engine, Pipeline


def job_fields(config: Config) -> tuple[Parameter, ...]:
    """Return the fields of an order."""
    jobs, launch = config.jobs, config.launch
    return (
        Parameter("pipeline", str, "the kind of job"),
        Parameter("name", str, "a name for people, to find the job by", ""),
        Parameter("workers", int, "the number of workers", 1, 1, jobs.max_workers),
        Parameter("actors", list, "the numbers of the actors to run (default: all)", []),
        Parameter("params", dict, "the pipeline's parameters", {}),
        Parameter("engine", str, "where workers run: local, lambda or external", launch.engine),
        Parameter("engine_options", dict, "options of the engine, for this job", {}),
        Parameter("function", str, "the function to invoke (default: the pipeline's name)", ""),
        Parameter("regions", list, "AWS regions, used in rotation", [launch.region]),
        Parameter("spares", int, "extra workers to launch", jobs.spares, 0, jobs.max_workers),
        Parameter("retries", int, "how many times to retry a failed actor", jobs.retries, 0, 1000),
        Parameter("on_failure", str, "when an actor fails: finish the others, or stop", "finish"),
        Parameter(
            "tolerate",
            int,
            "how many actors may fail in a job that is done",
            0,
            0,
            jobs.max_workers,
        ),
        Parameter(
            "stragglers",
            float,
            "how many times the median an actor may run before a spare starts it again (at least 1;"
            " 0: never)",
            jobs.stragglers,
            0,
        ),
        Parameter(
            "worker_timeout_s",
            float,
            "time limit of one attempt, in seconds",
            jobs.worker_timeout_s,
            1,
            YEAR_S,
        ),
        Parameter(
            "deadline_s", float, "time limit of the job, in seconds", jobs.deadline_s, 1, YEAR_S
        ),
        Parameter("max_cost_usd", float, "the cost at which the job fails (0: no limit)", 0.0, 0),
        Parameter(
            "copies",
            int,
            "copies of the function, NAME-0, NAME-1, ..., used in rotation (0: just NAME)",
            0,
            0,
            1000,
        ),
        Parameter("event", dict, "more keys for the workers' event, such as env", {}),
        Parameter(
            "event_format",
            str,
            "the form of the event's key and certificates: mu (EC, PEM) or original (RSA, base64)",
            "mu",
        ),
        Parameter("notify_url", str, "the URL to notify of the job's end (empty: none)", ""),
        Parameter("rerun", str, "the job of which to rerun what failed", ""),
    )


LONGEST_NAME = 100
"""The most characters of a job's name, which has to fit into lists."""

LONGEST_URL = 2000
"""The most characters of a URL to notify."""

_URL = re.compile(rf"[!\"$-~]{{1,{LONGEST_URL}}}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")


def digest(body: bytes) -> str:
    """Return a digest of an order's body."""
    return hashlib.sha256(body).hexdigest()


def rerun_of(body: bytes, config: Config) -> str:
    """Return the id of the job that an order reruns; empty: it is no rerun. Raises FieldError."""
    job_id = read_body(body, config.control.max_depth).get("rerun", "")
    if not isinstance(job_id, str):
        raise FieldError("rerun", f"rerun must be the id of a job, got {job_id!r:.200}")
    return job_id


def read_order(
    body: bytes,
    config: Config,
    pipelines: Mapping[str, Pipeline],
    engines: Collection[str],
    key: str = "",
    earlier: Mapping[str, object] | None = None,
    plugged: Mapping[str, Engine] | None = None,
) -> JobSpec:
    """Read and check the order in a request's body. Raises FieldError.

    `engines` are the names of all; `plugged` are those of plugins, which may have options.
    `earlier` is the order of the job that it reruns, which provides what the body does not have.
    """
    given = read_body(body, config.control.max_depth)
    if earlier is not None:
        given = _rerun_order(given, earlier)
    order = read_fields(job_fields(config), given, known="fields")
    pipeline = pipelines.get(order.pipeline)
    if pipeline is None:
        names = ", ".join(sorted(pipelines)) or "none"
        raise FieldError(
            "pipeline",
            f"unknown pipeline {order.pipeline!r:.200}; the pipelines are {names}; {RESTART}",
        )
    _check_name(order.name)
    _check_url(order.notify_url)
    _locate(order, "regions" in given)
    regions = tuple(order.regions)
    if not regions or not all(
        isinstance(region, str) and _REGION.fullmatch(region) for region in regions
    ):
        raise FieldError("regions", f"regions must be a list of names, got {order.regions!r:.200}")
    if order.on_failure not in ("finish", "stop"):
        raise FieldError(
            "on_failure", f"on_failure must be finish or stop, got {order.on_failure!r:.200}"
        )
    if order.event_format not in ("mu", ORIGINAL):
        raise FieldError(
            "event_format",
            f"event_format must be mu or original, got {order.event_format!r:.200}",
        )
    if 0 < order.stragglers < 1:
        raise FieldError(
            "stragglers", f"stragglers must be 0 (never) or at least 1, got {order.stragglers:g}"
        )
    params = read_fields(pipeline.parameters, order.params, "params")
    workers = _workers(order, "workers" in given, config.jobs.max_workers)
    check_event(order.event)
    if order.engine not in engines:
        known = ", ".join(sorted(engines))
        raise FieldError(
            "engine", f"unknown engine {order.engine!r:.200}; the engines are {known}; {RESTART}"
        )
    engine = (plugged or {}).get(order.engine)
    engine_options = _engine_options(order.engine, engine, order.engine_options)
    if order.max_cost_usd and order.engine == EXTERNAL:
        raise FieldError(
            "max_cost_usd",
            "max_cost_usd cannot be used with engine external: the cost of its workers is unknown",
        )
    refuse_unreachable(dict.get(params, "bucket"), order.engine, "params.bucket")
    checked = Params(params, workers=workers)
    pipeline.check(checked)
    if alone := left_out(pipeline, checked, order.actors):
        raise FieldError("actors", f"actors must include more: {alone}, got {order.actors!r:.200}")
    return JobSpec(
        pipeline=pipeline,
        workers=len(order.actors) or workers,
        params=checked,
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
        rerun=order.rerun,
        engine_options=engine_options,
        order={**order, "workers": workers, "params": _given(params)},
        event=order.event,
        event_format=order.event_format,
        name=order.name,
        notify_url=order.notify_url,
        key=key,
        digest=digest(body),
    )


def _engine_options(
    name: str, engine: Engine | None, given: Mapping[str, object]
) -> dict[str, object]:
    """Return the options that an order sets. Raises FieldError."""
    options = () if engine is None else engine.options
    known = {one.name: one for one in options if engine and one.name in engine.order_options}
    for key in given:
        if key not in known:
            has = (
                f"; engine {name} has {', '.join(known)}" if known else f": engine {name} has none"
            )
            raise FieldError(
                f"engine_options.{key:.200}", f"engine_options.{key:.200} is unknown{has}"
            )
    read = {key: _engine_option(known[key], one) for key, one in given.items()}
    if engine is not None:
        try:
            engine.check(Params(read))
        except FieldError as error:
            raise FieldError(f"engine_options.{error.field}", f"engine_options.{error}") from None
    return read


def _engine_option(option: Parameter, given: object) -> object:
    """Return an option's value; a text is read as in mu.conf. Raises FieldError."""
    field = f"engine_options.{option.name}"
    if not isinstance(given, str) or option.kind is str:
        return option.read(given, field)
    try:
        return read_typed(given, option, field)
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def refuse_unreachable(bucket: object, engine: str, field: str) -> None:
    """Raise FieldError if workers of this engine cannot reach the server of the bucket."""
    if bucket == EMBEDDED_BUCKET and engine not in ("local", EXTERNAL):
        raise FieldError(
            field,
            f"workers of engine {engine} cannot reach the embedded S3 server of this machine: name a"
            " bucket, with -p bucket=NAME or in [s3] of mu.conf (docs/data.md)",
        )


def _rerun_order(given: Mapping[str, object], earlier: Mapping[str, Any]) -> dict[str, object]:
    """Return an earlier job's order with the changes that are given. Raises FieldError."""
    if given.get("pipeline", earlier["pipeline"]) != earlier["pipeline"]:
        raise FieldError(
            "pipeline",
            f"pipeline must be {earlier['pipeline']}, as in the job that is rerun, got"
            f" {given['pipeline']!r:.200}",
        )
    for name in ("workers", "actors"):
        if name in given:
            raise FieldError(
                name, f"{name} cannot be given with rerun, which runs the actors that failed"
            )
    dropped = {"actors", "copies"} if "function" in given else {"actors"}
    dropped |= {"engine_options"} if "engine" in given else set()
    order = {name: value for name, value in earlier.items() if name not in dropped}
    params = given.get("params", {})
    if isinstance(params, Mapping):  # if not, the check of all orders says so
        params = {**earlier["params"], **params}
    return {**order, **given, "params": params}


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise FieldError(
            "name",
            f"name must be printable text of at most {LONGEST_NAME} characters without spaces at"
            f" its ends, got {name!r:.200}",
        )


def _check_url(url: str) -> None:
    """Check the URL to notify."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # such as a port that is no number
        good = False
    if not good or not _URL.fullmatch(url) or "@" in parts.netloc:
        raise FieldError(
            "notify_url",
            f"notify_url must be an http:// or https:// URL of at most {LONGEST_URL} printable ASCII"
            f" characters, without a user or a #fragment, got {url!r:.200}",
        )


def _locate(order: Params, said: bool) -> None:
    """Check the function's name; the region of an ARN is where its workers run."""
    named = order.function or (order.pipeline if order.copies else "")
    if not named:
        return
    try:
        function = FunctionName.parse(named)
    except ValueError as error:
        raise FieldError("function", f"function {error}") from None
    if function.region and not said:
        order["regions"] = [function.region]
    elif function.region and set(order.regions) != {function.region}:
        raise FieldError(
            "regions",
            f"regions must be {[function.region]}, where the function's ARN says it is, got"
            f" {order.regions!r:.200}",
        )


def _given(params: Params) -> dict[str, object]:
    """Return the parameters in a form that can be used in another order."""
    return {name: value for name, value in dict(params).items() if value is not None}


def _workers(order: Params, said: bool, most: int) -> int:
    """Return how many workers to plan for: with explicit actors, enough for the last of them."""
    given: list[object] = order.actors
    actors = [number for number in given if type(number) is int and 0 <= number < most]
    if len(actors) < len(given):
        raise FieldError(
            "actors", f"actors must be numbers from 0 to {most - 1}, got {given!r:.200}"
        )
    if len(set(actors)) < len(actors):
        raise FieldError("actors", f"actors must name each number once, got {actors!r:.200}")
    workers: int = order.workers
    if actors and not said:
        return max(actors) + 1
    if actors and max(actors) >= workers:
        raise FieldError(
            "actors",
            f"with workers = {workers}, actors must be at most {workers - 1}, got {max(actors)}",
        )
    return workers
