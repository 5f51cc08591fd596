"""A lean HTTP/1.1 client for many small requests: connections are kept, one request on each at a time.

Twisted's own Agent costs five times the CPU of this for each request (bench/launch.py).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from httptools import HttpParserError, HttpResponseParser
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

LONGEST_BODY = 2**16


class NotSent(Exception):
    """No connection could be made: nothing of the request has left this machine."""


class NoAnswer(Exception):
    """The request was sent, and what became of it is not known."""


@dataclass(slots=True)
class Response:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go; `tls` makes the connection's TLS options, None is plain TCP."""

    host: str
    port: int
    tls: Callable[[], Any] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Connections:
    """Asks requests, each on a connection that is free, or on a new one.

    A request that is not answered within `timeout_s`, connecting included, has failed.
    """

    def __init__(self, reactor: Any, timeout_s: float) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._free: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._all: set[_Connection] = set()

    async def ask(self, origin: Origin, request: bytes) -> Response:
        """Return the answer to a request. Raises NotSent or NoAnswer, with a sentence."""
        free = self._free[origin]
        connection = free.pop() if free else await self._connect(origin)
        response: Response = await connection.ask(request)
        if connection.usable:
            free.append(connection)
        else:
            connection.hang_up()
        return response

    def close(self) -> Deferred[None]:
        """Close all connections; the Deferred fires once they are."""
        closed: Deferred[None] = Deferred()
        self._closed = closed
        for connection in list(self._all):
            connection.hang_up()
        self._look_whether_closed()
        return closed

    _closed: Deferred[None] | None = None

    def _look_whether_closed(self) -> None:
        if self._closed is not None and not self._all and not self._closed.called:
            self._closed.callback(None)

    async def _connect(self, origin: Origin) -> "_Connection":
        endpoint: Any = HostnameEndpoint(
            self._reactor, origin.host, origin.port, timeout=self._timeout_s
        )
        if origin.tls is not None:
            endpoint = wrapClientTLS(origin.tls(), endpoint)
        factory = Factory.forProtocol(
            lambda: _Connection(self._reactor, self._timeout_s, origin.tls is not None, self._gone)
        )
        factory.noisy = False
        try:
            connection: _Connection = await endpoint.connect(factory)
        except Exception as error:  # DNS, refused, no route, time: all before a byte was sent
            raise NotSent(str(error) or type(error).__name__) from None
        connection.home = self._free[origin]
        self._all.add(connection)
        return connection

    def _gone(self, connection: "_Connection") -> None:
        self._all.discard(connection)
        if connection in connection.home:
            connection.home.remove(connection)
        self._look_whether_closed()


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """One connection, on which one request at a time is asked."""

    transport: Any

    def __init__(
        self, reactor: Any, timeout_s: float, tls: bool, gone: Callable[["_Connection"], None]
    ) -> None:
        self.usable = True
        self.home: list[_Connection] = []
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._open = not tls
        self._tell_gone = gone
        self._asking: Deferred[Response] | None = None
        self._timer: Any = None
        self._response = Response()
        self._parser = HttpResponseParser(self)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        self._open = True

    def ask(self, request: bytes) -> Deferred[Response]:
        self._response = Response()
        self._asking = Deferred()
        self._timer = self._reactor.callLater(self._timeout_s, self._give_up)
        self.transport.write(request)
        return self._asking

    def hang_up(self) -> None:
        self.usable = False
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._end(NoAnswer(f"what came is no HTTP answer: {error}"))
            self.hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.usable = False
        self._tell_gone(self)
        words = reason.getErrorMessage()
        self._end(
            NoAnswer(f"the connection was lost before the answer: {words}")
            if self._open
            else NotSent(f"the TLS handshake failed: {words}")
        )

    # ------------------------------------------------ what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._response.body += body
        if len(self._response.body) > LONGEST_BODY:
            self._end(NoAnswer(f"the answer is longer than {LONGEST_BODY} bytes"))
            self.hang_up()

    def on_message_complete(self) -> None:
        self._response.status = self._parser.get_status_code()
        self.usable = self.usable and self._parser.should_keep_alive()
        self._end(self._response)

    def _give_up(self) -> None:
        words = f"no answer came within {self._timeout_s:g} s"
        self._end(NoAnswer(words) if self._open else NotSent(words))
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
