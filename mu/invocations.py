"""A job's request to an engine for one worker, and the engine's possible answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from mu.aws.endings import BadEnding

__all__ = [
    "Accepted",
    "Answer",
    "BadEnding",
    "ConcurrencyLimit",
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
    job: str = ""
    """The id of its job, which `cancel` names."""
    options: Mapping[str, object] = field(default_factory=dict)
    """What the order sets of the engine's options, by their names."""


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
    """The engine will not start this worker or any other of its job."""

    kind: ClassVar[str] = "refused"
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """There was no answer: the worker may or may not start, and only its hello will tell."""

    kind: ClassVar[str] = "unknown"
    reason: str


@dataclass(frozen=True, slots=True)
class Size:
    """A function's memory and architecture, which determine its price, and its other facts."""

    memory_mb: int
    architecture: str = "x86_64"
    timeout_s: float = 0.0
    """How long one worker may run, in seconds; 0: unknown."""
    version: str = ""
    """Changes with each deployment, for example its time; empty: unknown."""
    hour_usd: float | None = None
    """What a worker costs in an hour, in US dollars; None: as on AWS, by its memory."""


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How many workers may run at once: of a function alone, if `reserved`, else of all functions."""

    most: int
    reserved: bool = False


Answer = Accepted | Throttled | Unreached | Refused | Unknown


def function_of(number: int, functions: Sequence[str], regions: Sequence[str]) -> str:
    """Return the function of the launch with that number: all regions in turn, then all functions."""
    return functions[number // len(regions) % len(functions)]


def region_of(number: int, regions: Sequence[str]) -> str:
    """Return the region of the launch with that number; launches use the regions in turn."""
    return regions[number % len(regions)]
