"""Connections through an HTTP proxy, with CONNECT."""

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

HEAD_LIMIT = 2**14


class BadProxy(ValueError):
    """A proxy's URL that cannot be used."""


class ProxyRefused(Exception):
    """The proxy does not connect to the host; the text says why."""


class IProxyReactor(IReactorTCP, IReactorTime):
    """Connects, and keeps time."""


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """A proxy's address; `login` is what it wants to know of its user, never shown."""

    host: str
    port: int
    tls: bool = False
    login: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "HttpProxy":
        """Parse http://USER:PASSWORD@HOST:PORT. Raises BadProxy."""
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if parts.scheme not in ("http", "https"):
            raise BadProxy(f"the proxy {shown} must be http:// or https://")
        try:
            port = parts.port
        except ValueError:
            raise BadProxy(f"the proxy {shown} has no valid port") from None
        if not parts.hostname:
            raise BadProxy(f"the proxy {shown} has no host")
        login = None
        if parts.username is not None:
            words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = base64.b64encode(words.encode()).decode()
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, login)

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


@implementer(IStreamClientEndpoint)
class ProxyEndpoint:
    """Connects to a host and port through a proxy, within `timeout_s`."""

    def __init__(
        self, reactor: IProxyReactor, proxy: HttpProxy, host: str, port: int, timeout_s: float
    ) -> None:
        self._reactor, self._proxy, self._timeout_s = reactor, proxy, timeout_s
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        login = f"Proxy-Authorization: Basic {proxy.login}\r\n" if proxy.login else ""
        self._request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n".encode()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        proxy = self._proxy
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, proxy.host, proxy.port, timeout=self._timeout_s
        )
        if proxy.tls:
            endpoint = wrapClientTLS(ssl.optionsForClientTLS(proxy.host), endpoint)
        connected: Deferred[IProtocol] = Deferred()
        factory = Factory.forProtocol(lambda: self._tunnel(protocolFactory, connected))
        factory.noisy = False
        connecting = endpoint.connect(factory)
        connecting.addErrback(connected.errback)
        return connected

    def _tunnel(self, factory: IProtocolFactory, connected: Deferred[IProtocol]) -> "_Tunnel":
        why = f"the proxy {self._proxy} gave no answer within {self._timeout_s:g} s"
        tunnel = _Tunnel(self._request, factory, connected)
        tunnel.timer = self._reactor.callLater(self._timeout_s, tunnel.fail, why)
        return tunnel


class _Tunnel(Protocol):
    """Asks for the connection, then passes bytes on in both directions."""

    transport: ITCPTransport

    def __init__(
        self,
        request: bytes,
        factory: IProtocolFactory,
        connected: Deferred[IProtocol],
    ) -> None:
        self._request, self._factory = request, factory
        self._connected = connected
        self.timer: IDelayedCall | None = None
        self._head = b""
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._head += data
        head, complete, rest = self._head.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].decode("latin-1")
        if not complete:
            if len(head) > HEAD_LIMIT:
                self.fail("the proxy's answer is not HTTP")
            return
        if status.split(" ")[1:2] != ["200"]:
            login = ", it wants a user and a password" if " 407" in status else ""
            self.fail(f"the proxy answered {status!r} to CONNECT{login}")
            return
        inner = self._factory.buildProtocol(self.transport.getPeer())
        if inner is None or self._connected.called:
            self.fail("the connection is no longer wanted")
            return
        self._stop_timer()
        self._inner = inner
        inner.makeConnection(self.transport)
        self._connected.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self.fail(f"the proxy closed the connection: {reason.getErrorMessage()}")

    def fail(self, why: str) -> None:
        """Give up, for this reason."""
        self._stop_timer()
        if not self._connected.called:
            self._connected.errback(ProxyRefused(why))
        self.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
