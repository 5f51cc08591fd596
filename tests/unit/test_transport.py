"""The TLS of our ports: the same as Twisted's to those on both sides of it, over any schedule of bytes."""

import random
import ssl
from contextlib import suppress

import pytest
from kit.parts import client_tls
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.net.certificates import SERVER_NAME, Authority, job_named
from mu.net.endings import handshake_error
from mu.net.transport import TLSFactory

AUTHORITY = Authority.new()
DAY_S = 86_400.0
JOB = AUTHORITY.mint_job("j1", DAY_S)
CONTEXT = AUTHORITY.server_context(AUTHORITY.mint_server("127.0.0.1"))


@implementer(IHandshakeListener)
class Said(Protocol):
    """Keeps what happens to it; `on_data` is called with each piece."""

    def __init__(self):
        self.events, self.data, self.on_data = [], b"", lambda data: None

    def connectionMade(self):
        self.events.append("made")

    def handshakeCompleted(self):
        self.events.append("shaken")

    def dataReceived(self, data):
        self.data += data
        self.on_data(data)

    def connectionLost(self, reason=None):
        self.events.append(reason.type)
        self.reason = reason

    def pauseProducing(self):
        self.events.append("pause")

    def resumeProducing(self):
        self.events.append("resume")

    def stopProducing(self):
        self.events.append("stop")


class Only:
    """A factory of one protocol."""

    def __init__(self, protocol, accepts=True):
        self.buildProtocol = lambda addr: protocol
        self.accepts = lambda addr: accepts


class End(StringTransport):
    """One end of TCP: an aborted connection brings nothing more."""

    aborted = False

    def abortConnection(self):
        self.aborted = True
        self.disconnecting = True


class Connection:
    """A Twisted client and our port, with the bytes between them; `step` moves up to so many."""

    def __init__(self, identity=JOB):
        self.client, self.server = Said(), Said()
        options = client_tls(AUTHORITY, identity)
        theirs = TLSMemoryBIOFactory(
            options, True, Factory.forProtocol(lambda: self.client), Clock()
        )
        theirs.protocol = TLSMemoryBIOProtocol  # which sends at once
        self.ends = (
            theirs.buildProtocol(None),
            TLSFactory(CONTEXT, Only(self.server)).buildProtocol(None),
        )
        self.wires = (End(), End())
        self.lost = [False, False]
        self.waiting = [bytearray(), bytearray()]
        for end, wire in zip(self.ends, self.wires, strict=True):
            end.makeConnection(wire)

    def step(self, number, most=2**20):
        """Carry bytes from end `number` (0: the client) to the other; return whether any moved."""
        wire, waiting = self.wires[number], self.waiting[number]
        waiting += wire.value()
        wire.clear()
        if self.lost[1 - number]:
            return False
        if not waiting and (wire.disconnecting or self.lost[number]):
            self.lose(1 - number, ConnectionLost() if wire.aborted else ConnectionDone())
            return True
        part = bytes(waiting[:most])
        del waiting[:most]
        if part and not (number == 0 and self.wires[1].producerState == "paused"):
            self.ends[1 - number].dataReceived(part)
        elif part:
            waiting[:0] = part  # the server reads nothing more
            return False
        return bool(part)

    def lose(self, number, error):
        if not self.lost[number]:
            self.lost[number] = True
            self.ends[number].connectionLost(Failure(error))

    def settle(self):
        while self.step(0) | self.step(1):
            pass
        for number in (0, 1):
            if self.wires[number].disconnecting:
                self.lose(number, ConnectionDone())
        while self.step(0) | self.step(1):
            pass

    @classmethod
    def shaken(cls):
        connection = cls()
        connection.settle()
        assert connection.server.events == ["made", "shaken"]
        return connection


@pytest.mark.parametrize("seed", range(40))
def test_all_bytes_arrive_in_any_pieces_with_any_pauses(seed):
    chance = random.Random(seed)
    connection = Connection()
    client, server = connection.client, connection.server
    ours, theirs = connection.ends[1], connection.ends[0]
    sent, answered = b"", b""

    def pause(data):
        if chance.random() < 0.3:
            ours.pauseProducing()
            if chance.random() < 0.3:
                ours.resumeProducing()  # while it is called

    server.on_data = pause
    for _ in range(120):
        size = chance.choice((0, 1, 13, 500, 16384, 16385, 70000))
        what = chance.randrange(6)
        if what == 0:
            sent += (data := chance.randbytes(size))
            theirs.write(data)
        elif what == 1:
            answered += (data := chance.randbytes(size))
            ours.write(data)
        elif what == 2 and ours.transport.producerState == "paused":
            before = server.data
            ours.dataReceived(b"")
            assert server.data == before  # paused: nothing is handed on
            ours.resumeProducing()
        else:
            connection.step(what % 2, chance.choice((1, 5, 100, 5000, 2**20)))
    server.on_data = lambda data: None
    ours.resumeProducing()
    connection.settle()
    assert server.data == sent
    assert client.data == answered
    ours.loseConnection()
    connection.settle()
    assert server.events == ["made", "shaken", ConnectionDone]
    assert client.events == ["made", "shaken", ConnectionDone]


def test_what_is_written_before_the_handshake_is_sent_after_it():
    connection = Connection()
    connection.ends[1].write(b"early ")
    connection.ends[1].writeSequence([b"and ", b"late"])
    connection.settle()
    assert connection.client.data == b"early and late"


def test_a_pause_keeps_what_has_arrived_until_it_ends():
    connection = Connection.shaken()
    server, ours = connection.server, connection.ends[1]
    server.on_data = lambda data: ours.pauseProducing()
    connection.ends[0].write(b"x" * 40000)  # three records
    connection.step(0)
    assert len(server.data) == 16384
    ours.resumeProducing()
    assert len(server.data) == 32768
    ours.resumeProducing()
    assert len(server.data) == 40000
    assert ours.transport.producerState == "paused"
    server.on_data = lambda data: None
    ours.resumeProducing()
    assert ours.transport.producerState == "producing"


def test_the_peers_goodbye_ends_the_connection_and_is_answered():
    connection = Connection.shaken()
    connection.ends[0].write(b"the last")
    connection.ends[0].loseConnection()
    connection.settle()
    assert connection.server.data == b"the last"
    assert connection.server.events[-1] is ConnectionDone
    assert connection.client.events[-1] is ConnectionDone


def test_an_end_without_goodbye_is_a_broken_connection():
    connection = Connection.shaken()
    connection.lose(1, ConnectionDone())
    assert connection.server.events[-1] is ConnectionLost


def test_closing_waits_for_the_producer():
    connection = Connection.shaken()
    ours = connection.ends[1]
    ours.registerProducer(connection.server, True)
    ours.loseConnection()
    ours.write(b"still ")
    connection.settle()
    assert connection.client.events == ["made", "shaken"]
    ours.write(b"there")
    ours.unregisterProducer()
    ours.write(b"too late")
    connection.settle()
    assert connection.client.data == b"still there"
    assert connection.client.events[-1] is ConnectionDone


def test_a_full_socket_pauses_the_producer():
    connection = Connection.shaken()
    connection.ends[1].registerProducer(connection.server, True)
    connection.wires[1].producer.pauseProducing()
    assert connection.server.events[-1] == "pause"


def test_a_producer_that_comes_after_the_end_is_stopped():
    connection = Connection.shaken()
    connection.ends[0].loseConnection()
    connection.settle()
    connection.ends[1].registerProducer(connection.server, True)
    assert connection.server.events[-1] == "stop"


def test_an_aborted_connection_hands_on_nothing_more():
    connection = Connection.shaken()
    connection.ends[0].write(b"x" * 40000)
    connection.server.on_data = lambda data: connection.ends[1].abortConnection()
    connection.step(0)
    assert connection.wires[1].aborted
    connection.lose(1, ConnectionAborted())
    assert len(connection.server.data) == 16384
    assert connection.server.events[-1] is ConnectionAborted


def test_closing_before_the_handshake_aborts():
    connection = Connection()
    connection.ends[1].loseConnection()
    assert connection.wires[1].aborted


def test_a_refused_address_gets_no_protocol():
    assert TLSFactory(CONTEXT, Only(Said(), accepts=False)).buildProtocol(None) is None


def test_the_certificate_names_the_job():
    assert job_named(Connection.shaken().ends[1].peer_certificate) == "j1"


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        (None, "TLS: peer did not return a certificate"),
        (Authority.new().mint_job("j1", DAY_S), "TLS: certificate verify failed: "),
        (AUTHORITY.mint_server("127.0.0.1"), "TLS: certificate verify failed: "),
        (
            AUTHORITY.mint_job("j1", -600),
            "TLS: certificate verify failed: certificate has expired",
        ),
    ],
    ids=["none", "of another CA", "of a server", "expired"],
)
def test_a_client_without_a_valid_certificate_is_told_and_not_let_in(identity, why):
    connection = Connection(identity)
    connection.ends[0].write(b"let me in")
    connection.settle()
    assert "shaken" not in connection.server.events
    assert connection.server.data == b""
    assert handshake_error(connection.server.reason).startswith(why)
    assert "alert" in str(connection.client.reason.value) or "certificate" in str(
        connection.client.reason.value
    )


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 300]
)
def test_noise_ends_the_connection_and_nothing_else(noise):
    connection = Connection()
    connection.ends[1].dataReceived(noise)
    connection.ends[1].dataReceived(noise)
    assert connection.wires[1].disconnecting
    connection.lose(1, ConnectionDone())
    assert handshake_error(connection.server.reason).startswith("TLS: ")


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_byte_breaks_the_connection(seed):
    chance = random.Random(seed)
    connection = Connection.shaken()
    connection.ends[0].write(b"x" * 20000)
    wire = connection.wires[0]
    data = bytearray(wire.value())
    wire.clear()
    data[chance.randrange(5, len(data))] ^= 1 << chance.randrange(8)
    connection.ends[1].dataReceived(bytes(data))
    connection.settle()
    assert connection.server.reason.check(ssl.SSLError)
    assert connection.server.data in (b"", b"x" * 16384)


class Client:
    """The standard library's TLS, for what Twisted's does not do."""

    def __init__(self, tmp_path, version):
        (tmp_path / "job.pem").write_text(JOB.certificate + JOB.key)
        self.context = ssl.create_default_context(cadata=AUTHORITY.pem)
        self.context.load_cert_chain(tmp_path / "job.pem")
        self.context.maximum_version = version

    def connect(self, session=None):
        self.server = Said()
        self.end, self.wire = TLSFactory(CONTEXT, Only(self.server)).buildProtocol(None), End()
        self.end.makeConnection(self.wire)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(
            self.incoming, self.outgoing, server_hostname=SERVER_NAME, session=session
        )
        for _ in range(3):
            self.exchange(self.tls.do_handshake)

    def exchange(self, call):
        with suppress(ssl.SSLWantReadError):
            call()
        self.end.dataReceived(self.outgoing.read())
        self.incoming.write(self.wire.value())
        self.wire.clear()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(tmp_path, version):
    client = Client(tmp_path, version)
    client.connect()
    session = client.tls.session
    client.exchange(client.tls.unwrap)
    client.end.connectionLost(Failure(ConnectionDone()))
    client.connect(session)
    if version == ssl.TLSVersion.TLSv1_2:
        assert client.wire.aborted
        client.end.connectionLost(Failure(ConnectionAborted()))
        assert client.server.events == ["made", client.server.reason.type]
        assert handshake_error(client.server.reason) == "TLS: it resumed a session"
    else:
        assert not client.tls.session_reused
        assert client.server.events == ["made", "shaken"]
