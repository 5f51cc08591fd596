"""Checks of the coordinator: its CA, its worker port, and the address that workers connect to."""

import ipaddress
import json
import os
import socket
import ssl
import stat
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from mu import hosts
from mu.config import Config
from mu.findings import FAIL, OK, UNKNOWN, WARN, Finding
from mu.home import WORKER_SOCKET
from mu.net.certificates import SERVER_NAME, Authority, Facts
from mu.wire import Framer, frame

SOON = timedelta(days=30)
CONNECT_S = 3.0
METADATA_S = 1.0
METADATA = "http://169.254.169.254"

Find = Callable[[], tuple[str, str] | None]
"""Returns an address and its source, or None."""


def check_ca(home: Path, now: datetime | None = None) -> Finding:
    """Check that the CA exists, is valid, and that only its owner can read its key."""
    check = "CA"
    if not (home / "ca.pem").exists():
        return Finding(
            check,
            WARN,
            f"{home} has no CA yet",
            "start the daemon: it creates the CA when it first starts",
        )
    try:
        facts = Facts.of(Authority.read(home).pem)
    except (OSError, ValueError) as error:
        return Finding(
            check,
            FAIL,
            f"cannot use the CA in {home}: {error}",
            "restore ca.pem and ca.key, or make new ones: mu keys renew ca",
        )
    mode = stat.S_IMODE((home / "ca.key").stat().st_mode)
    if mode & 0o077:
        return Finding(
            check,
            FAIL,
            f"other users can read {home / 'ca.key'} (mode {mode:o}), and so impersonate the"
            " coordinator and every worker",
            f"chmod 600 {home / 'ca.key'}; if anyone may have read it: mu keys renew ca",
        )
    left = facts.ends - (now or datetime.now(UTC))
    if left <= timedelta(0):
        return Finding(
            check, FAIL, f"the CA in {home} expired on {facts.ends:%Y-%m-%d}", "mu keys renew ca"
        )
    level = WARN if left < SOON else OK
    return Finding(
        check,
        level,
        f"{facts.subject} is valid until {facts.ends:%Y-%m-%d}",
        "mu keys renew ca, while no job is running" if level == WARN else "",
    )


@dataclass(frozen=True, slots=True)
class Reach:
    """Where workers find a port, and what kinds of addresses its host has."""

    host: str
    port: int
    addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()
    """Empty: the host cannot be resolved."""

    @classmethod
    def of(cls, host: str, port: int) -> "Reach":
        try:
            return cls(host, port, tuple(_resolve(host)))
        except OSError:
            return cls(host, port)

    def __str__(self) -> str:
        return hosts.join(self.host, self.port)

    @property
    def only_ipv6(self) -> bool:
        return self._all(lambda address: address.version == 6)

    @property
    def only_here(self) -> bool:
        return self._all(lambda address: _reach(address) == "none")

    @property
    def only_private(self) -> bool:
        return self._all(lambda address: _reach(address) == "private")

    def _all(self, kind: Callable[[ipaddress.IPv4Address | ipaddress.IPv6Address], bool]) -> bool:
        return bool(self.addresses) and all(map(kind, self.addresses))


def find_ports(home: Path) -> dict[str, int]:
    """Return the ports of the running daemon by name; empty: none is running."""
    try:
        ports = json.loads((home / "ports.json").read_text(encoding="utf-8"))
        return {str(name): int(port) for name, port in ports.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def find_places(home: Path, config: Config) -> dict[str, Reach]:
    """Return where workers find the worker port and the relay, of those that there are."""
    ports, public = find_ports(home), config.launch.public_host
    places: dict[str, Reach] = {}
    for name in ("worker", "relay"):
        if name in ports:
            places[name] = Reach.of(public, ports[name])
    if config.relay.address != "auto":
        places["relay"] = Reach.of(*hosts.split(config.relay.address))
    return places


def check_worker_port(home: Path, config: Config, aws: bool) -> Finding:
    """Check that a daemon listens, with a certificate that workers accept.

    Behind HAProxy, a worker of a job that does not exist is handed over as well.
    """
    found = _check_own_port("worker", home, config.worker.host, aws)
    if not config.worker.haproxy:
        return found
    remedy = f"start HAProxy as the daemon's user, or reload it (docs/service.md): {found.remedy}"
    if found.level == FAIL:
        return replace(found, remedy=remedy)
    if found.level != OK:
        return found
    port = find_ports(home)["worker"]
    host = _near(config.worker.host)
    try:
        heard = _be_dismissed(home, host, port)
    except (OSError, ValueError) as error:
        heard = str(error)
    if heard == "quit:":
        return replace(found, sentence=f"{found.sentence}; HAProxy hands workers over")
    return replace(
        found,
        level=FAIL,
        sentence=f"HAProxy at port {port} does not hand workers over to the daemon: {heard}",
        remedy=f"start the daemon; HAProxy must run as its user, to open {home / WORKER_SOCKET}",
    )


def _be_dismissed(home: Path, host: str, port: int) -> str:
    """Say hello as a worker of a job that does not exist; return the answer.

    Raises OSError and ValueError.
    """
    identity = Authority.read(home).mint_job("doctor", 60)
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    with identity.files() as files:
        context.load_cert_chain(*files)
    with (
        socket.create_connection((host, port), CONNECT_S) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as connection,
    ):
        connection.sendall(frame(b"OK:HELLO"))
        framer = Framer()
        while data := connection.recv(4096):
            for payload in framer.feed(data):
                return payload.decode("utf-8", "replace")
    return "it closed the connection"


def check_relay(home: Path, config: Config, aws: bool, pipeline: str) -> Finding:
    """Check the relay: the daemon's own, or the one on another machine.

    `pipeline` names one that needs it. Without it, nothing is a failure.
    """
    check, options = "relay port", config.relay
    if options.address != "auto":
        place = Reach.of(*hosts.split(options.address))
        there = f"the relay at {place}"
        remedy = f"start it: twistd -n mu-relay, and allow TCP port {place.port} there (firewall)"
        found = _check_certificate(check, home, place.host, place.port, there, remedy)
        if found.level == OK and aws:
            found = _judge_relay(found, there, place)
    elif not options.enabled:
        found = Finding(
            check,
            FAIL if pipeline else OK,
            "there is no relay: [relay] enabled = no",
            "set it to yes and restart the daemon" if pipeline else "",
        )
    else:
        found = _check_own_port("relay", home, options.host, aws)
    if found.level != FAIL or pipeline:
        return found
    return replace(found, level=WARN, sentence=f"{found.sentence}; only some pipelines need it")


def _judge_relay(found: Finding, there: str, place: Reach) -> Finding:
    """Return the finding, or another one if functions on AWS cannot reach the address."""
    if place.only_here:
        return replace(
            found,
            level=FAIL,
            sentence=f"{there} has a loopback address: functions on AWS cannot reach it",
            remedy="set [relay] address to one that they can reach, or to auto",
        )
    if place.only_ipv6 or place.only_private:
        kind = "an IPv6" if place.only_ipv6 else "a private"
        sentence = f"{there} has {kind} address, which only functions in a VPC may reach"
        return replace(found, level=WARN, sentence=sentence)
    return found


def _check_own_port(name: str, home: Path, host: str, aws: bool) -> Finding:
    check = f"{name} port"
    if aws and _is_loopback(host):
        return Finding(
            check,
            FAIL,
            f"[{name}] host = {host} accepts connections from this machine only",
            "set it to 0.0.0.0 and restart the daemon",
        )
    ports = find_ports(home)
    if name not in ports:
        return Finding(
            check,
            WARN,
            f"no daemon is running for home {home}"
            if not ports
            else f"the daemon running for home {home} has no {name} port",
            "start it: twistd -n mu --config FILE",
        )
    return _check_certificate(
        check,
        home,
        _near(host),
        ports[name],
        f"port {ports[name]} of ports.json",
        "restart the daemon: it was killed, or does not accept connections",
    )


def _near(host: str) -> str:
    """Return where a port that listens at `host` can be reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _check_certificate(
    check: str, home: Path, host: str, port: int, what: str, remedy: str
) -> Finding:
    """Connect to a port, and check that its certificate is one that workers accept."""
    if not (home / "ca.pem").exists():
        return Finding(check, UNKNOWN, f"{what} is not checked: {home} has no CA yet")
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    try:
        with (
            socket.create_connection((host, port), CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=SERVER_NAME) as connection,
        ):
            shown = connection.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError as error:
        return Finding(
            check,
            FAIL,
            f"workers would reject the certificate on port {port}: {error.verify_message}",
            "restart the daemon or the relay: the CA in its home was replaced after it started",
        )
    except OSError as error:
        return Finding(check, FAIL, f"{what} does not respond: {error}", remedy)
    facts = Facts.of(shown)
    return Finding(
        check,
        OK,
        f"port {port} has a certificate of this CA, for {', '.join(facts.names)}, valid until"
        f" {facts.ends:%Y-%m-%d}",
    )


def check_public_host(
    config: Config,
    source: str,
    finders: Iterable[Find],
    aws: bool,
    ports: Iterable[int] = (),
) -> Finding:
    """Check that workers can reach the address that they connect to, at `ports`."""
    check, host = "public_host", config.launch.public_host
    if not aws:
        return Finding(check, OK, f"workers on this machine connect to {host}")
    try:
        addresses = _resolve(host)
    except OSError as error:
        return Finding(
            check,
            FAIL,
            f"public_host = {host} cannot be resolved: {error}",
            _how_to_set(source, finders),
        )
    judged = {str(address): _reach(address) for address in addresses}
    named = "" if host in judged else f" ({', '.join(judged)})"
    if "none" in judged.values():
        return Finding(
            check,
            FAIL,
            f"public_host = {host}{named} is a loopback address: functions on AWS cannot reach it",
            _how_to_set(source, finders),
        )
    if "private" in judged.values():
        return Finding(
            check,
            WARN,
            f"public_host = {host}{named} is a private address: only functions in the same network"
            " (VPC) can reach it",
            _how_to_set(source, finders),
        )
    if all(address.version == 6 for address in addresses):
        return Finding(
            check,
            WARN,
            f"public_host = {host}{named} is an IPv6 address: functions have IPv6 only in a VPC with"
            " dual-stack subnets and Ipv6AllowedForDualStack",
            "use an IPv4 address, or a name that has one",
        )
    sentence = f"workers connect to {host}{named}"
    numbers = " and ".join(map(str, ports)) or "of [worker] and [relay]"
    open_port = f"allow inbound TCP from anywhere to port {numbers} (security group)"
    guess = _first(finders)
    if guess is not None and guess[0] not in judged:
        return Finding(
            check,
            WARN,
            f"public_host = {host}{named}, but this machine's address seems to be {guess[0]}"
            f" ({guess[1]})",
            f"if so, set public_host = {guess[0]} in {source}; otherwise {open_port}",
        )
    return Finding(check, OK, sentence, open_port)


def _resolve(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return a host's addresses. Raises OSError."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _reach(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if address.is_loopback or address.is_unspecified:
        return "none"
    return "public" if address.is_global else "private"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _how_to_set(source: str, finders: Iterable[Find]) -> str:
    guess = _first(finders)
    where = f"[launch] public_host in {'mu.conf' if source == 'the defaults' else source}"
    if guess is None:
        return f"set {where} to this machine's public address"
    return f"set {where} to {guess[0]} ({guess[1]}) if that is this machine's address"


def _first(finders: Iterable[Find]) -> tuple[str, str] | None:
    return next((found for find in finders if (found := find())), None)


def by_route() -> tuple[str, str] | None:
    """Return the address that this machine sends from, if it is public. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    if not ipaddress.ip_address(address).is_global:
        return None
    return address, "the source address of outgoing connections"


def by_metadata() -> tuple[str, str] | None:
    """Return this EC2 instance's public address, from its metadata service."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/")
    token = _ask(
        urllib.request.Request(
            f"{base}/latest/api/token",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
            method="PUT",
        )
    )
    if token is None:
        return None
    address = _ask(
        urllib.request.Request(
            f"{base}/latest/meta-data/public-ipv4", headers={"X-aws-ec2-metadata-token": token}
        )
    )
    return (address, "from EC2's metadata service") if address else None


def by_checkip(url: str) -> tuple[str, str] | None:
    """Return the address from which a server outside sees this machine."""
    address = _ask(urllib.request.Request(url)) if url != "none" else None
    return (address, f"as seen by {url}") if address else None


def _ask(request: urllib.request.Request) -> str | None:
    """Return a one-line answer; None: there was another answer, or none in time."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=METADATA_S) as answer:
            line: str = answer.read(200).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return line if line and line.isprintable() else None


def finders_of(config: Config) -> tuple[Find, ...]:
    """Return the ways to find this machine's address, in the order in which they are tried."""
    return by_route, by_metadata, partial(by_checkip, config.launch.checkip)
