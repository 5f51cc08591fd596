"""The worker port's transport: TLS without a buffer of its own, on a TCP that sends at once."""

from typing import Any

from twisted.internet import tcp
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol


class DirectTLSFactory(TLSMemoryBIOFactory):
    """TLS for a factory that may refuse a connection by `has_room(addr)`, before its handshake.

    Unbuffered: a session joins its writes itself.
    """

    protocol = TLSMemoryBIOProtocol
    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        return super().buildProtocol(addr) if self.wrappedFactory.has_room(addr) else None


class PromptServer(tcp.Server):
    """Writes straight to the socket while nothing waits before it.

    Each write spares the reactor two epoll_ctl calls and a pass: about a sixth of the CPU that an
    answer costs (bench/coordinator.py). What the socket does not take waits as usual.
    """

    def write(self, data: bytes) -> None:
        if self.connected and not (self.dataBuffer or self._tempDataBuffer or self.disconnecting):
            written = self.writeSomeData(data)
            if written == len(data):
                return
            if isinstance(written, int):  # else an error, which the reactor meets again
                data = data[written:]
        super().write(data)
