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
    """IP addresses, localhost, this machine's name, and `names`.

    An IP address cannot be rebound, since it is not looked up.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        own = ("localhost", socket.gethostname(), *names)
        self._names = {name.lower().rstrip(".") for name in own}

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


def split_hosts(text: str) -> list[str]:
    """Return the names in the option allowed_hosts: separated by commas or spaces, or `none`."""
    return [name for name in text.replace(",", " ").split() if name != "none"]
