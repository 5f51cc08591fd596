"""The files of the page, which the control port serves to browsers."""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from twisted.web.http import CACHED
from twisted.web.server import Request

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    # Scripts and styles come from our files alone: a text that a worker printed is never code.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # the browser asks each time whether its copy is still right
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file in memory."""

    kind: str
    content: bytes
    etag: bytes

    def render(self, request: Request) -> bytes:
        """Return the body of the response, and set its headers."""
        request.setHeader("Content-Type", self.kind)
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        return b"" if request.setETag(self.etag) is CACHED else self.content


def read_files() -> dict[str, PageFile]:
    """Return the files of the page by name."""
    found = {}
    for file in (files("mu.page") / "static").iterdir():
        content = file.read_bytes()
        etag = b'"%b"' % sha256(content).hexdigest()[:32].encode("ascii")
        found[file.name] = PageFile(KINDS[file.name.rpartition(".")[2]], content, etag)
    return found
