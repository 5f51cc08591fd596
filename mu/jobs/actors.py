"""An actor, one of a job's places for a worker, and the attempts at it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from mu.events import Finish
from mu.jobs.changes import Changes
from mu.jobs.driver import SessionDriver
from mu.jobs.overview import Glance
from mu.jobs.stages import Gate, Stages
from mu.jobs.summary import JSON, Tally, readable, tally_json
from mu.jobs.usage import Usage
from mu.jobs.waiting import in_words
from mu.journal.records import AttemptEnded, NobodyCame, Skipped, Stopped
from mu.machine import Machine
from mu.messages import BadMessage, Use, encode, parse_retval
from mu.output.completion import read_excerpt
from mu.output.pieces import NOTE, ONCE, TEXT, WHOLE, OutputSink, Piece
from mu.session import ReplyKind
from mu.states.context import Progress
from mu.totals import Totals

SHOWN_REPLY = 1000
"""Characters kept of an actor's last reply, for users."""
GAP = b"output may be missing here: the connection to the worker was lost"
KINDS = {ReplyKind.NUMBERED: WHOLE, ReplyKind.PLAIN: TEXT, ReplyKind.REPLAYED: ONCE}
"""What the output in a reply is for the log."""
MOST_PRINTING = 1000
"""Of how many commands an attempt knows how much they have printed so far."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed. Attempt 0: no worker connected in time."""

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


class ParentJob(Protocol):
    """What an actor needs from its job (a mu.jobs.job.Job)."""

    id: str
    totals: Totals
    changes: Changes
    output: OutputSink

    @property
    def pipeline_name(self) -> str: ...
    @property
    def worker_timeout_s(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def active(self) -> bool: ...
    @property
    def cancelled(self) -> bool: ...
    @property
    def worker_awaited(self) -> str: ...
    @property
    def stages(self) -> Stages: ...
    def machine(self, actor: "Actor") -> Machine: ...
    def neighbour(self, actor: "Actor") -> "Actor | None": ...
    def used(self, session: str, use: Use) -> None: ...
    def command_used(self, attempt: "Attempt", use: Use) -> None: ...
    def attempt_ended(
        self, attempt: "Attempt", finish: Finish, at: float, charged: bool
    ) -> None: ...


class Attempt:
    """One worker's try at an actor, which a session drives."""

    def __init__(self, actor: "Actor", number: int, began: float) -> None:
        self.actor = actor
        self.number = number
        self.began = began
        self.downtime = 0.0
        """How long no daemon was running meanwhile, in seconds; below 0: the clock was set back."""
        self.last_reply = ""
        self.since = began
        self.machine = actor.job.machine(actor)
        self.session: SessionDriver | None = None
        self.told: set[int] = set()
        """The commands of which the worker has told what they used, if their reply may still come."""
        self.answered = actor.job.totals.answered
        """Counts the last reply to a command, and how long it took."""
        self._printed: dict[int, int] = {}  # bytes, by the commands that are running
        self._broken: Collection[int] = ()  # commands that ran while the last connection was lost

    @property
    def job_id(self) -> str:
        return self.actor.job.id

    @property
    def pipeline_name(self) -> str:
        return self.actor.job.pipeline_name

    @property
    def actor_number(self) -> int:
        return self.actor.number

    def printed(self, command: int, output: bytes, at: float) -> None:
        """Keep what a command printed, unless it is a quiet one."""
        source = self.machine.worker.source_of(command)
        if source is None:
            return
        printed = self._printed
        printed[command] = printed.get(command, 0) + len(output)
        if len(printed) > MOST_PRINTING:
            del printed[next(iter(printed))]
        self._log(Piece(at, self.number, command, source, output))

    def replied(self, command: int, text: str, at: float, kind: ReplyKind) -> None:
        """Keep the output in a run's reply, as far as it was not printed before."""
        if not text.startswith("OK:RETVAL("):
            return
        printed, broken = self._printed.pop(command, 0), command in self._broken
        source = self.machine.worker.source_of(command)
        try:
            output = encode(parse_retval(text)[1])
        except BadMessage:
            return
        if source is None or (printed == read_excerpt(output).size and not broken):
            return
        self._log(Piece(at, self.number, command, source, output, KINDS[kind]))

    def reconnected(self, received: int, at: float) -> None:
        """Note that output of the commands that are running may be missing.

        The worker has received the first `received` commands.
        """
        broken: set[int] = set()
        self._broken = broken
        for number, command in self.machine.worker.outstanding.items():
            source = self.machine.worker.source_of(number)
            if number <= received and command.startswith("run:") and source is not None:
                broken.add(number)
                self._log(Piece(at, self.number, number, source, GAP, NOTE))

    def _log(self, piece: Piece) -> None:
        job = self.actor.job
        job.output.write(job.id, self.actor.number, piece)

    @property
    def timeout_s(self) -> float:
        return self.actor.job.worker_timeout_s

    @property
    def passed(self) -> set[int]:
        """The numbers of the states that it has passed on so far."""
        passing = self.machine.worker.passing
        return set() if passing is None else passing.passed

    @property
    def awaited_state(self) -> int | None:
        """The number of its neighbour's state that a program of it needs; None: none does."""
        passing = self.machine.worker.passing
        return None if passing is None else passing.awaited

    def heard(self, text: str, at: float) -> None:
        """Note the worker's last reply."""
        self.last_reply = text[:SHOWN_REPLY]
        self.since = at

    def used(self, use: Use) -> None:
        """Tell the job what the worker says that it used."""
        if self.session is not None and not use.command:
            self.actor.job.used(self.session.name, use)
        self.actor.job.command_used(self, use)
        self.touched()

    def touched(self) -> None:
        """Note that it may look different to users now."""
        self.actor.job.changes.touch(self.actor.number)

    def ended(self, finish: Finish, at: float, charged: bool) -> None:
        """Tell the job that the session is over; `charged`: whether it counts against `retries`."""
        self.actor.job.attempt_ended(self, finish, at, charged)

    def does(self) -> str:
        """Return the name of the command that its worker runs; `idle`: none; `away`: not connected."""
        if self.session is not None and self.session.away_since is not None:
            return "away"
        oldest = next(iter(self.machine.worker.outstanding.values()), "idle")
        return readable(oldest.partition(":")[0])

    def waits_for(self) -> str:
        """Describe for users what it is waiting for."""
        if self.session is not None and self.session.away_since is not None:
            return "its worker to come back"
        words = in_words(self.machine.expected)
        if self.machine.is_stranded:
            return f"{words}, which no outstanding command can bring"
        state, neighbour = self.awaited_state, self.actor.job.neighbour(self.actor)
        if state is not None and neighbour is not None and not neighbour.passed(state):
            return f"{words}, which needs state {state} of actor {neighbour.number}"
        return words


class Actor:
    """One of a job's places for a worker: waiting, running, done, failed or cancelled.

    Only its job changes it, by applying records: see `begin`, `take_end`, `take_absence` and
    `cancel`. `state` is what users see; the last three are shown only once they are on disk.
    """

    def __init__(
        self,
        job: ParentJob,
        number: int,
        given: Mapping[str, object],
        at: float,
        size: int = 1,
    ) -> None:
        self.job = job
        self.number = number
        self.input = given
        self.size = size
        """How many inputs its plan says that it has."""
        self.state = "waiting"
        self.tried = 0
        """The number of its last attempt; 0: none yet."""
        self.attempts: list[Attempt] = []
        """The running ones: none, one, or two for a straggler."""
        self.failures: list[Failure] = []
        self.spent = 0
        """How many failures count against `retries`."""
        self.final = False
        """Whether one of them is such that no retry can mend it."""
        self._passed: set[int] | None = set()
        self.outcome: Finish | None = None
        """How it ended, even if that is not on disk yet; None: it has not ended."""
        self.pause_until: float | None = None
        """When it will be retried, during the pause before a retry."""
        self.usage = Usage()
        """What its workers used, as they told."""
        self.began: float | None = None
        """When its latest attempt began; None: there has been none."""
        self.took: float | None = None
        """How long the successful attempt took, in seconds."""
        self._since = at
        self._label = self._last_reply = ""
        self._cancelled = False
        self._progress: Progress | None = None  # of the last attempt, once it has ended

    def begin(self, attempt: int, at: float) -> Attempt:
        """Start an attempt with that number, and return it."""
        self.tried = attempt
        begun = Attempt(self, attempt, at)
        self.attempts.append(begun)
        self.began = at
        self.pause_until = None
        self.state = "running"
        return begun

    def take_end(self, record: AttemptEnded) -> Attempt | None:
        """Apply the end of an attempt, and return the attempt; None if it is not running."""
        attempt = next((one for one in self.attempts if one.number == record.attempt), None)
        if attempt is None:
            return None
        self.attempts.remove(attempt)
        self._label, self._last_reply, self._since = record.label, record.last_reply, record.at
        if record.passed is None:
            self._passed = None
        elif self._passed is not None:
            self._passed.update(record.passed)
        if self.outcome is not None:
            return attempt  # another attempt finished first
        self._progress = Progress(*record.progress) if record.progress else None
        if record.error is None:
            self.took = record.at - attempt.began - attempt.downtime
            self.outcome = Finish(result=record.result)
        else:
            self.spent += record.charged
            self.final |= record.final
            self._fail(
                Failure(record.attempt, record.at, record.label, record.last_reply, record.error)
            )
        return attempt

    def take_absence(self, record: NobodyCame) -> None:
        """Apply that no worker connected for it in time."""
        self._since = record.at
        if self.outcome is None:
            self.spent += 1
            self._fail(Failure(0, record.at, "", "", record.error))

    def skip(self, record: Skipped) -> None:
        """Apply that it fails without an attempt."""
        self._since = record.at
        self.outcome = Finish(record.error)

    def _fail(self, failure: Failure) -> None:
        """Wait for the next attempt, or fail for good."""
        self.failures.append(failure)
        if self.attempts:
            return
        if self.job.active and self.spent <= self.job.retries and not self.final:
            self.state = "waiting"
            return
        tries = len(self.failures)
        after = f" (after {tries} attempts)" if tries > 1 else ""
        self.outcome = Finish(f"{failure.error}{after}")
        self._cancelled = self.job.cancelled

    def cancel(self, record: Stopped) -> None:
        """Apply that the job was stopped while this actor waited for a worker."""
        self._since = record.at
        self.outcome = Finish(record.reason)
        self._cancelled = True

    def show_end(self) -> None:
        """Show the end to users: it is on disk now."""
        assert self.outcome is not None
        bad = "cancelled" if self._cancelled else "failed"
        self.state = bad if self.outcome.error else "done"

    def passed(self, state: int | None = None) -> bool:
        """Return whether it has passed on this state, any state for None; if unknown, it may have."""
        if self._passed is None:
            return True
        passed = self._passed.union(*(attempt.passed for attempt in self.attempts))
        return bool(passed) if state is None else state in passed

    def orphaned_by(self, neighbour: "Actor") -> bool:
        """Return whether it needs a state that `neighbour`, which has failed, never passed on."""
        if self.outcome is not None:
            return False
        if not self.attempts:
            return not neighbour.passed()
        awaited = [attempt.awaited_state for attempt in self.attempts]
        return all(state is not None and not neighbour.passed(state) for state in awaited)

    @property
    def free(self) -> bool:
        """Whether it needs a worker, now or when it may begin."""
        return self.outcome is None and not self.attempts

    @property
    def error(self) -> str | None:
        """Why it failed or was cancelled, if it was and that is on disk."""
        return (
            self.outcome.error if self.outcome and self.state in ("failed", "cancelled") else None
        )

    @property
    def result(self) -> object:
        """Its result, if it is done and that is on disk."""
        return self.outcome.result if self.outcome and self.state == "done" else None

    @property
    def last_reply(self) -> str:
        return self.attempts[-1].last_reply if self.attempts else self._last_reply

    @property
    def label(self) -> str:
        """The label of its machine's state."""
        return self.attempts[-1].machine.label if self.attempts else self._label

    def since(self) -> float:
        """Return when its worker last replied or its wait began, in seconds since the epoch."""
        if not self.attempts:
            return self._since
        attempt = self.attempts[-1]
        away = attempt.session.away_since if attempt.session else None
        return attempt.since if away is None else away

    @property
    def retried(self) -> bool:
        """Whether an attempt failed, and it has not failed for good."""
        return bool(self.failures) and self.state != "failed"

    @property
    def awaits_worker(self) -> bool:
        """Whether it waits for a worker, as its job describes that, and for nothing of its own."""
        waits = self.state == "waiting" and self.free and self.pause_until is None
        return waits and self.gate is None

    @property
    def gate(self) -> Gate | None:
        """The gate behind which it waits for other actors; None: it may begin, or has ended."""
        return None if self.outcome else self.job.stages.closed(self.number)

    def waits_for(self) -> str | None:
        """Describe for users what it is waiting for; None: it has ended."""
        if self.state not in ("waiting", "running"):
            return None
        if self.outcome is not None:
            return "the disk"
        if self.attempts:
            return self.attempts[-1].waits_for()
        if self.pause_until is not None:
            return "a pause before its next attempt"
        return self.job.worker_awaited if self.gate is None else str(self.gate)

    def tally(self) -> Tally:
        """Count its inputs. A retry begins anew, and all of a failed actor's inputs have failed."""
        progress = self._progress if self.outcome else self._best_progress()
        total, done, failed = self.size, 0, 0
        if progress is not None:
            total, done, failed = progress.of, progress.done, progress.failed
        if self.state == "failed":
            return total, 0, total
        if self.state == "done":
            done = total
        return total, done - failed, failed

    def _best_progress(self) -> Progress | None:
        """Return the progress of the attempt that has handled the most."""
        best: Progress | None = None
        for attempt in self.attempts:
            progress = attempt.machine.worker.progressed
            if progress is not None and (best is None or progress.done > best.done):
                best = progress
        return best

    def glance(self) -> Glance:
        """Return what an overview of the job needs."""
        error = self.error and readable(self.error)
        waits_for, since = self.waits_for(), self.since()
        return Glance(self.number, self.state, self.label, waits_for, since, error, self.retried)

    def describe(self) -> JSON:
        """Return its JSON for users."""
        return {
            "actor": self.number,
            "stage": self.job.stages.name(self.number),
            "state": self.state,
            "inputs": tally_json(self.tally()),
            "label": self.label,
            "attempt": self.tried,
            "began": self.began,
            "since": self.since(),
            "waits_for": self.waits_for(),
            "last_reply": readable(self.last_reply),
            "error": self.error and readable(self.error),
            "result": self.result,
            "used": self.usage.json(),
            "failures": [failure.describe() for failure in self.failures],
        }
