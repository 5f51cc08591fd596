"""The worker's part of AT, and frames in pieces, without I/O."""

import random

import pytest
from mu_worker.ledger import FrameLedger, LedgerError
from mu_worker.pieces import Pieces

from mu.wire import FrameError, frame


def test_nothing_is_sent_before_the_answer():
    ledger = FrameLedger()
    assert ledger.greet(2) == b"AT:2:0:0"
    ledger.add("one")
    assert ledger.outgoing() == []
    ledger.answer(0)
    assert (ledger.outgoing(), ledger.outgoing()) == (["one"], [])


def test_what_is_not_held_is_sent_again_on_the_next_connection():
    ledger = FrameLedger()
    ledger.greet(1)
    ledger.answer(0)
    for name in ("one", "two", "three"):
        ledger.add(name)
    ledger.outgoing()
    ledger.answer(1)
    ledger.received = 4
    assert ledger.greet(1) == b"AT:1:3:4"
    assert ledger.outgoing() == []
    ledger.answer(2)
    assert ledger.outgoing() == ["three"]


def test_a_later_attempt_counts_from_its_own_first_frame():
    ledger = FrameLedger()
    ledger.greet(2)
    ledger.add("one")
    ledger.answer(3)
    assert ledger.outgoing() == ["one"]
    ledger.add("two")
    assert ledger.outgoing() == ["two"]


def test_a_relay_that_forgot_is_noticed():
    ledger = FrameLedger()
    ledger.greet(1)
    ledger.answer(0)
    ledger.add("one")
    ledger.outgoing()
    ledger.answer(1)
    ledger.greet(1)
    with pytest.raises(LedgerError, match="the relay has only 0 frames, but it had more before"):
        ledger.answer(0)


class ModelRelay:
    """The relay's part, by number, as in the models of the protocol."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.top = 0
        self.next = 0

    def greeted(self, said: bytes) -> int:
        attempt, sent, _ = map(int, said.split(b":")[1:])
        assert attempt >= self.top
        self.top, self.next = attempt, min(sent, len(self.held)) + 1
        return len(self.held)

    def take(self, number: int) -> None:
        assert number == self.next <= len(self.held) + 1
        self.next += 1
        if number > len(self.held):
            self.held.append(number)


def test_whatever_breaks_the_relay_gets_each_frame_once_and_in_order():
    for seed in range(300):
        breaks_as_chance_has_it(seed)


def breaks_as_chance_has_it(seed):
    chance = random.Random(seed)
    relay, most = ModelRelay(), 6
    for attempt in (1, 2, 3):
        ledger: FrameLedger[int] = FrameLedger()
        for _ in range(chance.randrange(1, 60)):
            wire: list[int] = []  # of this connection
            said = ledger.greet(attempt)
            answer = relay.greeted(said)
            told: list[int] = []
            answered = False
            for _ in range(chance.randrange(12)):
                match chance.randrange(5):
                    case 0 if ledger.made < most:
                        ledger.add(ledger.made + 1)
                    case 1 if not answered:
                        ledger.answer(answer)
                        answered = True
                    case 2 if answered:
                        wire += ledger.outgoing()
                    case 3 if wire:
                        relay.take(wire.pop(0))
                        told.append(len(relay.held))
                    case 4 if told and answered:
                        ledger.answer(told.pop(0))
            if attempt < 3 and chance.random() < 0.2:
                break
    while ledger.made < most:
        ledger.add(ledger.made + 1)
    ledger.answer(relay.greeted(ledger.greet(3)))
    for number in ledger.outgoing():
        relay.take(number)
    assert relay.held == list(range(1, most + 1))
    ledger.answer(most)
    assert not ledger._kept


# ---------------------------------------------------------------- pieces


def frames(pieces: Pieces, received: bytes) -> list[bytes]:
    """Return the complete frames of these bytes, reassembled."""
    whole, part = [], b""
    for piece, last in pieces.feed(received):
        part += piece
        if last:
            whole.append(part)
            part = b""
    return whole


def test_frames_come_whole_and_the_empty_ones_too():
    sent = [b"", b"a", b"bcd" * 1000, b"", b"e"]
    pieces = Pieces(10_000)
    assert frames(pieces, b"".join(map(frame, sent))) == sent
    assert not pieces.partial


def test_frames_come_one_byte_at_a_time():
    pieces = Pieces(100)
    taken = []
    for byte in frame(b"abc") + frame(b"") + frame(b"d"):
        taken += list(pieces.feed(bytes([byte])))
    assert taken == [(b"a", False), (b"b", False), (b"c", True), (b"", True), (b"d", True)]


def test_what_has_come_is_handed_on_at_once():
    pieces = Pieces(100)
    assert list(pieces.feed(b"%012d abc" % 100)) == [(b"abc", False)]
    assert pieces.partial


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"GET / HTTP/1.1", "12 decimal digits and a space"),
        (b"x", "12 decimal digits and a space"),
        (b"000000000001x", "12 decimal digits and a space"),
        (b"000000000101 ", "a frame must have at most 100 bytes, got 101"),
    ],
)
def test_a_malformed_header_is_refused_after_what_came_before_it(sent, complaint):
    pieces = Pieces(100)
    taken = []
    with pytest.raises(FrameError, match=complaint):
        taken.extend(pieces.feed(frame(b"ok") + sent))
    assert taken == [(b"ok", True)]
