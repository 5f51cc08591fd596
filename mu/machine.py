"""The state machine of one actor: an event in, effects out.

It is pure: no sockets, no clock, no random numbers. The same events give the same effects, so the
same machine is driven by a live session, a test that compares lists, or a replay of the journal.
"""

from collections.abc import Callable, Iterator

from mu.deprecated import moved
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
    encode,
)
from mu.messages import HELLO, STARTED, may_bring
from mu.states.base import (
    ErrorState,
    Expect,
    MachineState,
    TerminalState,
    advance,
    checked,
)
from mu.states.context import HELD_LIMIT, Held, Progress, State
from mu.states.origin import explained
from mu.states.script import ScriptWorker
from mu.states.together import SuperpositionState

INFO_LIMIT = 16 * 2**20
"""Default size limit of a worker's INFO, in characters."""

STATE_TIMER = "state"

PROGRESS = "progress"
"""The key of an INFO that does what the worker's method of this name does."""

__getattr__ = moved(
    __name__,
    {
        "JobFacts": "mu.states.context:JobFacts",
        "Runaway": "mu.states.context:Runaway",
        "Worker": "mu.states.context:Context",
    },
)


class Machine:
    """Drives one actor from Entered to Finish. `begin` returns the first state for a context."""

    __slots__ = (
        *("begin", "crash", "finished", "info_limit", "state", "worker"),
        *("held_limit", "_held", "_info_size", "_numbered", "_timed", "_timers"),
    )

    def __init__(
        self,
        worker: ScriptWorker,
        begin: Callable[[ScriptWorker], State],
        held_limit: int = HELD_LIMIT,
        info_limit: int = INFO_LIMIT,
    ) -> None:
        self.worker = worker
        self.begin = begin
        self.held_limit = worker.held_limit = held_limit
        self.info_limit = info_limit
        self.state: State | None = None
        self.finished: Finish | None = None
        self.crash: Exception | None = None
        """The exception that a state raised, if the actor failed because of it."""
        self._held: list[Answered] = []
        self._timed: dict[str, tuple[State, float]] = {}
        """For each timer: the state that set it, and its timeout in seconds."""
        self._timers = 0
        self._info_size = 0
        self._numbered = True
        """Whether the worker says which command a reply answers; those of the original do not."""

    @property
    def label(self) -> str:
        """The label of the current state."""
        return label_of(self.state) if self.state else ""

    @property
    def last_label(self) -> str:
        """The label of the state that failed, if one did, otherwise of the current one."""
        before = self.state.prevState if isinstance(self.state, ErrorState) else None
        return label_of(before) if isinstance(before, MachineState) else self.label

    @property
    def expected(self) -> Expect:
        """The prefixes that the current state waits for; None if it does not say."""
        try:
            wanted: Expect = getattr(self.state, "get_expect", lambda: None)()
        except Exception:  # in a pipeline author's code; `receive` tells it
            return None
        return wanted

    def receive(self, event: Event) -> list[Effect]:
        """Handle an event and return its effects. After Finish there are none."""
        if self.finished:
            return []
        effects = self.worker.begin_event(event.at)
        before = self.state
        try:
            self._react(event)
            if isinstance(self.state, TerminalState):
                self.finished = _outcome(self.state)
            if isinstance(event, Lost) and self.finished is None:
                self.finished = Finish(event.reason)  # whatever the state does
            if self._timed or self.state is not before or isinstance(before, SuperpositionState):
                self._retime()
        except Exception as error:  # in a pipeline author's code: fail only this actor
            self.crash = error
            self.finished = Finish(f"{self.label or 'begin'}: {explained(error)}")
        if self.finished:
            effects += map(CancelTimer, self._timed)
            effects.append(self.finished)
        return effects

    @property
    def is_stranded(self) -> bool:
        """Whether it waits for replies that no outstanding command can bring.

        Only a timeout or the loss of its worker can then end it. False if that is not certain.
        """
        state = self.state
        if not self._numbered or self.finished or not isinstance(state, MachineState):
            return False
        if any(_heeds_info(part) for part in _living(state)):
            return False
        wanted = self.expected
        commands = self.worker.outstanding.values()
        return all(
            isinstance(prefix, str)
            and not prefix.startswith("INFO")
            and not any(may_bring(one, prefix) for one in commands)
            for prefix in (wanted if isinstance(wanted, list) else [wanted])
        )

    def _retime(self) -> None:
        """Cancel the timers of states that were left, and set the timers of new states."""
        living = [] if self.finished or self.state is None else list(_living(self.state))
        for name, (state, _) in list(self._timed.items()):
            if not any(state is still for still in living):
                del self._timed[name]
                self.worker.cancel_timer(name)
        for state in living:
            seconds = getattr(state, "timeout", None)
            if seconds is not None and not any(state is timed for timed, _ in self._timed.values()):
                self._timers += 1
                name = f"{STATE_TIMER}{self._timers}"
                self._timed[name] = state, seconds
                self.worker.set_timer(name, seconds)

    def _react(self, event: Event) -> None:
        if isinstance(event, Answered):
            self._settle(event)
        elif isinstance(event, Informed):
            self._note(event.key, event.value)
        elif isinstance(event, Elapsed) and event.timer in self._timed:
            late, seconds = self._timed.pop(event.timer)
            who = "it" if late is self.state else label_of(late)
            event = Lost(event.at, f"{who} took longer than its timeout of {seconds:g} s")
        if self.state is None:
            self.worker.numbered = isinstance(event, Entered) and event.numbered
            self.state = checked(
                self.begin(self.worker), "begin() must return a State or coroutine"
            )
        if not self._take(event):
            self._hold(event)
            return
        while self._held and any(self._retake(held) for held in self._held):
            pass

    def _settle(self, reply: Answered) -> None:
        """Note which command has its last reply."""
        if reply.command:
            if not reply.text.startswith(STARTED):
                self._settled(reply.command, reply.text)
        elif not reply.text.startswith(HELLO):
            self._numbered = False
            self._settle_first(reply.text)

    def _settle_first(self, reply: str) -> None:
        """Note that the first command that a reply without a number may answer has its last one."""
        commands = self.worker.outstanding
        if not reply.startswith(STARTED):
            for number, command in commands.items():
                if may_bring(command, reply):
                    self._settled(number, reply)
                    break
        for number in list(commands)[: max(0, len(commands) - HELD_LIMIT)]:  # they must not grow
            del commands[number]

    def _settled(self, command: int, reply: str) -> None:
        self.worker.outstanding.pop(command, None)
        if self.worker.passing is not None:
            self.worker.passing.answered(command, reply)

    def _note(self, key: str, value: str) -> None:
        """Store an INFO from the worker. Raises OverflowError if it is too large."""
        info = self.worker.info
        before = len(key) + len(str(info[key])) if key in info else 0
        self._info_size += len(key) + len(value) - before
        if self._info_size > self.info_limit:
            raise OverflowError(f"the worker's INFO exceeds {self.info_limit} characters")
        info[key] = value
        if key == PROGRESS:
            self.worker.progressed = Progress.read(value) or self.worker.progressed

    def _take(self, event: Event) -> bool:
        """Give the state an event; return False if the event must be kept."""
        assert self.state is not None
        try:
            self.state = advance(self.state, event, self.worker)
        except Held:
            return False
        return True

    def _retake(self, held: Answered) -> bool:
        """Offer the state a kept reply again; return whether it took it."""
        if not self._take(held):
            return False
        self._held.remove(held)
        return True

    def _hold(self, event: Event) -> None:
        if not isinstance(event, Answered):
            raise TypeError(
                f"{self.label} raised Held for {type(event).__name__}, which is not a reply"
            )
        self._held.append(event)
        if len(self._held) > self.held_limit:
            raise OverflowError(
                f"over {self.held_limit} replies that no state expects;"
                f" this one expects {self.expected!r}"
            )


def _outcome(state: TerminalState) -> Finish:
    """Return how an actor ended. Raises TypeError or ValueError if its result is not a JSON value."""
    if isinstance(state, ErrorState):
        before = state.prevState
        where = f"{label_of(before)}: " if isinstance(before, MachineState) else ""
        return Finish(f"{where}{state.err or 'failed'}", final=state.final)
    finish = Finish(result=state.result)
    encode(finish)
    return finish


def _heeds_info(state: State) -> bool:
    """Return whether an INFO from the worker may move this state."""
    own = getattr(type(state), "info_updated", None)
    return own not in (MachineState.info_updated, SuperpositionState.info_updated)


def label_of(state: State) -> str:
    """Return the label of a state, whatever its author's code does."""
    try:
        label: object = state.label
    except Exception:  # in a pipeline author's str_extra
        label = None
    return label if isinstance(label, str) else type(state).__name__


def _living(state: State) -> Iterator[State]:
    """Yield the state and all states running inside it."""
    yield state
    if isinstance(state, MachineState):
        for part in state._side_by_side():
            yield from _living(part)
