"""Connections that HAProxy hands over: it has done TLS, and says whose they are (mu.net.proxy_header).

Anyone who can connect to the socket can claim to be any worker, so only the daemon's user may.
"""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHandshakeListener, IPushProducer, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.unix import Server
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.net.certificates import job_called
from mu.net.proxy_header import BadProxyHeader, ProxyHeader, read_proxy_header
from mu.net.transport import Guarded, PromptServer


@implementer(ITransport)
class HandedOver(Protocol):
    """The daemon's end of a connection from the proxy, and `wrapped`'s transport.

    It tells `wrapped` of a finished handshake if that is an IHandshakeListener, once the proxy has
    said who the peer is.
    """

    transport: Any

    def __init__(self, wrapped: Protocol) -> None:
        self.wrapped = wrapped
        self._header: ProxyHeader | None = None
        self._early = b""  # the beginning of the header
        self._over = False  # nothing more is read
        self._reason: Failure | None = None

    # ------------------------------------------------ the protocol of the proxy's connection

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        self.wrapped.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        if self._header is None:
            data = self._read_header(data)
        if data and not self._over:
            self.wrapped.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        self.connected = 0
        self.wrapped.connectionLost(self._reason or reason)
        self._reason = None

    def _read_header(self, data: bytes) -> bytes:
        """Return what follows the header; empty: it is not complete, or wrong."""
        self._early += data
        try:
            found = read_proxy_header(self._early)
        except BadProxyHeader:
            self._reason = Failure()
            self.abortConnection()
            return b""
        if found is None:
            return b""
        self._header, length = found
        rest, self._early = self._early[length:], b""
        if IHandshakeListener.providedBy(self.wrapped):
            self.wrapped.handshakeCompleted()
        return rest

    # ------------------------------------------------ the transport of the wrapped protocol

    @property
    def peer_job(self) -> str | None:
        """The id of the job that the peer's certificate names, once the proxy has said it."""
        return job_called(self._header.common_name) if self._header else None

    def getPeer(self) -> IAddress:
        if self._header is None or not self._header.host:
            address: IAddress = self.transport.getPeer()
            return address
        host, port = self._header.host, self._header.port
        return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)

    def getHost(self) -> IAddress:
        address: IAddress = self.transport.getHost()
        return address

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def writeSequence(self, sequence: Any) -> None:
        self.transport.writeSequence(sequence)

    def loseConnection(self) -> None:
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        self._over = True
        self.transport.abortConnection()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if not self._over:
            self.transport.resumeProducing()


class HandoverFactory(Factory):
    """Puts the proxy's headers around the protocols of a factory."""

    noisy = False

    def __init__(self, wrapped: Guarded) -> None:
        self._wrapped = wrapped

    def doStart(self) -> None: ...
    def doStop(self) -> None: ...

    def buildProtocol(self, addr: IAddress | None) -> HandedOver | None:
        if not self._wrapped.accepts(addr):
            return None
        return HandedOver(self._wrapped.buildProtocol(addr))


class PromptUnixServer(PromptServer, Server):
    """Writes directly to a UNIX socket while no earlier data is waiting."""
