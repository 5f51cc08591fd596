"""The base of class states, the two ends, and the step from one state to the next."""

from collections.abc import Sequence
from typing import Any

from mu.events import Answered, Entered, Event, Informed, Lost
from mu.states.context import Context, Held, JobFacts, SendCommand, State, shortened

KICK = "(kick)"
"""Stands in `messages` for a start without a message; recognised by identity."""


class MachineState:
    """The base of class states: expects a reply, and makes the next state from itself.

    A transition that raises ValueError before it sent or constructed anything says "not for me
    now": the reply is kept and offered again. Any other exception fails the actor.
    """

    expect: str | None = None
    extra: str = ""
    timeout: float | None = None
    """Seconds that this state may last, or None for no limit of its own."""

    prevState: Any
    worker: Context
    job: JobFacts
    actorNum: int
    info: dict[str, Any]
    timestamps: list[float]
    stateinfo: list[tuple[float, str]]
    messages: list[str]
    _kicked: bool

    def __new__(cls, prevState: Any, *args: Any, **kwargs: Any) -> Any:
        """Carry over what states share before any constructor runs: they may use it at once."""
        self = super().__new__(cls)
        first = isinstance(prevState, Context)
        self.prevState = prevState
        self.worker = prevState if first else prevState.worker
        self.job = self.worker.job
        self.actorNum = self.worker.actor if first else prevState.actorNum
        self.info = self.worker.info
        self.timestamps = self.worker.timestamps
        self.stateinfo = self.worker.stateinfo
        self.messages = []
        self._kicked = False
        self.worker.constructed(cls.__name__)
        return self

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        """`actorNum` is part of the original's signature; the number comes from `prevState`."""

    @property
    def label(self) -> str:
        return f"{type(self).__name__} {self.str_extra()}".rstrip()

    def str_extra(self) -> str:
        return self.extra

    def get_expect(self) -> Any:
        """The prefix of the reply that this state waits for (None: none in particular)."""
        return self.expect

    def transition(self, msg: str) -> Any:
        """Return the next state, or itself. This one drops the message."""
        return self

    def info_updated(self) -> None:
        """Called after the worker's INFO changed `info`."""

    def enqueue(self, command: str) -> None:
        """Send the worker a command."""
        self.worker.send(command)

    def kick(self) -> None:
        """Run this state at once, without a message; kicked twice it runs once."""
        self._kicked = True

    def accepts(self, msg: str) -> bool:
        """Whether `get_expect` lets this state have that message."""
        return msg is KICK or self.get_expect() is None or expects(self, msg)

    def starts_at_once(self) -> bool:
        """Whether this state does not wait for a reply before its first step."""
        return False

    def receive(self, event: Event, send: SendCommand) -> Any:
        match event:
            case Answered(text=text):
                if text.startswith("FAIL("):
                    return ErrorState(self, f"the worker answered {shortened(text)}")
                return self._offer(text)
            case Entered():
                if self.starts_at_once():
                    self.kick()
            case Informed():
                self.info_updated()
            case Lost(reason=reason):
                return ErrorState(self, reason)
        return self.settle()

    def _offer(self, text: str) -> Any:
        worker = self.worker
        before = worker.sent, len(worker.stateinfo)
        heard, place = len(self.messages), getattr(self, "cmdNum", None)
        try:
            following = self.transition(text)
        except ValueError:
            if (worker.sent, len(worker.stateinfo)) != before:
                raise
            del self.messages[heard:]  # as if it had never been offered
            if place is not None:
                self.cmdNum = place
            raise Held from None
        return self.settle() if following is self else following

    def settle(self) -> Any:
        """Run as long as kicked; return the next state, or itself."""
        while self._kicked:
            self._kicked = False
            following = self.transition(KICK)
            if following is not self:
                return following
            self.worker.step()
        return self

    def _side_by_side(self) -> Sequence[Any]:
        """Return the states that run inside this one."""
        return ()


def expects(state: Any, msg: str) -> bool:
    """Whether the message begins with a prefix that the state names; one that names none wants none."""
    wanted = state.get_expect()
    prefixes = wanted if isinstance(wanted, list) else [wanted]
    return any(prefix is not None and msg.startswith(prefix) for prefix in prefixes)


class TerminalState(MachineState):
    """The actor is done; whatever the worker says from here on is ignored."""

    result: Any = None
    """What came of it, a JSON value for people and for the pipeline's `finish`."""

    def receive(self, event: Event, send: SendCommand) -> Any:
        return self


class ErrorState(TerminalState):
    """The actor failed."""

    err: str = ""

    def __init__(self, prevState: Any, err: str = "") -> None:
        super().__init__(prevState)
        self.err = err

    def str_extra(self) -> str:
        return self.err


def advance(state: State, event: Event, worker: Context) -> State:
    """Give `state` the event, enter each state that follows, and return the one that waits."""
    return enter(state, state.receive(event, worker.send), worker)


def enter(state: State, following: State, worker: Context) -> State:
    """Go from `state` to the one that follows it, and on to the one that waits; return that."""
    while following is not state:
        worker.step()
        if isinstance(following, type) or not hasattr(following, "receive"):
            raise TypeError(f"it must go to a state; it went to {following!r}")
        if isinstance(state, MachineState):
            state.prevState = None  # states reach back one step, or memory would grow for ever
        state = following
        following = state.receive(Entered(worker.now), worker.send)
    return state
