"""The relay over real TLS in memory: who gets which frame, and what is logged when something fails."""

import pytest
from kit.parts import Line, MemoryWorker
from kit.relay import Jobs, MemoryRelay
from twisted.logger import capturedLogs, formatEvent
from twisted.test.iosim import FakeTransport, connect

from mu.net.certificates import Authority
from mu.relay.limits import OVERHEAD, TURN_STEPS
from mu.relay.parties import Name
from mu.wire import frame

MIB = 2**20
BINARY = bytes(range(256)) * 4


@pytest.fixture
def relay():
    return MemoryRelay()


def logged(logs):
    return [formatEvent(event) for event in logs if event.get("log_namespace", "").startswith("mu")]


def big(size, salt=1):
    return bytes((n * salt) % 251 for n in range(1000)) * (size // 1000) + b"!" * (size % 1000)


# ---------------------------------------------------------------- original peers


def test_frames_go_to_the_partner_both_ways(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    a.say(b"one", b"two")
    b.say(b"three")
    assert b.heard == [b"one", b"two"]
    assert a.heard == [b"three"]
    assert relay.disk.names == {}
    assert relay.disk.next == 0, "nothing was near the disk"


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 65_537, 300_000, 3 * MIB, 5 * MIB])
def test_a_frame_arrives_as_it_was(relay, size):
    a, b = relay.join(1, 2), relay.join(2, 1)
    frames = [big(size), b"", BINARY, big(size, 7)]
    a.say(*frames)
    assert b.heard == frames
    assert (relay.relay._board.mailboxes.memory, relay.relay._board.mailboxes.total) == (0, 0)


def test_frames_may_come_a_byte_at_a_time(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    for byte in frame(b"") + frame(BINARY[:20]) + frame(b"AT:1:0:0"):
        a.send(bytes([byte]))
    assert b.heard == [b"", BINARY[:20], b"AT:1:0:0"]


def test_a_hello_may_come_a_byte_at_a_time(relay):
    line = relay.connect(relay.authority.mint_job("j1", 600))
    for byte in frame(b"HELLO_STATE:u:1:2") + frame(b"x"):
        line.send(bytes([byte]))
    assert relay.join(2, 1).heard == [b"x"]


def test_large_and_small_frames_keep_their_order(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    sizes = [5, 200_000, 0, 70_000, 10, 6 * MIB, 1, 1, 65_000]
    a.say(*[big(size) for size in sizes])
    assert list(map(len, b.heard)) == sizes


def test_frames_for_a_partner_that_comes_30_s_late_are_kept(relay):
    a = relay.join(1, 2, b"one", b"two")
    a.let_pass(30)
    b = relay.join(2, 1)
    assert b.heard == [b"one", b"two"]
    a.say(b"three")
    assert b.heard == [b"one", b"two", b"three"]


def test_the_sender_need_not_stay(relay):
    a = relay.join(1, 2, b"one", big(100_000))
    a.hang_up()
    assert relay.join(2, 1).heard == [b"one", big(100_000)]


def test_frames_for_a_partner_that_went_away_are_kept(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    a.say(b"one")
    assert b.heard == [b"one"]
    b.hang_up()
    a.say(b"two", b"three")
    assert relay.join(2, 1).heard == [b"two", b"three"]


def test_many_small_frames_wait_in_order(relay):
    frames = [b"%d" % n for n in range(2000)]
    relay.join(1, 2, *frames)
    assert relay.join(2, 1).heard == frames


def test_a_sender_of_very_many_frames_gets_its_share_of_a_turn_and_no_more(relay):
    hostile = relay.join(1, 2)
    waiting = relay.relay._board.mailboxes.party(Name("j1", "u", "2")).frames
    hostile.server.dataReceived(frame(b"") * 1000)
    hostile.server.work()
    assert 0 < len(waiting) <= TURN_STEPS
    assert hostile.server.stalled, "what it sends now stays in the system's buffers"
    hostile.let_pass(0)
    assert len(waiting) == 1000
    assert not hostile.server.stalled


def test_several_may_send_to_one(relay):
    b = relay.join(2, 9)
    a, c = relay.join(1, 2), relay.join(3, 2)
    for n in range(20):
        a.say(b"a%d" % n, big(70_000, n + 1))
        c.say(b"c%d" % n)
    heard = b.heard
    assert [one for one in heard if one[:1] == b"c"] == [b"c%d" % n for n in range(20)]
    ours = [one for one in heard if one[:1] != b"c"]
    assert ours == [one for n in range(20) for one in (b"a%d" % n, big(70_000, n + 1))]


def test_a_worker_may_be_its_own_partner(relay):
    a = relay.join(1, 1, b"echo")
    assert a.say(big(100_000)) == [b"echo", big(100_000)]


def test_a_silent_peer_is_taken_for_an_original_one_after_half_a_second(relay):
    b = relay.join(2, 1, settle=False)
    relay.join(1, 2, b"one")
    b.let_pass(0.4)
    assert b.heard == []
    b.let_pass(0.2)
    assert b.heard == [b"one"]


# ---------------------------------------------------------------- one name, several connections


def test_a_new_connection_of_a_name_takes_over(relay):
    a, old = relay.join(1, 2), relay.join(2, 1)
    a.say(b"one")
    new = relay.join(2, 1)
    a.say(b"two")
    assert (old.heard, new.heard) == ([b"one"], [b"two"])
    assert not old.open
    assert new.open


def test_what_comes_while_a_newcomer_is_in_doubt_is_for_the_newcomer(relay):
    a, old = relay.join(1, 2), relay.join(2, 1)
    a.say(b"one")
    new = relay.join(2, 1, settle=False)
    a.say(b"two", big(200_000))
    assert (old.heard, new.heard) == ([b"one"], [])
    new.let_pass(1)
    assert new.heard == [b"two", big(200_000)]


def test_a_newcomer_that_goes_away_in_doubt_changes_nothing(relay):
    a, old = relay.join(1, 2), relay.join(2, 1)
    new = relay.join(2, 1, settle=False)
    a.say(b"one")
    new.hang_up()
    a.say(b"two")
    assert old.heard == [b"one", b"two"]


def test_a_name_keeps_its_order_when_both_sides_come_anew(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    b.server.pauseProducing()
    a.say(big(200_000))
    relay.join(2, 1, settle=False)  # not settled, so that no sender is linked
    a.hang_up()
    relay.join(1, 2, b"three")
    new = relay.join(2, 1)
    assert new.heard == [big(200_000), b"three"]


def test_a_sender_may_be_taken_over_in_the_middle_of_a_frame(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    a.send(frame(big(200_000))[:150_000])
    relay.join(1, 2, b"again")
    assert not a.open
    assert b.heard == [b"again"]
    assert relay.relay._board.mailboxes.memory == 0


@pytest.mark.parametrize("size", [1000, 200_000, 5 * MIB])
def test_a_sender_that_dies_in_the_middle_of_a_frame_leaves_nothing_of_it(relay, size):
    a, b = relay.join(1, 2), relay.join(2, 1)
    a.send(frame(b"whole") + frame(big(size))[:-1])
    a.hang_up()
    assert b.heard == [b"whole"]
    assert b.open
    assert relay.relay._board.mailboxes.total == 0
    assert relay.disk.bodies == {}
    relay.join(1, 2, big(size))
    assert b.heard == [b"whole", big(size)]


def test_a_frame_half_delivered_is_given_whole_to_the_successor(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    full = b.server.transport

    class Narrow:
        """A transport that is full after each write."""

        def __getattr__(self, name):
            return getattr(full, name)

        def write(self, data):
            full.write(data)
            b.server.pauseProducing()

    b.server.transport = Narrow()
    data = b"".join(map(frame, [b"one", big(300_000), b"three", b"four"]))
    for start in range(0, len(data), 50_000):  # as from a real socket, in parts
        a.send(data[start : start + 50_000])
    assert b.heard == [b"one"]
    b.server.resumeProducing()
    b.server.resumeProducing()
    b.hang_up()
    assert b.heard == [b"one"]
    assert relay.join(2, 1).heard == [big(300_000), b"three", b"four"]


def test_a_sender_that_closes_is_heard_to_the_end_though_its_partner_is_slow(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    b.server.pauseProducing()
    a.say(b"one", b"two")
    a.hang_up()
    a.let_pass(5)
    assert b.heard == []
    b.server.resumeProducing()
    assert b.heard == [b"one", b"two"]
    assert len(relay.relay.connections) == 1


def test_nothing_is_left_of_those_who_went(relay):
    lines = [relay.join(n, n + 1, b"x", big(100_000)) for n in range(10)]
    for line in lines:
        line.hang_up()
    relay.join(10, 0).hang_up()
    lines[0].let_pass(610)
    board, boxes = relay.relay._board, relay.relay._board.mailboxes
    assert (boxes.total, boxes.memory, board.peers, boxes.parties) == (0, 0, {}, {})
    assert relay.relay.connections == set()


# ---------------------------------------------------------------- who gets in


def test_jobs_are_apart_even_with_the_same_names(relay):
    mine, theirs = relay.join(2, 1, job="j1"), relay.join(2, 1, job="j2")
    relay.join(1, 2, b"secret", job="j1")
    other = relay.join(1, 2, b"forged", job="j2")
    assert mine.heard == [b"secret"]
    assert theirs.heard == [b"forged"]
    other.say(b"AT:9:0:0")
    assert mine.open


def test_a_name_cannot_be_spelled_so_that_it_becomes_another():
    relay = MemoryRelay()
    b = relay.join(2, 1, uniq="u")
    for hello in (b"HELLO_STATE:u_1:2:2", b"HELLO_STATE:u :1:2", b"HELLO_STATE:U:1:2"):
        line = relay.connect(relay.authority.mint_job("j1", 600))
        line.say(hello, b"x")
    assert b.heard == []


def test_numbers_are_the_same_however_they_are_written(relay):
    b = relay.connect(relay.authority.mint_job("j1", 600))
    b.say(b"HELLO_STATE:u:-0002:00000001", b"to one")
    a = relay.join(1, -2)
    a.say(b"to minus two")
    assert (a.heard, b.heard) == ([b"to one"], [b"to minus two"])


def test_silent_connections_have_a_small_limit_and_the_oldest_makes_way():
    relay = MemoryRelay(max_handshakes=2, max_connections=3)
    lines = []
    for _ in range(4):
        server, worker = relay.tls.buildProtocol(None), MemoryWorker()
        pump = connect(server, FakeTransport(server, True), worker, FakeTransport(worker, False))
        lines.append(Line(relay.clock, worker, pump))
    assert [line.open for line in lines] == [False, False, True, True]
    peers = [relay.join(1, 2), relay.join(2, 1), relay.join(3, 4)]
    assert not any(line.open for line in lines)
    peers[0].say(b"one")
    assert peers[1].heard == [b"one"]
    with capturedLogs() as logs:
        assert relay.tls.buildProtocol(None) is None
    assert "refused: 3 connections are open (max_connections)" in logged(logs)[0]


@pytest.mark.parametrize("kind", ["none", "foreign", "server"])
def test_who_has_no_certificate_of_a_job_is_refused_with_a_logged_reason(relay, kind):
    identity = {
        "none": lambda: None,
        "foreign": lambda: Authority.new().mint_job("j1", 600),
        "server": lambda: relay.authority.mint_server("h"),
    }[kind]()
    b = relay.join(2, 1)
    with capturedLogs() as logs:
        line = relay.connect(identity)
        line.say(b"HELLO_STATE:u:1:2", b"x")
    assert not line.open
    assert b.heard == []
    assert any("refused: " in text for text in logged(logs))
    assert len(relay.relay.connections) == 1


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (frame(b"HELLO_STATE:u:1"), "instead of HELLO_STATE"),
        (frame(b"HELLO_STATE:u:1:b"), "instead of HELLO_STATE"),
        (frame(b"HELLO_STATE::1:2"), "instead of HELLO_STATE"),
        (frame(b"HELLO_STATE:u:1:2:3"), "instead of HELLO_STATE"),
        (frame(b"HELLO_STATE:u\n:1:2"), "instead of HELLO_STATE"),
        (frame(b"HELLO_STATE:u:+1:2"), "instead of HELLO_STATE"),
        (frame(b"HELLO_STATE:u:--1:2"), "instead of HELLO_STATE"),
        (frame("HELLO_STATE:u:٣:2".encode()), "instead of HELLO_STATE"),
        (frame(b"OK:HELLO"), "b'OK:HELLO' instead of HELLO_STATE"),
        (frame(b""), "b'' instead of HELLO_STATE"),
        (b"000000000301 ", "a frame of 301 bytes instead"),
        (b"GET / HTTP/1.1\r\n", "12 decimal digits and a space, not b'GET / HTTP/1"),
        (b"0000000000012", "12 decimal digits and a space"),
        (b"00000000001x ", "12 decimal digits and a space"),
        (b"-", "12 decimal digits and a space"),
    ],
)
def test_a_bad_beginning_ends_that_connection_with_a_logged_reason(relay, sent, says):
    a, b = relay.join(1, 2), relay.join(2, 1)
    line = relay.connect(relay.authority.mint_job("j1", 600))
    with capturedLogs() as logs:
        line.send(sent)
    assert not line.open
    assert any("refused: " in text and says in text for text in logged(logs)), logged(logs)
    a.say(b"still")
    assert b.heard == [b"still"]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"%012d " % 2001, "a frame must have at most 2000 bytes, got 2001"),
        (b"999999999999 ", "a frame must have at most 2000 bytes, got 999999999999"),
        (b"1234x", "12 decimal digits and a space"),
        (b"%012dx" % 5, "12 decimal digits and a space"),
    ],
)
@pytest.mark.parametrize("before", [b"", frame(b"fine")])
def test_a_bad_frame_later_ends_that_connection_only(sent, says, before):
    relay = MemoryRelay(frame_limit=2000)
    a, b = relay.join(1, 2), relay.join(2, 1)
    with capturedLogs() as logs:
        a.send(before + sent)
    assert not a.open
    assert any("u_1 of job j1" in text and says in text for text in logged(logs))
    assert b.open
    assert b.heard == ([b"fine"] if before else [])
    relay.join(1, 2, b"x" * 2000)
    assert b.heard[-1] == b"x" * 2000


def test_who_says_no_hello_in_time_is_closed():
    relay = MemoryRelay(hello_s=5)
    line = relay.connect(relay.authority.mint_job("j1", 600))
    line.send(frame(b"HELLO_STATE:u:1:2")[:-1])
    with capturedLogs() as logs:
        line.let_pass(4.9)
        assert line.open
        line.let_pass(0.2)
    assert not line.open
    assert any("refused: it sent no hello within 5 s" in text for text in logged(logs))


def test_who_stops_in_the_middle_of_a_frame_is_closed_in_the_end(relay):
    a = relay.join(1, 2)
    a.send(frame(big(200_000))[:-1])
    for _ in range(10):
        a.let_pass(59)
    assert a.open
    a.let_pass(20)
    assert not a.open
    assert relay.relay._board.mailboxes.total == 0


def test_only_so_many_connections_are_let_in():
    relay = MemoryRelay(max_connections=2)
    first, _ = relay.join(1, 2), relay.join(2, 1)
    assert relay.tls.buildProtocol(None) is None
    first.hang_up()
    assert relay.join(3, 1).open


# ---------------------------------------------------------------- limits


def test_what_nobody_fetches_is_dropped_after_its_time_and_logged(relay):
    a = relay.join(1, 2, b"old", b"old too")
    a.let_pass(300)
    a.say(b"young")
    with capturedLogs() as logs:
        for _ in range(61):
            a.let_pass(5)
    assert any("dropped 2 frames (10 bytes) for u_2 of job j1: " in text for text in logged(logs))
    assert relay.relay._board.mailboxes.counts["lost"] == 2
    assert relay.join(2, 1).heard == [b"young"]


def test_a_sender_is_not_read_while_there_is_no_space_for_its_frame():
    relay = MemoryRelay(mailbox_bytes=MIB)
    a = relay.join(1, 2)
    for _ in range(5):
        a.say(big(300_000))
    assert a.server.stalled
    assert relay.relay._board.mailboxes.total == 3 * (300_000 + OVERHEAD)
    other = relay.join(3, 4, b"others go on")
    assert not other.server.stalled
    assert list(map(len, relay.join(2, 1).heard)) == [300_000] * 5
    assert not a.server.stalled


def test_a_sender_that_waits_for_space_is_served_when_old_frames_go():
    relay = MemoryRelay(mailbox_bytes=MIB, keep_s=100)
    a = relay.join(1, 2, *[big(400_000, n + 1) for n in range(3)])
    assert a.server.stalled
    for _ in range(8):
        a.let_pass(15)
    assert a.open
    assert relay.join(2, 1).heard == [big(400_000, 3)]


def test_a_sender_that_waits_for_space_too_long_is_closed():
    jobs = Jobs()
    jobs.kept["j1"] = float("inf")
    relay = MemoryRelay(mailbox_bytes=MIB, keep_s=100, jobs=jobs)
    a = relay.join(1, 2, *[big(400_000)] * 3)
    with capturedLogs() as logs:
        for _ in range(8):
            a.let_pass(15)
    assert not a.open
    assert any("there was no space for its frame of 400000 bytes" in text for text in logged(logs))
    assert len(relay.join(2, 1).heard) == 2


def test_a_frame_that_can_never_be_held_is_refused():
    relay = MemoryRelay(mailbox_bytes=MIB)
    with capturedLogs() as logs:
        a = relay.join(1, 2, big(MIB + 1))
    assert not a.open
    assert any(
        "its frame of 1048577 bytes exceeds what the relay may hold" in text
        for text in logged(logs)
    )


def test_all_mailboxes_together_are_bounded():
    relay = MemoryRelay(total_bytes=MIB)
    lines = [relay.join(n, n + 10, big(400_000)) for n in range(4)]
    assert [line.server.stalled for line in lines] == [False, False, True, True]
    relay.join(10, 0)
    assert [line.server.stalled for line in lines] == [False, False, False, True]


def test_past_the_memory_budget_mailboxes_move_to_disk():
    relay = MemoryRelay(memory=MIB)
    frames = [big(50_000, n + 1) for n in range(60)]
    a = relay.join(1, 2, *frames[:10])
    assert relay.disk.frames == {}
    a.say(*frames[10:])
    assert relay.relay._board.mailboxes.memory <= MIB
    assert len(relay.disk.frames) == 60, "all of that mailbox, the first ones too"
    b = relay.join(2, 1)
    assert b.heard == frames
    assert relay.disk.frames == {}
    a.say(b"linked again")
    assert b.heard[-1] == b"linked again"
    assert relay.relay._board.mailboxes.total == 0


def test_a_large_frame_goes_through_a_file(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    data = frame(big(10 * MIB))
    a.send(data[: 9 * MIB])
    assert relay.relay._board.mailboxes.memory == 0
    assert len(relay.disk.bodies) == 1
    a.send(data[9 * MIB :])
    assert b.heard == [big(10 * MIB)]
    assert (relay.disk.bodies, relay.disk.frames) == ({}, {})


def test_a_slow_partner_slows_its_sender_and_nobody_else(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    c, d = relay.join(3, 4), relay.join(4, 3)
    b.server.pauseProducing()
    for n in range(20):
        a.say(big(MIB, n + 1))
    assert a.server.stalled
    assert relay.relay._board.mailboxes.memory <= 3 * MIB
    c.say(b"fine")
    assert d.heard == [b"fine"]
    b.server.resumeProducing()
    assert b.heard == [big(MIB, n + 1) for n in range(20)]
    assert not a.server.stalled


def test_small_frames_for_a_slow_partner_stay_with_the_sender(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    b.server.pauseProducing()
    for n in range(100):
        a.say(b"%d" % n)
    assert a.server.stalled
    assert b.heard == []
    b.server.resumeProducing()
    assert b.heard == [b"%d" % n for n in range(100)]


# ---------------------------------------------------------------- AT


def at(relay, me, partner, attempt=1, sent=0, received=0, job="j1"):
    """Join as one of this project's workers."""
    return relay.join(me, partner, b"AT:%d:%d:%d" % (attempt, sent, received), job=job)


def test_at_is_answered_with_what_is_on_disk_and_again_as_it_grows(relay):
    relay.disk.prompt = False
    a = at(relay, 1, 2)
    assert a.heard == [b"AT:0"]
    a.say(b"one", b"two")
    assert a.heard == [b"AT:0"]
    relay.disk.sync()
    assert a.heard == [b"AT:0", b"AT:2"], "told once for a group"


def test_frames_reach_an_extended_partner_as_f(relay):
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"", BINARY, big(300_000))
    assert b.heard == [b"AT:0", b"F:", b"F:" + BINARY, b"F:" + big(300_000)]
    b.say(b"AT:5")
    assert a.heard[-1] == b"F:AT:5"


def test_an_extended_partner_is_given_only_what_is_on_disk(relay):
    relay.disk.prompt = False
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one")
    assert b.heard == [b"AT:0"]
    relay.disk.sync()
    assert b.heard == [b"AT:0", b"F:one"]


def test_after_a_cut_both_sides_go_on_where_they_were(relay):
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one", b"two")
    a.hang_up()
    b.hang_up()
    a = at(relay, 1, 2, sent=2)
    assert a.heard == [b"AT:2"]
    a.say(b"three")
    b = at(relay, 2, 1, received=1)
    assert b.heard == [b"AT:0", b"F:two", b"F:three"]


def test_a_frame_that_was_not_on_disk_is_taken_again(relay):
    relay.disk.prompt = False
    a = at(relay, 1, 2)
    a.say(b"one", b"two")
    a.hang_up()
    again = at(relay, 1, 2, sent=2)
    assert again.heard == [b"AT:0"]
    again.say(b"one", b"two", b"three")
    relay.disk.sync()
    assert again.heard == [b"AT:0", b"AT:3"]
    assert at(relay, 2, 1).heard == [b"AT:0", b"F:one", b"F:two", b"F:three"]


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_later_attempt_sends_all_again_and_the_relay_takes_what_is_new(relay, size):
    frames = [big(size, n + 1) for n in range(4)]
    b = at(relay, 2, 1)
    at(relay, 1, 2).say(*frames[:2])
    second = at(relay, 1, 2, attempt=2)
    assert second.heard == [b"AT:2"]
    second.say(*frames)
    assert b.heard[1:] == [b"F:" + one for one in frames]
    assert second.heard == [b"AT:2", b"AT:4"]
    assert relay.relay._board.mailboxes.counts["repeated"] == 2


def test_a_lower_attempt_is_refused_and_the_higher_one_stays(relay):
    b = at(relay, 2, 1, attempt=2)
    with capturedLogs() as logs:
        late = at(relay, 2, 1, attempt=1)
    assert not late.open
    assert late.heard == []
    assert any("its attempt 1 was replaced by attempt 2" in text for text in logged(logs))
    at(relay, 1, 2).say(b"one")
    assert b.heard == [b"AT:0", b"F:one"]


def test_a_higher_attempt_takes_over_and_the_lower_hears_nothing_more(relay):
    a, first = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one")
    second = at(relay, 2, 1, attempt=2)
    a.say(b"two")
    assert first.heard == [b"AT:0", b"F:one"]
    assert not first.open
    assert second.heard == [b"AT:0", b"F:one", b"F:two"]


def test_what_a_receiver_has_confirmed_is_dropped(relay):
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one", b"two")
    assert len(relay.disk.frames) == 2
    b.hang_up()
    b = at(relay, 2, 1, received=1)
    assert [row[1] for row in relay.disk.frames.values()] == [2]
    with capturedLogs() as logs:
        second = at(relay, 2, 1, attempt=2)
    assert not second.open
    assert any("it needs frame 1 for u_2" in text for text in logged(logs))
    assert b.open


def test_with_relay_keep_a_later_attempt_gets_everything_again(relay):
    relay.jobs.kept["j1"] = float("inf")
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one", b"two")
    b.hang_up()
    at(relay, 2, 1, received=2).hang_up()
    for _ in range(200):
        a.let_pass(5)
    assert at(relay, 2, 1, attempt=2).heard == [b"AT:0", b"F:one", b"F:two"]
    relay.jobs.over.add("j1")
    a.let_pass(5)
    assert relay.disk.frames == {}


def test_delivered_frames_are_dropped_after_their_time(relay):
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one")
    for _ in range(121):
        a.let_pass(5)
    assert relay.disk.frames == {}
    assert relay.relay._board.mailboxes.counts["lost"] == 0
    b.hang_up()
    b = at(relay, 2, 1, received=1)
    a.say(b"two")
    assert b.heard == [b"AT:0", b"F:two"]


def test_frames_that_a_later_attempt_is_being_given_are_not_too_old(relay):
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    frames = [big(200_000, n + 1) for n in range(20)]
    a.say(*frames)
    b.hang_up()
    b = at(relay, 2, 1, attempt=2)
    b.server.pauseProducing()
    b.hang_up()
    b = relay.connect(relay.authority.mint_job("j1", 600))
    b.server.pauseProducing()
    b.say(b"HELLO_STATE:u:2:1", b"AT:3:0:0")
    for _ in range(130):
        a.let_pass(5)
    assert b.heard == []
    b.server.resumeProducing()
    assert b.heard == [b"AT:0", *(b"F:" + one for one in frames)]
    for _ in range(2):
        a.let_pass(5)
    assert relay.disk.frames == {}


def test_delivered_frames_make_space_for_new_ones():
    relay = MemoryRelay(mailbox_bytes=MIB, total_bytes=2 * MIB)
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(*[big(400_000, n + 1) for n in range(5)])
    assert len(b.heard) == 6
    assert sorted(row[1] for row in relay.disk.frames.values()) == [4, 5]
    at(relay, 3, 4), at(relay, 4, 3)
    c = at(relay, 5, 6)
    c.say(*[big(400_000)] * 2)
    at(relay, 7, 8).say(*[big(400_000)] * 2)
    assert sorted(row[1] for row in relay.disk.frames.values()) == [1, 1, 2, 2, 5]


def test_what_was_lost_is_not_skipped_in_silence(relay):
    a = at(relay, 1, 2)
    a.say(b"one")
    for _ in range(121):
        a.let_pass(5)
    a.say(b"two")
    assert not at(relay, 2, 1).open
    assert at(relay, 2, 1, received=1).heard == [b"AT:0", b"F:two"]


def test_an_original_sender_and_an_extended_receiver(relay):
    a = relay.join(1, 2, b"one")
    b = at(relay, 2, 1)
    a.say(b"two")
    assert b.heard == [b"AT:0", b"F:one", b"F:two"]
    b.say(b"back")
    assert a.heard == [b"back"]
    assert b.heard[-1] == b"AT:1"
    b.hang_up()
    a.say(b"three")
    assert at(relay, 2, 1, sent=1, received=2).heard == [b"AT:1", b"F:three"]


def test_an_extended_sender_and_an_original_receiver(relay):
    b = relay.join(2, 1)
    a = at(relay, 1, 2)
    a.say(b"one", big(300_000))
    assert b.heard == [b"one", big(300_000)]
    assert a.heard == [b"AT:0", b"AT:2"]
    b.hang_up()
    a.say(b"three")
    successor = relay.join(2, 1)
    assert successor.heard == [b"three"], "at most once"
    assert relay.disk.frames == {}


def test_what_looks_like_at_is_a_frame_unless_it_comes_second(relay):
    a, b = relay.join(1, 2), relay.join(2, 1)
    a.say(b"first", b"AT:1:0:0")
    assert b.heard == [b"first", b"AT:1:0:0"]
    b.say(b"AT:1:0", b"AT:1:0:0")
    assert a.heard == [b"AT:1:0", b"AT:1:0:0"]


def test_at_may_come_late_while_nothing_was_passed(relay):
    b = relay.join(2, 1)
    assert b.say(b"AT:1:0:0") == [b"AT:0"]
    at(relay, 1, 2).say(b"one")
    assert b.heard == [b"AT:0", b"F:one"]


def test_at_that_comes_after_plain_frames_ends_the_connection(relay):
    b = relay.join(2, 1)
    relay.join(1, 2, b"one")
    with capturedLogs() as logs:
        b.say(b"AT:1:0:0")
    assert not b.open
    assert any("AT must follow the hello immediately" in text for text in logged(logs))


def test_no_at_is_said_in_the_middle_of_a_frame(relay):
    relay.disk.prompt = False
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(big(250_000))
    relay.disk.sync()
    b.say(b"x")
    full, parts = b.server.transport, []
    b.server.transport = type(
        "Narrow",
        (),
        {
            "write": lambda _, data: (parts.append(data), full.write(data)),
            "__getattr__": lambda _, name: getattr(full, name),
        },
    )()
    a.say(big(200_000))
    b.server.pauseProducing()
    relay.disk.sync()
    b.server.resumeProducing()
    assert b.heard == [b"AT:0", b"F:" + big(250_000), b"AT:1", b"F:" + big(200_000)]


# ---------------------------------------------------------------- a restart


def again(relay):
    """Return a new relay on the same disk, as after a kill."""
    return MemoryRelay(relay.disk, relay.jobs, relay.authority, relay.clock)


def test_mailboxes_on_disk_outlive_the_relay(relay):
    at(relay, 1, 2).say(b"one", big(300_000), b"three")
    after = again(relay)
    assert at(after, 1, 2, sent=3).heard == [b"AT:3"]
    assert at(after, 2, 1).heard == [b"AT:0", b"F:one", b"F:" + big(300_000), b"F:three"]


def test_what_was_not_on_disk_is_sent_again(relay):
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one")
    relay.disk.prompt = False
    a.say(b"two")
    assert b.heard == [b"AT:0", b"F:one"]
    relay.disk.prompt = True
    after = again(relay)
    b = at(after, 2, 1, received=1)
    a = at(after, 1, 2, sent=2)
    assert a.heard == [b"AT:1"]
    a.say(b"two")
    assert b.heard == [b"AT:0", b"F:two"]


def test_an_original_peer_gets_nothing_twice_after_a_restart(relay):
    at(relay, 1, 2).say(b"one", b"two")
    assert relay.join(2, 1).heard == [b"one", b"two"]
    relay.disk.frames[1] = (next(iter(relay.disk.names))._replace(number="2"), 1, 3, 0.0, b"one")
    assert relay.join(2, 1).heard == []
    assert again(relay).join(2, 1).heard == []


def test_what_an_original_peer_did_not_get_whole_is_there_after_a_restart(relay):
    a = at(relay, 1, 2)
    b = relay.join(2, 1)
    b.server.pauseProducing()
    a.say(b"one")
    b.hang_up()
    assert again(relay).join(2, 1).heard == [b"one"]


def test_counts_outlive_the_frames(relay):
    a, b = at(relay, 1, 2), at(relay, 2, 1)
    a.say(b"one", b"two")
    b.hang_up()
    at(relay, 2, 1, received=2)
    assert relay.disk.frames == {}
    after = again(relay)
    a = at(after, 1, 2, attempt=2)
    assert a.heard == [b"AT:2"]
    a.say(b"one", b"two", b"three")
    assert at(after, 2, 1, received=2).heard == [b"AT:0", b"F:three"]


def test_a_job_that_ended_leaves_nothing_on_disk(relay):
    a = at(relay, 1, 2)
    a.say(b"one")
    a.hang_up()
    relay.jobs.over.add("j1")
    a.let_pass(5)
    assert (relay.disk.frames, relay.disk.names) == ({}, {})


def test_a_disk_that_fails_closes_the_connections_until_it_works_again(relay):
    a = at(relay, 1, 2)
    a.say(b"one")
    with capturedLogs() as logs:
        relay.disk.failed("the relay's folder cannot be written: full")
        assert not a.open
        assert relay.tls.buildProtocol(None) is None
        a.let_pass(6)
    assert any("full. All connections are closed" in text for text in logged(logs))
    a = at(relay, 1, 2, sent=1)
    assert a.heard == [b"AT:1"]
    assert at(relay, 2, 1).heard == [b"AT:0", b"F:one"]


def test_a_stop_closes_all_and_keeps_what_is_on_disk(relay):
    a = at(relay, 1, 2)
    a.say(b"one")
    relay.relay.stop()
    assert not a.open
    assert relay.clock.getDelayedCalls() == []
    assert at(again(relay), 2, 1).heard == [b"AT:0", b"F:one"]
