"""Blobs: fetched from the coordinator's worker port, or left there, on a connection of their own."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mu.messages import decode, encode
from mu.wire import WORKER_FRAME_LIMIT, Framer, frame
from mu_worker.store import StoreError

PIECE = 2**18
PART = re.compile(r"[0-9a-f]{64}:[0-9]+:(?:[0-9]+|-)")
"""DIGEST:FIRST:BYTES, a part of a blob; `-`: to its end."""


def fetch(dial: Callable[[], socket.socket], parts: Sequence[tuple[str, str]]) -> int:
    """Write parts of blobs to files; return how many bytes. Raises StoreError."""
    received = 0
    with _peer(dial) as peer:
        for part, path in parts:
            left = peer.ask(f"BLOB:GET:{part}")
            received += left
            with open(path, "wb") as file:
                while left > 0:
                    piece = peer.receive()
                    left -= len(piece)
                    file.write(piece)
    return received


def leave(dial: Callable[[], socket.socket], path: str) -> tuple[str, int]:
    """Leave a file with the coordinator; return its SHA-256 and its size. Raises StoreError."""
    import hashlib

    with _peer(dial) as peer, open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        peer.send(encode(f"BLOB:PUT:{digest}"))
        while piece := file.read(PIECE):
            peer.send(piece)
        return digest, peer.ask("")


class _Peer:
    """The coordinator, on a blocking connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._framer = Framer(WORKER_FRAME_LIMIT)
        self._frames: Iterator[bytes] = iter(())

    def send(self, payload: bytes) -> None:
        self._sock.sendall(frame(payload))

    def receive(self) -> bytes:
        while (payload := next(self._frames, None)) is None:
            chunk = self._sock.recv(PIECE)
            if not chunk:
                raise StoreError("the coordinator closed the connection for blobs")
            self._frames = self._framer.feed(chunk)
        return payload

    def ask(self, text: str) -> int:
        """Send this; return the number of bytes in the answer. Raises StoreError."""
        self.send(encode(text))
        told = decode(self.receive())
        if not told.startswith("BLOB:"):
            raise StoreError(told.removeprefix("FAIL(").removesuffix(")"))
        return int(told[5:])


@contextmanager
def _peer(dial: Callable[[], socket.socket]) -> Iterator[_Peer]:
    sock = dial()
    try:
        yield _Peer(sock)
    finally:
        sock.close()


def parts_in(argument: str) -> list[tuple[str, str]]:
    """Return the parts and files in DIGEST:FIRST:BYTES, NUL, FILE, and so on. Raises ValueError."""
    words = argument.split("\0")
    parts = list(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or not all(PART.fullmatch(part) and file for part, file in parts):
        raise ValueError(
            "expected get_blob:DIGEST:FIRST:BYTES, a NUL and a file name, got"
            f" get_blob:{argument[:200]}"
        )
    return parts


def below(root: str, file: str) -> str:
    """Return the path of a file, whose folder is made."""
    path = os.path.join(root, file)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path
