"""States that wait for a reply and send a command: once, several times, from a list."""

from collections.abc import Sequence
from typing import Any

from mu.messages import expected_reply
from mu.states.base import ErrorState, MachineState, TerminalState
from mu.states.context import shortened

Entry = str | None | tuple[str | None, str | None]


class _Pass(MachineState):
    """What one- and multi-pass states share: a foreign reply is an error, None starts at once."""

    nextState: Any = TerminalState

    def starts_at_once(self) -> bool:
        return self.get_expect() is None

    def foreign(self, msg: str) -> ErrorState:
        """The end for a reply that this state does not expect."""
        return ErrorState(
            self, f"expected {self.get_expect()!r}, but the worker answered {shortened(msg)}"
        )

    def post_transition(self) -> Any:
        """Return the next state; called after the last command was sent."""
        return self.nextState(self)


class OnePassState(_Pass):
    """On a reply with the prefix `expect` send `command`, then go to `nextState`."""

    command: str | None = None

    def transition(self, msg: str) -> Any:
        if not self.accepts(msg):
            return self.foreign(msg)
        self.messages.append(msg)
        if self.command is not None:
            self.enqueue(self.command)
        return self.post_transition()


class IfElseState(OnePassState):
    """Goes to `consequentState` where `testfn()` is true, else to `alternativeState`."""

    consequentState: Any = TerminalState
    alternativeState: Any = TerminalState

    def testfn(self) -> bool:
        return True

    def post_transition(self) -> Any:
        return self.consequentState(self) if self.testfn() else self.alternativeState(self)


class InfoWatcherState(OnePassState):
    """Fires once, on the next INFO. To see an earlier one, a constructor looks in `info` and kicks."""

    expect = "INFO:"  # begins no reply that a state is shown

    def info_updated(self) -> None:
        self.kick()


class MultiPassState(_Pass):
    """A list of (expect, command) pairs, one after the other; then `nextState`.

    An expect of None does not wait, a command of None is not sent.
    """

    commands: Sequence[str | None] = ()
    expects: Sequence[str | None] = ()

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.commands = list(self.commands)
        self.expects = list(self.expects)
        self.cmdNum = 0

    def get_expect(self) -> Any:
        return self.expects[self.cmdNum] if self.cmdNum < len(self.expects) else None

    def transition(self, msg: str) -> Any:
        if len(self.commands) != len(self.expects):
            raise TypeError(
                f"{len(self.commands)} commands need as many expects, not {len(self.expects)}"
            )
        if not self.accepts(msg):
            return self.foreign(msg)
        self.messages.append(msg)
        self._pass()
        while self.cmdNum < len(self.commands) and self.get_expect() is None:
            self._pass()
        return self if self.cmdNum < len(self.commands) else self.post_transition()

    def _pass(self) -> None:
        if self.cmdNum == len(self.commands):  # an empty list
            return
        command = self.commands[self.cmdNum]
        self.cmdNum += 1
        if command is not None:
            self.enqueue(command)


class CommandListState(MultiPassState):
    """Pairs derived from `commandlist`, whose entries are a command, (expect, command) or None.

    What an entry does not say it expects follows from the command before it, as that was written
    in the list: constructors may format `self.commands` afterwards. The reply to the last
    command belongs to the next state, unless a last entry None waits for it here. With
    `pipelined` all commands leave at once after the first expect, then the others are awaited.
    """

    commandlist: Sequence[Entry] = ()
    pipelined: bool = False

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
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
