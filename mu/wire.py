"""Frames on the wire: a length in twelve decimal digits, one space, then the payload.

Coordinator and worker share this module: the worker's bundle contains it, so it uses only the
standard library.
"""

from collections.abc import Iterator

HEADER_BYTES = 13
WORKER_FRAME_LIMIT = 16 * 2**20
"""The default limit for workers and the worker port: the longest payload, in bytes."""


class FrameError(ValueError):
    """The peer sent a malformed frame or one over the limit; the connection must be closed."""


def frame(payload: bytes) -> bytes:
    """Return `payload` with its header, ready to be written."""
    return b"%012d " % len(payload) + payload


class Framer:
    """Splits a stream of bytes into payloads of at most `limit` bytes each."""

    def __init__(self, limit: int = WORKER_FRAME_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._length = -1  # of the payload whose header was read; -1: a header is next

    @property
    def partial(self) -> bool:
        """Whether the bytes received so far end inside a frame."""
        return bool(self._buffer) or self._length >= 0

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield each payload that `received` completes, in order.

        Raises FrameError at the first malformed or oversized header, after yielding the payloads
        before it.
        """
        buffer = self._buffer
        buffer += received
        start = 0
        try:
            while True:
                if self._length < 0:
                    header = bytes(buffer[start : start + HEADER_BYTES])
                    if len(header) < HEADER_BYTES:
                        if header and not header[:12].isdigit():
                            raise self._malformed(header)
                        return
                    self._length = self._read_header(header)
                    start += HEADER_BYTES
                end = start + self._length
                if end > len(buffer):
                    return
                payload = bytes(buffer[start:end])
                start, self._length = end, -1
                yield payload
        finally:
            del buffer[:start]

    def _read_header(self, header: bytes) -> int:
        if not header[:12].isdigit() or header[12] != 0x20:
            raise self._malformed(header)
        length = int(header[:12])
        if length > self._limit:
            raise FrameError(f"a frame must have at most {self._limit} bytes, got {length}")
        return length

    @staticmethod
    def _malformed(header: bytes) -> FrameError:
        return FrameError(f"a frame must begin with 12 decimal digits and a space, not {header!r}")


def count_frames(data: bytes) -> int:
    """Return the number of frames in `data`, which must be whole frames, as `frame` makes them."""
    start, size = HEADER_BYTES + int(data[:12]), len(data)
    if start == size:  # by far the most frequent case
        return 1
    count = 1
    while start < size:
        start += HEADER_BYTES + int(data[start : start + 12])
        count += 1
    return count
