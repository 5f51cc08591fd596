"""What workers used, as they tell it themselves: of each command, and summed. Pure.

A worker of the original mu tells nothing, nor does a function that was deployed earlier: what nobody
told is unknown, which is not 0.
"""

from collections.abc import Mapping

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

    def add(self, told: Mapping[str, float]) -> None:
        """Add what `told_by` or a record has."""
        sums = self._sums
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


_OF_COMMANDS = frozenset(FIGURES) - {"commands", "memory_mb", "init_s"}


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
