"""The proxy for a URL, as botocore finds it; without importing that, which takes long."""

import ipaddress
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_for(url: str) -> str | None:
    """Return the proxy for a URL, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY; never for this machine."""
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        return None
    proxy = None if _is_exempt(parts.netloc) else getproxies().get(parts.scheme)
    if not proxy:
        return None
    return str(proxy) if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """Whether the host is this machine's own address, or a name for it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_exempt(host: str) -> bool:
    try:
        return bool(proxy_bypass(host))
    except (TypeError, socket.gaierror):  # as botocore does
        return False
