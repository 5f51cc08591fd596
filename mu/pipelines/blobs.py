"""For `plan` and `finish`: the blobs of the daemon, in which orders keep what is too large for them."""

import hashlib
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO, Protocol


class BlobShelf(Protocol):
    """Where blobs are (a mu.blobs.Blobs). Errors are sentences for users."""

    def open(self, digest: str) -> BinaryIO: ...
    def add(self, content: bytes) -> str: ...


class MemoryShelf:
    """The blobs of pipelines that are played without a daemon."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def open(self, digest: str) -> BinaryIO:
        return BytesIO(self._known[digest])

    def add(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self._known[digest] = content
        return digest


_in_memory = MemoryShelf()
_shelf: Callable[[], BlobShelf] = lambda: _in_memory  # noqa: E731


def find_with(shelf: Callable[[], BlobShelf]) -> None:
    """Use the blobs that this returns from now on."""
    global _shelf
    _shelf = shelf


def shelf() -> BlobShelf:
    """Return the blobs."""
    return _shelf()
