"""One actor's machine: an event in, effects out, and the base states that it must know.

Pure: no socket, no clock, no chance. The same events give the same effects, so the live session,
a test that compares lists and a replay drive the same machine.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mu.events import (
    Answered,
    CancelTimer,
    Effect,
    Elapsed,
    Entered,
    Event,
    Finish,
    Informed,
    Lost,
    Send,
    SetTimer,
    encode,
)

TRANSITION_LIMIT = 10_000
"""More transitions than this for one event are a loop that never ends."""

HELD_LIMIT = 1_000
"""Replies that may wait for a state that wants them, unless told otherwise."""

EFFECT_LIMIT = 100_000
"""More commands than this for one event are a loop that never ends, too."""

INFO_LIMIT = 16 * 2**20
"""How much a worker's INFO may hold, in characters, unless told otherwise."""

STATE_TIMER = "state"

KICK = "(kick)"
"""Stands in `messages` for a start without a message; recognised by identity."""

SendCommand = Callable[[str], None]


class State(Protocol):
    """What the machine needs of a state (mu.interfaces.IState says it to third parties)."""

    @property
    def label(self) -> str: ...

    def receive(self, event: Event, send: SendCommand) -> "State": ...


class Held(Exception):
    """Raised by State.receive: not for me now; offer this reply again after the next transition."""


class Runaway(Exception):
    """A machine made more than TRANSITION_LIMIT transitions for one event."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What states may know of their job."""

    id: str
    params: Any
    """The pipeline's parameters: a mapping whose values are attributes too."""
    actors: int = 1
    relay: str = ""
    """HOST:PORT of the relay; empty where there is none."""
    uniq: str = ""
    """A random string fixed for the job's life."""


class Worker:
    """What all states of one actor share: who they are, what the worker told, what was sent.

    The first state is constructed from it: `FirstState(worker, worker.actor)`.
    """

    def __init__(self, job: JobFacts, actor: int, given: Mapping[str, Any] | None = None) -> None:
        self.job = job
        self.actor = actor
        self.input: Mapping[str, Any] = given or {}
        """What the pipeline's plan gives this actor."""
        self.info: dict[str, Any] = {}
        """What the worker's INFO said, and whatever states note here."""
        self.timestamps: list[float] = []
        self.stateinfo: list[tuple[float, str]] = []
        """When each state was constructed, and its class's name."""
        self.loops: dict[str, list[str]] = {}
        """By break key: the iteration keys of the loops that use it now (see ForLoopState)."""
        self.now = 0.0
        """Seconds since the epoch: when the event came that is being handled."""
        self.sent = 0
        """Commands sent so far."""
        self.held_limit = HELD_LIMIT
        """Replies that may wait for somebody who wants them."""
        self._steps = 0
        self._effects: list[Effect] = []

    def send(self, command: str) -> None:
        """Have the worker do `command`."""
        if not isinstance(command, str):
            raise TypeError(f"a command is a str; {command!r} came")
        try:
            command.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:  # a ValueError, which would say "not for me now"
            raise TypeError(f"{shortened(command)} cannot be sent: {error.reason}") from None
        if len(self._effects) >= EFFECT_LIMIT:
            raise Runaway(f"over {EFFECT_LIMIT} commands without waiting for the worker")
        self.sent += 1
        self._effects.append(Send(command))

    def set_timer(self, name: str, seconds: float) -> None:
        """Have an Elapsed of that name come after so long."""
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise TypeError(f"a time is a number of seconds from 0 on; {seconds!r} came")
        self._effects.append(SetTimer(name, seconds))

    def cancel_timer(self, name: str) -> None:
        self._effects.append(CancelTimer(name))

    def constructed(self, name: str) -> None:
        """Note that a state of that name was made."""
        self.timestamps.append(self.now)
        self.stateinfo.append((self.now, name))

    def step(self) -> None:
        """Count a transition. Raises Runaway."""
        self._steps += 1
        if self._steps > TRANSITION_LIMIT:
            raise Runaway(f"over {TRANSITION_LIMIT} transitions without waiting for the worker")

    def begin_event(self, at: float) -> list[Effect]:
        """Return the list that collects the effects of the event of this time."""
        self.now, self._steps, self._effects = at, 0, []
        return self._effects


# ---------------------------------------------------------------- the base states


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
    worker: Worker
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
        first = isinstance(prevState, Worker)
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


def shortened(text: str, limit: int = 400) -> str:
    """Return `text` quoted for a sentence, its middle cut out where it is long."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return repr(text)


# ---------------------------------------------------------------- the machine


def advance(state: State, event: Event, worker: Worker) -> State:
    """Give `state` the event, enter each state that follows, and return the one that waits."""
    return enter(state, state.receive(event, worker.send), worker)


def enter(state: State, following: State, worker: Worker) -> State:
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


@dataclass(slots=True)
class Machine:
    """Drives one actor from Entered to Finish. `begin` makes the first state from the worker."""

    worker: Worker
    begin: Callable[[Worker], State]
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
