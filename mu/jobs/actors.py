"""An actor, one place in a job for a worker to fill, and the attempts at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mu.events import Finish
from mu.jobs.driver import SessionDriver
from mu.jobs.summary import JSON, readable
from mu.journal.records import AttemptEnded, NobodyCame
from mu.machine import Machine

SHOWN_REPLY = 1000
"""Characters kept of an actor's last reply, for users."""


class Tail:
    """The last `limit` bytes of a stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.end = 0
        """The length of the whole stream, in bytes."""

    def write(self, output: bytes) -> None:
        self._bytes += output
        self.end += len(output)
        del self._bytes[: max(0, len(self._bytes) - self._limit)]

    def since(self, start: int) -> bytes:
        """Return the stream from byte `start` on, as far as it is kept."""
        dropped = self.end - len(self._bytes)
        return bytes(self._bytes[max(0, start - dropped) :])

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed; attempt 0: no worker connected for one."""

    attempt: int
    at: float
    label: str
    last_reply: str
    error: str

    def describe(self) -> JSON:
        return {
            "attempt": self.attempt,
            "at": self.at,
            "label": self.label,
            "last_reply": readable(self.last_reply),
            "error": readable(self.error),
        }


class Troupe(Protocol):
    """What an actor needs of its job (a mu.jobs.job.Job)."""

    id: str

    @property
    def worker_timeout_s(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def active(self) -> bool: ...
    def machine(self, actor: "Actor") -> Machine: ...
    def attempt_ended(
        self, attempt: "Attempt", finish: Finish, at: float, charged: bool
    ) -> None: ...


class Attempt:
    """One worker's try at an actor, which a session drives."""

    def __init__(self, actor: "Actor", number: int, began: float) -> None:
        self.actor = actor
        self.number = number
        self.began = began
        self.last_reply = ""
        self.since = began
        self.machine = actor.job.machine(actor)
        self.session: SessionDriver | None = None

    @property
    def job_id(self) -> str:
        return self.actor.job.id

    @property
    def actor_number(self) -> int:
        return self.actor.number

    @property
    def output(self) -> Tail:
        return self.actor.output

    @property
    def timeout_s(self) -> float:
        return self.actor.job.worker_timeout_s

    def heard(self, text: str, at: float) -> None:
        """Note the worker's last reply."""
        self.last_reply = text[:SHOWN_REPLY]
        self.since = at

    def ended(self, finish: Finish, at: float, charged: bool) -> None:
        """Tell the job that the session is over; `charged`: whether it counts as a try."""
        self.actor.job.attempt_ended(self, finish, at, charged)

    def waits_for(self) -> str:
        """Say what it waits for, for users."""
        if self.session is not None and self.session.away_since is not None:
            return "its worker to come back"
        wanted = self.machine.expected
        if not wanted:
            return "its worker"
        return " or ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)


class Actor:
    """One place in a job for a worker to fill: waiting, running, done or failed.

    Only its job changes it, by records: `begin`, `take_end` and `take_absence` take one in.
    `state` is what users see; done and failed are shown only once they are on disk.
    """

    def __init__(
        self, job: Troupe, number: int, given: Mapping[str, Any], at: float, log_bytes: int
    ) -> None:
        self.job = job
        self.number = number
        self.input = given
        self.state = "waiting"
        self.tried = 0
        """The number of its last attempt."""
        self.attempts: list[Attempt] = []
        """Those that run: none, one, or two of a straggler."""
        self.failures: list[Failure] = []
        self.spent = 0
        """How many failures count against `retries`."""
        self.outcome: Finish | None = None
        """How it ended, on disk or not yet."""
        self.output = Tail(log_bytes)
        self.pause_until: float | None = None
        """When it will be retried, while it pauses before that."""
        self.took: float | None = None
        """How many seconds the attempt took that succeeded."""
        self._since = at
        self._label = self._last_reply = ""

    def begin(self, attempt: int, at: float) -> Attempt:
        """Return a new attempt of that number."""
        self.tried = attempt
        begun = Attempt(self, attempt, at)
        self.attempts.append(begun)
        self.pause_until = None
        self.state = "running"
        return begun

    def take_end(self, record: AttemptEnded) -> Attempt | None:
        """Take in that an attempt has ended, and return it; None if it is not running."""
        attempt = next((one for one in self.attempts if one.number == record.attempt), None)
        if attempt is None:
            return None
        self.attempts.remove(attempt)
        self._label, self._last_reply, self._since = record.label, record.last_reply, record.at
        if self.outcome is not None:
            return attempt  # another attempt was first
        if record.error is None:
            self.took = record.at - attempt.began
            self.outcome = Finish(result=record.result)
        else:
            self.spent += record.charged
            self._fail(
                Failure(record.attempt, record.at, record.label, record.last_reply, record.error)
            )
        return attempt

    def take_absence(self, record: NobodyCame) -> None:
        """Take in that no worker came for it in time."""
        self._since = record.at
        if self.outcome is None:
            self.spent += 1
            self._fail(Failure(0, record.at, "", "", record.error))

    def _fail(self, failure: Failure) -> None:
        """Wait for the next attempt, or fail for good."""
        self.failures.append(failure)
        if self.attempts:
            return
        if self.job.active and self.spent <= self.job.retries:
            self.state = "waiting"
            return
        tries = len(self.failures)
        after = f" (after {tries} attempts)" if tries > 1 else ""
        self.outcome = Finish(f"{failure.error}{after}")

    def show_end(self) -> None:
        """Show users the end, which is on disk."""
        assert self.outcome is not None
        self.state = "failed" if self.outcome.error else "done"

    @property
    def free(self) -> bool:
        """Whether it needs a worker."""
        return self.outcome is None and not self.attempts

    @property
    def error(self) -> str | None:
        """Why it failed, if it did and that is on disk."""
        return self.outcome.error if self.outcome and self.state == "failed" else None

    @property
    def result(self) -> Any:
        """Its result, if it is done and that is on disk."""
        return self.outcome.result if self.outcome and self.state == "done" else None

    @property
    def last_reply(self) -> str:
        return self.attempts[-1].last_reply if self.attempts else self._last_reply

    @property
    def label(self) -> str:
        """Its machine's state, for users."""
        return self.attempts[-1].machine.label if self.attempts else self._label

    def since(self) -> float:
        """Return when it last heard from its worker, or began to wait; seconds since the epoch."""
        if not self.attempts:
            return self._since
        attempt = self.attempts[-1]
        away = attempt.session.away_since if attempt.session else None
        return attempt.since if away is None else away

    def waits_for(self) -> str | None:
        """Say what it waits for, for users; None: it has ended."""
        if self.state in ("done", "failed"):
            return None
        if self.outcome is not None:
            return "the disk"
        if self.attempts:
            return self.attempts[-1].waits_for()
        return "a worker" if self.pause_until is None else "a pause before its next attempt"

    def describe(self) -> JSON:
        """Return what users see of it, as JSON."""
        return {
            "actor": self.number,
            "state": self.state,
            "label": self.label,
            "attempt": self.tried,
            "since": self.since(),
            "waits_for": self.waits_for(),
            "last_reply": readable(self.last_reply),
            "error": self.error and readable(self.error),
            "result": self.result,
            "failures": [failure.describe() for failure in self.failures],
        }
