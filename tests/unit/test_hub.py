"""The hub that serves many connections in one event of the reactor."""

import select
import socket

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import capturedLogs
from zope.interface import implementer

from mu.net.hub import AT_ONCE, Hub


class Reactor:
    """What a hub asks of the reactor."""

    def __init__(self):
        self.readers = []

    def addReader(self, reader):
        assert reader not in self.readers
        self.readers.append(reader)

    def removeReader(self, reader):
        self.readers.remove(reader)

    def callLater(self, *what):
        return what

    def turn(self):
        """Let each reader that is ready read; return how many were."""
        ready, _, _ = select.select(self.readers, [], [], 0)
        for reader in ready:
            reader.doRead()
        return len(ready)


class Line:
    """A connection, which keeps what happens to it. `reacts` is called when it reads."""

    def __init__(self, hub, reacts=lambda: None):
        self.peer, self.sock = socket.socketpair()
        self.events = []
        self.reacts = reacts
        self.hub = hub
        hub.addReader(self)

    def fileno(self):
        return self.sock.fileno()

    def doRead(self):
        data = self.sock.recv(100)
        self.events.append(data)
        return self.reacts() if data else CONNECTION_DONE

    def doWrite(self):
        try:
            self.sock.send(b"y")
        except OSError:
            return CONNECTION_LOST
        self.events.append("wrote")
        self.hub.removeWriter(self)
        return None

    def connectionLost(self, reason):
        self.hub.removeReader(self)
        self.hub.removeWriter(self)
        self.events.append(reason.value)
        self.sock.close()


@implementer(IHalfCloseableDescriptor)
class HalfLine(Line):
    def readConnectionLost(self, reason):
        self.events.append("no more to read")


@pytest.fixture
def reactor():
    return Reactor()


@pytest.fixture
def hub(reactor):
    return Hub(reactor)


def test_each_connection_that_is_ready_reads_in_one_turn_of_the_reactor(reactor, hub):
    lines = [Line(hub) for _ in range(3)]
    assert reactor.turn() == 0
    lines[0].peer.send(b"a")
    lines[2].peer.send(b"c")
    assert reactor.turn() == 1
    assert [line.events for line in lines] == [[b"a"], [], [b"c"]]
    assert reactor.turn() == 0


def test_more_than_may_read_at_once_read_in_the_next_turn(reactor, hub):
    lines = [Line(hub) for _ in range(AT_ONCE + 5)]
    for line in lines:
        line.peer.send(b"x")
    reactor.turn()
    assert sum(len(line.events) for line in lines) == AT_ONCE
    reactor.turn()
    assert all(line.events == [b"x"] for line in lines)


def test_a_paused_connection_is_left_alone_until_it_reads_again(reactor, hub):
    line = Line(hub)
    hub.addReader(line)  # as often as one likes
    hub.removeReader(line)
    hub.removeReader(line)
    line.peer.send(b"x")
    assert reactor.readers == []
    hub.addReader(line)
    reactor.turn()
    assert line.events == [b"x"]


def test_a_connection_that_another_has_closed_in_the_same_turn_does_not_read(reactor, hub):
    def close_other():
        other = lines[lines[0].events == [b"x"]]
        hub.removeReader(other)
        other.sock.close()

    lines = [Line(hub, close_other), Line(hub, close_other)]
    for line in lines:
        line.peer.send(b"x")
    reactor.turn()
    assert sorted(line.events for line in lines) == [[], [b"x"]]


def test_a_connection_writes_when_it_can_whether_or_not_it_reads(reactor, hub):
    line, paused = Line(hub), Line(hub)
    hub.removeReader(paused)
    for one in (line, paused):
        hub.addWriter(one)
        hub.addWriter(one)
    line.peer.send(b"x")
    reactor.turn()
    assert (line.events, paused.events) == ([b"x", "wrote"], ["wrote"])
    assert line.peer.recv(9) == paused.peer.recv(9) == b"y"
    hub.removeReader(line)
    assert reactor.turn() == 0
    assert reactor.readers == []


def test_the_end_of_a_connection_that_reads_and_writes_is_one_event(reactor, hub):
    line, paused = Line(hub), Line(hub)
    hub.removeReader(paused)
    for one in (line, paused):
        hub.addWriter(one)
        one.peer.close()
    reactor.turn()
    assert (line.events, paused.events) == ([b"", CONNECTION_DONE], [CONNECTION_LOST])
    assert reactor.readers == []


def test_the_end_of_a_connection_and_a_fault_in_it_end_only_that_one(reactor, hub):
    done, half, well = Line(hub), HalfLine(hub), Line(hub)
    faulty = Line(hub, lambda: 1 / 0)
    broken = HalfLine(hub, lambda: CONNECTION_LOST)
    done.peer.close()
    half.peer.close()
    for line in (faulty, broken, well):
        line.peer.send(b"x")
    with capturedLogs() as said:
        reactor.turn()
    assert done.events == [b"", CONNECTION_DONE]
    assert half.events == [b"", "no more to read"]
    assert broken.events == [b"x", CONNECTION_LOST]
    assert isinstance(faulty.events[1], ZeroDivisionError)
    assert [event["log_failure"].type for event in said] == [ZeroDivisionError]
    well.peer.send(b"y")
    reactor.turn()
    assert well.events == [b"x", b"y"]


def test_the_reactor_stops_with_all_connections(reactor, hub):
    lines = [Line(hub), HalfLine(hub)]
    reactor.readers[0].connectionLost(None)
    assert [type(line.events[0]) for line in lines] == [ConnectionLost] * 2
    assert reactor.readers == []


def test_everything_else_is_the_reactors(hub):
    assert hub.callLater(1, "x") == (1, "x")
