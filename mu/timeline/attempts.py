"""One attempt at an actor, as its records tell it: its worker's start, its commands, its end.

All times are in seconds since the epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from mu.messages import HELLO, STARTED, expected_reply

SHOWN_OUTCOME = 200
"""Characters kept of why a command failed."""
OK = "ok"
UNKNOWN = "?"
"""The name of a command in a journal that does not have it."""
IDLE = "idle"
MIN_IDLE_S = 0.002
"""A shorter pause between two commands is not shown."""
AWAY = "away"
WAIT = "wait"
"""What a worker does whose program waits for a state of its neighbour."""
QUIT = "quit"

Segment = tuple[float, str]
"""When it began, and what the actor did from then on."""

_RANKS = {AWAY: 0, "run": 1, "upload": 2, "retrieve": 3, "connect": 4, WAIT: 10}
_MOST_AT_ONCE = 64  # commands of one worker


@dataclass(slots=True)
class CommandCourse:
    """One command of an attempt."""

    name: str
    sent: float
    begun: float = 0.0
    """When its worker can have begun it: it was sent, and the command before it was answered."""
    heard: float = 0.0
    """When the first reply to it came; 0: none has."""
    ended: float | None = None
    """When the last reply to it came; None: it has not, or the attempt ended before."""
    waited: float = 0.0
    """How long its program waited for a state of another worker first, in seconds, as it told."""
    outcome: str = ""
    """`ok`, `exit N`, or why it failed; empty: there was no reply."""

    @property
    def waits_until(self) -> float:
        """Until when its program waited for that state."""
        until = self.begun + self.waited
        return until if self.ended is None else min(until, self.ended)


@dataclass(slots=True)
class LaunchCourse:
    """One request to an engine, and the worker that it started."""

    launched: float
    accepted: float | None = None
    hello: float | None = None
    answer: str = ""
    """What the engine said; `late`: its worker did not connect in time."""
    used: bool = False
    """Whether its worker got an actor."""


@dataclass(slots=True)
class Break:
    """A time in which a worker had no connection."""

    began: float
    reason: str
    ended: float | None = None


@dataclass(slots=True)
class AttemptCourse:
    """What one worker did for an actor. Number 0: no worker connected in time."""

    actor: int
    number: int
    worker: str = ""
    """Its session; empty: it has none, as an original worker."""
    began: float = 0.0
    """When the actor was assigned to it."""
    launch: LaunchCourse | None = None
    """The launch of its worker; None: it is unknown."""
    spare: bool = False
    """Whether it waited without an actor before."""
    straggler: bool = False
    """Whether another attempt at the actor was running when this one began."""
    ended: float | None = None
    error: str | None = None
    commands: list[CommandCourse] = field(default_factory=list)
    states: list[Segment] = field(default_factory=list)
    """When each state was constructed, and its class."""
    breaks: list[Break] = field(default_factory=list)
    told: bool = False
    """Whether its records tell which commands were sent, and when."""
    _last: float = 0.0
    _answered: int = 0  # at least so many of the first commands have their last reply

    def send(self, names: str, at: float) -> None:
        """Note commands that were sent, from their names separated by commas."""
        self.told = True
        for name in names.split(",") if "," in names else (names,):
            self.commands.append(CommandCourse(name, at))

    def enter(self, names: str, at: float) -> None:
        """Note states that were constructed, from their names separated by commas."""
        self.states += [(at, name) for name in names.split(",")]

    def answer(self, text: str, number: int, at: float) -> None:
        """Note a reply to the command of this number; 0: the worker does not say which."""
        if self.breaks:
            self.come_back(at)
        if not number:
            if text.startswith(HELLO):
                self._last = at
                return
            number = self._answered_by(text)
        commands = self.commands
        if number > len(commands) and not self._make_up(number - len(commands)):
            return
        command = commands[number - 1]
        if command.name == UNKNOWN:
            command.name = _name_in(text)
        if not command.heard:
            command.heard = self._last = at
            before = commands[number - 2].heard if number > 1 else 0.0
            command.begun = max(before, command.sent) if before else self._begun(number)
        if text.startswith(STARTED):
            return
        command.ended = at
        plain = text.startswith("OK:") and not text.startswith("OK:RETVAL(")
        command.outcome = OK if plain else _outcome(text)

    def _make_up(self, missing: int) -> bool:
        """Add commands that a journal of before does not have; return False if none was sent."""
        if missing > (0 if self.told else _MOST_AT_ONCE):
            return False
        at = self._last or self.began
        self.commands += [CommandCourse(UNKNOWN, at) for _ in range(missing)]
        return True

    def _answered_by(self, text: str) -> int:
        """Return the number of the oldest command that a reply without a number can answer."""
        commands = self.commands
        while self._answered < len(commands) and commands[self._answered].ended is not None:
            self._answered += 1
        open_ones = range(self._answered, min(len(commands), self._answered + _MOST_AT_ONCE))
        for place in open_ones:
            wanted = expected_reply(f"{commands[place].name}:")
            if commands[place].ended is None and text.startswith(wanted):
                return place + 1
        return self._answered + 1

    def _begun(self, number: int) -> float:
        """Return when the worker began a command: it starts them one after the other."""
        commands = self.commands
        sent = commands[number - 1].sent
        for place in range(number - 2, max(-1, number - 2 - _MOST_AT_ONCE), -1):
            if commands[place].heard:
                return max(sent, commands[place].heard)
        return sent

    def wait(self, number: int, seconds: float) -> None:
        """Note how long the program of a command waited for a state."""
        if 0 < number <= len(self.commands):
            self.commands[number - 1].waited = seconds

    def lose(self, at: float, reason: str) -> None:
        """Note that the connection was lost, unless it already was."""
        if not self.breaks or self.breaks[-1].ended is not None:
            self.breaks.append(Break(at, reason))

    def come_back(self, at: float) -> None:
        """Note that the worker has a connection again."""
        if self.breaks and self.breaks[-1].ended is None:
            self.breaks[-1].ended = at

    # ------------------------------------------------ what it did when

    def segments(self, until: float) -> list[Segment]:
        """Return what it did from its beginning to its end, or until now.

        If it did several things at once, the most telling one is named.
        """
        until = until if self.ended is None else self.ended
        spans = sorted(self._spans(until))
        found: list[Segment] = []
        at = self.began
        for begin, end, name in spans:
            if begin < at:
                return self._swept(spans, until)
            if begin - at > MIN_IDLE_S:
                found.append((at, IDLE))
            found.append((begin, name))
            at = end
        if at < until or not found:
            found.append((at, IDLE))
        return found

    def _spans(self, until: float) -> Iterator[tuple[float, float, str]]:
        """Yield when it did what, and when it was away; those may overlap."""
        heard = 0.0
        for command in self.commands:
            begun = command.begun or max(command.sent, heard)
            heard = command.heard or heard
            end = until if command.ended is None else command.ended
            hidden = command.name == QUIT or (command.name == UNKNOWN and not command.heard)
            if begun > end or hidden:
                continue
            if command.waited:
                yield begun, command.waits_until, WAIT
                begun = command.waits_until
            yield begun, end, command.name
        for one in self.breaks:
            yield one.began, until if one.ended is None else one.ended, AWAY

    def _swept(self, spans: list[tuple[float, float, str]], until: float) -> list[Segment]:
        """Return the segments of spans that overlap."""
        points = [(begin, 1, name) for begin, _, name in spans]
        points += [(end, -1, name) for _, end, name in spans]
        running: dict[str, int] = {}
        found: list[Segment] = [(self.began, IDLE)]
        for at, change, name in sorted(points):
            running[name] = running.get(name, 0) + change
            if not running[name]:
                del running[name]
            now = min(running, key=lambda one: _RANKS.get(one, 9), default=IDLE)
            if now != found[-1][1] and at < until:
                found.append((at, now))
        return found


def _outcome(text: str) -> str:
    if text.startswith("OK:RETVAL("):
        status = text[10 : text.find(")", 10)]
        return OK if status == "0" else f"exit {status:.20}"
    if not text.startswith("FAIL"):
        return OK
    reason = text[:SHOWN_OUTCOME]
    if reason.startswith("FAIL("):
        reason = reason[5:].removesuffix(")")
    return reason or "FAIL"


_NAMES = {
    "OK:RETVAL(": "run",
    "OK:RUNNING(": "run",
    "OK:RETRIEV": "retrieve",
    "OK:UPLOAD": "upload",
    "OK:SET(": "set",
    "OK:SETI(": "seti",
    "OK:GET(": "get",
    "OK:GETI(": "geti",
    "OK:ECHO": "echo",
    "OK:CONNECT": "connect",
    "OK:CLOSE_CONNECT": "close_connect",
    "OK:DUMP_VALS": "dump_vals",
}


def _name_in(text: str) -> str:
    """Return the name of the command that a reply answers; `?`: it could be any."""
    return next((name for start, name in _NAMES.items() if text.startswith(start)), UNKNOWN)
