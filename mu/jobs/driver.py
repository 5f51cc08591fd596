"""Performs a session's effects: the reactor, the journal and the log around mu.session."""

import traceback
from collections.abc import Iterable
from typing import Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu.events import CancelTimer, SetTimer
from mu.journal.allowance import Allowance
from mu.journal.ledger import Ledger
from mu.journal.records import Happened, Resumed
from mu.machine import label_of
from mu.messages import Hello
from mu.session import Part, Session
from mu.session_effects import (
    Append,
    AwaitDisk,
    Crashed,
    DiskStep,
    End,
    Fault,
    Goodbye,
    ReadOn,
    SessionEffect,
    Supersede,
    Write,
)
from mu.states.context import State


class WorkerLine(Protocol):
    """The connection of a worker that has said hello (mu.protocol.WorkerProtocol)."""

    peer: str

    def write(self, data: bytes) -> None: ...
    def goodbye(self) -> None:
        """Wait a short time for the worker to close the connection: it was told to quit."""

    def read_on(self) -> None:
        """Deliver frames to the session again: it is no longer `full`."""

    def supersede(self, reason: str) -> None:
        """Close this connection and deliver nothing more: the worker has a newer one."""

    def adopt(self, session: "SessionDriver") -> None:
        """Deliver every frame to this session from now on."""

    def wait(self) -> None:
        """Keep the connection open: the worker may still get an actor."""

    def dismiss(self, reason: str) -> None:
        """Tell the worker to quit: there is nothing for it to do."""


class SessionDriver:
    """A live session. Its methods are those of mu.session.Session, with the time filled in.

    All effects of one call are performed before the session is called again.
    """

    log = Logger()
    __slots__ = (
        *("full", "name", "part"),
        *("_blocked_s", "_busy", "_clock", "_job_id", "_late", "_ledger"),
        *("_session", "_stranded", "_timers"),
    )

    def __init__(
        self,
        part: Part,
        name: str,
        ledger: Ledger,
        clock: IReactorTime,
        hold_s: float,
        blocked_s: float,
        allowance: Allowance,
    ) -> None:
        self.part = part
        self.name = name
        self.full = True
        """Whether `receive` must not be called now."""
        self._session: Session[WorkerLine] = Session(part, name, ledger, hold_s, allowance)
        self._blocked_s = blocked_s
        self._ledger = ledger
        self._clock = clock
        self._job_id = part.job_id
        self._timers: dict[str, IDelayedCall] = {}
        self._busy = False
        self._stranded: State | None = None  # the last state that was warned of
        self._late: list[tuple[DiskStep, int]] = []  # arrived while effects were performed

    # ------------------------------------------------ state

    @property
    def line(self) -> WorkerLine | None:
        """The current connection."""
        return self._session.line

    @property
    def over(self) -> bool:
        """Whether the attempt has ended."""
        return self._session.over

    @property
    def away_since(self) -> float | None:
        """When the worker's connection was lost; None while it has one."""
        return self._session.away_since

    # ------------------------------------------------ inputs

    def begin(self) -> None:
        now, state = self._clock.seconds(), self.part.machine.state
        effects = self._session.begin(now)
        self._look_back(state, now)
        self._perform(effects)

    def restore(
        self, records: Iterable[Happened | Resumed], began: float, stopped_at: float
    ) -> None:
        """Raises Diverged, and ValueError for a broken record."""
        now = self._clock.seconds()
        self._perform(self._session.restore(records, began, stopped_at, now))

    def attach(self, line: WorkerLine, hello: Hello) -> None:
        self._perform(self._session.attach(line, hello, self._clock.seconds()))

    def detach(self, line: WorkerLine, reason: str) -> None:
        gone = f"its worker at {line.peer} is gone: {reason}"
        self._perform(self._session.detach(line, gone, self._clock.seconds()))

    def receive(self, payload: bytes) -> None:
        """Raises BadMessage; the caller must then end the connection."""
        now, state = self._clock.seconds(), self.part.machine.state
        effects = self._session.receive(payload, now)
        self._look_back(state, now)
        self._perform(effects)

    def give_up(self, reason: str) -> None:
        self._perform(self._session.give_up(reason, self._clock.seconds()))

    def fence(self, reason: str, charged: bool = True, final: bool = False) -> None:
        self._perform(self._session.fence(reason, self._clock.seconds(), charged, final))

    def _elapse(self, timer: str) -> None:
        del self._timers[timer]
        now, state = self._clock.seconds(), self.part.machine.state
        effects = self._session.elapsed(timer, now)
        self._look_back(state, now)
        self._perform(effects)

    def _look_back(self, before: State | None, began: float) -> None:
        """Warn of a state that blocked the daemon during an event, or waits for a reply that cannot arrive."""
        machine = self.part.machine
        # The check takes time; while a command is under way it can wait.
        if (
            machine.state is not self._stranded
            and not machine.worker.outstanding
            and machine.is_stranded
        ):
            self._stranded = machine.state
            self.log.warn(
                "job {job}, actor {actor}: {state} of {pipeline} waits for {reply}, which no"
                " outstanding command can bring: only a timeout ends this",
                job=self._job_id,
                actor=self.part.actor_number,
                pipeline=self.part.pipeline_name,
                state=machine.label,
                reply=machine.expected,
            )
        took = self._clock.seconds() - began
        if took < self._blocked_s:
            return
        states = [label_of(before) if before else "begin"]
        if machine.state is not before:
            states.append(machine.label)
        self.log.warn(
            "job {job}, actor {actor}: {pipeline} blocked the daemon for {seconds:.1f} s, in the state"
            " {states}: states and scripts must not wait, compute for long or do I/O",
            job=self._job_id,
            actor=self.part.actor_number,
            pipeline=self.part.pipeline_name,
            seconds=took,
            states=" or ".join(state for state in states if state),
        )

    def _on_disk(self, step: DiskStep, value: int) -> None:
        if self._busy:  # called at once, because everything is on disk or there is no journal
            self._late.append((step, value))
        else:
            self._perform(self._session.on_disk(step, value, self._clock.seconds()))

    # ------------------------------------------------ effects

    def _perform(self, effects: list[SessionEffect]) -> None:
        self.part.touched()
        self.full = self._session.full
        if not effects:
            return
        busy, self._busy = self._busy, True
        reads_on = False
        try:
            for effect in effects:
                if isinstance(effect, Append):
                    self._ledger.write(self._job_id, effect.line)
                elif isinstance(effect, Write):
                    line = self._session.line
                    if line is not None:
                        line.write(effect.data)
                elif isinstance(effect, ReadOn):
                    reads_on = True
                else:
                    self._perform_one(effect)
        except Exception as error:  # a fault in mu must not leave the actor without an end
            self.log.failure("actor {actor}: a fault in mu", actor=self.part.actor_number)
            self.fence(f"a fault in mu: {type(error).__name__}: {error}")
        finally:
            self._busy = busy
        while self._late and not busy:
            self._on_disk(*self._late.pop(0))
        if reads_on and self.line is not None:
            self.line.read_on()  # last, because it delivers frames

    def _perform_one(self, effect: SessionEffect) -> None:
        """Perform one of the less frequent effects."""
        match effect:
            case AwaitDisk(step=step, value=value, soon=soon):
                wait = self._ledger.on_disk if soon else self._ledger.later_on_disk
                wait(self._on_disk, step, value)
            case SetTimer(timer=timer, seconds=seconds):
                self._cancel(timer)
                self._timers[timer] = self._clock.callLater(seconds, self._elapse, timer)
            case CancelTimer(timer=timer):
                self._cancel(timer)
            case Supersede(line=line, reason=reason):
                cast(WorkerLine, line).supersede(reason)
            case Goodbye():
                if self.line is not None:
                    self.line.goodbye()
            case End(finish=finish, at=at, charged=charged):
                for timer in list(self._timers):
                    self._cancel(timer)
                self.part.ended(finish, at, charged)
            case Crashed(error=error):
                self.log.error(
                    "job {job}, actor {actor}: {pipeline} raised an exception: {trace}",
                    job=self._job_id,
                    actor=self.part.actor_number,
                    pipeline=self.part.pipeline_name,
                    trace="".join(traceback.format_exception(error)),
                )
            case Fault(error=error, event=event):
                self.log.failure(
                    "actor {actor}: a fault in mu: {event}",
                    Failure(error),
                    actor=self.part.actor_number,
                    event=event,
                )

    def _cancel(self, timer: str) -> None:
        call = self._timers.pop(timer, None)
        if call is not None:
            call.cancel()
