"""State files: those that a run writes, those that a neighbour sent, and their compressed form.

All of this blocks, so call it in a thread. A state is never in memory as a whole.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress

PIECE_BYTES = 262144
FINAL = "final.state"
LEVEL = 1
"""Of zlib. Higher ones take more than twice the time for a state, and save little."""


class StateError(Exception):
    """A state cannot be sent or received; the message says why."""


class StateSpool:
    """Bytes in an unlinked file, which disappears with this process."""

    def __init__(self, folder: str) -> None:
        """Raises OSError."""
        os.makedirs(folder, exist_ok=True)  # a command may have removed it
        path = os.path.join(folder, f".spool-{os.urandom(8).hex()}")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        self.length = 0

    def add(self, more: bytes) -> None:
        """Raises OSError."""
        view = memoryview(more)
        while view:
            written = os.write(self._fd, view)
            self.length += written
            view = view[written:]

    def pieces(self) -> Iterator[bytes]:
        """Yield everything written, even if the spool is closed meanwhile. May raise OSError."""
        fd = os.dup(self._fd)
        try:
            at = 0
            while piece := os.pread(fd, PIECE_BYTES, at):
                yield piece
                at += len(piece)
        finally:
            os.close(fd)

    def framed(self) -> Iterator[bytes]:
        """Yield everything written as one frame."""
        yield b"%012d " % self.length
        yield from self.pieces()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def mark(folder: str) -> tuple[int, int, int] | None:
    """Return a value that changes when final.state is written again; None: there is no such file."""
    try:
        found = os.stat(os.path.join(folder, FINAL))
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def tidy(folder: str, iteration: int, minimal: bool) -> None:
    """After a run: delete the state of two iterations ago, and copy output.ivf to prev.ivf.

    `minimal`: state 0 is kept, because each later run starts from it. Raises StateError.
    """
    import shutil  # slow to import, and few workers need it

    if iteration > 1 and not (minimal and iteration == 2):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, f"{iteration - 2}.state"))
    output, kept = os.path.join(folder, "output.ivf"), os.path.join(folder, "prev.ivf")
    partial = f"{kept}.{os.urandom(4).hex()}.part"
    try:
        shutil.copyfile(output, partial)  # not a link: the next run writes to output.ivf
        os.replace(partial, kept)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StateError(f"could not copy output.ivf to prev.ivf: {error.strerror}") from error
    finally:
        with suppress(OSError):
            os.unlink(partial)


def pack(folder: str, iteration: int, limit: int) -> StateSpool:
    """Return final.state as a frame for the neighbour. Raises StateError."""
    try:
        spool = StateSpool(folder)
        spool.add(b"STATE(%d):" % iteration)
        compressor = zlib.compressobj(LEVEL)
        with open(os.path.join(folder, FINAL), "rb") as file:
            while piece := file.read(PIECE_BYTES):
                spool.add(compressor.compress(piece))
        spool.add(compressor.flush())
    except OSError as error:
        raise StateError(f"{FINAL} could not be sent: {error.strerror}") from error
    if spool.length > limit:
        raise StateError(
            f"{FINAL} could not be sent: compressed it has {spool.length} bytes, over the limit of"
            f" {limit} bytes for a frame"
        )
    return spool


def unpack(spool: StateSpool, folder: str, iteration: int) -> None:
    """Write a received state (zlib data) to <iteration>.state, completely or not at all.

    Raises StateError.
    """
    path = os.path.join(folder, f"{iteration}.state")
    partial = f"{path}.{os.urandom(4).hex()}.part"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(partial, "wb") as file:
            for piece in _inflated(spool.pieces()):
                file.write(piece)
        os.replace(partial, path)
    except OSError as error:
        raise StateError(f"it could not be written to disk: {error.strerror}") from error
    except zlib.error as error:
        raise StateError(f"it is damaged: {error}") from error
    finally:
        with suppress(OSError):
            os.unlink(partial)


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj()
    for piece in pieces:
        while piece:
            if inflater.eof:
                raise zlib.error("there is data after its end")
            yield inflater.decompress(piece, PIECE_BYTES)
            piece = inflater.unconsumed_tail or inflater.unused_data
    while not inflater.eof and (piece := inflater.decompress(b"", PIECE_BYTES)):
        yield piece  # the rest that the decompressor held back
    if not inflater.eof:
        raise zlib.error("its end is missing")
