"""Base classes for plugins, with defaults for all optional members.

Derive from them, and override what differs. The registry accepts any object that provides
mu.interfaces.IPipeline or IEngine, and gives it the defaults of these classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from zope.interface import implementer

from mu.events import Finish
from mu.interfaces import IEngine, IPipeline
from mu.invocations import Answer, BadEnding, ConcurrencyLimit, Invocation, Size, Unreached
from mu.parameters import Parameter, Params
from mu.states.context import JobFacts, State
from mu.states.script import Script, ScriptWorker

if TYPE_CHECKING:  # so that pipelines can be imported without Twisted
    from twisted.internet.defer import Deferred

    from mu.findings import Finding

__all__ = [
    "ALL",
    "ActorInput",
    "Engine",
    "EngineSite",
    "JobFailed",
    "LaunchListener",
    "Outcome",
    "Pipeline",
    "Staged",
]

ActorInput = dict[str, Any]
"""The input that a plan gives an actor: JSON values by name."""

ALL = "all"
"""In `Staged.after`: all actors of the plan that do not have it there themselves."""


@dataclass(frozen=True, slots=True)
class Staged:
    """An actor of a plan that belongs to a stage, or that begins when others are done.

    `worker.before` then has the results of those, by their numbers.
    """

    input: ActorInput
    after: str | Sequence[int] = ()
    """The numbers of the actors that it waits for, or the name of their stage, or ALL."""
    stage: str = ""
    """The name of the stage that it belongs to; empty: it belongs to none."""


@dataclass(frozen=True, slots=True)
class Outcome(Finish):
    """How an actor ended: its error or result, as in Finish, and which actor it was."""

    actor: int = 0
    input: ActorInput = field(default_factory=dict)


class JobFailed(Exception):
    """Raise it in `finish` to fail the job with this message, and to keep its result.

    `result` is a JSON value, as `finish` would return it.
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


@implementer(IPipeline)
class Pipeline(ABC):
    """A kind of job. A subclass must define at least `name` and `begin`."""

    name: str
    """The unique name by which orders select it."""
    description: str = ""
    """One sentence for users."""
    parameters: Sequence[Parameter] = ()
    all_at_once: bool = False
    """Whether all its actors must run at the same time: refused if too few workers can run."""
    may_run_twice: bool = True
    """Whether a slow actor may be started a second time while its first worker still runs."""
    uses_relay: bool = False
    """Whether its workers exchange data through the relay. `mu doctor` then checks the relay's port."""
    relay_keep: bool = False
    """Whether the relay keeps everything that workers send until the job ends, for retries."""

    def check(self, params: Params) -> None:  # noqa: B027, it is optional
        """Raise mu.parameters.FieldError for parameters that are invalid in spite of their types.

        It is called when a job is ordered, so it must not do I/O.
        """

    def plan(self, params: Params) -> Sequence[ActorInput | Staged]:
        """Return a list with the input of each actor. By default they are empty.

        An actor that begins when others are done is a Staged in place of its input. `params` has the pipeline's parameters and `workers`, the number of workers ordered; the
        length of the list is the number of actors. It runs in a thread, so it may do I/O. It runs
        once for each job, and again if the daemon is killed before the plan is on disk. To fail the
        job, raise ValueError with a message for the user.
        """
        return [{} for _ in range(params["workers"])]

    def order(self, params: Params, actors: int) -> Sequence[int]:
        """Return the order in which actors get workers: a permutation of range(actors).

        By default the n-th worker to connect becomes actor n. See mu.pipelines.dealing.
        """
        return list(range(actors))

    def neighbour(self, params: Params, actor: int) -> int | None:
        """Return the actor whose states an actor waits for; None, the default: it needs none.

        An order of some actors must include the neighbours that they need, and an actor fails at
        once if its neighbour has failed for good without the state that it waits for. The states
        are those of the protocol: of programs with ##INSTATEWAIT##.
        """
        return None

    def may_mend(self, reply: str) -> bool:
        """Return whether a retry may mend a failure with this reply of the worker.

        By default it may. It is asked about the replies that fail a state, or raise CommandFailed.
        It must be pure. See also mu.pipelines.mending, and `final` of ErrorState and ActorFailed.
        """
        return True

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> Mapping[int, ActorInput]:
        """Return the input of each actor that a rerun of a job runs again, by its number.

        By default these are the actors that failed, with the same input. `outcomes` are those that
        `finish` got. An actor that was done may run again with a part of its input; `finish` then
        gets two outcomes of it, the earlier one first. Otherwise the new outcome replaces the old.
        It runs in a thread, so it may do I/O. To refuse, raise ValueError with a message for the
        user.
        """
        return {outcome.actor: outcome.input for outcome in outcomes if outcome.error}

    def inputs(self, given: ActorInput) -> Sequence[str]:
        """Return the names of an actor's inputs, such as keys; `given` is what the plan gave it.

        Users see progress counted in inputs, and find one's output by its name (`mu log --key`). By
        default an actor has one input without a name. See also `worker.progress`.
        """
        return [""]

    def failed_inputs(self, result: Any) -> Mapping[str, str]:
        """Return why inputs failed of an actor that is done, by their names, from its result.

        Users see them among a job's failures, grouped by the reason, so equal reasons should be equal
        texts. By default there are none.
        """
        return {}

    @abstractmethod
    def begin(self, worker: ScriptWorker) -> State | Script:
        """Return the first state of an attempt at an actor, or a script (a coroutine).

        It must be pure: after a restart, it is called again for attempts that continue.
        """

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> object:
        """Return the job's result, a JSON value. By default there is none.

        `outcomes` has one Outcome for each actor, failed ones included; in a rerun, also those of
        the earlier job that stay (see `rerun`). It runs in a thread when
        all actors have ended. It may run again after a crash of the daemon, so it must be
        idempotent. To fail the job, raise JobFailed, which keeps the result.
        """
        return None


class LaunchListener(Protocol):
    """Whom an engine tells what becomes of its launches, as far as it can (see Engine.watch).

    `launch` is the launch id of an Invocation. A launch that is unknown here is ignored.
    """

    def ended(self, launch: str, why: str) -> None:
        """The worker of a launch has ended and will not come back; `why`: `ended: out of memory`."""

    def pending(self, launch: str, why: str) -> None:
        """A launch was accepted and waits in the engine; `why` is for users: `queued: 3 before it`."""


@dataclass(frozen=True, slots=True)
class EngineSite:
    """What a daemon gives an engine when it starts, and `mu doctor` when it examines one."""

    options: Params
    """The engine's options: those of its section in mu.conf, and the defaults of the others."""
    folder: Path
    """A folder for what it has to remember, in the daemon's home; it may not exist yet."""
    host: str = ""
    """The host that workers connect to: `public_host`."""
    port: int = 0
    """The port that workers connect to; 0: unknown."""


@implementer(IEngine)
class Engine(ABC):
    """A way to start workers. A subclass must define at least `name` and `launch`."""

    name: str
    """The unique name by which orders select it."""

    on_this_machine: bool = False
    """Whether its workers run on this machine, so that they reach its loopback addresses."""

    growth: int = 0
    """How many workers of one function may start within 10 s; 0: any number."""

    batch: int = 1
    """How many launches `launch_many` takes at once."""

    options: Sequence[Parameter] = ()
    """Its options in mu.conf, in a section with the engine's name. They may not be lists or objects."""

    order_options: Collection[str] = ()
    """The names of those that an order may set for its job, in `engine_options`."""

    def start(self, site: EngineSite) -> None:  # noqa: B027, it is optional
        """Begin: the daemon starts. Raise ValueError, with a sentence for users, to keep it from that.

        It is called in the reactor's thread, before anything else but `check`, and must not block.
        """

    def stop(self) -> "Deferred[None]":
        """End what runs in the daemon, which stops; workers run on if the daemon keeps its jobs."""
        return _succeed(None)

    def check(self, options: Params) -> None:  # noqa: B027, it is optional
        """Raise mu.parameters.FieldError for options that are invalid in spite of their types.

        It is called with those of mu.conf before `start`, and with those of an order when that is
        made: the latter are only what the order sets. It must not do I/O.
        """

    def examine(self, site: EngineSite, functions: Sequence[str]) -> "Iterable[Finding]":
        """Return what `mu doctor` finds: whether jobs with these functions can run.

        It runs in a thread, so it may block, and also without a daemon, so without `start`.
        """
        return ()

    @abstractmethod
    def launch(self, invocation: Invocation) -> "Deferred[Answer]":
        """Start one worker; return a Deferred of the answer, which never fails.

        mu.invocations has the invocation and the answers: Accepted, Throttled, Unreached, Refused,
        Unknown.
        """

    def launch_many(self, invocations: Sequence[Invocation]) -> "Deferred[list[Answer]]":
        """Start several workers of one job, at most `batch`; return a Deferred of their answers.

        They are in the order of the invocations. It never fails. By default, `launch` is called for
        each.
        """
        from twisted.internet.defer import gatherResults

        if len(invocations) == 1:
            return self.launch(invocations[0]).addCallback(lambda answer: [answer])
        return gatherResults([self.launch(one) for one in invocations])

    def cancel(self, job_id: str) -> "Deferred[None]":
        """Drop what is queued for a job, if the engine can. By default nothing is dropped.

        It is called when a job has ended, however it did: its workers have been told to quit.
        """
        return _succeed(None)

    def watch(self, listener: LaunchListener) -> None:  # noqa: B027, it is optional
        """Tell `listener` from now on what becomes of launches, if the engine can.

        It is called once, in the reactor's thread, when the daemon starts, and the listener is to
        be called in that thread. A launch may end before `launch` has answered, and may be told of
        more than once, also launches of an earlier daemon.
        """

    regional: bool = True
    """Whether each region runs workers of its own, so that they do not share places."""

    def size(self, function: str, region: str) -> "Deferred[Size | Unreached | str]":
        """Return a Deferred of the function's size, or of a sentence that says why it is unknown.

        Without the size, a job's cost is not counted, and `max_cost_usd` cannot be kept. With a
        `version` in it, the first job after a deployment launches few workers until one connects.
        After an Unreached, it is asked again for as long as launches would be.
        """
        return _succeed(f"engine {self.name} does not report the size of its functions")

    def log_of(self, function: str, region: str, since: float) -> "Deferred[str]":
        """Return a Deferred of what workers printed since then, or of where to look.

        It is a clause of an error, for example `its log says: cannot reach 10.0.0.1:13579`. `since` is in
        seconds since the epoch.
        """
        return _succeed(f"see the log of function {function!r}")

    def ending_of(
        self, function: str, region: str, request: str, since: float
    ) -> "Deferred[BadEnding | None]":
        """Return a Deferred of how an invocation ended badly; None, the default: not, or unknown.

        `request` is the id by which the worker knows its invocation; it began after `since`, in
        seconds since the epoch. It is asked when the worker has lost its connection.
        """
        return _succeed(None)

    def concurrency(self, function: str, region: str) -> "Deferred[ConcurrencyLimit | None]":
        """Return a Deferred of how many workers may run at once; None, the default: unknown.

        Launches beyond that wait in mu, so that the engine neither drops nor delays them.
        """
        return _succeed(None)


_T = TypeVar("_T")


def _succeed(value: _T) -> "Deferred[_T]":
    from twisted.internet.defer import succeed

    return succeed(value)
