"""The worker port's transport: unbuffered TLS over TCP that sends at once."""

from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol


class DirectTLSFactory(TLSMemoryBIOFactory):
    """TLS for a factory whose `accepts(addr)` may refuse a connection before its handshake.

    It does not buffer: a session joins its writes itself.
    """

    protocol = TLSMemoryBIOProtocol
    noisy = False

    def buildProtocol(
        self, addr: IAddress | None
    ) -> Any:  # None is allowed, but missing in Twisted's type
        return super().buildProtocol(addr) if self.wrappedFactory.accepts(addr) else None


class PromptServer(tcp.Server):
    """Writes directly to the socket while no earlier data is waiting.

    This saves the reactor two epoll_ctl calls and one iteration per write: about a sixth of the CPU
    time of an answer (bench/coordinator.py). Data that the socket does not accept is buffered as
    usual.
    """

    def write(self, data: bytes) -> None:
        if self.connected and not (self.dataBuffer or self._tempDataBuffer or self.disconnecting):
            written = self.writeSomeData(data)
            if written == len(data):
                return
            if isinstance(written, int):  # otherwise an error, which the next write reports
                data = data[written:]
        super().write(data)
