"""For `plan` and `finish`: the blobs of the daemon, in which orders keep what is too large for them."""

from collections.abc import Callable
from typing import BinaryIO, Protocol


class BlobShelf(Protocol):
    """Where blobs are (a mu.blobs.Blobs). Errors are sentences for users."""

    def open(self, digest: str) -> BinaryIO: ...
    def add(self, content: bytes) -> str: ...


_shelf: Callable[[], BlobShelf] | None = None


def find_with(shelf: Callable[[], BlobShelf]) -> None:
    """Use the blobs that this returns from now on."""
    global _shelf
    _shelf = shelf


def shelf() -> BlobShelf:
    """Return the blobs. Raises LookupError outside a daemon."""
    if _shelf is None:
        raise LookupError("there are no blobs: no daemon runs in this process")
    return _shelf()
