"""Serves thousands of connections in one event of the reactor.

Twisted calls each reader with a log context of its own, which takes as long as a tenth of a command
(bench/coordinator.py).
"""

import select
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

AT_ONCE = 256
"""The most connections that are read before the reactor's other events."""


@implementer(IReadDescriptor)
class Hub:
    """An epoll within the reactor's. It is the reactor of the connections that read and write here.

    Both must be here: an event of the reactor's for one of them may otherwise be about a connection that
    the hub has just closed, and whose number another already has.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._readers: dict[int, IReadDescriptor] = {}
        self._writers: dict[int, IWriteDescriptor] = {}
        self._watched: dict[int, int] = {}  # the events of each connection that has any
        self.fileno = self._epoll.fileno

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def serve(self, port: tcp.Port, transport: Callable[..., tcp.Server]) -> None:
        """Have the connections that a port accepts use this transport, and read and write here."""

        def accepted(*args: Any) -> tcp.Server:
            return transport(*args[:-1], self)

        port.transport = cast(type[tcp.Server], accepted)

    # ------------------------------------------------ for the connections

    def addReader(self, reader: IReadDescriptor) -> None:
        self._readers[reader.fileno()] = reader
        self._watch(reader.fileno())

    def removeReader(self, reader: IReadDescriptor) -> None:
        number = reader.fileno()
        if self._readers.get(number) is reader:
            del self._readers[number]
            self._watch(number)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        self._writers[writer.fileno()] = writer
        self._watch(writer.fileno())

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        number = writer.fileno()
        if self._writers.get(number) is writer:
            del self._writers[number]
            self._watch(number)

    def _watch(self, number: int) -> None:
        """Have the epoll tell what the connection of this number now waits for."""
        before = self._watched.get(number, 0)
        events = select.EPOLLIN if number in self._readers else 0
        events |= select.EPOLLOUT if number in self._writers else 0
        if events and not before:
            if not self._watched:
                self._reactor.addReader(self)
            self._epoll.register(number, events)
        elif events and events != before:
            self._epoll.modify(number, events)
        elif before and not events:
            self._epoll.unregister(number)
            del self._watched[number]
            if not self._watched:
                self._reactor.removeReader(self)
        if events:
            self._watched[number] = events

    # ------------------------------------------------ for the reactor

    def logPrefix(self) -> str:
        return "-"

    def doRead(self) -> None:
        """Serve the connections that are ready."""
        readers, writers = self._readers, self._writers
        for number, events in self._epoll.poll(0, AT_ONCE):
            if events != select.EPOLLOUT and (reader := readers.get(number)) is not None:
                self._call(reader, reader.doRead, True)
            # It may have ended by now, or by what one before it did.
            if events != select.EPOLLIN and (writer := writers.get(number)) is not None:
                self._call(writer, writer.doWrite, False)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        open_ones: set[Any] = {*self._readers.values(), *self._writers.values()}
        for one in open_ones:
            self.removeReader(one)
            one.connectionLost(Failure(CONNECTION_LOST))

    def _call(self, one: Any, method: Callable[[], Any], is_read: bool) -> None:
        try:
            why = method()
        except Exception as error:
            self.log.failure("a fault in the protocol of a connection")
            why = error
        if not why:
            return
        self.removeReader(one)
        half = is_read and IHalfCloseableDescriptor.providedBy(one)
        if half and isinstance(why, ConnectionDone):
            one.readConnectionLost(Failure(why))
        else:
            one.connectionLost(Failure(why))
