"""mu's HTTP ports: no access log, and a limit on the size of request bodies."""

import json
from functools import partial
from typing import IO

from twisted.web import http
from twisted.web.resource import IResource
from twisted.web.server import Request, Site


class BoundedRequest(Request):
    """Refuses a body over `max_body` bytes: by its Content-Length, or as it arrives."""

    content: IO[bytes]
    _refused = False

    def __init__(self, max_body: int, channel: http.HTTPChannel, queued: object = None) -> None:
        super().__init__(channel)
        self._max_body = max_body

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > self._max_body:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        super().handleContentChunk(data)
        if self.content.tell() > self._max_body:
            self._refuse()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._refused:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        self._refused = True
        message = f"the body must have at most {self._max_body} bytes"
        body = json.dumps({"error": {"message": message, "field": None}}).encode("ascii")
        self.channel.write(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.channel.loseConnection()


class BoundedSite(Site):
    """Keeps no access log: a client that watches a job sends many requests per second."""

    noisy = False

    def __init__(self, resource: IResource, max_body: int) -> None:
        super().__init__(resource, requestFactory=partial(BoundedRequest, max_body))

    def log(self, request: http.Request) -> None:
        pass
