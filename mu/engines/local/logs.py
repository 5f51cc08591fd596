"""What a function's workers printed on the local engine."""

from contextlib import suppress
from pathlib import Path

from mu.aws.endings import BadEnding, ending_in
from mu.aws.logs import telling_line
from mu.aws.names import plain_name

ENDING_BYTES = 4096
"""How much of an invocation's log is read for its end."""
FILES = 20
"""How many invocations are looked at, the newest."""


def invocation_logs(
    logs: Path, function: str, since: float, until: float | None = None, most: int | None = None
) -> list[Path]:
    """Return the logs of a function's invocations, or the newest ones, oldest first.

    Those are chosen that were last written to in this period, in seconds since the epoch. `logs` is
    the engine's folder for the output of invocations.
    """
    found = []
    for path in (logs / plain_name(function)).glob("*.log"):
        with suppress(FileNotFoundError):  # the engine drops the oldest
            at = path.stat().st_mtime
            if since <= at and (until is None or at <= until):
                found.append((at, path))
    return [path for _, path in sorted(found)][-most if most else 0 :]


def local_ending_of(logs: Path, function: str, request: str) -> BadEnding | None:
    """Return how an invocation ended badly, from its log; None: not, or unknown. Blocks."""
    path = logs / plain_name(function) / f"{request}.log"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - ENDING_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:  # the engine drops the oldest
        return None
    return ending_in(lines, request)


def local_log_of(logs: Path, function: str, since: float) -> str:
    """Return a clause about what a function's log says since a time. Blocks.

    `logs` is the engine's folder for the output of invocations.
    """
    folder, lines = logs / plain_name(function), list[str]()
    with suppress(OSError):
        for path in invocation_logs(logs, function, since, most=FILES):
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    said = telling_line(lines)
    return f"its log says: {said}" if said else f"its log, in {folder}, says nothing about it"
