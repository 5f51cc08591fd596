"""Texts for the pipeline chain, and what one pass over them makes."""

import random

from mu.pipelines.chain_program import PRIME

_PRINTABLE = b"\n\n\n\n" + bytes(range(32, 127)) * 3
_PRINTABLE = _PRINTABLE[:256].ljust(256, b".")
"""One byte in 64 is a line break."""


def one_pass(text: bytes, every: int) -> tuple[list[list[int]], dict[str, object]]:
    """What one program on one machine makes of it."""
    rows, offset = [], 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        if number % every == 0:
            rows.append([number + 1, offset])
        offset += len(line)
    hashed = format(int.from_bytes(text, "big") % PRIME, "032x")
    return rows, {"bytes": len(text), "lines": text.count(b"\n"), "hash": hashed}


def prose(size: int) -> bytes:
    """Return lines of printable characters, some of them empty; always the same."""
    return random.Random(7).randbytes(size).translate(_PRINTABLE)
