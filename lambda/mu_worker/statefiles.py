"""State files: those that a run writes, those that a neighbour sent, and their compressed form.

`pack` and `tidy` block, so call them in a thread. A state is never in memory as a whole.
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


class StateFile:
    """Becomes <iteration>.state, completely or not at all, from zlib data that arrives in pieces.

    A state is small enough to be written by the loop, as it arrives.
    """

    def __init__(self, folder: str, iteration: int) -> None:
        """Raises StateError."""
        self._path = os.path.join(folder, f"{iteration}.state")
        self._partial = f"{self._path}.{os.urandom(4).hex()}.part"
        self._inflater = zlib.decompressobj()
        try:
            os.makedirs(folder, exist_ok=True)  # a command may have removed it
            self._file = open(self._partial, "xb", buffering=0)  # noqa: SIM115, close() does
        except OSError as error:
            raise _unwritable(error) from error

    def add(self, piece: bytes) -> None:
        """Raises StateError."""
        inflater = self._inflater
        try:
            while piece:
                if inflater.eof:
                    raise zlib.error("there is data after its end")
                self._write(inflater.decompress(piece, PIECE_BYTES))
                piece = inflater.unconsumed_tail or inflater.unused_data
        except zlib.error as error:
            raise StateError(f"it is damaged: {error}") from error

    def end(self) -> None:
        """Rename the file: all pieces were added. Raises StateError."""
        try:
            while not self._inflater.eof and (rest := self._inflater.decompress(b"", PIECE_BYTES)):
                self._write(rest)  # what the decompressor held back
        except zlib.error as error:
            raise StateError(f"it is damaged: {error}") from error
        if not self._inflater.eof:
            raise StateError("it is damaged: its end is missing")
        try:
            os.replace(self._partial, self._path)
        except OSError as error:
            raise _unwritable(error) from error

    def close(self) -> None:
        """Remove the file, unless it is complete."""
        if not self._file.closed:
            self._file.close()
            with suppress(OSError):
                os.unlink(self._partial)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _unwritable(error) from error


def _unwritable(error: OSError) -> StateError:
    return StateError(f"it could not be written to disk: {error.strerror or error}")
