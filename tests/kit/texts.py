"""Texts for the pipeline chain, and what one pass over them makes."""

import random

from mu.pipelines.chain_program import PRIME


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
    chance = random.Random(7)
    lines = []
    while size > 0:
        lines.append(bytes(chance.choices(range(32, 127), k=chance.randrange(120))) + b"\n")
        size -= len(lines[-1])
    return b"".join(lines)
