"""What was ordered, checked, and what limits hold for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mu.machine import Machine
from mu.parameters import Params
from mu.plugins import Pipeline
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state

EXTERNAL = "external"
"""The engine that starts nothing: somebody starts the workers by hand."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What was ordered, checked."""

    pipeline: Pipeline
    workers: int
    params: Params
    engine: str
    function: str
    regions: tuple[str, ...]
    deadline_s: float
    worker_timeout_s: float
    actors: tuple[int, ...] = ()
    """The actors to run, where not all that are planned."""
    spares: int = 0
    retries: int = 0
    on_failure: str = "finish"
    """What happens when an actor has failed: `finish` the others first, or `stop`."""
    tolerate: int = 0
    """How many actors may fail with the job still being done."""
    stragglers: float = 0.0
    """An actor that runs past so many times its peers' median is started again; 0: none is."""
    max_cost_usd: float = 0.0
    """The job fails when it has cost so much; 0: whatever it costs."""
    copies: int = 0
    """Copies of the function, which are named with -0, -1, ...; 0: it is one, named as it is."""
    event: Mapping[str, Any] = field(default_factory=dict)
    """What the user wants in the workers' event besides."""
    order: Mapping[str, Any] = field(default_factory=dict)
    """All this as JSON values, as it can be ordered again."""
    key: str = ""
    """The order's Idempotency-Key, if it had one."""
    digest: str = ""
    """Of the order's body, to tell whether another one with its key says the same."""

    @property
    def functions(self) -> list[str]:
        """Return the functions to invoke, in turn."""
        return [f"{self.function}-{copy}" for copy in range(self.copies)] or [self.function]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of each actor, and how long is waited; seconds."""

    log_bytes: int = 65536
    max_held: int = 1000
    max_info: int = 16 * 2**20
    hold_s: float = 10.0
    """For a worker whose connection was lost."""
    retry_pause_s: float = 1.0
    """Before the third attempt at an actor; twice as long before each further one."""
    hello_s: float = 120.0
    """For a worker whose launch was answered."""
    accept_s: float = 600.0
    """For an engine to answer a launch other than with: not now."""


def new_machine(
    pipeline: Pipeline, facts: JobFacts, actor: int, given: Mapping[str, Any], limits: Limits
) -> Machine:
    """Return a machine at its beginning, for an attempt at an actor whose input is `given`."""
    worker = ScriptWorker(facts, actor, given)
    return Machine(worker, first_state(pipeline.begin), limits.max_held, limits.max_info)
