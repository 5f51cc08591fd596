"""Blobs: contents that orders name by their SHA-256, and that workers fetch or leave here.

A blob is a file <home>/blobs/DIGEST. Its name says what is in it, so that it never changes and may be
written twice. Nobody looks into it. When the limit of all is reached, those go that were used least
recently.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

DIGEST = re.compile(r"[0-9a-f]{64}")
PIECE = 2**18


class BlobError(Exception):
    """A blob cannot be kept or is not there; the text says why."""


class Blobs:
    """The blobs in a folder. Its methods block for as long as the disk takes."""

    def __init__(self, folder: Path, max_bytes: int, total_bytes: int) -> None:
        """`max_bytes`: of one blob; `total_bytes`: of all. The folder is made when it is needed."""
        self._folder = folder
        for left in folder.glob(".*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        self._max_bytes, self._total_bytes = max_bytes, total_bytes

    def reload(self, max_bytes: int, total_bytes: int) -> None:
        """Use these limits from now on."""
        self._max_bytes, self._total_bytes = max_bytes, total_bytes

    def size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, and count it as used; None: it is not there."""
        try:
            os.utime(self._path(digest))
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading, and count it as used. Raises BlobError."""
        if self.size(digest) is None:
            raise BlobError(f"there is no blob {digest}")
        return self._path(digest).open("rb")

    def put(self, digest: str, content: BinaryIO) -> None:
        """Keep a whole file, also through a power loss.

        Raises BlobError if it is not what the digest says, or too large.
        """
        writer = self.writer(digest)
        try:
            while piece := content.read(PIECE):
                writer.write(piece)
            writer.sync()
        except BaseException:
            writer.close()
            raise
        writer.keep()

    def add(self, content: bytes) -> str:
        """Keep this content; return its digest. Raises BlobError."""
        digest = hashlib.sha256(content).hexdigest()
        if self.size(digest) is None:
            writer = self.writer(digest)
            writer.write(content)
            writer.keep()
        return digest

    def writer(self, digest: str) -> "BlobWriter":
        """Begin a blob, which comes in pieces. Raises BlobError."""
        path = self._path(digest)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return BlobWriter(path, self._max_bytes, self._make_room)
        except OSError as error:
            raise BlobError(f"cannot write to {self._folder}: {error.strerror}") from None

    def _path(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise BlobError(f"a blob is named by its SHA-256 in 64 hex digits, got {digest!r:.200}")
        return self._folder / digest

    def _make_room(self, size: int) -> None:
        """Remove the blobs used least recently, until one of this size fits."""
        known = sorted(self._files())
        total = size + sum(one_size for _, one_size, _ in known)
        for _, one_size, path in known:
            if total <= self._total_bytes:
                return
            path.unlink(missing_ok=True)
            total -= one_size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self._folder.iterdir():
            if path.name.startswith("."):  # not whole yet
                continue
            with suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path


class BlobWriter:
    """A blob that is not whole yet. Close it or keep it."""

    def __init__(self, path: Path, max_bytes: int, make_room: Callable[[int], None]) -> None:
        self._path, self._max_bytes, self._make_room = path, max_bytes, make_room
        self._partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._file = open(self._partial, "xb", opener=_private)  # noqa: SIM115
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, piece: bytes) -> None:
        """Raises BlobError if it gets too large, or the disk is full."""
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise BlobError(f"a blob must have at most {self._max_bytes} bytes ([blobs] max_bytes)")
        self._hash.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise BlobError(f"cannot write {self._path}: {error.strerror}") from None

    def sync(self) -> None:
        """Wait until what was written is on disk. Raises BlobError."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise BlobError(f"cannot write {self._path}: {error.strerror}") from None

    def keep(self) -> None:
        """Make it a blob. Raises BlobError if its content is not what its name says."""
        try:
            self._file.flush()
            found = self._hash.hexdigest()
            if found != self._path.name:
                raise BlobError(f"the content's SHA-256 is {found}, not {self._path.name}")
            self._make_room(self._size)
            os.replace(self._partial, self._path)
        except OSError as error:
            raise BlobError(f"cannot write {self._path}: {error.strerror}") from None
        finally:
            self.close()

    def close(self) -> None:
        """Remove what is not kept."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
