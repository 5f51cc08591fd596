"""The PROXY protocol, version 2: what a TLS proxy says of a client at the start of its connection. Pure.

The format: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt
"""

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = len(SIGNATURE) + 4  # version and command, family and protocol, length of the rest
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: 4, 0x21: 16}
"""The length of an address, by family and protocol: TCP over IPv4, over IPv6."""
_SSL, _COMMON_NAME = 0x20, 0x22
_CERTIFICATE_SHOWN = 0x02  # on this connection, and not only on one whose session is resumed


class BadProxyHeader(ValueError):
    """A connection does not begin with a header of version 2."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What the proxy says: who its client is."""

    host: str = ""
    """The client's address; empty: the proxy does not say."""
    port: int = 0
    common_name: str | None = None
    """That of the verified certificate which the client has shown on this connection, or None."""


def read_proxy_header(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Return the header at the start of `data` and its length, or None if it is not complete.

    Raises BadProxyHeader.
    """
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise BadProxyHeader(
            f"a connection must begin with the header of PROXY protocol v2, got {data[:16]!r}"
        )
    if len(data) < _FIXED:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader(
            f"the PROXY protocol must have version 2 and command 0 or 1, got {command:#04x}"
        )
    if len(data) < _FIXED + length:
        return None
    end = _FIXED + length
    if command == _LOCAL:
        return ProxyHeader(), end
    return _read(data[_FIXED:end], family), end


def _read(said: bytes, family: int) -> ProxyHeader:
    size = _ADDRESSES.get(family)
    if size is None:
        raise BadProxyHeader(f"a PROXY header must be of TCP over IPv4 or IPv6, got {family:#04x}")
    start = 2 * (size + 2)  # the addresses of both ends, and their ports
    if len(said) < start:
        raise BadProxyHeader(
            f"a PROXY header must have {start} bytes of addresses, got {len(said)}"
        )
    host = ipaddress.ip_address(said[:size])
    (port,) = struct.unpack_from("!H", said, 2 * size)
    fields = dict(_fields(said[start:]))
    return ProxyHeader(str(host), port, _common_name(fields.get(_SSL, b"")))


def _common_name(said: bytes) -> str | None:
    """Return the name in the field about TLS, if its certificate was verified."""
    if len(said) < 5:
        return None
    client, failed = struct.unpack_from("!BI", said)
    if failed or not client & _CERTIFICATE_SHOWN:
        return None
    name = dict(_fields(said[5:])).get(_COMMON_NAME)
    return None if name is None else name.decode("utf-8", "replace")


def _fields(said: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the value of each field. Raises BadProxyHeader."""
    start = 0
    while start < len(said):
        if len(said) < start + 3:
            raise BadProxyHeader("a PROXY header ends in the middle of a field")
        kind, length = struct.unpack_from("!BH", said, start)
        start += 3 + length
        if len(said) < start:
            raise BadProxyHeader("a PROXY header ends in the middle of a field")
        yield kind, said[start - length : start]
