"""A checked order, and the limits that hold for every job."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mu.machine import Machine
from mu.parameters import Params
from mu.plugins import Pipeline
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state

EXTERNAL = "external"
"""The engine that launches nothing: its workers are started by hand."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A checked order."""

    pipeline: Pipeline
    workers: int
    params: Params
    engine: str
    function: str
    regions: tuple[str, ...]
    deadline_s: float
    worker_timeout_s: float
    actors: tuple[int, ...] = ()
    """The actors to run; empty: all that are planned."""
    spares: int = 0
    retries: int = 0
    on_failure: str = "finish"
    """What to do when an actor fails: `finish` the others, or `stop`."""
    tolerate: int = 0
    """How many actors may fail in a job that is done."""
    stragglers: float = 0.0
    """An actor that runs this many times the median of the others is started again; 0: never."""
    max_cost_usd: float = 0.0
    """The cost at which the job fails; 0: no limit."""
    copies: int = 0
    """How many copies the function has, named with -0, -1, ...; 0: it has just its name."""
    event: Mapping[str, Any] = field(default_factory=dict)
    """More keys for the workers' event."""
    order: Mapping[str, Any] = field(default_factory=dict)
    """All of this as JSON values, which can be ordered again."""
    key: str = ""
    """The order's Idempotency-Key, if it had one."""
    digest: str = ""
    """Of the order's body, which tells whether a second one with its key is the same."""

    @property
    def functions(self) -> list[str]:
        """The functions to invoke, in rotation."""
        return [f"{self.function}-{copy}" for copy in range(self.copies)] or [self.function]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of each actor, and how long a job waits; in seconds."""

    log_bytes: int = 65536
    max_held: int = 1000
    max_info: int = 16 * 2**20
    hold_s: float = 10.0
    """For a worker whose connection was lost to come back."""
    retry_pause_s: float = 1.0
    """Pause before the third attempt at an actor; it doubles with each further one."""
    hello_s: float = 120.0
    """For the hello of a worker whose launch was accepted."""
    accept_s: float = 600.0
    """For an engine to accept a launch, rather than to throttle it."""


def new_machine(
    pipeline: Pipeline, facts: JobFacts, actor: int, given: Mapping[str, Any], limits: Limits
) -> Machine:
    """Return a machine at its beginning, for an attempt at an actor whose input is `given`."""
    worker = ScriptWorker(facts, actor, given)
    return Machine(worker, first_state(pipeline.begin), limits.max_held, limits.max_info)
