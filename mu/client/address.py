"""Finds the daemon: its home folder, its ports, and the token of its control port."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mu.client.errors import NoAddress, NotRunning
from mu.config import Config, ConfigError, MuSection, read_config

CONFIGS = (Path("etc/mu.conf"), Path("/etc/mu.conf"))
"""The configuration files to look for, in this order."""


@dataclass(frozen=True, slots=True)
class Address:
    """A control port: its URL, such as http://HOST:PORT, and its token."""

    url: str
    token: str
    refused: str
    """The error message if nothing listens at `url`."""
    denied: str
    """The error message if the token is rejected."""


@dataclass(frozen=True, slots=True)
class Home:
    """A daemon's home folder on this machine, whether the daemon is running or not."""

    config: Config
    start: str
    """The command that starts the daemon."""
    source: str
    """The source of `config`: a file's path, or `the defaults`."""

    @property
    def path(self) -> Path:
        return self.config.home


def find_address(given: Mapping[str, str], environ: Mapping[str, str]) -> Address:
    """Return the control port's address. Raises NoAddress and NotRunning.

    `given` may have one of `url`, `home` and `config`. Without them, the first of MU_HOME, CONFIGS
    and ~/.mu that exists is used.
    """
    _only_one(given)
    if "url" in given:
        return _remote(given["url"], environ)
    return _at_home(_home(given, environ))


def find_config(given: Mapping[str, str], environ: Mapping[str, str]) -> Config:
    """Return the configuration, found in the same way. Raises NoAddress.

    If only the home is known, all options have their defaults.
    """
    _only_one(given)
    if "url" in given:
        raise NoAddress(
            "--url cannot be used here: this command reads the journal in the daemon's home, so run"
            " it on the daemon's machine, with --home or --config"
        )
    return _home(given, environ).config


def find_home(given: Mapping[str, str], environ: Mapping[str, str]) -> Home:
    """Return the daemon's home, found in the same way. Raises NoAddress."""
    _only_one(given)
    if "url" in given:
        raise NoAddress(
            "--url cannot be used here: this command needs the daemon's home, so run it on the"
            " daemon's machine, with --home or --config"
        )
    return _home(given, environ)


def find_port(home: Home, name: str) -> int:
    """Return a port of the daemon running there, by name. Raises NoAddress and NotRunning."""
    ports = home.path / "ports.json"
    text = _read(ports, home)
    if text is None:
        raise NotRunning(f"no daemon is running for home {home.path}: start it with {home.start}")
    try:
        port = json.loads(text)[name]
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise NotRunning(
            f"{ports} does not contain the {name} port: stop the daemon if it is running, then start"
            f" it with {home.start}"
        ) from None
    return port


def _only_one(given: Mapping[str, str]) -> None:
    if len(given) > 1:
        names = " and ".join(f"--{name}" for name in sorted(given))
        raise NoAddress(f"{names} cannot be combined: each of them selects a daemon")


def _remote(url: str, environ: Mapping[str, str]) -> Address:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number
        good = False
    if not good or parts.query or parts.fragment or parts.username is not None:
        raise NoAddress(f"--url must look like http://HOST:13580, got {url!r}")
    token = environ.get("MU_TOKEN", "")
    if not token.strip():
        raise NoAddress(
            "--url requires the daemon's token in MU_TOKEN: the content of <home>/token on the"
            " daemon's machine"
        )
    return Address(
        url.rstrip("/"),
        _sendable(token, "MU_TOKEN"),
        f"nothing listens at {url}: is the daemon running there, and does its [control] host allow"
        " connections from this machine?",
        f"the daemon at {url} rejected the token in MU_TOKEN: it must be the content of"
        " <home>/token on the daemon's machine",
    )


def _home(given: Mapping[str, str], environ: Mapping[str, str]) -> Home:
    named = given.get("home") or ("" if "config" in given else environ.get("MU_HOME"))
    if named:
        try:
            home = Path(named).expanduser().absolute()
        except RuntimeError as error:  # ~nobody/.mu
            raise NoAddress(f"there is no home {named}: {error}") from None
        start = f'twistd -n mu --config FILE, where FILE contains "[mu]" and "home = {home}"'
        return Home(Config(mu=MuSection(home)), start, "the defaults")
    config = Path(given["config"]) if "config" in given else next(filter(_exists, CONFIGS), None)
    try:
        read = read_config(config)
    except ConfigError as error:
        raise NoAddress(str(error)) from None
    start = "twistd -n mu" + (f" --config {shlex.quote(str(config))}" if config else "")
    return Home(read, start, str(config) if config else "the defaults")


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _reachable(host: str) -> str:
    """Return the address at which this machine can reach a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _at_home(home: Home) -> Address:
    ports, port = home.path / "ports.json", find_port(home, "control")
    token = home.path / "token"
    secret = _read(token, home)
    if secret is None:
        raise NoAddress(
            f"{token} is missing, although {ports.name} exists: restart the daemon, which creates the"
            f" token, with {home.start}"
        )
    return Address(
        f"http://{_reachable(home.config.control.host)}:{port}",
        _sendable(secret, str(token)),
        f"no daemon is running for home {home.path}, although {ports.name} names port {port}: the"
        " daemon was killed, or is stopping. Its running jobs resume when it is started again,"
        f" with {home.start}",
        f"the server on port {port} rejected the token in {token}: either the token was changed"
        f" after the daemon started (restart it), or {ports.name} is left over from an earlier"
        f" daemon and another program uses the port now. To start the daemon: {home.start}",
    )


def _read(path: Path, home: Home) -> str | None:
    """Return the content of a file in the home, or None if there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise NoAddress(
            f"no permission to read {path}: the daemon's home belongs to {_owner(home.path)}. Run mu"
            " as that user, or select your own daemon with --home or --config, or use --url with"
            " the daemon's token in MU_TOKEN"
        ) from None
    except OSError as error:
        raise NoAddress(f"cannot read {path}: {error.strerror}") from None


def _owner(path: Path) -> str:
    while True:
        try:
            return f"user {path.owner()}"
        except KeyError:
            return f"user {path.stat().st_uid}"
        except OSError:
            if path == path.parent:
                return "another user"
            path = path.parent


def _sendable(text: str, source: str) -> str:
    token = text.removeprefix("\ufeff").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise NoAddress(f"{source} does not contain a token: one line of ASCII letters and digits")
    return token
