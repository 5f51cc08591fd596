"""A worker's connection to the relay: its frames go over a link or to the switchboard.

Only complete frames are passed on, so if a sender dies in the middle of one, its partner receives
nothing of it. Large frames are collected in a file until they are complete.
"""

import typing
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.config import RelaySection
from mu.logs import DaemonLogger
from mu.net.endings import handshake_error
from mu.net.strangers import LogSums, Strangers
from mu.net.transport import TLSTransport
from mu.relay.framing import LONGEST_HELLO, end_of_frames, read_at, read_hello, read_length
from mu.relay.limits import SMALL, TURN_STEPS, FrameTooLarge
from mu.relay.outbox import Outbox, OutboxHub
from mu.relay.parties import Frame, Name
from mu.totals import Traffic
from mu.wire import HEADER_BYTES, FrameError, frame


class RelayClock(typing.Protocol):
    """What a connection needs from the reactor."""

    def seconds(self) -> float: ...

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object
    ) -> IDelayedCall: ...


class RelayHub(OutboxHub, typing.Protocol):
    """What a connection needs from the hub."""

    options: RelaySection
    connections: "set[RelayProtocol]"
    strangers: Strangers
    refused: LogSums
    traffic: Traffic

    @property
    def clock(self) -> RelayClock: ...

    def hello(self, peer: "RelayProtocol", name: Name, partner: str) -> None: ...

    def plain(self, peer: "RelayProtocol") -> None: ...

    def extended(self, peer: "RelayProtocol", attempt: int, sent: int, received: int) -> None: ...

    def leave(self, peer: "RelayProtocol") -> None: ...

    def announce(self, peer: "RelayProtocol", size: int) -> Frame | None: ...

    def arrived(self, peer: "RelayProtocol", whole: Frame) -> None: ...

    def linked(self, peer: "RelayProtocol", whole: Frame) -> None: ...

    def append(self, coming: Frame, part: bytes) -> None: ...

    def is_behind(self, coming: Frame, call: Callable[[], object]) -> bool: ...


@implementer(IHandshakeListener, IPushProducer)
class RelayProtocol(Protocol):
    """One connection: a certificate, a hello, perhaps an AT, then frames in both directions."""

    log = DaemonLogger()
    transport: TLSTransport

    def __init__(self, hub: RelayHub) -> None:
        self._hub = hub
        self._limit = hub.options.frame_limit
        self.outbox = Outbox(self, hub)
        self.peer = ""
        self.name: Name | None = None
        self._job: str | None = None
        self._chunks: list[bytes] = []  # received, not processed yet
        self._buffer = b""  # begins with a frame, or with more of the arriving one
        self._frame: Frame | None = None  # the arriving frame ...
        self._parts: list[bytes] = []  # ... its body, if it stays in memory ...
        self._missing = 0  # ... and how many bytes of it are missing
        self._whole: Frame | None = None  # a complete frame, waiting to be passed on
        self._spoke = False  # whether a second frame arrived after its hello
        self._settled = False  # whether the switchboard knows if it is plain or extended
        self._link: RelayProtocol | None = None
        self._on_hold = False
        self.passing = False  # whether its last frame is still being written to its partner
        self._blocked = False  # whether it must wait until someone calls resume
        self.stalled = False  # whether reading is paused because of that
        self._working = False
        self._over = False  # the peer closed; frames from before may still wait here
        self._closing = ""
        self._heard = 0.0
        self._timer: IDelayedCall | None = None

    # ------------------------------------------------ the connection

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.peer = f"{getattr(peer, 'host', peer)}:{getattr(peer, 'port', '')}"
        self._hub.connections.add(self)
        self._hub.strangers.add(self)
        self.transport.registerProducer(self, True)
        options = self._hub.options
        text = f"it sent no hello within {options.hello_s:g} s"
        self._timer = self._hub.clock.callLater(options.hello_s, self.close, text)

    def handshakeCompleted(self) -> None:
        self._hub.strangers.discard(self)
        self._job = self.transport.peer_job
        if self._job is None:
            self.close("its certificate names no job")

    def dataReceived(self, data: bytes) -> None:
        """Only collect the bytes: the transport calls `work` after each read."""
        self._hub.traffic.bytes_in += len(data)
        self._chunks.append(data)

    def pauseProducing(self) -> None:
        self.outbox.ready = False

    def resumeProducing(self) -> None:
        self.outbox.ready = True
        self.outbox.pump()

    def stopProducing(self) -> None:
        """Called when the connection is lost; connectionLost follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._hub.strangers.discard(self)
        self._over = True
        self.outbox.ready = False
        self.work()  # it leaves, unless some of its frames must still be passed on
        if self.name is None and not self._closing:
            self._stop_timer()
            self._hub.connections.discard(self)
            self._hub.refused.add(self.peer, handshake_error(reason))
            self._closing = "it disconnected"

    # ------------------------------------------------ for the hub and other connections

    def link(self, receiver: "RelayProtocol | None") -> None:
        """Send its frames straight to `receiver`, or to the switchboard if that is None."""
        self._link, self._on_hold = receiver, False

    def hold(self) -> None:
        """Pass on nothing until the next `link`."""
        self._on_hold = True

    def resume(self) -> None:
        """Try again to pass on the frame that had to wait."""
        if not self._closing:
            self._blocked = False
            self.work()

    def say(self, payload: bytes) -> None:
        """Send the relay's own message."""
        if not (self._over or self._closing):
            self.outbox.tell(frame(payload))

    def close(self, reason: str) -> None:
        """Close only this connection, at once."""
        if self._closing:
            return
        self._closing = reason
        self._stop_timer()
        if not self._over:
            self.transport.abortConnection()
        if self.name is None:
            self._hub.connections.discard(self)
            self._hub.strangers.discard(self)
            self._hub.refused.add(self.peer, reason)
        else:
            self.log.warn(
                "relay: connection of {name} from {peer} closed: {reason}",
                name=self.name,
                peer=self.peer,
                reason=reason,
            )
            self._hub.leave(self)
        self._forget()

    def drop(self, reason: str) -> None:
        """Close this connection, which has not finished its TLS handshake."""
        self.close(reason)

    def look(self, now: float, longest_s: float) -> None:
        """Close the connection if it has been silent for too long in the middle of a frame."""
        if self._frame is not None and not self.stalled and now - self._heard > longest_s:
            self.close(f"it sent nothing for {longest_s:g} s in the middle of a frame")

    def _leave(self) -> None:
        self._closing = "it disconnected"
        self._stop_timer()
        self.log.debug("relay: {name} disconnected", name=self.name)
        self._hub.leave(self)
        self._forget()

    def _forget(self) -> None:
        self._chunks.clear()
        self._buffer = b""
        self._frame = self._whole = self._link = None
        self._parts = []

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # ------------------------------------------------ incoming frames

    def work(self) -> None:
        """Process the received bytes, as far as frames can be passed on."""
        if self._working or self._closing:
            return
        self._working = True
        try:
            steps = TURN_STEPS
            while not (self._blocked or self._closing) and self._step():
                steps -= 1
                if not steps:  # let others have their turn
                    self._blocked = True
                    self._hub.clock.callLater(0, self.resume)
        except (FrameError, FrameTooLarge) as error:
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
        """Do one step; return whether there may be more to do."""
        if self._whole is not None:
            return self._pass_on(self._whole)
        if self._chunks:
            if self._buffer or len(self._chunks) > 1:
                self._buffer = b"".join((self._buffer, *self._chunks))
            else:
                self._buffer = self._chunks[0]
            self._chunks.clear()
            self._heard = self._hub.clock.seconds()
        if not self._buffer:
            return False
        if self._frame is not None:
            return self._fill(self._frame)
        link = self._link
        if link is not None and self._spoke and not self._on_hold:
            end, frames = end_of_frames(self._buffer, self._limit)
            if end:
                if not link.outbox.is_free(self):
                    self._blocked = True
                    return False
                self._hub.traffic.frames_in += frames
                if end == len(self._buffer):
                    link.outbox.write(self._buffer)
                    self._buffer = b""
                    return False
                link.outbox.write(self._buffer[:end])
                self._buffer = self._buffer[end:]
        return self._begin()

    def _begin(self) -> bool:
        """Look at the frame at the start of the buffer."""
        buffer = self._buffer
        length = read_length(buffer, self._limit)
        if length is None:
            return False
        if self.name is None and length > LONGEST_HELLO:
            raise FrameError(f"it began with a frame of {length} bytes instead of HELLO_STATE")
        end = HEADER_BYTES + length
        if length <= SMALL and len(buffer) < end:
            return False
        if self.name is None:
            self._buffer = buffer[end:]
            self._on_hello(buffer[HEADER_BYTES:end])
            return True
        if not self._spoke:
            self._spoke = True
            at = read_at(buffer, HEADER_BYTES, end)
            if at is not None:
                self._buffer = buffer[end:]
                self._on_at(*at)
                return True
        if not self._settled:
            self._settle()
            return True
        if self._on_hold:
            self._blocked = True
            return False
        coming = self._hub.announce(self, length)
        if coming is None:
            self._blocked = True
            return False
        self._hub.traffic.frames_in += 1
        self._buffer = buffer[HEADER_BYTES:]
        self._missing = length
        if not coming.file:
            coming.body = self._parts = []
        if length:
            self._frame = coming
        else:
            self._whole = coming
        return True

    def _fill(self, coming: Frame) -> bool:
        part, self._buffer = self._buffer[: self._missing], self._buffer[self._missing :]
        self._missing -= len(part)
        if coming.file:
            self._hub.append(coming, part)
        elif not coming.skipped:
            self._parts.append(part)
        if not self._missing:
            self._frame, self._whole, self._parts = None, coming, []
            return True
        if coming.file and self._hub.is_behind(coming, self.resume):
            self._blocked = True
        return False

    def _pass_on(self, whole: Frame) -> bool:
        if self._on_hold or (self._link is not None and self.passing):
            self._blocked = True
            return False
        self._whole = None
        if self._link is None:
            self._hub.arrived(self, whole)
        else:
            self.passing = True
            self._hub.linked(self, whole)
            self._link.outbox.put(whole, self)
        return True

    # ------------------------------------------------ hello and AT

    def _on_hello(self, payload: bytes) -> None:
        hello = read_hello(payload)
        if self._job is None:
            raise FrameError("its certificate names no job")
        self.name = Name(self._job, hello.uniq, hello.me)
        self._stop_timer()
        self._timer = self._hub.clock.callLater(self._hub.options.settle_s, self._settle)
        self._hub.hello(self, self.name, hello.partner)

    def _on_at(self, attempt: int, sent: int, received: int) -> None:
        if self._settled and self.outbox.used:
            raise FrameError(
                "it sent AT after the relay had sent it frames without F: as to a plain peer;"
                " AT must follow the hello immediately"
            )
        self._settled = True
        self._stop_timer()
        self._hub.extended(self, attempt, sent, received)

    def _settle(self) -> None:
        """Treat it as a plain peer: its second frame is not AT, or did not arrive in settle_s."""
        if self._settled:
            return
        self._settled = True
        self._stop_timer()
        self._hub.plain(self)
