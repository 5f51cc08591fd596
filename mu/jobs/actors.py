"""An actor, one place in a job for a worker to fill, and the attempts at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mu.events import Finish
from mu.journal.ledger import Ledger
from mu.journal.records import AttemptEnded
from mu.machine import Machine
from mu.messages import encode
from mu.session import Session

SHOWN_REPLY = 1000
"""Characters that are kept of an actor's last reply, for people."""


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


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed; attempt 0: no worker came for one."""

    attempt: int
    at: float
    label: str
    last_reply: str
    error: str

    def describe(self) -> dict[str, Any]:
        return {
            "attempt": self.attempt,
            "at": self.at,
            "label": self.label,
            "last_reply": shown(self.last_reply),
            "error": shown(self.error),
        }


class Troupe(Protocol):
    """What an actor needs of its job (a mu.jobs.Job)."""

    id: str
    ledger: Ledger

    @property
    def worker_timeout_s(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def stopping(self) -> bool: ...
    def machine(self, actor: "Actor") -> Machine: ...
    def count(self, before: str, after: str) -> None: ...
    def session_ended(self, name: str, at: float) -> None: ...
    def try_again(self, actor: "Actor") -> None: ...
    def settled(self, actor: "Actor", at: float) -> None: ...


class Attempt:
    """One worker's try at an actor; what a session plays."""

    def __init__(self, actor: "Actor", number: int, began: float) -> None:
        self.actor = actor
        self.number = number
        self.began = began
        self.last_reply = ""
        self.since = began
        self.machine = actor.job.machine(actor)
        self.session: Session | None = None

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
        """Note what the worker answered last."""
        self.last_reply = text[:SHOWN_REPLY]
        self.since = at

    def ended(self, finish: Finish, at: float, charged: bool) -> None:
        self.actor.attempt_ended(self, finish, at, charged)

    def waits_for(self) -> str:
        """Say what it waits for, for people."""
        if self.session is not None and self.session.away_since is not None:
            return "its worker to come back"
        wanted = getattr(self.machine.state, "get_expect", lambda: None)()
        if not wanted:
            return "its worker"
        return " or ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)


class Actor:
    """One place in a job, for a worker to fill: waiting, running, done or failed.

    `state` is what people see: done and failed are told only once they are on disk.
    """

    def __init__(self, job: Troupe, number: int, given: Mapping[str, Any], at: float, log: int):
        self.job = job
        self.number = number
        self.input = given
        self.state = "waiting"
        self.tried = 0
        """The number of its last attempt."""
        self.attempts: list[Attempt] = []
        """Those that run: none, one, or a straggler's two."""
        self.failures: list[Failure] = []
        self.spent = 0
        """Attempts that count among those that it has: `retries`, and one."""
        self.outcome: Finish | None = None
        """How it ended, on disk or not yet."""
        self.output = Tail(log)
        self.pause_until: float | None = None
        """When it will be tried again, if that is not yet."""
        self.took: float | None = None
        """Seconds that the attempt took that was done."""
        self._since = at
        self._label = self._last_reply = ""

    def begin(self, at: float) -> Attempt:
        """Return a new attempt."""
        self.tried += 1
        attempt = Attempt(self, self.tried, at)
        self.attempts.append(attempt)
        self.pause_until = None
        self._move("running")
        return attempt

    def attempt_ended(self, attempt: Attempt, finish: Finish, at: float, charged: bool) -> None:
        """Note how an attempt ended, and what follows for the actor."""
        record = AttemptEnded(
            at,
            self.number,
            attempt.number,
            finish.error,
            finish.result,
            attempt.machine.last_label,
            attempt.last_reply,
            charged,
        )
        self.job.ledger.record(self.job.id, record)
        self.take_end(record)
        if self.outcome is not None:
            self.end_others()

    def end_others(self) -> None:
        """It has ended: no other attempt at it goes on."""
        for other in list(self.attempts):
            if other.session is not None:
                other.session.fence("another attempt at its actor was first")

    def take_end(self, record: AttemptEnded) -> None:
        """Take in that an attempt has ended."""
        attempt = next((one for one in self.attempts if one.number == record.attempt), None)
        if attempt is None:
            return
        self._note_end(attempt, record)
        if self.outcome is not None:
            return  # another attempt was first
        if record.error is None:
            self._end(Finish(result=record.result), record.at)
        elif not self.attempts:
            self._go_on(record.error, record.at)

    def _note_end(self, attempt: Attempt, record: AttemptEnded) -> None:
        self.attempts.remove(attempt)
        if attempt.session is not None:
            self.job.session_ended(attempt.session.name, record.at)
        attempt.session = None
        self._label, self._last_reply, self._since = record.label, record.last_reply, record.at
        if record.error is not None and self.outcome is None:
            self.spent += record.charged
            self.failures.append(
                Failure(record.attempt, record.at, record.label, record.last_reply, record.error)
            )
        elif self.outcome is None:
            self.took = record.at - attempt.began

    def nobody_came(self, error: str, at: float) -> None:
        """No worker came for it in time."""
        self.spent += 1
        self.failures.append(Failure(0, at, "", "", error))
        self._since = at
        if self.outcome is None:
            self._go_on(error, at)

    def _go_on(self, error: str, at: float) -> None:
        """An attempt failed: try again, or be failed."""
        if self.job.stopping or self.spent > self.job.retries:
            tries = len(self.failures)
            after = f" (after {tries} attempts)" if tries > 1 else ""
            self._end(Finish(f"{error}{after}"), at)
        else:
            self._move("waiting")
            self.job.try_again(self)

    def _end(self, finish: Finish, at: float) -> None:
        self.outcome = finish
        self.job.ledger.on_disk(self.show_end, at)

    def show_end(self, at: float) -> None:
        """What ended is on disk: tell."""
        assert self.outcome is not None
        self._move("failed" if self.outcome.error else "done")
        self.job.settled(self, at)

    def _move(self, state: str) -> None:
        if state != self.state:
            self.job.count(self.state, state)
            self.state = state

    @property
    def error(self) -> str | None:
        """Why it failed, if it did and that is on disk."""
        return self.outcome.error if self.outcome and self.state == "failed" else None

    @property
    def result(self) -> Any:
        """What came of it, if it is done and that is on disk."""
        return self.outcome.result if self.outcome and self.state == "done" else None

    @property
    def last_reply(self) -> str:
        return self.attempts[-1].last_reply if self.attempts else self._last_reply

    @property
    def label(self) -> str:
        """Its machine's state, for people."""
        return self.attempts[-1].machine.label if self.attempts else self._label

    def since(self) -> float:
        """When it last heard anything, or began to wait; seconds since the epoch."""
        if not self.attempts:
            return self._since
        attempt = self.attempts[-1]
        away = attempt.session.away_since if attempt.session else None
        return attempt.since if away is None else away

    def waits_for(self) -> str | None:
        """Say what it waits for, for people; None: for nothing any more."""
        if self.state in ("done", "failed"):
            return None
        if self.outcome is not None:
            return "the disk"
        if self.attempts:
            return self.attempts[-1].waits_for()
        return "a worker" if self.pause_until is None else "a pause before it is tried again"

    def describe(self) -> dict[str, Any]:
        """Return what is told of it."""
        return {
            "actor": self.number,
            "state": self.state,
            "label": self.label,
            "attempt": self.tried,
            "since": self.since(),
            "waits_for": self.waits_for(),
            "last_reply": shown(self.last_reply),
            "error": self.error and shown(self.error),
            "result": self.result,
            "failures": [failure.describe() for failure in self.failures],
        }


def shown(text: str) -> str:
    """Bytes that are no UTF-8 are for workers and states; people see a mark."""
    return encode(text).decode("utf-8", "replace")
