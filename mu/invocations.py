"""What a job asks of an engine for each worker, and what the engine can answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "Accepted",
    "Answer",
    "Invocation",
    "Refused",
    "Size",
    "Throttled",
    "Unknown",
    "Unreached",
]


@dataclass(frozen=True, slots=True)
class Invocation:
    """A request to start one worker."""

    launch: str
    """A unique id, which the worker sends in its hello."""
    function: str
    region: str
    payload: bytes
    """The event, as JSON."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The worker will start, now or later."""

    kind: ClassVar[str] = "accepted"


@dataclass(frozen=True, slots=True)
class Throttled:
    """The engine is busy and did not start the worker; a retry is safe."""

    kind: ClassVar[str] = "throttled"
    reason: str
    wait_s: float | None = None
    """How long to wait before a retry, if the engine says so."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """The engine could not be reached, so nothing was sent; a retry is safe."""

    kind: ClassVar[str] = "unreached"
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine will not start this worker, nor any other like it."""

    kind: ClassVar[str] = "refused"
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """There was no answer: the worker may start or not, and only its hello can tell."""

    kind: ClassVar[str] = "unknown"
    reason: str


@dataclass(frozen=True, slots=True)
class Size:
    """What the price of a function depends on."""

    memory_mb: int
    architecture: str = "x86_64"


Answer = Accepted | Throttled | Unreached | Refused | Unknown


def region_of(number: int, regions: Sequence[str]) -> str:
    """Return the region of the launch with that number; launches use all regions in turn."""
    return regions[number % len(regions)]
