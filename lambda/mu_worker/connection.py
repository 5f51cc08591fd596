"""A socket that speaks frames and never blocks, and how one is opened."""

import select
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic

from mu.wire import WORKER_FRAME_LIMIT, FrameError, Framer, frame

DIAL_TIMEOUT_S = 30.0
"""Generous: when thousands of workers come at once, the coordinator takes a while for each."""
CHUNK_BYTES = 65536
TURN_BYTES = 2**20
"""How much one turn of the loop reads from one connection, so that the others get theirs."""
CLOSED = "the other side closed the connection"


class Unreachable(Exception):
    """No connection could be made, and why."""


def dial(
    addr: str, port: int, context: ssl.SSLContext | None, server_name: str | None
) -> socket.socket:
    """Connect, TLS handshake included. Blocks: in the loop it belongs in a thread.

    Raises Unreachable.
    """
    try:
        sock = socket.create_connection((addr, port), DIAL_TIMEOUT_S)
    except OSError as error:
        raise Unreachable(f"cannot reach {addr}:{port}: {error.strerror or error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=server_name)
    except OSError as error:  # ssl.SSLError and CertificateError are OSErrors, too
        sock.close()
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        raise Unreachable(f"TLS with {addr}:{port} failed: {reason}") from error


class Channel:
    """Bytes over one connected socket, plain or TLS. Once `lost` says why, it is useless."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._out = bytearray()
        self._to_come: deque[Iterator[bytes]] = (
            deque()
        )  # taken piece by piece, when `_out` is empty
        self._read_wants_write = False
        self.written = 0
        """Bytes that the peer or the network took so far."""
        self.lost = ""

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def interest(self) -> int:
        """What a selector should watch for."""
        wants_write = self.busy or self._read_wants_write
        return EVENT_READ | EVENT_WRITE if wants_write else EVENT_READ

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._out or self._to_come)

    @property
    def unsent(self) -> int:
        """Bytes that the peer or the network was not ready to take yet; of streams, one piece."""
        return len(self._out)

    def write(self, written: bytes) -> None:
        """Queue these bytes; flush writes them."""
        if self._to_come:
            self._to_come.append(iter([written]))
        else:
            self._out += written

    def stream(self, pieces: Iterator[bytes]) -> None:
        """Queue bytes that are fetched when there is room for them. They may raise OSError."""
        self._to_come.append(pieces)

    def flush(self) -> None:
        """Write as much as can be written without waiting; of streams, one turn's worth."""
        streamed = 0
        while not self.lost:
            try:
                if not self._out:
                    if not self._to_come or streamed >= TURN_BYTES:
                        return
                    piece = next(self._to_come[0], None)
                    if piece is None:
                        self._to_come.popleft()
                        continue
                    self._out += piece
                    streamed += len(piece)
                sent = self._sock.send(bytes(self._out[:CHUNK_BYTES]))
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._lose(error)
            else:
                self.written += sent
                del self._out[:sent]

    def chunks(self) -> Iterator[bytes]:
        """Yield what has arrived, of one turn; `lost` is set only after the last of it."""
        taken = 0
        self._read_wants_write = False
        while not self.lost and taken < TURN_BYTES:
            try:
                chunk = self._sock.recv(CHUNK_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except ssl.SSLWantWriteError:
                self._read_wants_write = True
                return
            except OSError as error:
                self._lose(error)
                return
            if not chunk:
                self.lost = CLOSED
                return
            taken += len(chunk)
            yield chunk

    def close(self, flush_s: float = 0.0) -> None:
        """Close, after at most `flush_s` seconds of writing what is still unsent."""
        deadline = monotonic() + flush_s
        self.flush()
        while self.busy and not self.lost and (left := deadline - monotonic()) > 0:
            select.select([], [self._sock], [], left)
            self.flush()
        if isinstance(self._sock, ssl.SSLSocket) and not self.lost:
            with suppress(OSError, ValueError):
                self._sock.unwrap()  # says goodbye; it does not wait for the other's
        self._sock.close()

    def _lose(self, error: OSError) -> None:
        self.lost = str(getattr(error, "reason", None) or error.strerror or error)


class Connection(Channel):
    """Frames over one connected socket."""

    def __init__(self, sock: socket.socket, limit: int = WORKER_FRAME_LIMIT) -> None:
        super().__init__(sock)
        self._framer = Framer(limit)

    def send(self, payload: bytes) -> None:
        """Queue one frame; flush writes it."""
        self.write(frame(payload))

    def receive(self) -> Iterator[bytes]:
        """Yield the payloads that have arrived; `lost` is set only after the last of them."""
        for chunk in self.chunks():
            try:
                yield from self._framer.feed(chunk)
            except FrameError as error:
                self.lost = str(error)
        if self.lost == CLOSED and self._framer.partial:
            self.lost = f"{CLOSED}, inside a frame"
