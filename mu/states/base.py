"""The base of class states, the two final states, and the step from one state to the next."""

from collections.abc import Sequence
from typing import Any, Self, TypeAlias

from mu.events import Answered, Entered, Event, Informed, Lost
from mu.states.context import Context, Held, JobFacts, SendCommand, State, shortened

KICK = "(kick)"
"""The entry in `messages` for a state that started without a message; recognized by identity."""

Expect = str | list[str | None] | None
"""A prefix, a list of prefixes, or None for no particular one."""

Previous: TypeAlias = "MachineState | Context"
"""What a state is constructed from: the previous state, or the Context for the first one."""


class MachineState(State):
    """The base of class states: it expects a reply, and constructs the next state from itself.

    If `transition` raises ValueError before it sent or constructed anything, the reply is kept and
    offered again later. Any other exception fails the actor.
    """

    expect: str | None = None
    extra: str = ""
    timeout: float | None = None
    """How long this state may last, in seconds; None: no limit."""
    cmdNum: int = 0
    """The position in the lists of a multi-pass state."""

    prevState: Any  # a state of any class, or the Context; None once this state was left
    worker: Context
    job: JobFacts
    actorNum: int
    info: dict[str, Any]
    timestamps: list[float]
    stateinfo: list[tuple[float, str]]
    messages: list[str]
    _kicked: bool

    def __new__(cls, prevState: Previous, *args: object, **kwargs: object) -> Self:
        """Copy what states share before any constructor runs, since constructors use it."""
        self = super().__new__(cls)
        self.prevState = prevState
        if isinstance(prevState, Context):
            self.worker, self.actorNum = prevState, prevState.actor
        else:
            self.worker, self.actorNum = prevState.worker, prevState.actorNum
        self.job = self.worker.job
        self.info = self.worker.info
        self.timestamps = self.worker.timestamps
        self.stateinfo = self.worker.stateinfo
        self.messages = []
        self._kicked = False
        self.worker.constructed(cls.__name__)
        return self

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        """`actorNum` is only for compatibility with the original; `prevState` has the number."""

    @property
    def label(self) -> str:
        return f"{type(self).__name__} {self.str_extra()}".rstrip()

    def str_extra(self) -> str:
        return self.extra

    def get_expect(self) -> Expect:
        """Return the prefix of the reply that this state waits for."""
        return self.expect

    def transition(self, msg: str) -> State:
        """Return the next state, or self. The base class drops the message."""
        return self

    def info_updated(self) -> None:
        """Called after an INFO from the worker has changed `info`."""

    def enqueue(self, command: str, source: str = "", quiet: bool = False) -> None:
        """Send the worker a command; `source` and `quiet` are as in Context.send."""
        self.worker.send(command, source, quiet)

    def kick(self) -> None:
        """Run this state at once, without a message. Two kicks make it run once."""
        self._kicked = True

    def accepts(self, msg: str) -> bool:
        """Return whether the message has an expected prefix, or this state takes any message."""
        if msg is KICK:
            return True
        expected = self.get_expect()
        if isinstance(expected, str):  # by far the most frequent case
            return msg.startswith(expected)
        return expected is None or expects(self, msg)

    def starts_at_once(self) -> bool:
        """Return whether this state takes its first step without waiting for a reply."""
        return False

    def receive(self, event: Event, send: SendCommand) -> State:
        match event:
            case Answered(text=text):
                if text.startswith("FAIL("):
                    words = f"the worker answered {shortened(text)}"
                    return ErrorState(self, words, not self.worker.may_mend(text))
                return self._offer(text)
            case Entered():
                if self.starts_at_once():
                    self.kick()
            case Informed():
                self.info_updated()
            case Lost(reason=reason):
                return ErrorState(self, reason)
        return self.settle()

    def _offer(self, text: str) -> State:
        """Give `transition` the reply. Raises Held if this state cannot use it now."""
        worker = self.worker
        before = worker.sent, len(worker.stateinfo)
        received, place = len(self.messages), self.cmdNum
        try:
            following = self.transition(text)
        except ValueError:
            if (worker.sent, len(worker.stateinfo)) != before:
                raise
            del self.messages[received:]  # as if the reply had not been offered
            self.cmdNum = place
            raise Held from None
        return self.settle() if following is self else following

    def settle(self) -> State:
        """Run as long as it is kicked; return the next state, or self."""
        while self._kicked:
            self._kicked = False
            following = self.transition(KICK)
            if following is not self:
                return following
            self.worker.step()
        return self

    def _side_by_side(self) -> Sequence[State]:
        """Return the states running inside this one."""
        return ()


def expects(state: MachineState, msg: str) -> bool:
    """Return whether the message has a prefix that the state names; here, None matches nothing."""
    expected = state.get_expect()
    prefixes = expected if isinstance(expected, list) else [expected]
    return any(prefix is not None and msg.startswith(prefix) for prefix in prefixes)


class TerminalState(MachineState):
    """The actor is done. Further replies from its worker are ignored."""

    result: object = None
    """The actor's result: a JSON value for users and for the pipeline's `finish`."""

    @property
    def label(self) -> str:
        return "done" if type(self) is TerminalState else super().label

    def receive(self, event: Event, send: SendCommand) -> State:
        return self


class ErrorState(TerminalState):
    """The actor failed."""

    err: str = ""
    final: bool = False
    """Whether no retry can mend it, so that the actor has failed for good."""

    def __init__(self, prevState: Previous, err: str = "", final: bool = False) -> None:
        super().__init__(prevState)
        self.err, self.final = err, final

    def str_extra(self) -> str:
        return self.err


def advance(state: State, event: Event, worker: Context) -> State:
    """Give `state` the event, enter the states that follow, and return the one that then waits."""
    return enter(state, state.receive(event, worker.send), worker)


def enter(state: State, following: State, worker: Context) -> State:
    """Enter `following` and the states that follow it; return the one that then waits."""
    while following is not state:
        worker.step()
        checked(following, "transition() must return a State")
        if isinstance(state, MachineState):
            state.prevState = None  # states keep one step back, or memory use would keep growing
        state = following
        following = state.receive(Entered(worker.now), worker.send)
    return state


def checked(state: State, must: str) -> State:
    """Return what an author's code has returned. Raises TypeError, with `must`, if it is no state."""
    if isinstance(state, type) or not hasattr(state, "receive"):
        raise TypeError(f"{must}, not {state!r}")
    return state
