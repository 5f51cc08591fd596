"""The bare peer: Twisted's listenSSL and mu's framing, which sends each connection its echoes."""

import sys

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate

from mu.net.certificates import Authority
from mu.wire import Framer, frame

ECHO = frame(b"echo:hello from actor 0")
QUIT = frame(b"quit:")


class Echoes(Protocol):
    def connectionMade(self) -> None:
        self.framer = Framer()
        self.left = self.factory.rounds

    def dataReceived(self, data: bytes) -> None:
        for _ in self.framer.feed(data):
            if self.left:
                self.left -= 1
                self.transport.write(ECHO)
            else:
                self.transport.write(QUIT)


def twisted_options(authority: Authority) -> CertificateOptions:
    """Return the options of mu's ports, for Twisted's own TLS: client certificates, little memory."""
    identity = authority.mint_server("127.0.0.1")
    private = PrivateCertificate.loadPEM(identity.certificate + identity.key)
    options = private.options(Certificate.loadPEM(authority.pem))
    options.getContext().set_mode(SSL.MODE_RELEASE_BUFFERS)
    options.getContext().set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return options


def main() -> None:
    """Read the CA's folder and the rounds; print the port, serve until killed."""
    authority = Authority.at_home(__import__("pathlib").Path(sys.argv[1]))
    factory = Factory.forProtocol(Echoes)
    factory.rounds = int(sys.argv[2])  # type: ignore[attr-defined]
    options = twisted_options(authority)
    port = reactor.listenSSL(0, factory, options, interface="127.0.0.1", backlog=4096)  # type: ignore[attr-defined]
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
