"""A worker's connection for blobs: it asks for one after the other, or leaves some.

    BLOB:GET:DIGEST:FIRST:BYTES    -> BLOB:N, then frames with N bytes in all; BYTES -: to the end
    BLOB:PUT:DIGEST, then frames with the content, then an empty one    -> BLOB:N

Instead of BLOB:N, the answer may be FAIL(reason).
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from mu.blobs import PIECE, BlobError, Blobs, BlobWriter
from mu.messages import BadMessage, decode, encode
from mu.wire import frame

_FORM = re.compile(
    r"BLOB:(?:GET:(?P<get>\w{1,64}):(?P<first>\d{1,15}):(?P<bytes>\d{1,15}|-)|PUT:(?P<put>\w{1,64}))",
    re.ASCII,
)


class BlobLine:
    """Answers the requests on one connection. `may_write` tells whether the worker keeps reading."""

    def __init__(
        self, blobs: Blobs, write: Callable[[bytes], None], may_write: Callable[[], bool]
    ) -> None:
        self._blobs, self._write, self._may_write = blobs, write, may_write
        self._file: BinaryIO | None = None  # that is being sent
        self._left = 0
        self._writer: BlobWriter | None = None
        self._receiving = False
        self._received = 0

    def receive(self, payload: bytes) -> None:
        """Handle a frame. Raises BadMessage."""
        if self._receiving:
            self._take(payload)
            return
        asked = _FORM.fullmatch(decode(payload))
        if asked is None or self._file is not None:
            raise BadMessage(f"expected a request for a blob, not {payload[:80]!r}")
        try:
            if asked["put"]:
                self._receiving, self._received = True, 0
                self._writer = self._blobs.writer(asked["put"])
            else:
                self._begin(asked["get"], int(asked["first"]), asked["bytes"])
        except (BlobError, OSError) as error:
            self._refuse(error)

    def send(self) -> None:
        """Send as much of a blob as the worker takes."""
        while self._file is not None and self._may_write():
            piece = self._file.read(min(PIECE, self._left))
            self._left -= len(piece)
            if piece:
                self._write(frame(piece))
            if not (piece and self._left):
                self._file.close()
                self._file = None

    def close(self) -> None:
        """The connection is gone."""
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()
        self._file = self._writer = None

    def _begin(self, digest: str, first: int, asked: str) -> None:
        whole = self._blobs.size(digest)
        if whole is None:
            raise BlobError(
                f"there is no blob {digest}: it was never uploaded, or has been deleted to free space"
            )
        length = whole - first if asked == "-" else int(asked)
        if not 0 <= first <= first + length <= whole:
            raise BlobError(f"blob {digest} has {whole} bytes, not {length} from {first} on")
        self._write(frame(encode(f"BLOB:{length}")))
        if length:
            self._file, self._left = self._blobs.open(digest), length
            self._file.seek(first)
            self.send()

    def _take(self, piece: bytes) -> None:
        """Handle a piece of what the worker leaves here; after an error, the rest is ignored."""
        writer = self._writer
        if not piece:
            self._receiving = False
        if writer is None:
            return
        try:
            if piece:
                self._received += len(piece)
                writer.write(piece)
                return
            self._writer = None
            writer.keep()
            self._write(frame(encode(f"BLOB:{self._received}")))
        except BlobError as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None
        self._write(frame(encode(f"FAIL({error})")))
