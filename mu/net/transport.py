"""TLS for the worker port and the relay: the standard library's, between TCP and a protocol.

Twisted's own spends more CPU time on a command than all the rest of mu (bench/coordinator.py).
"""

import ssl
from contextlib import suppress
from typing import Any
from typing import Protocol as Interface

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IHandshakeListener, IPushProducer, ITransport
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.net.certificates import job_named

RECORD = 16384
"""The most bytes of a TLS record."""


class SessionReused(ssl.SSLError):
    """The peer has resumed a session: each handshake must show a certificate that is valid now."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = "IT_RESUMED_A_SESSION"


class Guarded(Interface):
    """A factory that may refuse a connection before its handshake."""

    def accepts(self, addr: IAddress | None) -> bool: ...
    def buildProtocol(self, addr: IAddress | None) -> Protocol: ...


@implementer(ITransport)
class TLSTransport(Protocol):
    """The server's end of a TLS connection: the protocol of a TCP transport, and `wrapped`'s transport.

    It tells `wrapped` of a finished handshake if that is an IHandshakeListener. While `wrapped` has
    paused it, what has arrived stays in it. Producers are streaming ones. It does not buffer: a
    session joins its writes itself.
    """

    transport: Any

    def __init__(self, context: ssl.SSLContext, wrapped: Protocol) -> None:
        self.wrapped = wrapped
        self.disconnecting = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._early: list[bytes] | None = []  # what was written before the handshake finished
        self._producing = False  # `wrapped` has registered a producer
        self._paused = self._reading = False
        self._over = False  # nothing more is read or written
        self._reason: Failure | None = None

    # ------------------------------------------------ the protocol of the TCP connection

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        self.wrapped.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        if not self._over:
            self._incoming.write(data)
            if self._early is None or self._shake_hands():
                self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._over:
            self._over = True
            if not self.disconnecting:  # the peer did not say that this is the end
                reason = Failure(CONNECTION_LOST)
        self.connected = 0
        self._early, self._producing = None, False
        self.wrapped.connectionLost(self._reason or reason)
        self._reason = None

    # ------------------------------------------------ the transport of the wrapped protocol

    def write(self, data: bytes) -> None:
        if self._over or (self.disconnecting and not self._producing):
            return
        if self._early is not None:
            self._early.append(data)
        elif data:
            self._encrypt(data)
            self.transport.write(self._outgoing.read())

    def writeSequence(self, sequence: Any) -> None:
        self.write(b"".join(sequence))

    def loseConnection(self) -> None:
        """Close the connection once everything written is sent, and the producer has finished."""
        if self.disconnecting or not self.connected:
            return
        if self._early is not None and not self._early:
            self.abortConnection()
            return
        self.disconnecting = True
        self._say_goodbye()

    def abortConnection(self) -> None:
        self.disconnecting = self._over = True
        self.transport.abortConnection()

    def getPeer(self) -> IAddress:
        address: IAddress = self.transport.getPeer()
        return address

    def getHost(self) -> IAddress:
        address: IAddress = self.transport.getHost()
        return address

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER, once the handshake has finished."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def peer_job(self) -> str | None:
        """The id of the job that this certificate names."""
        return job_named(self.peer_certificate)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming
        if self._over:
            producer.stopProducing()
        else:
            self._producing = True
            self.transport.registerProducer(producer, True)

    def unregisterProducer(self) -> None:
        if self._producing:
            self._producing = False
            self.transport.unregisterProducer()
            if self.disconnecting:
                self._say_goodbye()

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self._read()
        if not (self._paused or self._over):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    # ------------------------------------------------ TLS

    def _shake_hands(self) -> bool:
        """Go on with the handshake; return whether it has finished."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            self._fail()
            return False
        self._flush()
        if self._tls.session_reused:  # ssl cannot turn this off with TLS 1.2 (SSL_SESS_CACHE_OFF)
            self._over, self._reason = True, Failure(SessionReused())
            self.transport.abortConnection()
            return False
        early, self._early = self._early or [], None
        if IHandshakeListener.providedBy(self.wrapped):
            self.wrapped.handshakeCompleted()
        if early and not self._over:
            self._encrypt(b"".join(early))
            self._flush()
        if self.disconnecting:
            self._say_goodbye()
        return not self._over

    def _read(self) -> None:
        """Hand on what has arrived, until `wrapped` pauses."""
        if self._reading or self._early is not None:  # `wrapped` may resume while it is called
            return
        self._reading = True
        tls, incoming, received = self._tls, self._incoming, self.wrapped.dataReceived
        try:
            while (incoming.pending or tls.pending()) and not (self._paused or self._over):
                data = tls.read(RECORD)
                if not data:  # the peer said goodbye
                    self._end()
                    return
                received(data)
        except ssl.SSLWantReadError:  # the rest of a record is still to come
            pass
        except ssl.SSLZeroReturnError:  # the peer answered our goodbye
            self._end()
            return
        except ssl.SSLError:
            self._fail()
            return
        finally:
            self._reading = False
        if self._outgoing.pending:  # an answer to a key update
            self._flush()

    def _encrypt(self, data: bytes) -> None:
        sent = self._tls.write(data)
        if sent < len(data):  # each call makes one record
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[self._tls.write(rest) :]

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.transport.write(self._outgoing.read())

    def _say_goodbye(self) -> None:
        """Tell the peer that nothing more comes; it closes the connection."""
        if self._over or self._producing or self._early is not None:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # the peer's own goodbye is still to come
            self._flush()
        else:
            self._flush()
            self.transport.loseConnection()

    def _end(self) -> None:
        """Nothing more comes from the peer."""
        self._over = True
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self.transport.loseConnection()

    def _fail(self) -> None:
        """TLS has failed with the present exception: send the alert and close."""
        self._over = True
        self._reason = Failure()
        self._flush()
        self.transport.loseConnection()


class TLSFactory(Factory):
    """Puts TLS around the protocols of a factory."""

    noisy = False
    transport = TLSTransport

    def __init__(self, context: ssl.SSLContext, wrapped: Guarded) -> None:
        self.context = context
        self._wrapped = wrapped

    def doStart(self) -> None: ...
    def doStop(self) -> None: ...

    def buildProtocol(self, addr: IAddress | None) -> TLSTransport | None:
        if not self._wrapped.accepts(addr):
            return None
        return self.transport(self.context, self._wrapped.buildProtocol(addr))


class PromptServer(tcp.Server):
    """Writes directly to the socket while no earlier data is waiting.

    This saves the reactor two epoll_ctl calls and one iteration per write: about a sixth of the CPU
    time of an answer (bench/coordinator.py). Data that the socket does not accept is buffered as
    usual.
    """

    def write(self, data: bytes) -> None:
        if self.connected and not (self.dataBuffer or self._tempDataBuffer or self.disconnecting):
            try:
                written = self.socket.send(data)
            except OSError:  # the socket is full, or broken: the reactor's next attempt tells which
                written = 0
            if written == len(data):
                return
            data = data[written:]
        super().write(data)
