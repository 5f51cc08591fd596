"""Finds in a command's reply what is missing in its log.

A reply holds the output of its command, cut in the middle if it is long. The log may lack what was
printed while the worker had no connection.
"""

import re
from typing import NamedTuple

_CUT = re.compile(rb"\n\[\.\.\. (\d{1,15}) bytes cut \.\.\.\]\n")
_MARK_BYTES = 50
"""More than the longest mark has."""


class Excerpted(NamedTuple):
    """The start and the end of an output, and how many bytes between them were cut."""

    head: bytes
    cut: int
    tail: bytes

    @property
    def size(self) -> int:
        """The size of the whole output."""
        return len(self.head) + self.cut + len(self.tail)


class Missing(NamedTuple):
    """What a log lacks of a command's output: it belongs after `before` bytes of what the log has of
    it, and instead of all that follows but the last `after` bytes.
    """

    before: int
    after: int
    text: bytes

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it belongs, and its size, all in bytes."""
        return self.before, self.after, len(self.text)


def read_excerpt(output: bytes) -> Excerpted:
    """Return the parts of the output in a reply: a worker cuts it exactly in the middle."""
    middle = len(output) // 2
    for found in _CUT.finditer(output, max(0, middle - _MARK_BYTES), middle + _MARK_BYTES):
        head, tail = output[: found.start()], output[found.end() :]
        if len(head) - len(tail) in (0, 1):
            return Excerpted(head, int(found[1]), tail)
    return Excerpted(output, 0, b"")


def missing(logged: bytes, gaps: list[int], output: bytes) -> Missing | None:
    """Return what a command's log lacks of its output; None: nothing is known to be missing.

    `gaps` says after how many bytes of `logged` something may have been lost.
    """
    told = read_excerpt(output)
    tail = told.tail if told.cut else told.head
    if len(logged) == told.size and logged.startswith(told.head) and logged.endswith(tail):
        return Missing(len(logged), 0, b"") if gaps else None
    # Up to its first gap and after its last one a log is right, also beyond the excerpt.
    start, end = (logged[: gaps[0]], logged[gaps[-1] :]) if gaps else (logged, logged)
    before = _same(start, told.head, bool(gaps))
    after = _same(end[::-1], tail[::-1], bool(gaps))
    after = max(0, min(after, len(logged) - before, told.size - before))
    until, tail_at = told.size - after, len(told.head) + told.cut
    head_part = told.head[before:until]
    tail_part = told.tail[max(0, before - tail_at) : max(0, until - tail_at)]
    hole = min(until, tail_at) - max(before, len(told.head))
    if hole <= 0:
        return Missing(before, after, head_part + tail_part)
    if before + after < len(logged):
        return None  # the log has parts of the output whose places are not known
    return Missing(before, after, b"%b\n[... %d bytes lost ...]\n%b" % (head_part, hole, tail_part))


def _same(logged: bytes, told: bytes, beyond: bool) -> int:
    """Return how many bytes at the start of `logged` are right.

    `beyond`: if it is the same as far as `told` goes, so is the rest.
    """
    low, high = 0, min(len(logged), len(told))
    if beyond and logged[:high] == told[:high]:
        return len(logged)
    while low < high:
        middle = (low + high + 1) // 2
        if logged[low:middle] == told[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
