"""The control port's JSON, and that of `mu replay`, as types. docs/control.md describes the fields."""

from typing import Any, NotRequired, TypedDict


class FailureJson(TypedDict):
    """A failed attempt at an actor."""

    attempt: int
    at: float
    label: str
    last_reply: str
    error: str


class ActorJson(TypedDict):
    """A row of GET /jobs/ID/workers."""

    actor: int
    state: str
    inputs: NotRequired["InputsJson"]
    label: str
    attempt: int
    since: float
    stage: NotRequired[str]
    waits_for: NotRequired[str | None]
    last_reply: str
    error: str | None
    result: object
    used: NotRequired[dict[str, float | None]]
    failures: NotRequired[list[FailureJson]]


class EndJson(TypedDict):
    """A row of GET /jobs/ID/results: how an actor ended."""

    n: int
    actor: int
    state: str
    result: Any
    error: str | None


class InputsJson(TypedDict):
    """How many inputs there are, and how many of them were handled: well, and in vain."""

    total: int
    done: int
    failed: int


class GroupJson(TypedDict):
    """Actors that wait for the same."""

    actors: int
    state: str
    label: str
    waits_for: str | None
    since: float


class FailedJson(TypedDict):
    """A failed actor in an overview."""

    actor: int
    error: str | None


class FindingJson(TypedDict):
    """A row of POST /doctor."""

    check: str
    level: str
    sentence: str
    remedy: str


class JobJson(TypedDict):
    """GET /jobs/ID. A job that could not be resumed may lack the fields that are not required."""

    id: str
    pipeline: str
    workers: int
    state: str
    name: NotRequired[str]
    counts: dict[str, int]
    inputs: NotRequired[InputsJson]
    created: float
    first_hello: NotRequired[float | None]
    finished: float | None
    params: dict[str, object]
    error: str | None
    cost_usd: NotRequired[float | None]
    cost_usd_at_most: NotRequired[float | None]
    used: NotRequired[dict[str, float | None]]
    max_cost_usd: NotRequired[float]
    result: object
    engine: NotRequired[str]
    function: NotRequired[str]
    rerun: NotRequired[str | None]
    functions: NotRequired[list[str]]
    regions: NotRequired[list[str]]
    event: NotRequired[dict[str, object]]


class OverviewJson(TypedDict):
    """GET /jobs/ID/overview."""

    job: JobJson
    groups: list[GroupJson]
    failed: list[FailedJson]
    retried: int


class ParameterJson(TypedDict):
    """A parameter of a pipeline."""

    name: str
    type: str
    help: str
    required: bool
    default: NotRequired[object]
    minimum: NotRequired[float]
    maximum: NotRequired[float]


class PipelineJson(TypedDict):
    """A row of GET /pipelines. A broken plugin has an owner and an error instead of parameters."""

    name: str
    description: NotRequired[str]
    parameters: NotRequired[list[ParameterJson]]
    warnings: NotRequired[list[str]]
    owner: NotRequired[str]
    error: NotRequired[str]


class DivergenceJson(TypedDict):
    """Where a replayed attempt did something other than recorded."""

    event: int
    message: str


class StepJson(TypedDict):
    """One event of an attempt, and its effects; null: they are unknown."""

    at: float
    event: list[object]
    effects: list[list[object]] | None


class AttemptJson(TypedDict):
    """A replayed attempt. With `mu replay -a`, `course` lists its events."""

    actor: int
    attempt: int
    session: str
    began: float
    heard: float
    finished: float | None
    label: str
    error: str | None
    result: object
    events: int
    diverged: DivergenceJson | None
    course: NotRequired[list[StepJson]]


class HistoryJson(TypedDict):
    """A replayed job."""

    id: str
    pipeline: str
    created: float
    attempts: list[AttemptJson]


class PlaceJson(TypedDict):
    """Where a bucket is."""

    bucket: str
    engine: str
    embedded: bool
    endpoint: str | None
    region: str | None
    addressing: str
    profile: str | None


class SizeJson(TypedDict):
    """A function's memory, its architecture, and how long a worker may run; 0: unknown."""

    memory_mb: int
    architecture: str
    timeout_s: float


class PricesJson(TypedDict):
    """[cost] of mu.conf, in US dollars."""

    gb_s: dict[str, float]
    request: float


class PlanJson(TypedDict):
    """POST /plan: what an order would start."""

    pipeline: str
    engine: str
    function: str
    functions: list[str]
    regions: list[str]
    actors: int
    inputs: list[dict[str, object]]
    stages: NotRequired[dict[str, int]]
    spares: int
    retries: int
    worker_timeout_s: float
    hello_timeout_s: float
    deadline_s: float
    max_cost_usd: float
    size: SizeJson | None
    size_unknown: str | None
    prices: PricesJson
