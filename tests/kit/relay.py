"""The relay for tests: one in memory, a spool in memory, peers on real sockets, a small relay."""

import re
import socket
import ssl
import tempfile
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, connect

from kit.parts import Line, MemoryWorker, Reactor, client_tls
from kit.workers import Peer
from mu.config import RelaySection
from mu.net.certificates import SERVER_NAME, Authority
from mu.relay.effects import Give
from mu.relay.hub import Relay
from mu.relay.parties import Frame
from mu.relay.transport import RelayTLSFactory
from mu.wire import Framer, frame


class Jobs:
    """What the relay knows about jobs: as a test sets it."""

    def __init__(self, keep_s: float = 0.0) -> None:
        self.keep_s = keep_s
        self.kept: dict[str, float] = {}
        self.over: set[str] = set()

    def keeps(self, job):
        return self.kept.get(job, self.keep_s)

    def ended(self, job):
        return job in self.over


class MemorySpool:
    """A spool that syncs when told to, or at once; what it holds outlives the relay it is given to."""

    def __init__(self, prompt=True):
        self.prompt = prompt
        self.names: dict = {}
        self.frames: dict[int, tuple] = {}  # by place: name, number, size, at, body
        self.bodies: dict[int, bytearray] = {}  # of files
        self.pending: list[Any] = []
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
        self.disk = disk or MemorySpool()
        self.relay = Relay(RelaySection(**options), Path(), self.jobs, self.clock, self.disk)
        server = self.authority.server_context(self.authority.mint_server("127.0.0.1"))
        self.tls = RelayTLSFactory(server, self.relay)

    def connect(self, identity, authority=None) -> Line:
        worker = MemoryWorker()
        factory = Factory.forProtocol(lambda: worker)
        options = client_tls(authority or self.authority, identity)
        client = TLSMemoryBIOFactory(options, True, factory, clock=self.clock).buildProtocol(None)
        server = self.tls.buildProtocol(None)
        pump = connect(server, FakeTransport(server, True), client, FakeTransport(client, False))
        line = Line(self.clock, worker, pump)
        line.server = server.wrapped
        return line

    def join(self, me, partner, *frames, job="j1", uniq="u", settle=True) -> Line:
        """Connect a peer that says its hello, and the frames with it."""
        line = self.connect(self.authority.mint_job(job, 600))
        line.say(b"HELLO_STATE:%s:%d:%d" % (uniq.encode(), me, partner), *frames)
        if settle and not frames:
            line.let_pass(1)
        return line


def join_relay(port, authority, *frames, job="j1", timeout=120.0) -> Peer:
    """Return a peer on a real socket, which has said these frames."""
    identity = authority.mint_job(job, 600)
    context = ssl.create_default_context(cadata=authority.pem)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(identity.certificate + identity.key)
        file.flush()
        context.load_cert_chain(file.name)
    plain = socket.create_connection(("127.0.0.1", port), timeout)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = Peer(context.wrap_socket(plain, server_hostname=SERVER_NAME), 2**40)
    peer.sock.settimeout(timeout)
    peer.say(*frames)
    return peer


LIMIT = 2**28


class _End:
    """One connection, in a thread of its own."""

    def __init__(self, relay: "SmallRelay", sock: socket.socket) -> None:
        self.relay, self.sock = relay, sock
        self.name = ""
        self.extended = self.ready = False
        self.next_in = self.next_out = 0  # frames of the name's taken and given on this connection
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        framer = Framer(LIMIT)
        with suppress(OSError), self.sock:
            while received := self.sock.recv(65536):
                for payload in framer.feed(received):
                    with self.relay.lock:
                        self.take(payload)

    def take(self, payload: bytes) -> None:
        relay = self.relay
        if not self.name:
            _, uniq, me, partner = payload.decode().split(":")
            self.name, self.partner = f"{uniq}_{me}", f"{uniq}_{partner}"
            relay.said.append(payload)
            if relay.extended:
                return
            self.ready, self.next_out = True, relay.given[self.name]
            relay.ends[self.name] = self
            relay.deliver(self.name)
        elif not self.ready:
            attempt, sent, received = map(
                int, re.fullmatch(rb"AT:(\d+):(\d+):(\d+)", payload).groups()
            )
            relay.said.append(payload)
            if attempt < relay.attempts[self.name]:
                self.sock.close()
                return
            relay.attempts[self.name] = attempt
            count = len(relay.sent[self.name])
            self.next_in, self.next_out = min(sent, count), received
            self.ready = self.extended = True
            if (older := relay.ends.get(self.name)) is not None:
                older.sock.close()
            relay.ends[self.name] = self
            self.sock.sendall(frame(b"AT:%d" % count))
            relay.deliver(self.name)
        else:
            self.next_in += 1
            held = relay.sent[self.name]
            if not self.extended or self.next_in > len(held):
                held.append(payload)
                relay.inbox[self.partner].append(payload)
            if self.extended:
                self.sock.sendall(frame(b"AT:%d" % len(held)))
            relay.deliver(self.partner)


class SmallRelay:
    """Listens on `port`. `said` has hellos and ATs, `sent` each name's frames."""

    def __init__(self, extended: bool = True) -> None:
        self.extended = extended
        self.lock = threading.Lock()
        self.said: list[bytes] = []
        self.sent: dict[str, list[bytes]] = defaultdict(list)
        self.inbox: dict[str, list[bytes]] = defaultdict(list)
        self.given: dict[str, int] = defaultdict(int)  # to plain peers, once and never again
        self.attempts: dict[str, int] = defaultdict(int)
        self.ends: dict[str, Any] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def deliver(self, name: str) -> None:
        end = self.ends.get(name)
        if end is None:
            return
        with suppress(OSError):
            for payload in self.inbox[name][end.next_out :]:
                end.sock.sendall(frame(b"F:" + payload if end.extended else payload))
                end.next_out = self.given[name] = end.next_out + 1

    def cut(self) -> None:
        """Lose all connections."""
        with self.lock:
            for end in self.ends.values():
                with suppress(OSError):
                    end.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # ends accept in its thread
        self.listener.close()
        self.cut()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                _End(self, self.listener.accept()[0])
