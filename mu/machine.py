"""One actor's machine: an event in, effects out.

Pure: no socket, no clock, no chance. The same events give the same effects, so the live session,
a test that compares lists and a replay drive the same machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mu.deprecated import moved
from mu.events import (
    Answered,
    CancelTimer,
    Effect,
    Elapsed,
    Event,
    Finish,
    Informed,
    Lost,
    encode,
)
from mu.states.base import ErrorState, MachineState, TerminalState, advance
from mu.states.context import HELD_LIMIT, Context, Held, State

INFO_LIMIT = 16 * 2**20
"""How much a worker's INFO may hold, in characters, unless told otherwise."""

STATE_TIMER = "state"

__getattr__ = moved(
    __name__,
    {name: f"mu.states.base:{name}" for name in ("ErrorState", "MachineState", "TerminalState")}
    | {name: f"mu.states.context:{name}" for name in ("Held", "JobFacts", "Runaway", "State")}
    | {"Worker": "mu.states.context:Context"},
)


@dataclass(slots=True)
class Machine:
    """Drives one actor from Entered to Finish. `begin` makes the first state from the worker."""

    worker: Context
    begin: Callable[[Context], State]
    held_limit: int = HELD_LIMIT
    info_limit: int = INFO_LIMIT
    state: State | None = None
    finished: Finish | None = None
    crash: Exception | None = None
    """What a state raised, if that is why the actor failed."""
    _held: list[Answered] = field(default_factory=list)
    _timed: dict[str, Any] = field(default_factory=dict)
    _timers: int = 0
    _info_size: int = 0

    def __post_init__(self) -> None:
        self.worker.held_limit = self.held_limit

    @property
    def label(self) -> str:
        """The current state, for people."""
        try:
            return self.state.label if self.state else ""
        except Exception:  # an author's str_extra
            return type(self.state).__name__

    @property
    def last_label(self) -> str:
        """The state that failed, if one did; else the current one."""
        before = self.state.prevState if isinstance(self.state, ErrorState) else None
        return before.label if isinstance(before, MachineState) else self.label

    def receive(self, event: Event) -> list[Effect]:
        """Return what is to be done now. After Finish nothing is."""
        if self.finished:
            return []
        effects = self.worker.begin_event(event.at)
        before = self.state
        try:
            self._react(event)
            self.finished = self._outcome()
            if isinstance(event, Lost) and self.finished is None:
                self.finished = Finish(event.reason)  # a state cannot stay when its worker is gone
            if self._timed or self.state is not before or self._has_parts:
                self._retime()
        except Exception as error:  # whatever a state's author wrote must fail its actor only
            self.crash = error
            self.finished = Finish(f"{self.label}: {type(error).__name__}: {error}")
        if self.finished:
            effects += map(CancelTimer, self._timed)
            effects.append(self.finished)
        return effects

    @property
    def _has_parts(self) -> bool:
        return isinstance(self.state, MachineState) and bool(self.state._side_by_side())

    def _retime(self) -> None:
        """Cancel the timers of states that are left, and set those of states that are new."""
        living = [] if self.finished or self.state is None else list(_living(self.state))
        for name, state in list(self._timed.items()):
            if not any(state is still for still in living):
                del self._timed[name]
                self.worker.cancel_timer(name)
        for state in living:
            seconds = getattr(state, "timeout", None)
            if seconds is not None and not any(state is timed for timed in self._timed.values()):
                self._timers += 1
                name = f"{STATE_TIMER}{self._timers}"
                self._timed[name] = state
                self.worker.set_timer(name, seconds)

    def _react(self, event: Event) -> None:
        if isinstance(event, Informed):
            self._note(event.key, event.value)
        if isinstance(event, Elapsed) and event.timer in self._timed:
            late = self._timed.pop(event.timer)
            who = "it" if late is self.state else late.label
            event = Lost(event.at, f"{who} took longer than its timeout of {late.timeout:g} s")
        if self.state is None:
            self.state = self.begin(self.worker)
        if not self._take(event):
            self._hold(event)
            return
        while any(self._retake(held) for held in self._held):
            pass

    def _note(self, key: str, value: str) -> None:
        """Take in what the worker informs us of."""
        info = self.worker.info
        before = len(key) + len(str(info[key])) if key in info else 0
        self._info_size += len(key) + len(value) - before
        if self._info_size > self.info_limit:
            raise OverflowError(f"the worker's INFO holds over {self.info_limit} characters")
        info[key] = value

    def _take(self, event: Event) -> bool:
        assert self.state is not None
        try:
            self.state = advance(self.state, event, self.worker)
        except Held:
            return False
        return True

    def _retake(self, held: Answered) -> bool:
        """Offer a kept reply again; if it is taken, forget it."""
        if not self._take(held):
            return False
        self._held.remove(held)
        return True

    def _hold(self, event: Event) -> None:
        if not isinstance(event, Answered):
            raise TypeError(f"{self.label} may put off a reply, but no {type(event).__name__}")
        self._held.append(event)
        if len(self._held) > self.held_limit:
            wanted = getattr(self.state, "get_expect", lambda: None)()
            raise OverflowError(
                f"over {self.held_limit} replies wait for a state that wants them;"
                f" this one wants {wanted!r}"
            )

    def _outcome(self) -> Finish | None:
        """Return the end, if this is it."""
        if isinstance(self.state, ErrorState):
            before = self.state.prevState
            where = f"{before.label}: " if isinstance(before, MachineState) else ""
            return Finish(f"{where}{self.state.err or 'failed'}")
        if isinstance(self.state, TerminalState):
            finish = Finish(result=self.state.result)
            encode(finish)  # raises TypeError for a result that is no JSON value
            return finish
        return None


def _living(state: State) -> Iterator[Any]:
    """Yield the state, and the parts of one that runs several side by side."""
    yield state
    if isinstance(state, MachineState):
        for part in state._side_by_side():
            yield from _living(part)
