"""States that wait for a reply and send a command: once, several times, or from a list."""

from collections.abc import Callable, Sequence

from mu.messages import expected_reply
from mu.states.base import ErrorState, Expect, MachineState, Previous, TerminalState
from mu.states.context import State, shortened

CommandEntry = str | None | tuple[str | None, str | None]
"""An entry of a command list: a command, (expect, command), or None for no command."""


class _Pass(MachineState):
    """The base of one- and multi-pass states: an unexpected reply fails; None starts at once."""

    nextState: Callable[..., State] = TerminalState

    def starts_at_once(self) -> bool:
        return self.get_expect() is None

    def foreign(self, msg: str) -> ErrorState:
        """Return the ErrorState for a reply that this state does not expect."""
        words = f"expected {self.get_expect()!r}, but the worker answered {shortened(msg)}"
        return ErrorState(self, words, not self.worker.may_mend(msg))

    def post_transition(self) -> State:
        """Return the next state; called after the last command was sent."""
        return self.nextState(self)


class OnePassState(_Pass):
    """On a reply with the prefix `expect`, sends `command` and goes to `nextState`."""

    command: str | None = None

    def transition(self, msg: str) -> State:
        if not self.accepts(msg):
            return self.foreign(msg)
        self.messages.append(msg)
        if self.command is not None:
            self.enqueue(self.command)
        return self.post_transition()


class IfElseState(OnePassState):
    """Goes to `consequentState` if `testfn()` is true, otherwise to `alternativeState`."""

    consequentState: Callable[..., State] = TerminalState
    alternativeState: Callable[..., State] = TerminalState

    def testfn(self) -> bool:
        return True

    def post_transition(self) -> State:
        return self.consequentState(self) if self.testfn() else self.alternativeState(self)


class InfoWatcherState(OnePassState):
    """Runs once, on the next INFO. Its constructor may check `info` for an earlier one and kick."""

    expect = "INFO:"  # no reply that reaches a state begins with this

    def info_updated(self) -> None:
        self.kick()


class MultiPassState(_Pass):
    """Goes through a list of (expect, command) pairs, and then to `nextState`.

    If an expect is None, it does not wait; if a command is None, it sends nothing.
    """

    commands: Sequence[str | None] = ()
    expects: Sequence[str | None] = ()

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.commands = list(self.commands)
        self.expects = list(self.expects)

    def get_expect(self) -> Expect:
        return self.expects[self.cmdNum] if self.cmdNum < len(self.expects) else None

    def transition(self, msg: str) -> State:
        if len(self.commands) != len(self.expects):
            raise TypeError(
                f"commands and expects must be equally long, got {len(self.commands)} commands"
                f" and {len(self.expects)} expects"
            )
        if not self.accepts(msg):
            return self.foreign(msg)
        self.messages.append(msg)
        self._pass()
        while self.cmdNum < len(self.commands) and self.get_expect() is None:
            self._pass()
        return self if self.cmdNum < len(self.commands) else self.post_transition()

    def _pass(self) -> None:
        if self.cmdNum == len(self.commands):  # the list is empty
            return
        command = self.commands[self.cmdNum]
        self.cmdNum += 1
        if command is not None:
            self.enqueue(command)


class CommandListState(MultiPassState):
    """Goes through `commandlist`, whose entries are a command, (expect, command) or None.

    An entry without an expect waits for the reply to the command before it, as written in the list;
    so constructors may format `self.commands` afterwards. The reply to the last command belongs to
    the next state, unless a last entry of None waits for it here. If `pipelined` is true, all
    commands are sent at once after the first expect, and then the other replies are awaited.
    """

    commandlist: Sequence[CommandEntry] = ()
    pipelined: bool = False

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        expects: list[str | None] = []
        commands: list[str | None] = []
        following: str | None = "OK"
        for entry in self.commandlist:
            expect, command = entry if isinstance(entry, tuple) else (following, entry)
            expects.append(expect)
            commands.append(command)
            following = expected_reply(command)
        if self.pipelined and commands:
            rest = len(commands) - 1
            expects[1:1] = [None] * rest
            commands += [None] * rest
        self.expects, self.commands = expects, commands
        super().__init__(prevState, actorNum)
