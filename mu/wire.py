"""Frames on the wire: a length in twelve decimal digits, one space, then the payload.

Both ends speak this one module, and it needs the standard library only: the worker's bundle
ships it as it is.
"""

from collections.abc import Iterator

HEADER_BYTES = 13
WORKER_FRAME_LIMIT = 16 * 2**20
"""The longest payload that a worker and the worker port take, in bytes, unless told otherwise."""


class FrameError(ValueError):
    """The peer sent something that is no frame, or one over the limit; the connection must end."""


def frame(payload: bytes) -> bytes:
    """Return `payload` with its header in front, ready to be written."""
    return b"%012d " % len(payload) + payload


class Framer:
    """Cuts a stream of bytes into payloads of at most `limit` bytes each."""

    def __init__(self, limit: int = WORKER_FRAME_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._length = -1  # of the payload whose header was read; -1: a header comes next

    @property
    def partial(self) -> bool:
        """Whether the bytes so far end inside a frame."""
        return bool(self._buffer) or self._length >= 0

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield each payload that `received` completes, in order.

        Raises FrameError at the first malformed or oversized header, after the payloads before
        it were yielded.
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
            raise FrameError(
                f"a frame of {length} bytes was announced; at most {self._limit} are taken here"
            )
        return length

    @staticmethod
    def _malformed(header: bytes) -> FrameError:
        return FrameError(
            f"a frame must begin with 12 decimal digits and a space; {header!r} came instead"
        )
