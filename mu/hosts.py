"""Hosts and ports in texts: names and addresses as people write them, IPv6 and other alphabets too.

>>> read_host("[2001:DB8::1]"), read_host("münchen.example")
('2001:db8::1', 'xn--mnchen-3ya.example')
>>> join("::1", 13337), split("[::1]:13337"), split("relay.example:13337")
('[::1]:13337', ('::1', 13337), ('relay.example', 13337))
"""

import re
from ipaddress import ip_address

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def read_host(text: str) -> str:
    """Return a host name in ASCII or an address, without brackets. Raises ValueError."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare or bare != text:  # IPv6, or nothing
        try:
            return str(ip_address(bare))
        except ValueError:
            pass
    _refuse_more(text)
    name = _ascii(text)
    labels = name.removesuffix(".").split(".")
    if labels[-1].isdecimal():
        try:
            return str(ip_address(name))
        except ValueError:
            raise ValueError(f"must be a host name or an IP address, got {text:.200}") from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"must be a host name or an IP address, got {text:.200}")
    return name


def read_public_host(text: str) -> str:
    """Return the host at which others reach this machine. Raises ValueError."""
    host = read_host(text)
    if "%" in host:
        raise ValueError(f"must not have a zone, which other machines do not know, got {text}")
    if is_address(host) and ip_address(host).is_unspecified:
        raise ValueError(
            f"must be an address at which others reach this machine; {text} only stands for all of"
            " its own"
        )
    return host


def read_place(text: str) -> str:
    """Return HOST:PORT in the form of join. Raises ValueError."""
    host, port = split(text)
    return join(read_public_host(host), port)


def split(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, where an IPv6 address is in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    known = colon and host and (bracketed or ":" not in host)
    if not (known and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(
            f"must be HOST:PORT, with an IPv6 address as [ADDRESS]:PORT, got {text:.200}"
        )
    return (host[1:-1] if bracketed else host), int(port)


def join(host: str, port: int) -> str:
    """Return HOST:PORT, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_address(host: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _refuse_more(text: str) -> None:
    """Raise ValueError for what people write around a host."""
    if "://" in text:
        raise ValueError(f"must be a host name or an IP address without a scheme, got {text:.200}")
    if any(character in text for character in "/@"):
        raise ValueError(f"must be just a host name or an IP address, got {text:.200}")
    if any(character.isspace() for character in text):
        raise ValueError(f"must not contain spaces, got {text:.200}")
    if re.search(r":[0-9]+$", text):
        raise ValueError(f"must be a host name or an IP address without a port, got {text:.200}")


def _ascii(text: str) -> str:
    """Return a name as DNS has it. Raises ValueError."""
    if text.isascii():
        return text
    import idna  # slow to import, and rarely needed

    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(
            f"must be a host name or an IP address, got {text:.200}: {error}"
        ) from None
