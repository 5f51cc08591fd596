"""Which Host headers our HTTP ports accept.

A web page of a foreign site can have its name resolve to 127.0.0.1 (DNS rebinding). Its requests then
reach our ports as if they came from their own site, but with that site's name in Host.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(?::\d*)?", re.IGNORECASE)


class AllowedHosts:
    """IP addresses, localhost, this machine's name, and `names`; and `proxies`.

    An IP address cannot be rebound, since it is not looked up. Browsers say in Origin from which site a
    request comes: it must be the one that Host names, or one of the `proxies`, which may change Host.
    """

    def __init__(self, names: Iterable[str] = (), proxies: Iterable[str] = ()) -> None:
        self._proxies = {name.lower().rstrip(".") for name in proxies}
        own = ("localhost", socket.gethostname(), *names)
        self._names = {name.lower().rstrip(".") for name in own} | self._proxies

    def __contains__(self, header: str) -> bool:
        """Return whether a Host header, HOST or HOST:PORT, names this machine."""
        match = _HOST.fullmatch(header.strip())
        if match is None:
            return False
        host = match[1].lower().strip("[]").rstrip(".")
        if host in self._names:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def accepts_origin(self, origin: str, host: str) -> bool:
        """Return whether a request with this Origin and this Host comes from a page of ours."""
        scheme, _, place = origin.strip().lower().partition("://")
        if scheme not in ("http", "https"):
            return False
        match = _HOST.fullmatch(place)
        proxied = match is not None and match[1].rstrip(".") in self._proxies
        return proxied or place == host.strip().lower() != ""


def split_hosts(text: str) -> list[str]:
    """Return the names in an option such as allowed_hosts: separated by commas or spaces, or `none`."""
    return [name for name in text.replace(",", " ").split() if name != "none"]
