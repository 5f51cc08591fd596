"""Commands: numbered, held back for the disk, sent, confirmed."""

import zlib

import pytest

from mu.outbox import CommandOutbox
from mu.wire import frame

A, B, C = (frame(text) for text in (b"echo:a", b"echo:b", b"echo:c"))


def outbox(*commands, free=None, sent=0, confirmed=0):
    """Return an outbox with these commands, with these numbers of them free, sent and confirmed."""
    made = CommandOutbox()
    for command in commands:
        made.add(command)
    made.free_first(len(commands) if free is None else free)
    made.sent = sent
    made.confirm(confirmed)
    return made


def counts(made):
    return made.confirmed, made.sent, made.free, made.produced


def three(**counted):
    return outbox("echo:a", "echo:b", "echo:c", **counted)


def test_nothing_is_sent_of_an_empty_outbox():
    assert CommandOutbox().take() == b""
    assert counts(CommandOutbox()) == (0, 0, 0, 0)


def test_all_that_is_free_is_sent_once_and_in_order():
    made = three()
    assert made.take() == A + B + C
    assert made.take() == b""
    made.add("echo:d")
    made.free_first(4)
    assert made.take() == frame(b"echo:d")
    assert counts(made) == (0, 4, 4, 4)


def test_bytes_that_are_not_utf8_are_sent_unaltered():
    assert outbox("set:k:\udcff").take() == frame(b"set:k:\xff")


@pytest.mark.parametrize("confirmed", [0, 1, 2])
def test_a_new_connection_gets_what_its_worker_lacks(confirmed):
    made = three(sent=3, confirmed=confirmed)
    made.sent = 2
    assert made.take() == C
    made.sent = confirmed
    assert made.take() == (A + B + C)[len(A) * confirmed :]


# ---------------------------------------------------------------- the disk


def test_commands_wait_until_the_barrier_is_on_disk():
    made = CommandOutbox(barrier=7)
    made.add("echo:a")
    assert made.release(synced=6)
    assert (made.produced - made.free, made.take()) == (1, b"")
    assert not made.release(synced=7)
    assert (made.produced - made.free, made.take()) == (0, A)


def test_with_nothing_to_send_nothing_waits_for_the_disk():
    assert not CommandOutbox(barrier=7).release(synced=0)


def test_a_command_does_not_overtake_one_that_waits():
    made = CommandOutbox()
    made.add("echo:a")
    made.release(synced=0)
    made.barrier = 5
    made.add("echo:b")
    made.add("echo:c")
    assert made.release(synced=4)
    assert made.take() == A
    made.free_first(2)
    assert made.take() == B
    made.free_first(1)  # what was freed stays free
    assert counts(made) == (0, 2, 2, 3)


# ---------------------------------------------------------------- what the worker has


def test_the_crc_covers_all_frames_from_the_first():
    made = three(sent=3)
    expected = [zlib.crc32(data) for data in (b"", A, A + B, A + B + C)]
    assert [made.crc(count) for count in range(4)] == expected
    made.confirm(2)
    assert [made.crc(count) for count in (2, 3)] == expected[2:]
    made.confirm(3)
    assert made.crc(3) == expected[3]
    made.add("echo:d")
    assert made.crc(4) == zlib.crc32(A + B + C + frame(b"echo:d"))


def test_only_what_was_sent_can_be_confirmed():
    made = three(sent=2)
    made.confirm(9)
    assert counts(made) == (2, 2, 3, 3)
    made.confirm(1)
    assert made.confirmed == 2
    assert made.take() == C
