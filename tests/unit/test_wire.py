"""Frames: whole, byte by byte, too long, malformed."""

import pytest

from mu.wire import HEADER_BYTES, FrameError, Framer, frame

PAYLOADS = [b"", b"OK:HELLO", b"key\0file", bytes(range(256)), b"x" * 100_000]


def test_a_frame_is_twelve_digits_a_space_and_the_payload():
    assert frame(b"OK:HELLO") == b"000000000008 OK:HELLO"
    assert frame(b"") == b"000000000000 "


def test_frames_come_out_as_they_went_in():
    assert list(Framer().feed(b"".join(map(frame, PAYLOADS)))) == PAYLOADS


@pytest.mark.parametrize("size", [1, 2, 7, HEADER_BYTES, 4096])
def test_frames_may_come_in_pieces_of_any_size(size):
    framer, stream, got = Framer(), b"".join(map(frame, PAYLOADS)), []
    for start in range(0, len(stream), size):
        got += framer.feed(stream[start : start + size])
    assert got == PAYLOADS
    assert not framer.partial


def test_a_frame_that_is_not_complete_is_kept():
    framer = Framer()
    assert list(framer.feed(frame(b"abc")[:-1])) == []
    assert framer.partial
    assert list(framer.feed(b"c")) == [b"abc"]


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"00000000000x ",
        b"000000000001:",
        b"-00000000001 ",
        b"           1 ",
        b"+00000000001 ",
        "٠٠٠٠٠٠".encode() + b" ",
        b"\0" * HEADER_BYTES,
    ],
)
def test_a_malformed_header_is_refused_after_the_frames_before_it(header):
    feeding = Framer().feed(frame(b"good") + header)
    assert next(feeding) == b"good"
    with pytest.raises(FrameError, match="12 decimal digits and a space"):
        next(feeding)


def test_a_header_that_goes_wrong_early_is_refused_early():
    with pytest.raises(FrameError):
        list(Framer().feed(b"GET"))


def test_a_frame_of_the_limit_is_taken_and_one_byte_more_is_refused():
    assert list(Framer(limit=5).feed(frame(b"12345"))) == [b"12345"]
    with pytest.raises(FrameError, match="a frame must have at most 5 bytes, got 6"):
        list(Framer(limit=5).feed(frame(b"123456")[:HEADER_BYTES]))


def test_a_terabyte_is_refused_on_its_announcement():
    with pytest.raises(FrameError, match="got 999999999999"):
        list(Framer().feed(b"999999999999 "))
