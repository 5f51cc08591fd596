"""An HTTP port of ours: no access log, and no body longer than allowed."""

import json
from typing import Any

from twisted.web.server import Request, Site


class BoundedRequest(Request):
    """Refuses a body over the site's `max_body` bytes once it is announced, or has come."""

    channel: Any
    content: Any
    _refused = False

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > self.channel.site.max_body:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        super().handleContentChunk(data)
        if self.content.tell() > self.channel.site.max_body:
            self._refuse()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._refused:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        self._refused = True
        message = f"a request may have {self.channel.site.max_body} bytes at most"
        body = json.dumps({"error": {"message": message, "field": None}}).encode("ascii")
        self.channel.transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.channel.loseConnection()


class BoundedSite(Site):
    """Whoever watches a job asks many times a second, so no access log is kept."""

    noisy = False

    def __init__(self, resource: Any, max_body: int) -> None:
        super().__init__(resource, requestFactory=BoundedRequest)
        self.max_body = max_body

    def log(self, request: Any) -> None:
        pass
