"""Parses the bytes of a connection: where frames begin and end, HELLO_STATE and AT. Pure."""

import re
from typing import NamedTuple

from mu.relay.limits import SMALL
from mu.wire import HEADER_BYTES, FrameError

LONGEST_HELLO = 300
LONGEST_AT = 60

_HELLO = re.compile(rb"HELLO_STATE:([^:\x00-\x1f]{1,200}):(-?[0-9]{1,18}):(-?[0-9]{1,18})")
_AT = re.compile(rb"AT:([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,18})")


class HelloState(NamedTuple):
    """A worker's first frame on the relay port. The numbers have no leading zeros."""

    uniq: str
    me: str
    partner: str


def read_length(buffer: bytes, limit: int) -> int | None:
    """Return the length of the frame at the start of the buffer; None: its header is incomplete.

    Raises FrameError.
    """
    header = buffer[:HEADER_BYTES]
    digits = header[:12]
    if (digits and not digits.isdigit()) or header[12:] not in (b"", b" "):
        raise FrameError(f"a frame must begin with 12 decimal digits and a space, not {header!r}")
    if len(header) < HEADER_BYTES:
        return None
    length = int(digits)
    if length > limit:
        raise FrameError(f"a frame must have at most {limit} bytes, got {length}")
    return length


def end_of_frames(buffer: bytes, limit: int) -> tuple[int, int]:
    """Return the end of the complete, small frames at the start of the buffer, and their number."""
    limit = min(limit, SMALL)
    end, count, size = 0, 0, len(buffer)
    while size - end >= HEADER_BYTES:
        digits = buffer[end : end + 12]
        if not digits.isdigit() or buffer[end + 12] != 0x20:
            break  # read_length reports what is wrong
        following = end + HEADER_BYTES + int(digits)
        if following > size or following - end - HEADER_BYTES > limit:
            break
        end = following
        count += 1
    return end, count


def read_hello(payload: bytes) -> HelloState:
    """Parse a connection's first frame. Raises FrameError."""
    hello = _HELLO.fullmatch(payload)
    if hello is None:
        raise FrameError(
            f"it began with {payload[:80]!r} instead of HELLO_STATE:<uniq>:<me>:<partner>,"
            " where <me> and <partner> are numbers"
        )
    uniq, me, partner = hello.groups()
    return HelloState(uniq.decode("utf-8", "backslashreplace"), str(int(me)), str(int(partner)))


def read_at(buffer: bytes, start: int, end: int) -> tuple[int, int, int] | None:
    """Return attempt, sent and received if that part of the buffer is an AT; None: it is not."""
    if end - start > LONGEST_AT:
        return None
    at = _AT.fullmatch(buffer, start, end)
    return None if at is None else (int(at[1]), int(at[2]), int(at[3]))
