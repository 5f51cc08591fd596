"""A checked order, and the limits that apply to every job."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mu.jobs.function_name import FunctionName
from mu.machine import Machine
from mu.parameters import Params
from mu.plugins import Pipeline
from mu.states.context import JobFacts
from mu.states.passing import StatePassing
from mu.states.script import ScriptWorker, first_state

EXTERNAL = "external"
"""The engine that launches nothing: its workers are started by hand."""


ORIGINAL = "original"
"""The event format whose key and certificates a worker of the original mu can read."""


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
    """The actors to run; empty: all that the plan has."""
    spares: int = 0
    retries: int = 0
    on_failure: str = "finish"
    """What to do when an actor fails: `finish` the others, or `stop`."""
    tolerate: int = 0
    """How many actors may fail in a job that is done."""
    stragglers: float = 0.0
    """How many times the median an actor may run before a spare starts it again; 0: never."""
    max_cost_usd: float = 0.0
    """The cost at which the job fails; 0: no limit."""
    copies: int = 0
    """How many copies of the function there are, NAME-0, NAME-1, ...; 0: just NAME."""
    rerun: str = ""
    """The id of the job that it reruns a part of; empty: it is no rerun."""
    event: Mapping[str, Any] = field(default_factory=dict)
    """More keys for the workers' event."""
    event_format: str = "mu"
    """In which form the event has its key and certificates: mu or ORIGINAL."""
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    """What the order sets of the engine's options."""
    order: Mapping[str, object] = field(default_factory=dict)
    """The whole order as JSON values, which can be used in another order."""
    name: str = ""
    """What its user calls it; other jobs may have the same name."""
    key: str = ""
    """The order's Idempotency-Key, if it had one."""
    notify_url: str = ""
    """The URL to notify of the job's end; empty: none."""
    digest: str = ""
    """The digest of the order's body; it shows whether another order with this key is the same."""

    @property
    def functions(self) -> list[str]:
        """The functions to invoke, in rotation."""
        if not self.copies:
            return [self.function]
        function = FunctionName.parse(self.function)
        return [function.copy(number) for number in range(self.copies)]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of each actor, and how long a job waits, in seconds."""

    max_held: int = 1000
    max_info: int = 16 * 2**20
    attempt_bytes: int = 2**28
    """The limit for an attempt's events in the journal."""
    job_bytes: int = 2**32
    """The limit for the events of all of a job's attempts in the journal."""
    hold_s: float = 10.0
    """How long an actor is held for a worker that lost its connection."""
    blocked_s: float = 1.0
    """How long a state may take for one event before it is named in the log: nothing else runs then."""
    retry_pause_s: float = 1.0
    """The pause before the third attempt at an actor; it doubles with each further one."""
    hello_s: float = 120.0
    """How long a worker may take to say hello after its launch was accepted."""
    accept_s: float = 600.0
    """How long an engine may take to accept a launch, including throttling."""
    reconnect_s: float = 60.0
    """How long a worker runs without a daemon."""
    ahead_s: float = 0.0
    """How long before an actor can begin its worker is launched."""


def left_out(pipeline: Pipeline, params: Params, actors: Collection[int]) -> str:
    """Return a clause if one of the actors needs a neighbour that is not among them; empty: none."""
    for actor in actors:
        neighbour = pipeline.neighbour(params, actor)
        if neighbour is not None and neighbour not in actors:
            return f"actor {actor} waits for the state of actor {neighbour}"
    return ""


def new_machine(
    pipeline: Pipeline,
    facts: JobFacts,
    actor: int,
    given: Mapping[str, Any],
    limits: Limits,
    before: Mapping[int, Any] | None = None,
) -> Machine:
    """Return a new machine for an attempt at an actor whose input is `given`.

    `before` has the results of the actors that it waited for; None: it waited for nobody.
    """
    worker = ScriptWorker(facts, actor, given, before)
    worker.may_mend = pipeline.may_mend
    if pipeline.uses_relay:
        worker.passing = StatePassing()
    return Machine(worker, first_state(pipeline.begin), limits.max_held, limits.max_info)
