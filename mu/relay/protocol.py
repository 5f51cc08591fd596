"""A worker's connection to the relay: cut into frames, which go over a link or to the switchboard.

A frame is passed on once it has come whole, so that a sender that dies in the middle of one leaves
its partner with nothing of it; what is large waits for that in a file.
"""

import re
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.net.certificates import job_of
from mu.net.endings import handshake_error
from mu.net.transport import DirectTLSFactory, PromptServer
from mu.relay.switchboard import SMALL, Frame, Name, Refused
from mu.wire import HEADER_BYTES, FrameError, frame

if TYPE_CHECKING:
    from mu.relay.hub import Relay

HELLO = re.compile(rb"HELLO_STATE:([^:\x00-\x1f]{1,200}):([0-9]{1,18}):([0-9]{1,18})")
AT = re.compile(rb"AT:([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,18})")
LONGEST_HELLO = 300
LONGEST_AT = 60
PIECE = 64 * 2**10
"""Small frames are joined up to this size, to be written together."""
UNSENT = 128 * 2**10
"""Bytes of a connection that the system may take before it sends them."""
KEEPALIVE_S = 60
READ = 256 * 2**10
"""So much of a frame is read from disk at a time."""


_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # from Python 3.12 on


@implementer(IHandshakeListener)
class RelayProtocol(Protocol):
    """One connection: certificate, hello, perhaps AT, then frames in both directions."""

    log = Logger()
    transport: Any

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self._limit = relay.options.frame_limit
        self.outbox = Outbox(self, relay)
        self.peer = ""
        self.name: Name | None = None
        self._job: str | None = None
        self._chunks: list[bytes] = []  # received, not looked at yet
        self._buffer = b""  # begins a frame
        self._frame: Frame | None = None  # the one that is coming ...
        self._missing = 0
        self._whole: Frame | None = None  # ... or has come, and waits to be passed on
        self._spoke = False  # it said something after its hello
        self._settled = False  # the switchboard was told what it is
        self._link: RelayProtocol | None = None
        self._in_doubt = False
        self.passing = False  # its partner is still being given its last frame
        self._blocked = False  # it cannot go on; whoever makes room calls go_on
        self.stalled = False  # so it is not read
        self._working = False
        self._over = False  # it has closed; frames that came before may still wait
        self._closing = ""
        self._heard = 0.0
        self._timer: Any = None

    # ------------------------------------------------ the connection

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.peer = f"{getattr(peer, 'host', peer)}:{getattr(peer, 'port', '')}"
        self._relay.connections.add(self)
        self.transport.registerProducer(self, True)
        options = self._relay.options
        text = f"it did not say hello in {options.hello_s:g} s"
        self._timer = self._relay.clock.callLater(options.hello_s, self.close, text)

    def handshakeCompleted(self) -> None:
        certificate = self.transport.getPeerCertificate()
        self._job = job_of(certificate.to_cryptography()) if certificate else None
        if self._job is None:
            self.close("its certificate names no job")

    def dataReceived(self, data: bytes) -> None:
        """Only gather: `work` is called after all that came at once."""
        self._chunks.append(data)

    def pauseProducing(self) -> None:
        self.outbox.ready = False

    def resumeProducing(self) -> None:
        self.outbox.ready = True
        self.outbox.pump()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost says so, too."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        self.outbox.ready = False
        self.work()  # it leaves, unless it said something that its partner has yet to get
        if self.name is None and not self._closing:
            self._stop_timer()
            self._relay.connections.discard(self)
            self._log_refusal(handshake_error(reason))
            self._closing = "it is gone"

    # ------------------------------------------------ what others have to say

    def link(self, receiver: "RelayProtocol | None") -> None:
        """Its frames go straight to that one; None: to the switchboard."""
        self._link, self._in_doubt = receiver, False

    def hold(self) -> None:
        self._in_doubt = True

    def go_on(self) -> None:
        """What it waited for may be over."""
        if not self._closing:
            self._blocked = False
            self.work()

    def say(self, payload: bytes) -> None:
        if not (self._over or self._closing):
            self.outbox.tell(frame(payload))

    def close(self, reason: str) -> None:
        """End the connection now; nothing else ends."""
        if self._closing:
            return
        self._closing = reason
        self._stop_timer()
        if not self._over:
            self.transport.abortConnection()
        if self.name is None:
            self._relay.connections.discard(self)
            self._log_refusal(reason)
        else:
            self.log.warn(
                "relay: the connection of {name} from {peer} is closed: {reason}",
                name=self.name,
                peer=self.peer,
                reason=reason,
            )
            self._relay.leave(self)
        self._forget()

    def look(self, now: float, longest_s: float) -> None:
        """Close it if it has stopped in the middle of a frame for too long."""
        if self._frame is not None and not self.stalled and now - self._heard > longest_s:
            self.close(f"it said nothing for {longest_s:g} s in the middle of a frame")

    def _leave(self) -> None:
        self._closing = "it is gone"
        self._stop_timer()
        self.log.debug("relay: {name} is gone", name=self.name)
        self._relay.leave(self)
        self._forget()

    def _forget(self) -> None:
        self._chunks.clear()
        self._buffer = b""
        self._frame = self._whole = self._link = None

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # ------------------------------------------------ frames that come

    def work(self) -> None:
        """Go through what has come, as far as what it says can be passed on."""
        if self._working or self._closing:
            return
        self._working = True
        try:
            while not (self._blocked or self._closing) and self._step():
                pass
        except (FrameError, Refused) as error:
            self.close(str(error))
        finally:
            self._working = False
        if self._closing:
            return
        if self._over:
            if self.name is not None and not self._blocked:
                self._leave()
        elif self._blocked != self.stalled:
            self.stalled = self._blocked
            if self.stalled:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _step(self) -> bool:
        """Do one thing; return whether there may be more to do."""
        if self._whole is not None:
            return self._pass_on(self._whole)
        if self._chunks:
            if self._buffer or len(self._chunks) > 1:
                self._buffer = b"".join((self._buffer, *self._chunks))
            else:
                self._buffer = self._chunks[0]
            self._chunks.clear()
            self._heard = self._relay.clock.seconds()
        if not self._buffer:
            return False
        if self._frame is not None:
            return self._fill(self._frame)
        link = self._link
        if link is not None and self._spoke and not self._in_doubt:
            end = _end_of_frames(self._buffer, self._limit)
            if end:
                if not link.outbox.is_free(self):
                    self._blocked = True
                    return False
                if end == len(self._buffer):
                    link.outbox.write(self._buffer)
                    self._buffer = b""
                    return False
                link.outbox.write(self._buffer[:end])
                self._buffer = self._buffer[end:]
        return self._begin()

    def _begin(self) -> bool:
        """See what frame begins the buffer."""
        buffer = self._buffer
        length = _length(buffer, 0, self._limit)
        if length is None:
            return False
        if self.name is None and length > LONGEST_HELLO:
            raise FrameError(f"it began with a frame of {length} bytes instead of HELLO_STATE")
        end = HEADER_BYTES + length
        if length <= SMALL and len(buffer) < end:
            return False
        if self.name is None:
            self._buffer = buffer[end:]
            self._say_hello(buffer[HEADER_BYTES:end])
            return True
        if not self._spoke:
            self._spoke = True
            at = AT.fullmatch(buffer, HEADER_BYTES, end) if length <= LONGEST_AT else None
            if at is not None:
                self._buffer = buffer[end:]
                self._say_at(*map(int, at.groups()))
                return True
        if not self._settled:
            self._settle()
            return True
        if self._in_doubt:
            self._blocked = True
            return False
        coming = self._relay.announce(self, length)
        if coming is None:
            self._blocked = True
            return False
        self._buffer = buffer[HEADER_BYTES:]
        self._missing = length
        if not coming.file:
            coming.body = []
        if length:
            self._frame = coming
        else:
            self._whole = coming
        return True

    def _fill(self, coming: Frame) -> bool:
        part, self._buffer = self._buffer[: self._missing], self._buffer[self._missing :]
        self._missing -= len(part)
        if coming.file:
            self._relay.append(coming, part)
        elif not coming.skipped:
            coming.body.append(part)
        if not self._missing:
            self._frame, self._whole = None, coming
            return True
        if coming.file and self._relay.is_behind(coming, self.go_on):
            self._blocked = True
        return False

    def _pass_on(self, whole: Frame) -> bool:
        if self._in_doubt or (self._link is not None and self.passing):
            self._blocked = True
            return False
        self._whole = None
        if self._link is None:
            self._relay.arrived(self, whole)
        else:
            self.passing = True
            self._relay.linked(self, whole)
            self._link.outbox.put(whole, self)
        return True

    # ------------------------------------------------ who it is

    def _say_hello(self, payload: bytes) -> None:
        hello = HELLO.fullmatch(payload)
        if hello is None:
            raise FrameError(
                f"it began with {payload[:80]!r} instead of HELLO_STATE:<uniq>:<me>:<partner>,"
                " the last two being numbers"
            )
        if self._job is None:
            raise FrameError("its certificate names no job")
        uniq, me, partner = (part.decode("utf-8", "backslashreplace") for part in hello.groups())
        self.name = Name(self._job, uniq, me)
        self._stop_timer()
        self._timer = self._relay.clock.callLater(self._relay.options.settle_s, self._settle)
        self._relay.hello(self, self.name, partner)

    def _say_at(self, attempt: int, sent: int, received: int) -> None:
        if self._settled and self.outbox.used:
            raise FrameError(
                "it says AT, after frames were passed to it as to an original peer: AT comes with"
                " the hello"
            )
        self._settled = True
        self._stop_timer()
        self._relay.extended(self, attempt, sent, received)

    def _settle(self) -> None:
        """It is an original peer: its next frame is not AT, or there is none for a while."""
        if self._settled:
            return
        self._settled = True
        self._stop_timer()
        self._relay.plain(self)

    def _log_refusal(self, reason: str) -> None:
        self.log.warn(
            "relay: connection from {peer} refused: {reason}", peer=self.peer, reason=reason
        )


class Outbox:
    """What one connection is given: whole frames, one after the other, as fast as it reads."""

    def __init__(self, owner: RelayProtocol, relay: "Relay") -> None:
        self.ready = True
        """Whether the transport takes more."""
        self.used = False
        """Whether anything was, or is to be, written."""
        self._owner = owner
        self._relay = relay
        self._queue: deque[tuple[Frame, RelayProtocol | None, bool]] = deque()
        self._waiters: dict[RelayProtocol, None] = {}
        self._told = b""  # of the relay's own, to be written before the next frame
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._body: list[bytes] | None = None  # of the frame that is being written
        self._begun = False
        self._at = 0  # bytes of its body that were taken, or chunks, if it is in memory
        self._reading = False
        self._pumping = False
        self._dead = False

    def write(self, data: bytes) -> None:
        """Write whole frames, headers and all, past the queue."""
        self.used = True
        self._owner.transport.write(data)

    def is_free(self, sender: RelayProtocol) -> bool:
        """Whether one may write at once; if not, this sender is told to go on when it may."""
        if self.ready and not self._queue:
            return True
        self._waiters[sender] = None
        return False

    def tell(self, said: bytes) -> None:
        """Say something of the relay's own between two frames; the last such thing counts."""
        self._told = said
        self.pump()

    def put(self, whole: Frame, sender: RelayProtocol | None, prefixed: bool = False) -> None:
        """Queue a frame: of a linked sender, or of the switchboard."""
        self.used = True
        self._queue.append((whole, sender, prefixed))
        self.pump()

    def abandon(self) -> list[Frame]:
        """The connection is gone: return the linked frames that were not written whole."""
        self._dead = True
        left = []
        for whole, sender, _ in self._queue:
            if sender is not None:
                left.append(whole)
                sender.passing = False
        self._queue.clear()
        self._waiters.clear()
        self._pending.clear()
        self._body = None
        return left

    def pump(self) -> None:
        """Write what can be written."""
        if self._pumping:
            return
        self._pumping = True
        while self.ready and not (self._reading or self._dead) and (self._queue or self._told):
            self._write_some()
        self._pumping = False
        while self._waiters and self.ready and not self._queue:
            sender = next(iter(self._waiters))
            del self._waiters[sender]
            self._relay.wake(sender)

    def _write_some(self) -> None:
        """Take up to a piece of the frames in front, and write it."""
        done: list[tuple[Frame, RelayProtocol | None]] = []
        wanted: Frame | None = None
        if self._told and not self._begun:
            self._take(self._told)
            self._told = b""
        for whole, sender, prefixed in self._queue:
            if not self._begun:
                self._begun, self._at = True, 0
                self._body = whole.body if isinstance(whole.body, list) else None
                self._take(b"%012d " % (whole.size + 2 * prefixed))
                if prefixed:
                    self._take(b"F:")
            if self._body is not None:
                while self._at < len(self._body) and self._pending_size < PIECE:
                    self._take(self._body[self._at])
                    self._at += 1
                if self._at < len(self._body):
                    break
            elif self._at < whole.size:
                if self._pending_size < PIECE:
                    wanted = whole
                break
            self._begun, self._body = False, None
            done.append((whole, sender))
            if self._pending_size >= PIECE:
                break
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_size = 0
            self.write(data)
        for _ in done:
            self._queue.popleft()
        if wanted is not None:
            self._reading = True
            self._relay.read(wanted, self._at, READ, self._take_part)
        for whole, sender in done:
            if sender is None:
                self._relay.delivered(self._owner, whole)
            else:
                sender.passing = False
                self._relay.passed(whole)
                self._relay.wake(sender)

    def _take(self, part: bytes) -> None:
        self._pending.append(part)
        self._pending_size += len(part)

    def _take_part(self, part: bytes) -> None:
        self._reading = False
        if not part:
            self._owner.close("a frame for it could not be read")
        if not self._dead:
            self._at += len(part)
            self._take(part)
            self.pump()


class RelayServer(PromptServer):
    """A connection that waits for nothing, and of which little is in the system's hands.

    What the system has taken counts as delivered, so a receiver that dies takes that with it.
    """

    def __init__(self, sock: socket.socket, *args: Any) -> None:
        super().__init__(sock, *args)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)


class GatheringTLS(TLSMemoryBIOProtocol):
    """Tells its protocol when all that came in one read was handed over, many records often."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        protocol: Any = self.wrappedProtocol
        if protocol is not None:
            protocol.work()


class RelayTLSFactory(DirectTLSFactory):
    """TLS for the relay. Unbuffered: the outbox joins what is small."""

    protocol = GatheringTLS


def _length(buffer: bytes, start: int, limit: int) -> int | None:
    """Return the length of the frame that begins there, or None if its header is not all there."""
    header = buffer[start : start + HEADER_BYTES]
    digits = header[:12]
    if (digits and not digits.isdigit()) or header[12:] not in (b"", b" "):
        raise FrameError(
            f"a frame must begin with 12 decimal digits and a space; {header!r} came instead"
        )
    if len(header) < HEADER_BYTES:
        return None
    length = int(digits)
    if length > limit:
        raise FrameError(f"a frame of {length} bytes was announced; at most {limit} are taken here")
    return length


def _end_of_frames(buffer: bytes, limit: int) -> int:
    """Return where the last of the whole, small frames that begin the buffer ends."""
    limit = min(limit, SMALL)
    end, size = 0, len(buffer)
    while size - end >= HEADER_BYTES:
        digits = buffer[end : end + 12]
        if not digits.isdigit() or buffer[end + 12] != 0x20:
            break  # _length says what is wrong
        following = end + HEADER_BYTES + int(digits)
        if following > size or following - end - HEADER_BYTES > limit:
            break
        end = following
    return end
