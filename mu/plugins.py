"""Base classes for plugins, with defaults for all optional members.

Derive from them, and override what differs. The registry accepts any object that provides
mu.interfaces.IPipeline or IEngine, and gives it the defaults of these classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from zope.interface import implementer

from mu.events import Finish
from mu.interfaces import IEngine, IPipeline
from mu.invocations import Answer, Invocation, Size
from mu.parameters import Parameter, Params
from mu.states.context import JobFacts, State
from mu.states.script import Script, ScriptWorker

if TYPE_CHECKING:  # so that pipelines can be imported without Twisted
    from twisted.internet.defer import Deferred

__all__ = ["ActorInput", "Engine", "Pipeline"]

ActorInput = dict[str, Any]
"""The input that a plan gives an actor: JSON values by name."""


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

    def plan(self, params: Params) -> list[ActorInput]:
        """Return the input of each actor. By default they are empty.

        `params` has the pipeline's parameters and `workers`, the number of workers ordered; the
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

    def inputs(self, given: ActorInput) -> Sequence[str]:
        """Return the names of an actor's inputs, such as keys; `given` is what the plan gave it.

        Users see progress counted in inputs, and find one's output by its name (`mu log --key`). By
        default an actor has one input without a name. See also `worker.progress`.
        """
        return [""]

    @abstractmethod
    def begin(self, worker: ScriptWorker) -> State | Script:
        """Return the first state of an attempt at an actor, or a script (a coroutine).

        It must be pure: after a restart, it is called again for attempts that continue.
        """

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> object:
        """Return the job's result, a JSON value. By default there is none.

        `outcomes` has one mu.events.Finish for each actor, failed ones included. It runs in a
        thread when all actors have ended. It may run again after a crash of the daemon, so it must
        be idempotent.
        """
        return None


@implementer(IEngine)
class Engine(ABC):
    """A way to start workers. A subclass must define at least `name` and `launch`."""

    name: str
    """The unique name by which orders select it."""

    growth: int = 0
    """How many workers of one function may start within 10 s; 0: any number."""

    @abstractmethod
    def launch(self, invocation: Invocation) -> "Deferred[Answer]":
        """Start one worker; return a Deferred of the answer, which never fails.

        mu.invocations has the invocation and the answers: Accepted, Throttled, Unreached, Refused,
        Unknown.
        """

    def cancel(self, job_id: str) -> "Deferred[None]":
        """Drop what is queued for a job, if the engine can. By default nothing is dropped."""
        return _succeed(None)

    def size(self, function: str, region: str) -> "Deferred[Size | str]":
        """Return a Deferred of the function's size, or of a sentence that says why it is unknown.

        Without the size, a job's cost is not counted, and `max_cost_usd` cannot be kept.
        """
        return _succeed(f"engine {self.name} does not report the size of its functions")

    def concurrency(self, function: str, region: str) -> "Deferred[int | None]":
        """Return a Deferred of how many workers may run at once; None, the default: unknown.

        Launches beyond that wait in mu, so that the engine neither drops nor delays them.
        """
        return _succeed(None)


_T = TypeVar("_T")


def _succeed(value: _T) -> "Deferred[_T]":
    from twisted.internet.defer import succeed

    return succeed(value)
