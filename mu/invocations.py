"""What is asked of an engine, for one worker, and what it may answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Invocation:
    """One worker to be started."""

    launch: str
    """The one-time id, by which its worker is known."""
    function: str
    region: str
    payload: bytes
    """The event, as JSON."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The worker will start, sooner or later."""

    kind: ClassVar[str] = "accepted"


@dataclass(frozen=True, slots=True)
class Throttled:
    """The engine is busy and did not start it; trying again is safe."""

    kind: ClassVar[str] = "throttled"
    reason: str
    wait_s: float | None = None
    """How long the engine says to wait."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """No connection to the engine could be made, so nothing was sent; trying again is safe."""

    kind: ClassVar[str] = "unreached"
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine will not start it, nor another one like it."""

    kind: ClassVar[str] = "refused"
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer came: the worker may start or not, and only its hello can tell."""

    kind: ClassVar[str] = "unknown"
    reason: str


@dataclass(frozen=True, slots=True)
class Size:
    """What of a function its price depends on."""

    memory_mb: int
    architecture: str = "x86_64"


Answer = Accepted | Throttled | Unreached | Refused | Unknown


def region_of(number: int, regions: Sequence[str]) -> str:
    """Return in which region the launch of that number is made: in all of them in turn."""
    return regions[number % len(regions)]
