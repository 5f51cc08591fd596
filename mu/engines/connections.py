"""A small HTTP/1.1 client for many small requests, on persistent connections without pipelining.

Twisted's Agent takes five times as much CPU per request (bench/launch.py).
"""

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
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.engines.reactors import IClientReactor

BODY_LIMIT = 2**16


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

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Connections:
    """Sends each request on an idle connection, or on a new one.

    Connecting may take `timeout_s` seconds, and so may the response.
    """

    def __init__(self, reactor: IClientReactor, timeout_s: float) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._all: set[_Connection] = set()

    async def ask(self, origin: Origin, request: bytes) -> Response:
        """Return the response. Raises NotSent or NoAnswer with a message that says why."""
        idle = self._idle[origin]
        connection = idle.pop() if idle else await self._connect(origin)
        response: Response = await connection.ask(request)
        if connection.usable:
            idle.append(connection)
        else:
            connection.hang_up()
        return response

    def close(self) -> Deferred[None]:
        """Close all connections; the Deferred fires when they are closed."""
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
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, origin.host, origin.port, timeout=self._timeout_s
        )
        if origin.tls is not None:
            endpoint = wrapClientTLS(origin.tls(), endpoint)
        factory = Factory.forProtocol(
            lambda: _Connection(self._reactor, self._timeout_s, origin.tls is not None, self._gone)
        )
        factory.noisy = False
        try:
            connection = await endpoint.connect(factory)
        except Exception as error:  # DNS, refused, no route, timeout: no byte was sent
            raise NotSent(str(error) or type(error).__name__) from None
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
        timeout_s: float,
        tls: bool,
        gone: Callable[["_Connection"], None],
    ) -> None:
        self.usable = True
        self.idle_list: list[_Connection] = []
        self._clock = clock
        self._timeout_s = timeout_s
        self._open = not tls
        self._gone = gone
        self._asking: Deferred[Response] | None = None
        self._timer: IDelayedCall | None = None
        self._response = Response()
        self._parser = HttpResponseParser(self)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        self._open = True

    def ask(self, request: bytes) -> Deferred[Response]:
        self._response = Response()
        self._asking = Deferred()
        self._timer = self._clock.callLater(self._timeout_s, self._give_up)
        self.transport.write(request)
        return self._asking

    def hang_up(self) -> None:
        self.usable = False
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._end(NoAnswer(f"the answer is not valid HTTP: {error}"))
            self.hang_up()

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
        why = f"no answer within {self._timeout_s:g} s"
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
