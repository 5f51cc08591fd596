"""The coordinator: its CA, its worker port, and the address that workers are told."""

import ipaddress
import json
import os
import socket
import ssl
import stat
import urllib.request
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mu.config import Config
from mu.doctor.finding import FAIL, OK, WARN, Finding
from mu.net.certificates import SERVER_NAME, Authority, Facts

SOON = timedelta(days=30)
CONNECT_S = 3.0
METADATA_S = 1.0
CHECKIP = "https://checkip.amazonaws.com"
METADATA = "http://169.254.169.254"

Find = Callable[[], tuple[str, str] | None]
"""Returns an address and how it was found, or None."""


def check_ca(home: Path, now: datetime | None = None) -> Finding:
    """Look at the CA: there, whole, valid, and its key its owner's alone."""
    check = "CA"
    if not (home / "ca.pem").exists():
        return Finding(
            check, WARN, f"{home} has no CA yet", "the daemon's first start makes it: start it"
        )
    try:
        facts = Facts.of(Authority.read(home).pem)
    except (OSError, ValueError) as error:
        return Finding(
            check,
            FAIL,
            f"the CA in {home} cannot be used: {error}",
            "bring back ca.pem and ca.key, or make new ones: mu keys renew ca",
        )
    mode = stat.S_IMODE((home / "ca.key").stat().st_mode)
    if mode & 0o077:
        return Finding(
            check,
            FAIL,
            f"{home / 'ca.key'} can be read by others (mode {mode:o}): who has it can pose as the"
            " coordinator and as any worker",
            f"chmod 600 {home / 'ca.key'}, and if others may have read it: mu keys renew ca",
        )
    left = facts.ends - (now or datetime.now(UTC))
    if left <= timedelta(0):
        return Finding(
            check, FAIL, f"the CA in {home} ended on {facts.ends:%Y-%m-%d}", "mu keys renew ca"
        )
    level = WARN if left < SOON else OK
    return Finding(
        check,
        level,
        f"{facts.subject} is valid until {facts.ends:%Y-%m-%d}",
        "mu keys renew ca, while no job runs" if level == WARN else "",
    )


def check_worker_port(home: Path, config: Config, aws: bool) -> Finding:
    """Look whether a daemon listens, and shows workers a certificate of our CA, and its name."""
    check = "worker port"
    host = config.worker.host
    if aws and _is_loopback(host):
        return Finding(
            check,
            FAIL,
            f"[worker] host = {host} listens to this machine alone",
            "set it to 0.0.0.0 and start the daemon again",
        )
    try:
        port = int(json.loads((home / "ports.json").read_text(encoding="utf-8"))["worker"])
    except (OSError, ValueError, KeyError, TypeError):
        return Finding(
            check,
            WARN,
            f"no daemon is running for {home}",
            "start it before a job is ordered: twistd -n mu --config FILE",
        )
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    try:
        with (
            socket.create_connection((near, port), CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=SERVER_NAME) as connection,
        ):
            shown = connection.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError as error:
        return Finding(
            check,
            FAIL,
            f"the certificate at port {port} is not what workers expect: {error.verify_message}",
            "the CA in the home was changed after the daemon's start: start the daemon again",
        )
    except OSError as error:
        return Finding(
            check,
            FAIL,
            f"port {port}, which ports.json names, does not answer: {error}",
            "the daemon was killed, or does not take connections: start it again",
        )
    facts = Facts.of(shown)
    return Finding(
        check,
        OK,
        f"port {port} shows a certificate of this CA for {', '.join(facts.names)}, valid until"
        f" {facts.ends:%Y-%m-%d}",
    )


def check_public_host(config: Config, source: str, finders: Iterable[Find], aws: bool) -> Finding:
    """Look whether workers can reach the address that they are told."""
    check, host = "public_host", config.launch.public_host
    port = config.worker.port
    if not aws:
        return Finding(check, OK, f"workers on this machine are told {host}")
    try:
        addresses = [ipaddress.ip_address(host)]
    except ValueError:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            return Finding(
                check,
                FAIL,
                f"public_host = {host} has no address: {error}",
                _how_to_set(source, finders),
            )
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    judged = {str(address): _reach(address) for address in addresses}
    named = "" if host in judged else f" ({', '.join(judged)})"
    if "none" in judged.values():
        return Finding(
            check,
            FAIL,
            f"public_host = {host}{named} is this machine itself: no function on AWS gets here",
            _how_to_set(source, finders),
        )
    if "private" in judged.values():
        return Finding(
            check,
            WARN,
            f"public_host = {host}{named} is a private address: only functions inside the same"
            " network (VPC) get here",
            _how_to_set(source, finders),
        )
    sentence = f"workers are told {host}{named}; whether a firewall lets them in is not seen here"
    remedy = f"let TCP port {port or 'of the worker port'} in from anywhere (security group)"
    guess = _first(finders)
    if guess is not None and guess[0] not in judged:
        return Finding(
            check,
            WARN,
            f"public_host = {host}{named}, but this machine seems to be {guess[0]} ({guess[1]})",
            f"if that is so, set public_host = {guess[0]} in {source}; else {remedy}",
        )
    return Finding(check, OK, sentence, remedy)


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
        return f"set {where} to the address at which the internet reaches this machine"
    return f"set {where} to {guess[0]} ({guess[1]}), if that is this machine's"


def _first(finders: Iterable[Find]) -> tuple[str, str] | None:
    return next((found for find in finders if (found := find())), None)


def by_route() -> tuple[str, str] | None:
    """The address that this machine sends from, if it is a public one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    if not ipaddress.ip_address(address).is_global:
        return None
    return address, "the address that this machine sends from"


def by_metadata() -> tuple[str, str] | None:
    """The public address that EC2 gave this instance, by its metadata service."""
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
    return (address, "EC2's metadata of this instance") if address else None


def by_checkip() -> tuple[str, str] | None:
    """The address from which AWS saw this machine ask."""
    address = _ask(urllib.request.Request(CHECKIP))
    return (address, f"{CHECKIP} saw it") if address else None


def _ask(request: urllib.request.Request) -> str | None:
    """Return a line, or None where nothing answers in time, or something else."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=METADATA_S) as answer:
            line: str = answer.read(200).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return line if line and line.isprintable() else None


FINDERS: tuple[Find, ...] = (by_route, by_metadata, by_checkip)
"""What is asked for this machine's address, in this order."""
