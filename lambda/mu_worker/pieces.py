"""Splits frames into pieces while they arrive, so that a large state is never in memory. Pure."""

from collections.abc import Iterator

from mu.wire import HEADER_BYTES, Framer


class Pieces:
    """Splits a stream of bytes into frames, and yields each frame in pieces as they arrive."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._header = bytearray()
        self._left = -1  # bytes left of the current frame; -1: a header comes next

    @property
    def partial(self) -> bool:
        """Whether the bytes so far end in the middle of a frame."""
        return bool(self._header) or self._left >= 0

    def feed(self, received: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield pieces of frames, each with a flag: whether it is the last piece of its frame.

        Raises FrameError at the first malformed or oversized header, after the pieces before it.
        """
        at = 0
        while at < len(received):
            if self._left < 0:
                missing = HEADER_BYTES - len(self._header)
                self._header += received[at : at + missing]
                at += missing
                for _ in Framer(self._limit).feed(bytes(self._header)):
                    pass  # it checks the header; only an empty frame yields a payload
                if len(self._header) < HEADER_BYTES:
                    return
                self._left = int(self._header[:12])
                self._header.clear()
                if self._left:
                    continue
            piece = received[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            last = self._left == 0
            if last:
                self._left = -1
            yield piece, last
