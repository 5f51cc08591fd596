"""Reads from thousands of connections in one event of the reactor.

Twisted calls each reader with a log context of its own, which takes as long as a tenth of a command
(bench/coordinator.py).
"""

import select
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

AT_ONCE = 256
"""The most connections that are read before the reactor's other events."""


@implementer(IReadDescriptor)
class Hub:
    """An epoll within the reactor's. It is the reactor of the connections that read here."""

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._readers: dict[int, IReadDescriptor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def serve(self, port: tcp.Port, transport: Callable[..., tcp.Server]) -> None:
        """Have the connections that a port accepts use this transport, and read here."""

        def accepted(*args: Any) -> tcp.Server:
            return transport(*args[:-1], self)

        port.transport = cast(type[tcp.Server], accepted)

    # ------------------------------------------------ for the connections

    def addReader(self, reader: IReadDescriptor) -> None:
        number = reader.fileno()
        if number not in self._readers:
            if not self._readers:
                self._reactor.addReader(self)
            self._readers[number] = reader
            self._epoll.register(number, select.EPOLLIN)

    def removeReader(self, reader: IReadDescriptor) -> None:
        number = reader.fileno()
        if self._readers.get(number) is reader:
            del self._readers[number]
            self._epoll.unregister(number)
            if not self._readers:
                self._reactor.removeReader(self)

    # ------------------------------------------------ for the reactor

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "-"

    def doRead(self) -> None:
        readers = self._readers
        for number, _ in self._epoll.poll(0, AT_ONCE):
            reader = readers.get(number)
            if reader is None:  # one before it has closed it
                continue
            why: Any  # an exception, whatever the interface says
            try:
                why = reader.doRead()
            except Exception as error:
                self.log.failure("a fault in the protocol of a connection")
                why = error
            if why:
                self._end(reader, why)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        for reader in list(self._readers.values()):
            self._end(reader, CONNECTION_LOST)

    def _end(self, reader: IReadDescriptor, why: Exception) -> None:
        self.removeReader(reader)
        if isinstance(why, ConnectionDone) and IHalfCloseableDescriptor.providedBy(reader):
            reader.readConnectionLost(Failure(why))
        else:
            reader.connectionLost(Failure(why))
