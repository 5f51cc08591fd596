"""What the bytes of a relay connection say: properties that hold for any bytes, in any chunks."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kit.parts import Reactor
from kit.relay import Jobs, MemorySpool

from mu.config import RelaySection
from mu.relay.framing import HelloState, end_of_frames, read_at, read_hello, read_length
from mu.relay.hub import Relay
from mu.wire import HEADER_BYTES, FrameError, Framer, frame

LIMIT = 2**20
UNIQ = st.text(
    st.characters(codec="utf-8", exclude_characters=":", exclude_categories=["Cc"]), min_size=1
).filter(lambda text: len(text.encode()) <= 200)
NUMBER = st.integers(-(10**18) + 1, 10**18 - 1)
PAYLOAD = st.binary(max_size=30) | st.sampled_from([65_536, 65_537, 300_000]).map(bytes)


@given(st.lists(PAYLOAD, max_size=6), st.data())
def test_the_end_of_the_complete_frames_is_where_the_framer_sees_it(payloads, data):
    stream = b"".join(map(frame, payloads))
    buffer = stream[: data.draw(st.integers(0, len(stream)))]
    end, count = end_of_frames(buffer, LIMIT)
    complete = list(Framer(LIMIT).feed(buffer[:end]))
    assert count == len(complete)
    assert complete == payloads[: len(complete)]
    rest = buffer[end:]
    length = read_length(rest, LIMIT)
    if length is None:
        assert len(rest) < HEADER_BYTES
    else:
        assert length == len(payloads[len(complete)])
        assert length > 65_536 or len(rest) < HEADER_BYTES + length


@given(st.binary(max_size=20) | st.from_regex(rb"[0-9]{11,13}.{0,3}", fullmatch=True))
@example(b"00000000001x ")
@example(b"0000000000010x")
def test_a_header_is_refused_exactly_when_the_framer_refuses_it(buffer):
    framer, refused = Framer(LIMIT), False
    try:
        list(framer.feed(buffer[:HEADER_BYTES]))
    except FrameError:
        refused = True
    if refused:
        with pytest.raises(FrameError):
            read_length(buffer, LIMIT)
        assert end_of_frames(buffer, LIMIT) == (0, 0)
    else:
        length = read_length(buffer, LIMIT)
        assert length is None or b"%012d " % length == buffer[:HEADER_BYTES]


@given(UNIQ, NUMBER, NUMBER, st.integers(0, 18), st.integers(0, 18))
def test_a_hello_names_the_same_numbers_however_they_are_padded(uniq, me, partner, wide, wider):
    digits = f"{'-' if me < 0 else ''}{abs(me):0{wide}}:{'-' if partner < 0 else ''}{abs(partner):0{wider}}"
    hello = read_hello(f"HELLO_STATE:{uniq}:{digits}".encode())
    assert hello == HelloState(uniq, str(me), str(partner))


@given(st.binary(max_size=60) | st.from_regex(rb"HELLO_STATE:.*", fullmatch=True))
def test_a_hello_is_read_or_refused_and_no_two_names_become_one(payload):
    try:
        hello = read_hello(payload)
    except FrameError:
        return
    again = f"HELLO_STATE:{hello.uniq}:{hello.me}:{hello.partner}".encode()
    assert read_hello(again) == hello
    assert ":" not in hello.uniq
    assert (int(hello.me), int(hello.partner)) == tuple(map(int, payload.rsplit(b":", 2)[1:]))


@given(st.tuples(*[st.integers(0, 10**18 - 1)] * 3), st.binary(max_size=5), st.binary(max_size=5))
def test_at_is_read_in_its_place_only(counts, before, after):
    said = b"AT:%d:%d:%d" % counts
    buffer = before + said + after
    start, end = len(before), len(before) + len(said)
    assert read_at(buffer, start, end) == counts
    assert read_at(buffer, start + 1, end) is None
    if after[:1] not in tuple(b"%d" % n for n in range(10)):
        assert read_at(buffer, start, end + 1) is None or not after


# ---------------------------------------------------------------- a whole connection


class Wire:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = b""
        self.open = True

    def getPeer(self):
        return SimpleNamespace(host="h", port=1)

    def getPeerCertificate(self):
        return None

    def registerProducer(self, producer, streaming):
        pass

    def pauseProducing(self):
        pass

    resumeProducing = pauseProducing

    def write(self, data):
        assert self.open
        self.written += data

    def abortConnection(self):
        self.open = False


def plug_in(relay):
    """Connect a peer of job j1 without TLS."""
    protocol = relay.buildProtocol(None)
    protocol._job = "j1"
    protocol.makeConnection(Wire())
    return protocol


def receive(protocol, stream, cuts):
    """Give a connection these bytes in chunks; return False if it was closed."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        protocol.dataReceived(stream[start:end])
        protocol.work()
    return protocol.transport.open


@given(
    st.lists(PAYLOAD, max_size=8).filter(lambda all: not (all and read_at(all[0], 0, len(all[0])))),
    st.lists(st.integers(0, 10**6), max_size=12),
    st.booleans(),
)
def test_frames_arrive_as_they_were_in_whatever_chunks_they_came(payloads, cuts, early):
    clock = Reactor()
    relay = Relay(RelaySection(), Path(), Jobs(), clock, MemorySpool())
    stream = b"".join(map(frame, [b"HELLO_STATE:u:1:2", *payloads]))
    receiver = plug_in(relay)
    if early:
        receive(receiver, frame(b"HELLO_STATE:u:2:1"), [])
        clock.advance(1)
    assert receive(plug_in(relay), stream, cuts)
    if not early:
        receive(receiver, frame(b"HELLO_STATE:u:2:1"), [])
    for _ in range(10):
        clock.advance(0.2)
    assert list(Framer(LIMIT).feed(receiver.transport.written)) == payloads
    assert (relay._board.mailboxes.total, relay._board.mailboxes.memory) == (0, 0)


@given(
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from([b"HELLO_STATE:u:1:2", b"AT:1:0:0", b"AT:2:9:0", b"x"]).map(frame),
        max_size=8,
    ).map(b"".join),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_whatever_a_connection_says_ends_at_most_itself(stream, cuts):
    clock = Reactor()
    relay = Relay(RelaySection(), Path(), Jobs(), clock, MemorySpool())
    others = [plug_in(relay) for _ in range(2)]
    for me, other in enumerate(others):
        receive(other, frame(b"HELLO_STATE:others:%d:%d" % (me, 1 - me)), [])
    clock.advance(1)
    protocol = plug_in(relay)
    receive(protocol, stream, cuts)
    clock.advance(1)
    assert receive(others[0], frame(b"still here"), [])
    assert others[1].transport.written == frame(b"still here")
