"""Machines for the session rules: the worst ones that are allowed, and one that is not.

Each command's bytes depend on every earlier event, and on the results of the actors before, so any
difference between what one coordinator received and what the next one restores is visible.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from mu.events import Answered, Elapsed, Entered, Event, Informed, Lost
from mu.states.base import ErrorState, MachineState, TerminalState


def told(past: str, *heard: str) -> str:
    return blake2b("\n".join((past, *heard)).encode(), digest_size=4).hexdigest()


class Puzzle(MachineState):
    """Each command's bytes depend on every earlier event, but not on time.

    Ends when all commands are answered and no timer is set.
    """

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        before = self.worker.before  # the results of other actors
        self.past = told("before", repr(sorted(before.items()))) if before else ""
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
        sent = self.worker.sent
        self.worker.progress(sent, sent + 1, int(self.past, 16) % (sent + 1))
        if self.open or self.timer:
            return self
        self.order("quit")
        ending = TerminalState(self)
        ending.result = self.past
        return ending

    def react(self, event: Event, number: int) -> None:
        """Send commands and set timers."""

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
    """Ends before its worker has replied."""


class Sending(Puzzle):
    """A timer that sends a command, a background program, and a blocking command."""

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
    """The timer only changes what is sent later."""

    timer_sends = False


class Short(Silent):
    """Sends two commands if the program ends before the timer, and none otherwise."""

    def end(self) -> None:
        if not self.fired:
            self.order("echo")
            self.order("echo")


class Tiny(Puzzle):
    """One blocking command, and that of the timer."""

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
    """One timer after another, so almost every command waits for the disk."""

    orders = 10

    def react(self, event: Event, number: int) -> None:
        if self.worker.sent < self.orders:
            if not self.timer:
                self.order("echo")
                self.set_timer("t", 0.5)
            elif number % 2:
                self.order("echo")


class Wild(Puzzle):
    """Any mix of commands and timers; the past serves as dice."""

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
    """Not allowed: its commands depend on when a reply arrives."""

    def react(self, event: Event, number: int) -> None:
        self.past = told(self.past, str(event.at))
        super().react(event, number)


async def scripted(worker: Any) -> str:
    """A script with sleeps and time limits next to background programs."""
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
