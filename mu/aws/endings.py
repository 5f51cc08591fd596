"""How an invocation ended badly, from the lines of its log. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST = 500
"""How many characters are quoted."""
_MEMORY = re.compile(r"Memory Size: (\d{1,9}) MB\s+Max Memory Used: (\d{1,9}) MB")


@dataclass(frozen=True, slots=True)
class BadEnding:
    """How an invocation ended, if not by returning."""

    how: str
    """A clause, such as `was killed: out of memory (peak 512 of 512 MB)`."""
    peak_mb: float
    """The most memory of its sandbox."""


def ending_in(lines: Iterable[str], request: str) -> BadEnding | None:
    """Return how an invocation ended badly; None: it did not, or has not ended.

    Lambda's REPORT line comes last, and has the memory of the sandbox.
    """
    why, report = "", ""
    for line in lines:
        if request not in line:
            continue
        if line.startswith("REPORT RequestId: "):
            report = line
        elif "Task timed out after " in line:
            seconds = line.partition("Task timed out after ")[2].partition(" ")[0]
            why = f"reached its function's timeout of {seconds.removesuffix('.00')} s"
        elif "Error: " in line:
            why = f"ended: {line.partition('Error: ')[2].strip()}"
    memory = _MEMORY.search(report)
    if memory is None:
        return None
    most, peak = int(memory[1]), int(memory[2])
    full = "signal: killed" in why and peak >= most
    if full or "Runtime.OutOfMemory" in report:
        why = f"was killed: out of memory (peak {peak:,} of {most:,} MB)"
    return BadEnding(why[:LONGEST], peak) if why else None
