"""The control port for asyncio: the same calls, one connection for each."""

import asyncio
import http.client
import io
from typing import TypeVar
from urllib.parse import urlsplit

from mu.client import calls
from mu.client.address import Address
from mu.client.calls import Call
from mu.client.control_port import TIMEOUT_S, lost, too_late, unreachable

T = TypeVar("T")


async def send(address: Address, call: Call[T]) -> T:
    """Return the answer. Raises RequestRefused, and NotRunning if there is no daemon."""
    limit_s = TIMEOUT_S + call.longer_s
    try:
        async with asyncio.timeout(limit_s):
            response = await _exchange(address, call)
            return calls.answer_to(call, address, response)
    except TimeoutError:
        raise too_late(address, limit_s) from None
    except (OSError, http.client.HTTPException) as error:
        raise lost(address, error) from None


async def _exchange(address: Address, call: Call[T]) -> http.client.HTTPResponse:
    parts = urlsplit(address.url)
    secure = parts.scheme == "https"
    try:
        reader, writer = await asyncio.open_connection(
            parts.hostname, parts.port or (443 if secure else 80), ssl=secure or None
        )
    except (OSError, UnicodeError) as error:
        raise unreachable(address, error) from None
    try:
        writer.write(_request(address, parts.netloc, parts.path + call.path, call))
        writer.write(call.body or b"")
        told = await reader.read()  # the daemon closes the connection
    finally:
        writer.close()
    response = http.client.HTTPResponse(_Received(told), method=call.method)  # type: ignore[arg-type]
    response.begin()
    return response


def _request(address: Address, host: str, path: str, call: Call[T]) -> bytes:
    headers = {**call.headers, "Authorization": f"Bearer {address.token}"}
    headers |= {"Host": host, "Connection": "close", "Content-Length": str(len(call.body or b""))}
    lines = [f"{call.method} {path} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


class _Received:
    """What http.client parses: a socket that has received everything."""

    def __init__(self, told: bytes) -> None:
        self._told = told

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._told)
