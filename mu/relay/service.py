"""The relay on a separate machine: `twistd -n mu-relay --config FILE`."""

import json
from pathlib import Path
from typing import Protocol, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python import usage

from mu.clock import keep_steady
from mu.config import Config, ConfigError, read_config
from mu.home import allow_many_files, lock, open_port, write_private
from mu.net.certificates import Authority, Identity, server_context
from mu.relay.hub import Relay, RelayReactor
from mu.relay.spool import SpoolError
from mu.relay.transport import RelayServer, RelayTLSFactory
from mu.signals import LogFiles, SignalReactor, Signals, ignore_hang_up

FILES = "ca.pem", "relay.pem", "relay.key"


class RelayOptions(usage.Options):
    """The options of `twistd mu-relay`."""

    longdesc = (
        "Runs mu's relay on a separate machine. Its home folder must contain ca.pem, relay.pem"
        " and relay.key, which --export creates on the coordinator's machine."
    )
    optParameters = (
        ("config", "c", None, "the configuration file; see etc/mu.conf, [mu] home and [relay]"),
        ("export", None, None, "write the three files to this folder and exit; needs the CA"),
        ("host", None, None, "with --export: the name or address by which workers reach the relay"),
    )

    def postOptions(self) -> None:
        if self["export"] is None:
            return
        if not self["host"]:
            raise usage.UsageError("--export needs --host")
        home = read_config(_path(self["config"])).home
        if not (home / "ca.key").exists():
            raise usage.UsageError(f"{home} has no CA: --export needs the coordinator's home")
        folder = Path(self["export"])
        try:
            Authority.at_home(home).export_relay(folder, self["host"])
        except (OSError, ValueError) as error:
            raise usage.UsageError(f"--export {folder} --host {self['host']}: {error}") from None
        print(f"mu-relay: wrote {', '.join(FILES)} to {folder}; keep relay.key private")
        raise SystemExit(0)


Options = RelayOptions  # the name by which twistd finds them


class AnyJob:
    """Treats all jobs alike, since this relay does not know which jobs exist."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s

    def keeps(self, job: str) -> float:
        return self._keep_s

    def ended(self, job: str) -> bool:
        return False


class PortReactor(RelayReactor, SignalReactor, Protocol):
    """What the service needs from the reactor."""

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> Port: ...


class RelayService(Service):
    """The relay's port and its folder."""

    log = Logger()

    def __init__(self, config: Config, reactor: PortReactor) -> None:
        """Raises ConfigError."""
        options, home = config.relay, config.home
        allow_many_files()
        try:
            self._lock = lock(home)
        except OSError as error:
            raise ConfigError(f"[mu] home = {home}: cannot be used: {error}") from None
        try:
            authority, certificate, key = ((home / name).read_text("ascii") for name in FILES)
            tls = server_context(Identity(certificate, key), authority)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"[mu] home = {home}: must contain {', '.join(FILES)} (see --export): {error}"
            ) from None
        self._ports_file = home / "ports.json"
        self._reactor = reactor
        opened = open_port("relay", options.host, options.port)
        try:
            self._relay = Relay(options, home / "relay", AnyJob(options.relay_keep_s), reactor)
        except SpoolError as error:
            raise ConfigError(str(error)) from None
        factory = RelayTLSFactory(tls, self._relay)
        self._port = reactor.adoptStreamPort(opened.fileno(), opened.family, factory)
        self._port.transport = RelayServer
        number = opened.getsockname()[1]
        opened.close()  # the reactor has its own copy
        write_private(self._ports_file, json.dumps({"relay": number}) + "\n")
        self.log.info("the relay is ready: port {port}", port=number)

    def startService(self) -> None:
        super().startService()
        self._log_files = LogFiles()
        signals = Signals(self._reactor, self._reload)
        self._reactor.callWhenRunning(signals.install)

    def _reload(self) -> None:
        """Do what SIGHUP asks for."""
        try:
            files = ", ".join(self._log_files.reopen()) or "none"
            self.log.info("received SIGHUP; log files reopened: {files}", files=files)
        except OSError as error:
            self.log.error("a log file cannot be reopened: {error}", error=error)
        self.log.info("not reloaded: the configuration and the certificates need a restart")

    def stopService(self) -> Deferred[list[tuple[bool, None]]]:
        super().stopService()
        self._ports_file.unlink(missing_ok=True)
        ports: Deferred[None] = maybeDeferred(self._port.stopListening)
        return DeferredList([ports, self._relay.stop()])


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def makeService(options: RelayOptions, reactor: PortReactor | None = None) -> RelayService:
    """Return the service. Raises SystemExit with a one-line message for a bad configuration."""
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = cast(PortReactor, installed)
        keep_steady(cast(IReactorTime, installed))
    ignore_hang_up()
    try:
        return RelayService(read_config(_path(options["config"])), reactor)
    except ConfigError as error:
        raise SystemExit(f"mu-relay: {error}") from None
