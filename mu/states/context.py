"""What all states of one actor share, and what a machine needs of a state."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mu.events import CancelTimer, Effect, Event, Send, SetTimer

TRANSITION_LIMIT = 10_000
"""More transitions than this for one event are a loop that never ends."""


HELD_LIMIT = 1_000
"""Replies that may wait for a state that wants them, unless told otherwise."""


EFFECT_LIMIT = 100_000
"""More commands than this for one event are a loop that never ends, too."""


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


class Context:
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


def shortened(text: str, limit: int = 400) -> str:
    """Return `text` quoted for a sentence, its middle cut out where it is long."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return repr(text)
