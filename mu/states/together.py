"""Runs several states at the same time on one worker."""

from collections.abc import Callable, Sequence

from mu.events import Answered, Event
from mu.states.base import (
    KICK,
    ErrorState,
    Expect,
    MachineState,
    Previous,
    TerminalState,
    advance,
    enter,
    expects,
)
from mu.states.context import SendCommand, State


class SuperpositionState(MachineState):
    """Runs one state from each constructor at the same time, until all of them have ended.

    A reply goes to the first part that has not ended and expects its prefix; if there is none, the
    reply is kept and offered again. An ErrorState in any part fails the actor. Parts that can run
    at once, on entry or after an INFO, run in reverse order, each until it waits.
    """

    state_constructors: Sequence[Callable[..., MachineState]] = ()
    nextState: Callable[..., State] = TerminalState

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.states = [make(prevState, self.actorNum) for make in self.state_constructors]
        self._entered = False

    def _side_by_side(self) -> Sequence[State]:
        return self.states

    def starts_at_once(self) -> bool:
        return True

    def get_expect(self) -> Expect:
        prefixes: list[str | None] = []
        for part in self._waiting():
            expected = part.get_expect()
            prefixes += expected if isinstance(expected, list) else [expected]
        return prefixes

    def str_extra(self) -> str:
        return f"{self.extra} [{' | '.join(part.label for part in self.states)}]".lstrip()

    def info_updated(self) -> None:
        """Pass the INFO to each part. A subclass may override this and decide for its parts."""
        for part in self._waiting():
            part.info_updated()
        self.kick()

    def receive(self, event: Event, send: SendCommand) -> State:
        self._event = event
        return super().receive(event, send)

    def transition(self, msg: str) -> State:
        if msg is KICK:
            self._run_parts()
        else:
            self._give(msg)
        failed = [part for part in self.states if isinstance(part, ErrorState)]
        if failed:
            return ErrorState(self, failed[0].err)
        return self if self._waiting() else self.post_transition()

    def post_transition(self) -> State:
        """Return the next state; called once, when all parts have ended."""
        return self.nextState(self)

    def _waiting(self) -> list[MachineState]:
        return [part for part in self.states if not isinstance(part, TerminalState)]

    def _give(self, msg: str) -> None:
        for place, part in enumerate(self.states):
            if not isinstance(part, TerminalState) and expects(part, msg):
                number = self._event.command if isinstance(self._event, Answered) else 0
                event = Answered(self.worker.now, msg, number)
                self._replace(place, advance(part, event, self.worker))
                return
        raise ValueError(f"no part expects {msg!r}")

    def _run_parts(self) -> None:
        """Run all parts that can run at once, in reverse order, each until it waits."""
        entering, self._entered = not self._entered, True
        for place in reversed(range(len(self.states))):
            part = self.states[place]
            if entering:
                following = advance(part, self._event, self.worker)
            else:
                following = enter(part, part.settle(), self.worker)
            self._replace(place, following)

    def _replace(self, place: int, state: State) -> None:
        if not isinstance(state, MachineState):
            raise TypeError(f"a part must be a MachineState, not {state!r}")
        self.states[place] = state
