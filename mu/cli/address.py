"""Where the control port is and what opens it: found in a home folder, or told."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mu.config import Config, ConfigError, MuSection, read_config

CONFIGS = (Path("etc/mu.conf"), Path("/etc/mu.conf"))
"""The configurations that are looked for, the first one first."""


class NoAddress(Exception):
    """What was told cannot be used, or may not be read; the text says what to do."""


class NotRunning(Exception):
    """No daemon is there; the text says how to start one."""


@dataclass(frozen=True, slots=True)
class Address:
    """A control port: http://HOST:PORT, and the token for it."""

    url: str
    token: str
    refused: str
    """What to say where nothing listens at `url`."""
    denied: str
    """What to say where the token is not taken."""


@dataclass(frozen=True, slots=True)
class Home:
    """A daemon's home folder on this machine, whether a daemon runs there or not."""

    config: Config
    start: str
    """The command that starts its daemon."""
    source: str
    """Where `config` comes from, for people."""

    @property
    def path(self) -> Path:
        return self.config.home


def find_address(given: Mapping[str, str], environ: Mapping[str, str]) -> Address:
    """Return the address by one of `url`, `home` and `config` in `given`, else by what is there.

    That is MU_HOME, one of CONFIGS, or ~/.mu. Raises NoAddress and NotRunning.
    """
    _only_one(given)
    if "url" in given:
        return _remote(given["url"], environ)
    return _at_home(_home(given, environ))


def find_config(given: Mapping[str, str], environ: Mapping[str, str]) -> Config:
    """Return the configuration, found in the same way; defaults, if only the home is known.

    Raises NoAddress.
    """
    _only_one(given)
    if "url" in given:
        raise NoAddress(
            "this reads the journal in the daemon's home: run it on the daemon's machine, with"
            " --home or --config"
        )
    return _home(given, environ).config


def find_home(given: Mapping[str, str], environ: Mapping[str, str]) -> Home:
    """Return the home that is meant, found in the same way. Raises NoAddress."""
    _only_one(given)
    if "url" in given:
        raise NoAddress(
            "--url is for jobs: this needs the daemon's home, on its machine, with --home or"
            " --config"
        )
    return _home(given, environ)


def find_port(home: Home, name: str) -> int:
    """Return that port of the daemon that runs there. Raises NoAddress and NotRunning."""
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
            f"{ports} does not say where the {name} port is: stop the daemon if it runs, and"
            f" start it with {home.start}"
        ) from None
    return port


def _only_one(given: Mapping[str, str]) -> None:
    if len(given) > 1:
        names = " and ".join(f"--{name}" for name in sorted(given))
        raise NoAddress(f"{names} exclude one another: each says which daemon is meant")


def _remote(url: str, environ: Mapping[str, str]) -> Address:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        good = False
    if not good or parts.query or parts.fragment or parts.username is not None:
        raise NoAddress(f"--url must be like http://HOST:13580; {url!r} came")
    token = environ.get("MU_TOKEN", "").strip()
    if not token:
        raise NoAddress(
            "--url needs the token of that daemon in MU_TOKEN: it is the content of <home>/token"
            " on the daemon's machine"
        )
    return Address(
        url.rstrip("/"),
        _sendable(token, "MU_TOKEN"),
        f"nothing answers at {url}: is a daemon running there, and does its [control] host let"
        " you in?",
        f"the daemon at {url} does not take the token in MU_TOKEN: it must be the content of"
        " <home>/token on the daemon's machine",
    )


def _home(given: Mapping[str, str], environ: Mapping[str, str]) -> Home:
    told = given.get("home") or ("" if "config" in given else environ.get("MU_HOME"))
    if told:
        home = Path(told).expanduser().absolute()
        conf = f'a file with "[mu]" and "home = {home}" in it'
        start = f"twistd -n mu --config FILE, where FILE is {conf}"
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
    """Return where to connect to what listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _at_home(home: Home) -> Address:
    ports, port = home.path / "ports.json", find_port(home, "control")
    token = home.path / "token"
    secret = _read(token, home)
    if secret is None:
        raise NoAddress(
            f"{token} is not there, though {ports.name} is: start the daemon again, which makes"
            f" the token, with {home.start}"
        )
    return Address(
        f"http://{_reachable(home.config.control.host)}:{port}",
        _sendable(secret.strip(), str(token)),
        f"no daemon is running for home {home.path}, though {ports.name} of an earlier one names"
        f" port {port}: it was killed, or is just stopping. Its running jobs go on once it is"
        f" started again, with {home.start}",
        f"what listens on port {port} does not take the token in {token}: either the token was"
        f" changed after the daemon's start (start the daemon again), or {ports.name} is left"
        f" from an earlier daemon and the port is another's now. To start: {home.start}",
    )


def _read(path: Path, home: Home) -> str | None:
    """Return what a file of the home holds, or None if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise NoAddress(
            f"{path} may not be read by you: the daemon's home belongs to {_owner(home.path)}."
            " Work as that user, or name your own daemon with --home or --config, or get its"
            " token and use --url with MU_TOKEN"
        ) from None
    except OSError as error:
        raise NoAddress(f"{path} cannot be read: {error.strerror}") from None


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


def _sendable(token: str, source: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise NoAddress(f"{source} holds no token: one is a line of ASCII letters and digits")
    return token
