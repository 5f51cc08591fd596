"""What workers used, as they tell it themselves: of each command, and summed. Pure.

A worker of the original mu tells nothing, nor does a function that was deployed earlier: what nobody
told is unknown, which is not 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

MOST = 1e15
"""The largest number that counts: workers may tell anything."""

PEAKS = "peak_mb", "memory_mb", "tmp_mb"
"""Figures of which the largest counts; the others are added up."""


@dataclass(slots=True)
class Usage:
    """Sums of what workers told; None: unknown. Sizes in MB are of 2**20 bytes."""

    commands: int | None = None
    """How many commands told what they used: run, retrieve and upload."""
    cpu_s: float | None = None
    """The CPU time of programs and of transfers."""
    busy_s: float | None = None
    """How long workers had such a command to execute; several at a time count once."""
    idle_s: float | None = None
    """The part of `busy_s` in which the machine's CPUs were idle: if it is small, others used them."""
    peak_mb: float | None = None
    """The most memory of a worker and its programs."""
    memory_mb: float | None = None
    """The memory of the function."""
    tmp_mb: float | None = None
    """The most that a sandbox's /tmp has held."""
    in_bytes: float | None = None
    """Bytes downloaded from S3, including those of tries that broke."""
    out_bytes: float | None = None
    """Bytes uploaded to S3."""
    transfer_s: float | None = None
    """The duration of all these transfers."""
    init_s: float | None = None
    """The duration of sandboxes' INIT, of those that began with this job."""

    def add(self, told: Mapping[str, float]) -> None:
        """Add what `told_by` or a record has."""
        for name, more in told.items():
            before = getattr(self, name)
            if before is not None:
                more = max(before, more) if name in PEAKS else before + more
            setattr(self, name, more)

    def json(self) -> dict[str, float | None]:
        """Return it as JSON: null for what is unknown."""
        values = ((name, getattr(self, name)) for name in _NAMES)
        return {name: None if value is None else round(value, 3) for name, value in values}


_NAMES = tuple(one.name for one in fields(Usage))
_OF_COMMANDS = frozenset(_NAMES) - {"commands", "memory_mb", "init_s"}


def told_by(values: Mapping[str, object]) -> dict[str, float]:
    """Return the figures in a USED of a command that can be right; a worker may tell anything."""
    told = {}
    for name, value in values.items():
        if name in _OF_COMMANDS and (figure := as_told(value)) is not None:
            told[name] = figure
    return told


def as_told(value: object) -> float | None:
    """Return a number that a worker told; None: it can be none."""
    if (type(value) is float or type(value) is int) and 0 <= value <= MOST:  # True is no number
        return value
    return None
