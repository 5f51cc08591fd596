"""Machines for the session rules: the worst that may be, and one kind that may not.

Each command's bytes depend on every event before it, so that whatever one life of the coordinator
has heard and the next has not shows.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from mu.events import Answered, Elapsed, Entered, Event, Informed, Lost
from mu.states.base import ErrorState, MachineState, TerminalState


def told(past: str, *heard: str) -> str:
    return blake2b("\n".join((past, *heard)).encode(), digest_size=4).hexdigest()


class Puzzle(MachineState):
    """Each command's bytes depend on every event before it, but not on any time.

    Ends when all commands are answered and no timer is set.
    """

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.past = ""
        self.open: set[int] = set()
        self.timer = ""
        self.fired = False

    def receive(self, event: Event, send: Any) -> Any:
        number = 0
        match event:
            case Entered():
                self.past = told(self.past, "entered")
            case Answered(text=text) if text.startswith("FAIL("):
                return ErrorState(self, text)
            case Answered(text=text, command=number):
                self.past = told(self.past, str(number), text)
                if not text.startswith("OK:RUNNING"):
                    self.open.discard(number)
            case Informed(key=key, value=value):
                self.past = told(self.past, key, value)
            case Elapsed(timer=timer):
                self.past = told(self.past, "elapsed", timer)
                if timer == self.timer:
                    self.timer, self.fired = "", True
            case Lost(reason=reason):
                return ErrorState(self, reason)
        self.react(event, number)
        if self.open or self.timer:
            return self
        self.order("quit")
        ending = TerminalState(self)
        ending.result = self.past
        return ending

    def react(self, event: Event, number: int) -> None:
        """Give orders."""

    def order(self, name: str) -> None:
        number = self.worker.sent + 1
        self.open.add(number)
        self.worker.send(f"{name}:{number}:{self.past}")

    def set_timer(self, name: str, seconds: float) -> None:
        self.timer = name
        self.worker.set_timer(name, seconds)

    def cancel_timer(self) -> None:
        if self.timer:
            self.worker.cancel_timer(self.timer)
            self.timer = ""


class Brief(Puzzle):
    """Ends before its worker has said anything."""


class Sending(Puzzle):
    """A timer that sends a command, a program in the background, and a command that blocks."""

    timer_sends = True

    def react(self, event: Event, number: int) -> None:
        match event:
            case Entered():
                self.order("echo")
            case Answered(text=text) if number == 1:
                self.order("run")
                self.order("upload")
                self.set_timer("t", 1.0)
            case Elapsed() if self.timer_sends:
                self.order("echo")
            case Answered(text=text) if text.startswith("OK:RETVAL"):
                self.cancel_timer()
                self.end()

    def end(self) -> None:
        self.order("echo")


class Silent(Sending):
    """The timer changes only what is sent later."""

    timer_sends = False


class Short(Silent):
    """The program's end before the timer's sends two commands, after it none."""

    def end(self) -> None:
        if not self.fired:
            self.order("echo")
            self.order("echo")


class Tiny(Puzzle):
    """One command that blocks, and the timer's."""

    def react(self, event: Event, number: int) -> None:
        match event:
            case Entered():
                self.order("upload")
                self.set_timer("t", 1.0)
            case Elapsed():
                self.order("echo")
            case Answered() if number:
                self.cancel_timer()


class Ticking(Puzzle):
    """One timer after another, so that nearly all that is sent waits for the disk."""

    orders = 10

    def react(self, event: Event, number: int) -> None:
        if self.worker.sent < self.orders:
            if not self.timer:
                self.order("echo")
                self.set_timer("t", 0.5)
            elif number % 2:
                self.order("echo")


class Wild(Puzzle):
    """Does what the past says, as a throw of dice would: any mix of commands and timers."""

    orders = 7

    def react(self, event: Event, number: int) -> None:
        dice = int(self.past, 16)
        if self.timer and dice % 3 == 0:
            self.cancel_timer()
        for name in ("echo", "run", "upload")[: dice // 3 % 4]:
            if self.worker.sent < self.orders and (dice := dice // 7) % 2:
                self.order(name)
        if not self.timer and self.worker.sent < self.orders and dice // 5 % 2:
            self.set_timer(f"t{dice // 11 % 3}", 0.5 + dice // 13 % 3)


class Timely(Wild):
    """What none may be: its commands depend on when it hears a reply."""

    def react(self, event: Event, number: int) -> None:
        self.past = told(self.past, str(event.at))
        super().react(event, number)


async def scripted(worker: Any) -> str:
    """As a script: naps, and time limits, beside programs in the background."""
    seen: list[str] = []

    def next_argument() -> str:
        return f"{worker.sent + 1}:{told('', *seen)}"

    async def ask() -> None:
        seen.append(await worker.ask(f"echo:{next_argument()}"))

    async def run() -> None:
        seen.append(f"ran {await worker.run(next_argument())}")

    async def upload() -> None:
        await worker.upload(next_argument(), "file")
        seen.append("uploaded")

    async def nap() -> None:
        await worker.sleep(1.0)
        seen.append("slept")
        await ask()

    await ask()
    await worker.together(run(), nap(), upload())
    try:
        await worker.within(1.5, run())
    except TimeoutError:
        seen.append("late")
    await ask()
    return told("", *seen)


MACHINES: dict[str, Callable[..., Any]] = {
    "brief": Brief,
    "sending": Sending,
    "silent": Silent,
    "short": Short,
    "tiny": Tiny,
    "ticking": Ticking,
    "wild": Wild,
    "script": lambda worker, actor: scripted(worker),
}
UNSOUND = {"timely": Timely}
