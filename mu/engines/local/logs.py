"""What a function's workers printed on the local engine."""

from contextlib import suppress
from heapq import nlargest
from pathlib import Path

from mu.aws.logs import telling_line
from mu.aws.names import plain_name

FILES = 20
"""How many invocations are looked at, the newest."""


def local_log_of(logs: Path, function: str, since: float) -> str:
    """Return a clause about what a function's log says since a time. Blocks.

    `logs` is the engine's folder for the output of invocations.
    """
    folder, lines = logs / plain_name(function), list[str]()
    with suppress(OSError):
        files = [(path.stat().st_mtime, path) for path in folder.glob("*.log")]
        for at, path in sorted(nlargest(FILES, files)):
            if at >= since:
                lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    said = telling_line(lines)
    return f"its log says: {said}" if said else f"its log, in {folder}, says nothing about it"
