"""A small HTTP/1.1 client for many small requests, on persistent connections without pipelining.

Twisted's Agent takes five times as much CPU per request (bench/launch.py).
"""

import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpResponseParser
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.engines.reactors import IClientReactor
from mu.net.proxy import HttpProxy, ProxyEndpoint

BODY_LIMIT = 2**16
KEEPALIVE_PROBES, KEEPALIVE_EVERY_S = 3, 10
"""How many probes without an answer break a connection, and their interval, in seconds."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long connections wait, in seconds: the options of the same names in [launch]."""

    timeout_s: float = 30.0
    """For a connection, and for the whole answer."""
    first_byte_s: float = 10.0
    idle_s: float = 60.0
    keepalive_s: float = 30.0


class NotSent(Exception):
    """No connection could be made, so no byte of the request was sent."""


class NoAnswer(Exception):
    """The request was sent, but its outcome is unknown."""


@dataclass(slots=True)
class Response:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """The names are in lower case."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests are sent; `tls` makes a connection's TLS options, None means plain TCP."""

    host: str
    port: int
    tls: Callable[[], IOpenSSLClientConnectionCreator] | None = field(default=None, compare=False)
    proxy: HttpProxy | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Connections:
    """Sends each request on an idle connection, or on a new one.

    A connection that is idle for `idle_s` is closed: NAT gateways and endpoints drop idle ones
    without a word, AWS's after 350 s. A reused connection that breaks before it answers was probably
    dropped so, and its request is sent once more, on a new connection. Requests must therefore be
    safe to repeat, as launches are by their launch ids.
    """

    def __init__(self, reactor: IClientReactor, timeouts: Timeouts) -> None:
        self._reactor = reactor
        self._timeouts = timeouts
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._all: set[_Connection] = set()
        self._sweep: IDelayedCall | None = None

    async def ask(
        self, origin: Origin, request: bytes, may_repeat: Callable[[], bool] = lambda: True
    ) -> Response:
        """Return the response. Raises NotSent or NoAnswer with a message that says why."""
        if (reused := self._reusable(origin)) is not None:
            try:
                return await self._ask(reused, request)
            except NoAnswer:
                if reused.answering or not may_repeat():
                    raise
        return await self._ask(await self._connect(origin), request)

    async def _ask(self, connection: "_Connection", request: bytes) -> Response:
        response: Response = await connection.ask(request)
        if connection.usable:
            connection.idle_since = self._reactor.seconds()
            connection.idle_list.append(connection)
            if self._sweep is None and self._closed is None:
                self._sweep = self._reactor.callLater(self._timeouts.idle_s, self._close_idle)
        else:
            connection.hang_up()
        return response

    def _reusable(self, origin: Origin) -> "_Connection | None":
        """Return the idle connection that was used last, if it is not too old."""
        idle = self._idle[origin]
        if not idle:
            return None
        connection = idle.pop()
        if self._reactor.seconds() - connection.idle_since < self._timeouts.idle_s:
            return connection
        connection.hang_up()
        return None

    def _close_idle(self) -> None:
        """Close what is idle for too long, and come back when the next one is."""
        self._sweep = None
        now = self._reactor.seconds()
        oldest = now
        for idle in self._idle.values():
            for connection in list(idle):
                if now - connection.idle_since >= self._timeouts.idle_s:
                    idle.remove(connection)
                    connection.hang_up()
                else:
                    oldest = min(oldest, connection.idle_since)
        if any(self._idle.values()):
            delay = max(0.001, oldest + self._timeouts.idle_s - now)
            self._sweep = self._reactor.callLater(delay, self._close_idle)

    def close(self) -> Deferred[None]:
        """Close all connections; the Deferred fires when they are closed."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        closed: Deferred[None] = Deferred()
        self._closed = closed
        for connection in list(self._all):
            connection.hang_up()
        self._check_closed()
        return closed

    _closed: Deferred[None] | None = None

    def _check_closed(self) -> None:
        if self._closed is not None and not self._all and not self._closed.called:
            self._closed.callback(None)

    async def _connect(self, origin: Origin) -> "_Connection":
        where, within_s = (origin.host, origin.port), self._timeouts.timeout_s
        endpoint: IStreamClientEndpoint = (
            HostnameEndpoint(self._reactor, *where, timeout=within_s)
            if origin.proxy is None
            else ProxyEndpoint(self._reactor, origin.proxy, *where, within_s)
        )
        if origin.tls is not None:
            endpoint = wrapClientTLS(origin.tls(), endpoint)
        factory = Factory.forProtocol(
            lambda: _Connection(self._reactor, self._timeouts, origin.tls is not None, self._gone)
        )
        factory.noisy = False
        try:
            connection = await endpoint.connect(factory)
        except Exception as error:  # DNS, refused, no route, timeout: no byte was sent
            raise NotSent(str(error).rstrip(".") or type(error).__name__) from None
        assert isinstance(connection, _Connection)
        connection.idle_list = self._idle[origin]
        self._all.add(connection)
        return connection

    def _gone(self, connection: "_Connection") -> None:
        self._all.discard(connection)
        if connection in connection.idle_list:
            connection.idle_list.remove(connection)
        self._check_closed()


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """One connection, with at most one request in progress."""

    transport: ITCPTransport

    def __init__(
        self,
        clock: IReactorTime,
        timeouts: Timeouts,
        tls: bool,
        gone: Callable[["_Connection"], None],
    ) -> None:
        self.usable = True
        self.answering = False
        """Whether a part of the answer to the current request has come."""
        self.idle_since = 0.0
        self.idle_list: list[_Connection] = []
        self._clock = clock
        self._timeouts = timeouts
        self._deadline = 0.0
        self._open = not tls
        self._gone = gone
        self._asking: Deferred[Response] | None = None
        self._timer: IDelayedCall | None = None
        self._response = Response()
        self._parser = HttpResponseParser(self)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        _keep_alive(self.transport, max(1, round(self._timeouts.keepalive_s)))

    def handshakeCompleted(self) -> None:
        self._open = True

    def ask(self, request: bytes) -> Deferred[Response]:
        self._response = Response()
        self._asking = Deferred()
        self.answering = False
        self._deadline = self._clock.seconds() + self._timeouts.timeout_s
        first = min(self._timeouts.first_byte_s, self._timeouts.timeout_s)
        self._timer = self._clock.callLater(first, self._give_up)
        self.transport.write(request)
        return self._asking

    def hang_up(self) -> None:
        self.usable = False
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        asking, begins, self.answering = self._asking, not self.answering, True
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._end(NoAnswer(f"the answer is not valid HTTP: {error}"))
            self.hang_up()
        if begins and asking is not None and self._asking is asking and self._timer is not None:
            self._timer.reset(max(0.0, self._deadline - self._clock.seconds()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.usable = False
        self._gone(self)
        why = reason.getErrorMessage()
        self._end(
            NoAnswer(f"the connection was lost before the answer: {why}")
            if self._open
            else NotSent(f"the TLS handshake failed: {why}")
        )

    # ------------------------------------------------ called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._response.body += body
        if len(self._response.body) > BODY_LIMIT:
            self._end(NoAnswer(f"the answer is longer than {BODY_LIMIT} bytes"))
            self.hang_up()

    def on_message_complete(self) -> None:
        self._response.status = self._parser.get_status_code()
        self.usable = self.usable and self._parser.should_keep_alive()
        self._end(self._response)

    def _give_up(self) -> None:
        limit = self._timeouts.timeout_s if self.answering else self._timeouts.first_byte_s
        what = "no whole answer" if self.answering else "no answer"
        why = f"{what} within {min(limit, self._timeouts.timeout_s):g} s"
        self._end(NoAnswer(why) if self._open else NotSent(why))
        self.hang_up()

    def _end(self, result: Response | Exception) -> None:
        asking, self._asking = self._asking, None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if asking is None:
            return
        if isinstance(result, Response):
            asking.callback(result)
        else:
            asking.errback(result)


def _keep_alive(transport: ITCPTransport, idle_s: int) -> None:
    """Have the system probe a silent connection, so that a dead one breaks."""
    transport.setTcpKeepAlive(True)
    inner: object = transport
    while isinstance(inner, ProtocolWrapper):
        inner = inner.transport
    if isinstance(inner, Connection):
        sock = inner.getHandle()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
