"""Who runs what: jobs, their actors, and the book that assigns workers to them."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mu.events import Finish
from mu.machine import JobFacts, Machine, State, Worker
from mu.messages import Hello
from mu.parameters import Params
from mu.states.script import ScriptWorker, first_state

EXTERNAL = "external"
"""The engine that starts nothing: somebody starts the workers by hand."""


SHOWN_REPLY = 1000
"""Characters that are kept of an actor's last reply, for people."""


class Candidate(Protocol):
    """A connected worker that asks for an actor."""

    def assign(self, actor: "Actor") -> None:
        """Drive this actor from now on."""

    def wait(self) -> None:
        """Stay connected: an actor may come."""

    def dismiss(self, reason: str) -> None:
        """Quit: there is nothing to do here for you."""


class Conversation(Protocol):
    """What an actor needs of the session that drives it."""

    def give_up(self, reason: str) -> None:
        """Fail the actor, and tell the worker to quit."""


class Pipeline(Protocol):
    """A mu.interfaces.IPipeline."""

    name: str

    def plan(self, params: Params) -> list[dict[str, Any]]: ...
    def begin(self, worker: Worker) -> State: ...
    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> Any: ...


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
    event: Mapping[str, Any] = field(default_factory=dict)
    """What the user wants in the workers' event besides."""
    key: str = ""
    """The order's Idempotency-Key, if it had one."""
    digest: str = ""
    """Of the order's body, to tell whether another one with its key says the same."""


class Tail:
    """The last `limit` bytes of a stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.end = 0
        """Bytes in all, those that are kept no more included."""

    def write(self, output: bytes) -> None:
        self._bytes += output
        self.end += len(output)
        del self._bytes[: max(0, len(self._bytes) - self._limit)]

    def since(self, start: int) -> bytes:
        """Return what came from byte `start` on, as far as it is kept."""
        dropped = self.end - len(self._bytes)
        return bytes(self._bytes[max(0, start - dropped) :])

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)


class Actor:
    """One place in a job, for a worker to fill: waiting, running, done or failed."""

    def __init__(self, job: "Job", number: int, given: Mapping[str, Any]) -> None:
        self.job = job
        self.number = number
        self.input = given
        self.state = "waiting"
        self.attempt = 0
        self.since = job.created
        """Seconds since the epoch: when it last heard anything, or was made."""
        self.last_reply = ""
        self.error: str | None = None
        self.result: Any = None
        self.output = Tail(job.limits.log_bytes)
        self.session: Conversation | None = None
        """What drives it, while it runs."""
        self._machine: Machine | None = None
        self._label = ""

    @property
    def timeout_s(self) -> float:
        return self.job.spec.worker_timeout_s

    @property
    def label(self) -> str:
        """Its machine's state, for people."""
        return self._machine.label if self._machine else self._label

    def begin(self, session: Conversation, at: float) -> Machine:
        """Return the machine of a new attempt, driven by `session`."""
        self.attempt += 1
        self.session = session
        self.since = self.job.last_hello = at
        self.job.first_hello = self.job.first_hello or at
        worker = ScriptWorker(self.job.facts, self.number, self.input)
        begin = first_state(self.job.spec.pipeline.begin)
        limits = self.job.limits
        self._machine = Machine(worker, begin, limits.max_held, limits.max_info)
        self._move("running")
        return self._machine

    def replied(self, text: str, at: float) -> None:
        """Note what the worker answered last."""
        self.last_reply = text[:SHOWN_REPLY]
        self.since = at

    def finished(self, finish: Finish, at: float) -> None:
        """Note how it ended."""
        self.error, self.result, self.since = finish.error, finish.result, at
        self._label = self.label
        self.session = self._machine = None  # both may hold much
        self._move("failed" if finish.error else "done")
        self.job.actor_finished(at)

    def _move(self, state: str) -> None:
        self.job.counts[self.state] -= 1
        self.job.counts[state] += 1
        self.state = state


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of each actor."""

    log_bytes: int = 65536
    max_held: int = 1000
    max_info: int = 16 * 2**20


class Job:
    """A pipeline's work, from launching over running to done, failed or cancelled."""

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        uniq: str,
        created: float,
        limits: Limits | None = None,
        on_end: Callable[["Job"], None] = lambda job: None,
    ) -> None:
        self.id = job_id
        self.spec = spec
        self.uniq = uniq
        self.created = created
        self.limits = limits or Limits()
        self.on_end = on_end
        """Called when the last actor has ended, or the job was stopped before."""
        self.state = "launching"
        self.launched: float | None = None
        """When the last launch was answered (times are seconds since the epoch)."""
        self.first_hello: float | None = None
        self.last_hello: float | None = None
        self.finished: float | None = None
        self.error: str | None = None
        self.result: Any = None
        self.planned = 0
        """Actors that the plan has; those that run are `actors`."""
        self.actors: list[Actor] = []
        self.counts: Counter[str] = Counter()
        self.launches: dict[str, bool] = {}
        """Launch id to whether a worker has come with it."""
        self.launch_counts: Counter[str] = Counter()
        self.dismissed = 0
        """Workers that were told to quit: duplicates, latecomers, too many."""
        self._unassigned: deque[Actor] = deque()
        self._waiting: list[Candidate] = []
        self._sessions: set[str] = set()
        self._stopping = False
        self._finishing = False  # all actors have ended, the pipeline's `finish` has not
        self.verdict: tuple[str, str] | None = None
        """The state and the reason with which the job was stopped, if it was."""

    @property
    def facts(self) -> JobFacts:
        return JobFacts(self.id, self.spec.params, self.planned, "", self.uniq)

    @property
    def ended(self) -> bool:
        return self.finished is not None

    @property
    def stopping(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._stopping or self.ended

    def plan(self, inputs: Sequence[Mapping[str, Any]], order: Sequence[int] | None = None) -> None:
        """Take the inputs of all actors, and the order in which they get workers.

        Of an order's explicit actors each must be planned. Workers that came before are assigned.
        """
        self.planned = len(inputs)
        wanted = set(self.spec.actors or range(self.planned))
        self.actors = [Actor(self, number, inputs[number]) for number in sorted(wanted)]
        by_number = {actor.number: actor for actor in self.actors}
        self._unassigned = deque(
            by_number[number] for number in order or range(self.planned) if number in wanted
        )
        self.counts["waiting"] += len(self.actors)
        early, self._waiting = self._waiting, []
        for candidate in early:
            self._assign(candidate)

    def actor(self, number: int) -> Actor | None:
        """Return the actor of that number."""
        return next((actor for actor in self.actors if actor.number == number), None)

    def join(self, hello: Hello, candidate: Candidate) -> None:
        """Give a worker something to do: an actor, patience, or leave."""
        if self.stopping:
            self._dismiss(candidate, f"job {self.id} has ended")
        elif hello.received or (hello.session and hello.session in self._sessions):
            self._dismiss(candidate, f"session {hello.session} cannot be resumed")
        elif hello.launch and self.launches.get(hello.launch) is None:
            self._dismiss(candidate, f"job {self.id} did not launch {hello.launch!r}")
        elif hello.launch and self.launches[hello.launch]:
            self._dismiss(candidate, f"launch {hello.launch} of job {self.id} has a worker already")
        else:
            if hello.launch:
                self.launches[hello.launch] = True
            self._sessions.add(hello.session)
            if self.actors:
                self._assign(candidate)
            else:
                self._waiting.append(candidate)
                candidate.wait()

    def leave(self, candidate: Candidate) -> None:
        """A waiting worker went away."""
        if candidate in self._waiting:
            self._waiting.remove(candidate)

    def actor_finished(self, at: float) -> None:
        ended = self.counts["done"] + self.counts["failed"]
        if ended == len(self.actors) and not self._stopping:
            self._stopping = self._finishing = True
            self.on_end(self)

    def give_up_waiting(self, reason: str, at: float) -> None:
        """Fail the actors for which no worker has come."""
        late, self._unassigned = self._unassigned, deque()
        for actor in late:
            actor.finished(Finish(reason), at)

    def stop(self, state: str, reason: str) -> None:
        """Give up all actors: running workers are told to quit, nothing more begins.

        A job whose pipeline is at its `finish` does not wait for that any longer.
        """
        if self.ended or (self._stopping and not self._finishing):
            return
        self._stopping, self._finishing = True, False
        self.verdict = state, reason
        for actor in self.actors:
            if actor.session is not None:
                actor.session.give_up(reason)
        waiting, self._waiting = self._waiting, []
        for candidate in waiting:
            self._dismiss(candidate, reason)
        self.on_end(self)

    def end(self, state: str, at: float, error: str | None = None, result: Any = None) -> None:
        """Note how the job ended: done, failed or cancelled. The first to say so counts."""
        if self.ended:
            return
        self._stopping, self._finishing = True, False
        self.state, self.finished, self.error, self.result = state, at, error, result

    def failures(self) -> str | None:
        """Return a sentence on the actors that failed, or None."""
        failed = [actor for actor in self.actors if actor.state == "failed"]
        if not failed:
            return None
        named = "; ".join(f"actor {actor.number}: {actor.error}" for actor in failed[:5])
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        return f"{len(failed)} of {len(self.actors)} actors failed: {named}{more}"

    def _assign(self, candidate: Candidate) -> None:
        if not self._unassigned:
            self._dismiss(candidate, f"job {self.id} has no actor without a worker")
            return
        actor = self._unassigned.popleft()
        if self.state == "launching" and not self._unassigned:
            self.state = "running"
        candidate.assign(actor)

    def _dismiss(self, candidate: Candidate, reason: str) -> None:
        self.dismissed += 1
        candidate.dismiss(reason)


class JobBook:
    """All jobs that are known, oldest first; at most `keep` that have ended."""

    def __init__(self, keep: int = 1000) -> None:
        self._keep = keep
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        ended = [known for known in self._jobs.values() if known.ended]
        for forgotten in ended[: max(0, len(ended) - self._keep)]:
            del self._jobs[forgotten.id]

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def with_key(self, key: str) -> Job | None:
        """Return the job that was ordered with this Idempotency-Key."""
        return next((job for job in self._jobs.values() if job.spec.key == key), None)

    def join(self, job_id: str, hello: Hello, candidate: Candidate) -> None:
        """Give a worker of that job something to do."""
        job = self._jobs.get(job_id)
        if job is None:
            candidate.dismiss(f"job {job_id} is not known")
        else:
            job.join(hello, candidate)

    def leave(self, job_id: str, candidate: Candidate) -> None:
        """A worker that had no actor yet went away."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.leave(candidate)
