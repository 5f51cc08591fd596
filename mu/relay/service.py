"""The relay alone, on a machine of its own: `twistd -n mu-relay --config FILE`."""

import fcntl
import json
import resource
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from twisted.application.service import Service
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from mu.config import Config, ConfigError, read_config
from mu.home import write_private
from mu.net.certificates import Authority, Identity, server_options
from mu.relay.hub import Relay
from mu.relay.protocol import RelayServer, RelayTLSFactory
from mu.relay.spool import SpoolError

BACKLOG = 4096
FILES = "ca.pem", "relay.pem", "relay.key"


class Options(usage.Options):
    """What `twistd mu-relay` takes."""

    longdesc = (
        "The relay of mu, on a machine of its own. Its home folder must have ca.pem, relay.pem and"
        " relay.key, which --export makes on the coordinator's machine."
    )
    optParameters = (
        ("config", "c", None, "the configuration; see etc/mu.conf, [mu] home and [relay]"),
        ("export", None, None, "write the three files to this folder, and leave: needs the CA"),
        ("host", None, None, "with --export: the name or address at which workers reach it"),
    )

    def postOptions(self) -> None:
        if self["export"] is None:
            return
        if not self["host"]:
            raise usage.UsageError("--export needs --host")
        home = read_config(_path(self["config"])).home
        if not (home / "ca.key").exists():
            raise usage.UsageError(f"{home} has no CA: it is the coordinator's home that is needed")
        folder = Path(self["export"])
        Authority.at_home(home).export_relay(folder, self["host"])
        print(f"mu-relay: {folder} has {', '.join(FILES)}; keep relay.key private")
        raise SystemExit(0)


class AnyJob:
    """A relay alone knows nothing of jobs."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s

    def keeps(self, job: str) -> float:
        return self._keep_s

    def ended(self, job: str) -> bool:
        return False


class RelayService(Service):
    """The port, the switchboard and its folder."""

    log = Logger()

    def __init__(self, config: Config, reactor: Any) -> None:
        """Raises ConfigError."""
        options, home = config.relay, config.home
        _allow_many_files()
        try:
            self._lock = (home / "lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"[mu] home = {home}: another relay or daemon runs there") from None
        except OSError as error:
            raise ConfigError(f"[mu] home = {home}: cannot be used: {error}") from None
        try:
            authority, certificate, key = ((home / name).read_text("ascii") for name in FILES)
            tls = server_options(Identity(certificate, key), authority)
        except (OSError, ValueError, crypto.Error) as error:
            raise ConfigError(
                f"[mu] home = {home}: it must have {', '.join(FILES)} (see --export): {error}"
            ) from None
        self._ports_file = home / "ports.json"
        try:
            self._relay = Relay(options, home / "relay", AnyJob(options.relay_keep_s), reactor)
        except SpoolError as error:
            raise ConfigError(str(error)) from None
        factory = RelayTLSFactory(tls, False, self._relay)
        try:
            self._port = reactor.listenTCP(options.port, factory, BACKLOG, options.host)
        except CannotListenError as error:
            raise ConfigError(f"[relay] port = {options.port}: {error}") from None
        self._port.transport = RelayServer
        write_private(self._ports_file, json.dumps({"relay": self._port.getHost().port}) + "\n")
        self.log.info("the relay is ready: port {port}", port=self._port.getHost().port)

    def stopService(self) -> Any:
        super().stopService()
        self._ports_file.unlink(missing_ok=True)
        return DeferredList([maybeDeferred(self._port.stopListening), self._relay.stop()])


def _allow_many_files() -> None:
    """Each worker is an open file: take as many as the system lets us."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 2**20 if most == resource.RLIM_INFINITY else min(most, 2**20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def makeService(options: Options, reactor: Any = None) -> RelayService:
    """Return the service. Raises SystemExit with one line for a bad configuration."""
    if reactor is None:
        from twisted.internet import reactor
    try:
        return RelayService(read_config(_path(options["config"])), reactor)
    except ConfigError as error:
        raise SystemExit(f"mu-relay: {error}") from None
