"""The relay port's transport: TLS over TCP connections for which the system buffers little."""

import socket
from typing import Protocol, cast

from twisted.internet.interfaces import IProtocol, IReactorFDSet
from twisted.internet.tcp import Port

from mu.net.transport import PromptServer, TLSFactory, TLSTransport

UNSENT = 128 * 2**10
"""How many bytes of a connection the system may buffer before it sends them."""
KEEPALIVE_S = 60

_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # from Python 3.12 on


class RelayServer(PromptServer):
    """A connection without delays and with a small send buffer.

    Bytes that the system has taken count as delivered, and are lost if the receiver dies.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[object, ...],
        server: Port,
        sessionno: int,
        reactor: IReactorFDSet,
    ) -> None:
        super().__init__(sock, protocol, client, server, sessionno, reactor)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)


class ReadProtocol(Protocol):
    """A protocol that processes received bytes only when `work` is called."""

    def work(self) -> None: ...


class GatheringTLS(TLSTransport):
    """Calls its protocol's `work` after each read, which may contain many TLS records."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        cast(ReadProtocol, self.wrapped).work()


class RelayTLSFactory(TLSFactory):
    """TLS for the relay, whose outbox joins small writes."""

    transport = GatheringTLS
