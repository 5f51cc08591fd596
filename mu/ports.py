"""The daemon's ports: opened before it detaches, so that errors are shown; named in ports.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSocket,
    IReactorUNIX,
)
from twisted.internet.protocol import ServerFactory

from mu.config import Config, ControlSection, RelaySection, WorkerSection
from mu.home import BACKLOG, WORKER_SOCKET, open_port, try_socket, write_private


class DoorReactor(IReactorSocket, IReactorUNIX):
    """What the ports need from Twisted's reactor."""


class Ports:
    """The worker, control and relay ports; `numbers` has those that listen, and the local engine's."""

    def __init__(
        self, config: Config, last: Mapping[str, int], reactor: DoorReactor, file: Path
    ) -> None:
        """Open the ports. Raises ConfigError.

        `last` has those of the last start, which are used again for an option that is 0.
        """
        self._reactor = reactor
        self._file = file
        self._listening: list[IListeningPort] = []
        self.numbers: dict[str, int] = {}
        sections: dict[str, WorkerSection | ControlSection | RelaySection] = {
            "control": config.control,
        }
        self._socket = config.home / WORKER_SOCKET
        if config.worker.haproxy:
            try_socket(self._socket)
            self.numbers["worker"] = config.worker.port
        else:
            sections["worker"] = config.worker
        if config.relay.enabled:
            sections["relay"] = config.relay
        self._opened = {
            name: open_port(name, section.host, section.port, last.get(name, 0))
            for name, section in sections.items()
        }
        self.withdraw()

    def listen(self, name: str, factory: IProtocolFactory) -> tcp.Port:
        """Begin to accept connections at a port."""
        opened = self._opened.pop(name)
        port = self._reactor.adoptStreamPort(
            opened.fileno(), opened.family, cast(ServerFactory[Any], factory)
        )
        assert isinstance(port, tcp.Port)
        opened.close()  # the reactor has its own copy
        self._listening.append(port)
        self.numbers[name] = port.getHost().port
        return port

    def take_from_haproxy(self, factory: IProtocolFactory) -> tcp.Port:
        """Begin to accept connections that HAProxy hands over, which listens at the worker port."""
        port = self._reactor.listenUNIX(
            str(self._socket), cast(ServerFactory[Any], factory), BACKLOG, 0o600
        )
        assert isinstance(port, tcp.Port)
        self._listening.append(port)
        return port

    def publish(self) -> None:
        """Write ports.json: the daemon is ready."""
        write_private(self._file, json.dumps(self.numbers) + "\n")

    def withdraw(self) -> None:
        """Remove ports.json."""
        self._file.unlink(missing_ok=True)

    def close(self) -> Deferred[Any]:
        return DeferredList([maybeDeferred(port.stopListening) for port in self._listening])
