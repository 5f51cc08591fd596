"""Parts for tests of the relay: one in memory, a disk of lists, peers on real sockets."""

import socket
import ssl
from pathlib import Path
from types import SimpleNamespace

from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, connect

from kit.parts import Line, MemoryWorker, Reactor, client_tls
from mu.config import RelaySection
from mu.net.certificates import SERVER_NAME, Authority
from mu.relay.effects import Give
from mu.relay.hub import Relay
from mu.relay.parties import Frame
from mu.relay.transport import RelayTLSFactory
from mu.wire import Framer, frame


class Jobs:
    """What the relay knows about jobs: as a test sets it."""

    def __init__(self) -> None:
        self.kept: dict[str, float] = {}
        self.over: set[str] = set()

    def keeps(self, job):
        return self.kept.get(job, 0.0)

    def ended(self, job):
        return job in self.over


class Disk:
    """A spool that syncs when told to, or at once; what it holds outlives the relay it is given to."""

    def __init__(self, prompt=True):
        self.prompt = prompt
        self.names: dict = {}
        self.frames: dict[int, tuple] = {}  # by place: name, number, size, at, body
        self.bodies: dict[int, bytearray] = {}  # of files
        self.pending: list = []
        self.next = 0
        self.most = 0

    def __call__(self, folder, clock, stored, gave, failed):
        self.clock, self.stored, self.gave, self.failed = clock, stored, gave, failed
        self.pending.clear()
        for place, (name, number, *_) in list(self.frames.items()):
            if number <= self.names[name][2]:
                del self.frames[place]
        self.kept = SimpleNamespace(
            names=[(name, *counts) for name, counts in self.names.items()],
            frames=sorted(
                (name, number, size, at, place)
                for place, (name, number, size, at, _) in self.frames.items()
            ),
        )
        return self

    def _later(self, one):
        self.pending.append(one)
        if self.prompt and len(self.pending) == 1:
            self.clock.callLater(0, self.sync)

    def store(self, whole):
        if whole.place is None:
            whole.place = self._place()
        self._later(whole)

    def give(self, effect):
        self._later(effect)

    def forget(self, effect):
        self.names.pop(effect.name, None)

    def drop(self, whole):
        if whole in self.pending:
            self.pending.append(whole.place)
        elif whole.place is not None:
            self.frames.pop(whole.place, None)
            self.bodies.pop(whole.place, None)

    def sync(self):
        group, self.pending = self.pending, []
        for one in group:
            match one:
                case Frame():
                    body = self.bodies[one.place] if one.file else b"".join(one.body)
                    self.frames[one.place] = (one.name, one.number, one.size, one.at, bytes(body))
                    self._count(one.name, 0, one.number)
                    if one.sender is not None:
                        self._count(one.sender.name, one.sender_number, 0)
                case Give(name=name, number=number):
                    self._count(name, 0, 0)
                    self.names[name][2] = number
                case int():
                    self.frames.pop(one, None)
        self.stored([one for one in group if isinstance(one, Frame)])
        for one in group:
            if isinstance(one, Give):
                self.gave(one.name)

    def _count(self, name, held, count):
        counts = self.names.setdefault(name, [0, 0, 0])
        counts[0], counts[1] = max(counts[0], held), max(counts[1], count)

    def append(self, coming, part):
        if coming.place is None:
            coming.place = self._place()
            self.bodies[coming.place] = bytearray()
        self.bodies[coming.place] += part

    def is_behind(self, coming, call):
        return False

    def read(self, whole, offset, length, tell):
        body = self.bodies.get(whole.place) or self.frames[whole.place][4]
        self.clock.callLater(0, tell, bytes(body[offset : offset + length]))

    def close(self):
        self.sync()

    def _place(self):
        self.next += 1
        return self.next


class MemoryRelay:
    """A relay port in memory; `join` connects peers to it over real TLS."""

    def __init__(self, disk=None, jobs=None, authority=None, clock=None, **options):
        self.clock = clock or Reactor()
        self.authority = authority or Authority.new()
        self.jobs = jobs or Jobs()
        self.disk = disk or Disk()
        self.relay = Relay(RelaySection(**options), Path(), self.jobs, self.clock, self.disk)
        server = self.authority.server_options(self.authority.mint_server("127.0.0.1"))
        self.tls = RelayTLSFactory(server, False, self.relay, clock=self.clock)

    def connect(self, identity, authority=None) -> Line:
        worker = MemoryWorker()
        factory = Factory.forProtocol(lambda: worker)
        options = client_tls(authority or self.authority, identity)
        client = TLSMemoryBIOFactory(options, True, factory, clock=self.clock).buildProtocol(None)
        server = self.tls.buildProtocol(None)
        pump = connect(server, FakeTransport(server, True), client, FakeTransport(client, False))
        line = Line(self.clock, worker, pump)
        line.server = server.wrappedProtocol
        return line

    def join(self, me, partner, *frames, job="j1", uniq="u", settle=True) -> Line:
        """Connect a peer that says its hello, and the frames with it."""
        line = self.connect(self.authority.mint_job(job, 600))
        line.say(b"HELLO_STATE:%s:%d:%d" % (uniq.encode(), me, partner), *frames)
        if settle and not frames:
            line.let_pass(1)
        return line


class Peer:
    """A peer on a real socket that blocks."""

    def __init__(self, port, authority, *frames, job="j1", timeout=10.0):
        identity = authority.mint_job(job, 600)
        context = ssl.create_default_context(cadata=authority.pem)
        import tempfile

        with tempfile.NamedTemporaryFile("w") as file:
            file.write(identity.certificate + identity.key)
            file.flush()
            context.load_cert_chain(file.name)
        plain = socket.create_connection(("127.0.0.1", port), timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = context.wrap_socket(plain, server_hostname=SERVER_NAME)
        self._framer = Framer(2**40)
        self._heard: list[bytes] = []
        self.say(*frames)

    def say(self, *frames):
        self.sock.sendall(b"".join(map(frame, frames)))

    def hear(self) -> bytes:
        """Return the next frame; raise EOFError at the end, TimeoutError if none comes."""
        while not self._heard:
            received = self.sock.recv(2**20)
            if not received:
                raise EOFError
            self._heard += self._framer.feed(received)
        return self._heard.pop(0)

    def close(self):
        self.sock.close()
