"""What requests to the control port say, and how they are answered or refused."""

import re
from collections.abc import Collection

from twisted.web.server import Request

from mu.strict_json import dumps


class Refusal(Exception):
    """An answer other than 2xx; the text says why."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


def route_of(request: Request) -> str:
    """Return the method and the path."""
    return (b"%b %b" % (request.method, request.path)).decode("utf-8", "replace")


def bearer_of(request: Request) -> bytes:
    """Return the token or the session of a request; empty: it has none."""
    kind, _, bearer = (request.getHeader(b"authorization") or b"").partition(b" ")
    return bearer if kind == b"Bearer" else b""


def idempotency_key(request: Request) -> str:
    """Return the request's Idempotency-Key; empty: it has none."""
    given = request.requestHeaders.getRawHeaders(b"idempotency-key")
    if given is None:
        return ""
    if len(given) > 1:
        raise Refusal(400, f"a request may have one Idempotency-Key, got {len(given)}")
    try:
        key = given[0].decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, f"Idempotency-Key must be UTF-8, got {given[0]!r:.200}") from None
    if not key or not key.isprintable():
        raise Refusal(
            400, f"Idempotency-Key must be text of at least 1 character, got {key!r:.200}"
        )
    return key


def takes_gzip(request: Request) -> bool:
    """Return whether the answer to this request may be compressed."""
    known = (request.getHeader("accept-encoding") or "").lower().replace(" ", "").split(",")
    return any(one == "gzip" or re.match(r"gzip;q=(0\.\d*[1-9]|1)", one) for one in known)


def argument(request: Request, name: str) -> str | None:
    """Return the last argument of this name in the URL, if there is one."""
    given = request.args.get(name.encode("ascii"))
    return given[-1].decode("utf-8", "replace") if given else None


def one_of(request: Request, name: str, allowed: Collection[str]) -> str | None:
    """Return an argument, if it is given: one of the allowed values. Raises Refusal."""
    given = argument(request, name)
    if given is not None and given not in allowed:
        known = ", ".join(allowed)
        raise Refusal(400, f"{name} must be one of {known}, got {given!r:.200}", name)
    return given


def whole_number(text: str, field: str) -> int:
    """Return the number in an argument. Raises Refusal."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Refusal(400, f"{field} must be a whole number, got {text!r:.200}", field)
    return int(text)


def seconds(text: str, field: str) -> float:
    """Return the time in an argument. Raises Refusal."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise Refusal(400, f"{field} must be a time in seconds, got {text!r:.200}", field)
    return float(text)


def page_of(request: Request) -> tuple[int | None, str]:
    """Return how many rows a list may have (None: all), and the row after which it begins."""
    limit = argument(request, "limit")
    return None if limit is None else whole_number(limit, "limit"), argument(request, "after") or ""


def answer(request: Request, told: object) -> bytes:
    """Return an answer's body as JSON."""
    request.setHeader("Content-Type", "application/json")
    request.setHeader("X-Content-Type-Options", "nosniff")
    return dumps(told).encode("ascii") + b"\n"


def error_answer(request: Request, status: int, message: str, field: str | None = None) -> bytes:
    """Return the body of an answer that is an error."""
    request.setResponseCode(status)
    return answer(request, {"error": {"message": message, "field": field}})
