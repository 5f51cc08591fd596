"""What all states of one actor share, and what the machine needs from a state."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zope.interface import implementer

from mu.events import CancelTimer, Effect, Event, Send, SetTimer
from mu.interfaces import IState
from mu.parameters import Params
from mu.states.passing import StatePassing

TRANSITION_LIMIT = 10_000
"""The most transitions for one event. A machine that makes more is in an endless loop."""

HELD_LIMIT = 1_000
"""Default number of replies that may wait for a state that expects them."""

SOURCES_LIMIT = 1_000
"""For how many of the latest commands the inputs are known that their output belongs to."""

EFFECT_LIMIT = 100_000
"""The most commands for one event. A machine that sends more is in an endless loop."""

MOST_INPUTS = 10**15
"""The most inputs of one actor; JSON readers keep whole numbers of this size exact."""

SendCommand = Callable[[str], None]


@implementer(IState)
class State:
    """One step of an actor: handles an event and returns the next state, or itself.

    This is the base of all states. A subclass must define at least `receive`.
    """

    @property
    def label(self) -> str:
        """The state's name for users."""
        return type(self).__name__

    def receive(self, event: Event, send: SendCommand) -> "State":
        """Handle an event and return the next state, or self. `send(command)` sends a command.

        Raises Held for a reply that should be offered again later.
        """
        raise NotImplementedError


class Held(Exception):
    """Raised by State.receive for a reply to offer again after the next transition."""


class Runaway(Exception):
    """A machine exceeded TRANSITION_LIMIT or EFFECT_LIMIT."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of its input an actor has handled: `failed` of the `done` were in vain."""

    done: int
    of: int
    failed: int = 0

    def __post_init__(self) -> None:
        """Raises TypeError, since a ValueError means that a state does not want a reply."""
        values = self.done, self.of, self.failed
        if not all(type(value) is int for value in values) or not (
            0 <= self.failed <= self.done <= self.of <= MOST_INPUTS
        ):
            raise TypeError(
                "progress(done, of, failed) needs whole numbers with 0 <= failed <= done <= of,"
                f" got {self.done!r}, {self.of!r}, {self.failed!r}"
            )

    @classmethod
    def read(cls, text: str) -> "Progress | None":
        """Return the progress in an INFO: DONE/OF or DONE/OF/FAILED; None for any other text."""
        numbers = text.split("/")
        if not 2 <= len(numbers) <= 3:
            return None
        try:
            return cls(*map(_whole, numbers))
        except (TypeError, ValueError):
            return None


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_INPUTS))):
        raise ValueError(text)
    return int(text)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The facts about their job that states may use."""

    id: str
    params: Params
    """The pipeline's parameters, with `workers`, the number of workers in the order."""
    actors: int = 1
    relay: str = ""
    """HOST:PORT of the relay; empty: there is none."""
    uniq: str = ""
    """A random string, the same for the whole job."""


class Context:
    """What all states of one actor share: its job, its number, the worker's INFO, what was sent.

    The first state is constructed from it: `FirstState(worker, worker.actor)`.
    """

    before: Mapping[int, Any]
    """The results of the actors that it waited for, by number; None for one that failed."""

    def __init__(
        self,
        job: JobFacts,
        actor: int,
        given: Mapping[str, Any] | None = None,
        before: Mapping[int, Any] | None = None,
    ) -> None:
        self.job = job
        self.actor = actor
        self.input: Mapping[str, Any] = given or {}
        """The actor's input from the pipeline's plan."""
        if before is not None or "before" not in self.input:
            self.before = before or {}  # else a script's worker.before is that of the input
        self.info: dict[str, Any] = {}
        """The worker's INFO values, and whatever states store here."""
        self.timestamps: list[float] = []
        self.stateinfo: list[tuple[float, str]] = []
        """When each state was constructed, and the name of its class."""
        self.loops: dict[str, list[str]] = {}
        """By break key: the iteration keys of the loops that use it now (see ForLoopState)."""
        self.numbered = False
        """Whether the worker says which command a reply answers, so that several of one kind may run
        at the same time. A worker of the original mu does not, and neither did attempts that began
        under a version of mu without this attribute."""
        self.now = 0.0
        """The time of the current event, in seconds since the epoch."""
        self.sent = 0
        """The number of commands sent so far."""
        self.outstanding: dict[int, str] = {}
        """The commands whose last reply has not come, by their numbers."""
        self.progressed: Progress | None = None
        """What `progress` was last told."""
        self.held_limit = HELD_LIMIT
        """How many replies may wait until something expects them."""
        self.passing: StatePassing | None = None
        """The states that it awaits and passes on; None: its pipeline does not use the relay."""
        self.may_mend: Callable[[str], bool] = _may_mend
        """Whether a retry may mend a failure with this reply of the worker (Pipeline.may_mend)."""
        self._sources: dict[int, str | None] = {}  # by the numbers of the latest commands
        self._steps = 0
        self._effects: list[Effect] = []

    def send(self, command: str, source: str = "", quiet: bool = False) -> None:
        """Send the worker a command.

        `source` is the name of the input that it handles. With it, users find what the command prints;
        what a `quiet` one prints is not shown.
        """
        if not isinstance(command, str):
            raise TypeError(f"a command must be a str, got {command!r}")
        if not command.isascii():
            _refuse_unsendable(command)
        if len(self._effects) >= EFFECT_LIMIT:
            raise Runaway(f"over {EFFECT_LIMIT} commands without waiting for the worker")
        self.sent += 1
        self.outstanding[self.sent] = command
        if source or quiet:
            self._sources[self.sent] = None if quiet else source
            if len(self._sources) > SOURCES_LIMIT:
                del self._sources[next(iter(self._sources))]
        if self.passing is not None:
            self.passing.sent(self.sent, command)
        self._effects.append(Send(command))

    def progress(self, done: int, of: int, failed: int = 0) -> None:
        """Show users that `done` of the actor's `of` inputs were handled, `failed` of them in vain.

        It is no effect: it writes nothing to the journal, and a replay computes it again. Raises
        TypeError for numbers that cannot be.
        """
        self.progressed = Progress(done, of, failed)

    def source_of(self, command: int) -> str | None:
        """Return the input that a command with this number handles, or ""; None: it is quiet."""
        return self._sources.get(command, "")

    def set_timer(self, name: str, seconds: float) -> None:
        """Request an Elapsed event with this name after that many seconds."""
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise TypeError(f"a timeout must be a number of seconds, at least 0, got {seconds!r}")
        self._effects.append(SetTimer(name, seconds))

    def cancel_timer(self, name: str) -> None:
        self._effects.append(CancelTimer(name))

    def constructed(self, name: str) -> None:
        """Record that a state of the class with this name was constructed."""
        self.timestamps.append(self.now)
        self.stateinfo.append((self.now, name))

    def step(self) -> None:
        """Count a transition. Raises Runaway."""
        self._steps += 1
        if self._steps > TRANSITION_LIMIT:
            raise Runaway(f"over {TRANSITION_LIMIT} transitions without waiting for the worker")

    def begin_event(self, at: float) -> list[Effect]:
        """Return the list in which the effects of this event are collected."""
        self.now, self._steps, self._effects = at, 0, []
        return self._effects


def _may_mend(reply: str) -> bool:
    return True


def _refuse_unsendable(command: str) -> None:
    try:
        command.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:  # a ValueError: the machine would keep the reply
        raise TypeError(f"{shortened(command)} cannot be sent: {error.reason}") from None


def shortened(text: str, limit: int = 400) -> str:
    """Return `text` quoted, with the middle cut out if it is longer than `limit` characters."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return repr(text)
