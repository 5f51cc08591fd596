"""What workers used, as they tell it themselves: of each command, and summed. Pure.

A worker of the original mu tells nothing, nor does a function that was deployed earlier: what nobody
told is unknown, which is not 0.
"""

from collections.abc import Mapping
from typing import Annotated, TypedDict, cast

from msgspec import Meta
from msgspec.json import Decoder

from mu.messages import USE_BYTES, Use

MOST = 1e15
"""The largest number that counts: workers may tell anything."""

FIGURES = {
    "commands": "how many commands told what they used: run, retrieve and upload",
    "cpu_s": "the CPU time of programs and of transfers",
    "busy_s": "how long workers had such a command to execute; several at a time count once",
    "idle_s": "the part of busy_s in which the machine's CPUs were idle: if it is small, others used them",
    "wait_s": "how long programs waited for the states of other workers, of busy_s",
    "peak_mb": "the most memory of a worker and its programs",
    "memory_mb": "the memory of the function",
    "tmp_mb": "the most that a sandbox's /tmp has held",
    "in_bytes": "bytes downloaded from S3, including those of tries that broke",
    "out_bytes": "bytes uploaded to S3",
    "transfer_s": "the duration of all these transfers",
    "init_s": "the duration of sandboxes' INIT, of those that began with this job",
}
"""What is known by name, and what it is. Sizes in MB are of 2**20 bytes."""

PEAKS = frozenset(("peak_mb", "memory_mb", "tmp_mb"))
"""Figures of which the largest counts; the others are added up."""


class Usage:
    """Sums of what workers told."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    def add(self, told: Mapping[str, float], commands: int = 0) -> None:
        """Add what `told_by` or a record has, of so many commands."""
        sums = self._sums
        if commands:
            sums["commands"] = sums.get("commands", 0) + commands
        for name, more in told.items():
            before = sums.get(name)
            if before is None:
                sums[name] = more
            elif name not in PEAKS:
                sums[name] = before + more
            elif more > before:
                sums[name] = more

    def json(self) -> dict[str, float | None]:
        """Return it as JSON: null for what is unknown."""
        values = ((name, self._sums.get(name)) for name in FIGURES)
        return {name: None if value is None else round(value, 3) for name, value in values}


_Figure = Annotated[float, Meta(ge=0, le=MOST)]


class _Told(TypedDict, total=False):
    """The figures that a worker may tell of a command."""

    cpu_s: _Figure
    busy_s: _Figure
    idle_s: _Figure
    wait_s: _Figure
    peak_mb: _Figure
    tmp_mb: _Figure
    in_bytes: _Figure
    out_bytes: _Figure
    transfer_s: _Figure


_OF_COMMANDS = frozenset(_Told.__annotations__)
_read = Decoder(_Told).decode


def told_by(use: Use) -> dict[str, float]:
    """Return the figures in a USED of a command that can be right; a worker may tell anything.

    Raises BadMessage if it is not even a JSON object.
    """
    try:
        if len(use.text) <= USE_BYTES:
            return cast(dict[str, float], _read(use.text))  # many times as fast
    except ValueError:
        pass
    told = {}
    for name, value in use.values.items():
        if name in _OF_COMMANDS and (figure := as_told(value)) is not None:
            told[name] = figure
    return told


def as_told(value: object) -> float | None:
    """Return a number that a worker told; None: it can be none."""
    if (type(value) is float or type(value) is int) and 0 <= value <= MOST:  # True is no number
        return value
    return None
