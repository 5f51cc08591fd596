"""Says what a job's workers used, and whether their functions could have less memory."""

import math
from collections.abc import Callable, Mapping

from mu.cli.display.text import clean, size, span
from mu.client.answers import JobJson

MB_PER_CPU = 1769
"""The memory with which Lambda gives a function one CPU; the share grows with the memory (AWS's
developer guide, "Configure Lambda function memory")."""
ROOM = 1.25
"""How much more memory than was used is suggested, and how much more CPU."""
LEAST_MB, STEP_MB = 128, 64
WORTH = 0.75
"""Only a memory of at most this share of the present one is worth a suggestion."""
IDLE = 0.1
"""The least share of idle CPUs."""
OF_SANDBOX = "memory_mb", "init_s"
"""What is known of a sandbox even if it tells nothing of its commands."""
ENOUGH_S = 1.0
"""A shorter use of the CPU says too little."""

Used = Mapping[str, float | None]


def is_known(used: Used | None) -> bool:
    """Return whether anything is known of what commands used."""
    return any(value is not None for name, value in (used or {}).items() if name not in OF_SANDBOX)


def usage_line(job: JobJson) -> str:
    """Return a sentence about what a job's workers used; what they did not tell is unknown."""
    used: Used = job.get("used") or {}
    if not is_known(used):
        return "Used: unknown, because its workers did not tell."
    parts = [f"CPU {_known(used, 'cpu_s', span)}{_share(used)}", f"memory {memory(used)}"]
    parts.append(f"/tmp {_known(used, 'tmp_mb', _mb)}")
    for name, way in (("in_bytes", "from"), ("out_bytes", "to")):
        if used.get(name) is not None:
            parts.append(f"{_known(used, name, size)} {way} S3")
    if used.get("transfer_s") is not None:
        parts[-1] += f" in {_known(used, 'transfer_s', span)}"
    return f"Used: {', '.join(parts)}."


def memory(used: Used) -> str:
    """Return `812 of 1,769 MB`."""
    peak, most = used.get("peak_mb"), used.get("memory_mb")
    if most is None:
        return _known(used, "peak_mb", _mb)
    return f"{'unknown' if peak is None else f'{peak:,.0f}'} of {most:,.0f} MB"


def cpu(used: Used) -> str:
    """Return the CPU time."""
    return _known(used, "cpu_s", span)


def advice(job: JobJson) -> str:
    """Return a sentence if its functions could do with less memory; empty: they could not.

    Lambda's share of the CPU shrinks with the memory, so this needs a low use of both; on a busy
    machine, a low use of the CPU says nothing.
    """
    used: Used = job.get("used") or {}
    peak, most = used.get("peak_mb"), used.get("memory_mb")
    cpu_s, busy_s = used.get("cpu_s"), used.get("busy_s")
    if peak is None or not most or cpu_s is None or not busy_s or busy_s < ENOUGH_S:
        return ""
    if (used.get("idle_s") or 0.0) < IDLE * busy_s:
        return ""
    cpus = cpu_s / busy_s
    needed = max(LEAST_MB, ROOM * peak, ROOM * cpus * MB_PER_CPU)
    enough = math.ceil(needed / STEP_MB) * STEP_MB
    if enough > WORTH * most:
        return ""
    function = f"function {clean(job['function'])!r}" if job.get("function") else "the function"
    return (
        f"With {enough:,} MB instead of {most:,.0f}, {function} would cost less for each second: its"
        f" workers used at most {peak:,.0f} MB, and {cpus:.0%} of a CPU (Lambda gives"
        f" {enough / MB_PER_CPU:.0%} with that memory)."
    )


def _share(used: Used) -> str:
    """Return ` (34 % of a CPU)`, while commands ran."""
    cpu_s, busy_s = used.get("cpu_s"), used.get("busy_s")
    return f" ({cpu_s / busy_s:.0%} of a CPU)" if cpu_s is not None and busy_s else ""


def _mb(value: float) -> str:
    return f"{value:,.0f} MB"


def _known(used: Used, name: str, words: Callable[[float], str]) -> str:
    value = used.get(name)
    return "unknown" if value is None else words(value)
