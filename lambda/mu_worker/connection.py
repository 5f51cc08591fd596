"""Non-blocking connections that carry frames, and how to open one."""

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
"""A long time, because each worker must wait when thousands connect at once."""
CHUNK_BYTES = 65536
TURN_BYTES = 2**20
"""How much one turn of the loop reads from a connection at most, so that others get a turn."""
CLOSED = "the other side closed the connection"


class DialError(Exception):
    """No connection could be made; the message says why."""


def dial(
    addr: str,
    port: int,
    context: ssl.SSLContext | None,
    server_name: str | None,
    timeout_s: float = DIAL_TIMEOUT_S,
) -> socket.socket:
    """Connect, including the TLS handshake. This blocks: the loop must call it in a thread.

    An IPv6 address may be in brackets. Raises DialError.
    """
    addr = addr.removeprefix("[").removesuffix("]")
    place = f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"
    try:
        sock = socket.create_connection((addr, port), timeout_s)
    except (OSError, ValueError) as error:  # ValueError: a name that DNS cannot have
        why = getattr(error, "strerror", None) or error
        raise DialError(f"cannot reach {place}: {why}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=server_name)
    except OSError as error:  # ssl.SSLError and CertificateError are OSErrors
        sock.close()
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        raise DialError(f"TLS with {place} failed: {reason}") from error


class Channel:
    """Bytes over one connected socket, plain or TLS. Once `lost` has a reason, it is unusable."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._out = bytearray()
        self._streams: deque[Iterator[bytes]] = deque()  # written after `_out`, piece by piece
        self._read_wants_write = False
        self.written = 0
        """Bytes written so far."""
        self.lost = ""

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def interest(self) -> int:
        """The events for which a selector should watch."""
        wants_write = self.busy or self._read_wants_write
        return EVENT_READ | EVENT_WRITE if wants_write else EVENT_READ

    @property
    def busy(self) -> bool:
        """Whether anything is still unwritten."""
        return bool(self._out or self._streams)

    @property
    def unsent(self) -> int:
        """Bytes that could not be written yet; for streams, only the current piece."""
        return len(self._out)

    def write(self, written: bytes) -> None:
        """Queue bytes; `flush` writes them."""
        if self._streams:
            self._streams.append(iter([written]))
        else:
            self._out += written

    def stream(self, pieces: Iterator[bytes]) -> None:
        """Queue pieces that are generated when there is space for them. They may raise OSError."""
        self._streams.append(pieces)

    def flush(self) -> None:
        """Write as much as possible without blocking; from streams, at most TURN_BYTES."""
        streamed = 0
        while not self.lost:
            try:
                if not self._out:
                    if not self._streams or streamed >= TURN_BYTES:
                        return
                    piece = next(self._streams[0], None)
                    if piece is None:
                        self._streams.popleft()
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
        """Yield the received bytes, up to TURN_BYTES; `lost` is set only after the last chunk."""
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
        """Close, after trying for at most `flush_s` seconds to write the unsent bytes."""
        deadline = monotonic() + flush_s
        self.flush()
        while self.busy and not self.lost and (left := deadline - monotonic()) > 0:
            select.select([], [self._sock], [], left)
            self.flush()
        if isinstance(self._sock, ssl.SSLSocket) and not self.lost:
            with suppress(OSError, ValueError):
                self._sock.unwrap()  # sends close_notify; does not wait for the peer's
        self._sock.close()

    def _lose(self, error: OSError) -> None:
        self.lost = str(getattr(error, "reason", None) or error.strerror or error)


class Connection(Channel):
    """Frames over one connected socket."""

    def __init__(self, sock: socket.socket, limit: int = WORKER_FRAME_LIMIT) -> None:
        super().__init__(sock)
        self._framer = Framer(limit)

    def send(self, payload: bytes) -> None:
        """Queue one frame; `flush` writes it."""
        self.write(frame(payload))

    def receive(self) -> Iterator[bytes]:
        """Yield the received payloads; `lost` is set only after the last one."""
        for chunk in self.chunks():
            try:
                yield from self._framer.feed(chunk)
            except FrameError as error:
                self.lost = str(error)
        if self.lost == CLOSED and self._framer.partial:
            self.lost = f"{CLOSED} in the middle of a frame"
