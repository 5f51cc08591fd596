"""Several states side by side on one worker."""

from collections.abc import Callable, Sequence
from typing import Any

from mu.events import Answered, Event
from mu.states.base import KICK, ErrorState, MachineState, TerminalState, advance, enter, expects
from mu.states.context import SendCommand


class SuperpositionState(MachineState):
    """Runs a state of each constructor side by side; done when all have come to an end.

    A reply goes to the first part that is not terminal and expects its prefix; one that no part
    expects is kept and offered again. An ErrorState in any part fails the whole. Parts that can run
    at once, on entry or after one INFO, run last part first, each until it waits.
    """

    state_constructors: Sequence[Callable[..., Any]] = ()
    nextState: Any = TerminalState

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.states = [make(prevState, self.actorNum) for make in self.state_constructors]
        self._entered = False

    def _side_by_side(self) -> Sequence[Any]:
        return self.states

    def starts_at_once(self) -> bool:
        return True

    def get_expect(self) -> Any:
        prefixes: list[str] = []
        for part in self._waiting():
            wanted = part.get_expect()
            prefixes += wanted if isinstance(wanted, list) else [wanted]
        return prefixes

    def str_extra(self) -> str:
        return f"{self.extra} [{' | '.join(part.label for part in self.states)}]".lstrip()

    def info_updated(self) -> None:
        """Tell each part. A subclass that overrides this decides for its parts."""
        for part in self._waiting():
            part.info_updated()
        self.kick()

    def receive(self, event: Event, send: SendCommand) -> Any:
        self._event = event
        return super().receive(event, send)

    def transition(self, msg: str) -> Any:
        if msg is KICK:
            self._run_parts()
        else:
            self._give(msg)
        failed = [part for part in self.states if isinstance(part, ErrorState)]
        if failed:
            return ErrorState(self, failed[0].err)
        return self if self._waiting() else self.post_transition()

    def post_transition(self) -> Any:
        """Return the next state; called once, when all parts have come to an end."""
        return self.nextState(self)

    def _waiting(self) -> list[Any]:
        return [part for part in self.states if not isinstance(part, TerminalState)]

    def _give(self, msg: str) -> None:
        for place, part in enumerate(self.states):
            if not isinstance(part, TerminalState) and expects(part, msg):
                number = self._event.command if isinstance(self._event, Answered) else 0
                event = Answered(self.worker.now, msg, number)
                self.states[place] = advance(part, event, self.worker)
                return
        raise ValueError(f"no part expects {msg!r}")

    def _run_parts(self) -> None:
        """Run all that can run at once, last part first, as far as each comes."""
        entering, self._entered = not self._entered, True
        for place in reversed(range(len(self.states))):
            part = self.states[place]
            if entering:
                self.states[place] = advance(part, self._event, self.worker)
            else:
                self.states[place] = enter(part, part.settle(), self.worker)
