"""The bare relay for bench/relay.py: passes each message to the partner, with Twisted's listenSSL."""

import json
import sys
from pathlib import Path

from bare import twisted_options
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from mu.net.certificates import Authority
from mu.wire import Framer

PEERS: dict[bytes, "Passing"] = {}
LARGE = 64 * 2**10


class Passing(Protocol):
    """Passes small messages whole, large ones as they arrive; a slow partner pauses its sender."""

    partner = None

    def connectionMade(self) -> None:
        self.framer = Framer()
        self.left = 0  # missing bytes of a large message
        self.buffer = b""
        self.sender = None
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        if self.sender:
            self.sender.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self.sender:
            self.sender.transport.resumeProducing()

    def stopProducing(self) -> None:
        pass

    def dataReceived(self, data: bytes) -> None:
        if self.partner is None:
            for hello in self.framer.feed(data):
                _, _, me, self.partner = hello.split(b":")
                PEERS[me] = self
            return
        partner = PEERS[self.partner]
        partner.sender = self
        data = self.buffer + data if self.buffer else data
        start, size = 0, len(data)
        while start < size:
            if self.left:
                part = data[start : start + self.left]
                self.left -= len(part)
                start += len(part)
                partner.transport.write(part)
                continue
            if size - start < 13:
                break
            length = int(data[start : start + 12])
            if length > LARGE:
                self.left = length + 13
            elif size - start < 13 + length:
                break
            else:
                partner.transport.write(data[start : start + 13 + length])
                start += 13 + length
        self.buffer = data[start:]

    def connectionLost(self, reason=None) -> None:
        for name in [name for name, peer in PEERS.items() if peer is self]:
            del PEERS[name]


def main() -> None:
    folder = Path(sys.argv[1])
    authority = Authority.at_home(folder)
    options = twisted_options(authority)
    factory = Factory.forProtocol(Passing)
    port = reactor.listenSSL(0, factory, options, interface="127.0.0.1", backlog=4096)  # type: ignore[attr-defined]
    (folder / "ports.json").write_text(json.dumps({"relay": port.getHost().port}))
    reactor.run()


if __name__ == "__main__":
    main()
