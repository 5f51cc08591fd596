"""mu's HTTP ports: no access log, no foreign hosts, and limits on requests."""

from collections.abc import Callable
from functools import partial
from typing import IO
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web import http
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException
from zope.interface import implementer

from mu.net.host_headers import AllowedHosts
from mu.strict_json import dumps

MostOfBody = Callable[[bytes, bytes, bytes], int]
"""Returns how many bytes a body may have, by the request's method, path and Authorization; 0: `max_body`."""


class BoundedRequest(Request):
    """Refuses a body over `max_body` bytes: by its Content-Length, or as it arrives.

    Also refuses requests to hosts that are not allowed, and those of pages of other sites.
    """

    content: IO[bytes]
    _refused = False

    def __init__(
        self,
        max_body: int,
        hosts: AllowedHosts,
        most: MostOfBody | None,
        channel: http.HTTPChannel,
        queued: object = None,
    ) -> None:
        super().__init__(channel)
        self._max_body, self._hosts, self._most = max_body, hosts, most

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if self._most is not None:
            line = self.channel._command, self.channel._path  # not the request's own yet
            bearer = self.requestHeaders.getRawHeaders(b"authorization", [b""])[-1]
            self._max_body = self._most(*line, bearer) or self._max_body
        if length is not None and length > self._max_body:
            self._refuse_size()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        super().handleContentChunk(data)
        if self.content.tell() > self._max_body:
            self._refuse_size()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        hosts, origins = self._all(b"host"), self._all(b"origin")
        foreign = next((host for host in hosts if host not in self._hosts), None)
        if foreign is not None:
            names = "an IP address, localhost or one of [mu] allowed_hosts"
            self._refuse("421 Misdirected Request", f"Host must be {names}, got {foreign!r:.200}")
        for origin in origins:
            if not self._hosts.accepts_origin(origin, hosts[0] if hosts else ""):
                ours = "the page's own, or one of [control] hosts"
                self._refuse("403 Forbidden", f"Origin must be {ours}, got {origin!r:.200}")
        if not self._refused:
            super().requestReceived(command, path, version)

    def _all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for value in self.requestHeaders.getRawHeaders(name, [])]

    def _refuse_size(self) -> None:
        self._refuse("413 Content Too Large", f"the body must have at most {self._max_body} bytes")

    def _refuse(self, status: str, message: str) -> None:
        if self._refused:
            return
        self._refused = True
        body = error_json(message)
        self.channel.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (status.encode("ascii"), len(body), body)
        )
        self.channel.loseConnection()


class TextResource(Resource):
    """Answers 400 in JSON to a method, path or Host that is not text; passes on all others."""

    isLeaf = True

    def __init__(self, inside: Resource) -> None:
        super().__init__()
        self._inside = inside

    def render(self, request: Request) -> bytes | int:
        for what, given, encoding in (
            ("method", request.method, "ascii"),
            ("path", unquote_to_bytes(request.path), "utf-8"),
            ("Host", request.getHeader(b"host") or b"", "ascii"),
        ):
            try:
                given.decode(encoding)
            except UnicodeDecodeError:
                wanted = encoding.upper()
                return _bad(request, f"the request's {what} must be {wanted}, got {given!r:.200}")
        try:
            answer: bytes | int = self._inside.render(request)
            return answer
        except (ValueError, HTTPException):  # Klein's and Werkzeug's parsers of the Host
            host = request.getHeader(b"host")
            return _bad(request, f"the request's Host must be HOST:PORT, got {host!r:.200}")


def _bad(request: Request, message: str) -> bytes:
    request.setResponseCode(400)
    request.setHeader("Content-Type", "application/json")
    return error_json(message)


def error_json(message: str) -> bytes:
    """Return the body of an error response that concerns a whole request."""
    return dumps({"error": {"message": message, "field": None}}).encode("ascii") + b"\n"


@implementer(IPushProducer)
class PacedResponse:
    """Writes a long response no faster than its client reads it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._resumed: Deferred[None] | None = None
        self._gone = False
        request.registerProducer(self, True)

    def pauseProducing(self) -> None:
        self._resumed = self._resumed or Deferred()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Called when the client is gone."""
        self._gone = True
        self.resumeProducing()

    async def write(self, data: bytes) -> bool:
        """Write data; return when there is room for more, and whether the client is still there."""
        if not self._gone:
            self._request.write(data)
        if self._resumed is not None:
            await self._resumed
        return not self._gone

    def end(self) -> None:
        """Write no more; must be called."""
        self._request.unregisterProducer()


class BoundedSite(Site):
    """Keeps no access log: a client that watches a job sends many requests per second."""

    noisy = False

    def __init__(
        self,
        resource: IResource,
        max_body: int,
        hosts: AllowedHosts,
        most: MostOfBody | None = None,
    ) -> None:
        super().__init__(resource, requestFactory=partial(BoundedRequest, max_body, hosts, most))

    def log(self, request: http.Request) -> None:
        pass
