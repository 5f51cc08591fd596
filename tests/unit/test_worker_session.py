import zlib
from collections import deque
from random import Random

import pytest
from mu_worker import session as session_module
from mu_worker.session import NumberedCommand, SessionOver, WorkerSession

from mu.messages import BadMessage, Hello
from mu.wire import frame


def fresh() -> WorkerSession:
    session = WorkerSession("ab12", "L7")
    session.greet()
    return session


def commands_of(session: WorkerSession, *payloads: bytes) -> list[NumberedCommand]:
    return [numbered for p in payloads if (numbered := session.receive(p)) is not None]


def test_the_first_hello_has_counted_nothing():
    assert WorkerSession("ab12", "L7").greet() == (
        b"OK:HELLO(session=ab12,launch=L7,received=0:00000000,sent=0)"
    )


def test_commands_are_numbered_from_one():
    session = fresh()
    got = commands_of(
        session, b"welcome:0:1:0", b"echo:a", b"ack:0", b"ping:x", b"pong:", b"echo:b"
    )
    assert [(numbered.number, numbered.command.text) for numbered in got] == [
        (1, "echo:a"),
        (2, "echo:b"),
    ]


def test_a_later_hello_tells_the_commands_and_the_replies_so_far():
    session = fresh()
    payloads = [b"set:a:b", b"run:echo \xff\x00", b""]
    for number, payload in enumerate([b"welcome:0:1:0", b"ping:", *payloads]):
        session.receive(payload)
        session.reply(number, "OK")
    session.receive(b"ack:2")
    frames = b"".join(frame(p) for p in payloads)
    assert Hello.parse(session.greet()) == Hello("ab12", "L7", 3, zlib.crc32(frames), 5)


def test_nothing_is_said_before_the_coordinators_first_frame():
    session = fresh()
    session.reply(0, "INFO:of:my own accord")
    session.log(1, b"printed")
    assert session.outgoing() == []


def test_an_original_coordinator_hears_plain_replies_and_nothing_else():
    session = fresh()
    commands_of(session, b"ping:are you there", b"echo:a")
    session.log(1, b"printed")
    session.reply(1, "OK:ECHO(a)")
    assert session.outgoing() == [b"OK:ECHO(a)"]
    assert session.outgoing() == []


def test_an_original_coordinator_never_fills_the_outbox():
    session = fresh()
    session.receive(b"echo:a")
    for _ in range(2 * session_module.OUTBOX_REPLIES):
        session.reply(1, "OK:ECHO(a)")
        session.outgoing()
    assert not session.full


def test_after_a_welcome_replies_carry_the_number_of_their_command():
    session = fresh()
    commands_of(session, b"welcome:3:1:0", b"echo:a")
    session.log(1, b"printed")
    session.reply(1, "OK:ECHO(a)")
    session.reply(0, "INFO:k:v")
    assert session.outgoing() == [b"LOG:1:printed", b"RE:1:OK:ECHO(a)", b"RE:0:INFO:k:v"]
    assert (session.actor, session.attempt) == (3, 1)


def test_a_ping_is_answered_after_the_welcome():
    session = fresh()
    commands_of(session, b"welcome:-:0:0", b"ping:7")
    assert session.outgoing() == [b"pong:7"]


def test_what_it_used_is_told_after_each_connections_first_welcome_as_of_the_first_hello():
    times = iter((0.25, 0.5, 9.0))
    session = WorkerSession("ab12", "L7", lambda: {"init_s": 0.125, "hello_s": next(times)})
    session.greet()
    session.greet()  # the first connection broke before a welcome
    told = [b'USED:0:{"init_s": 0.125, "hello_s": 0.5}']
    session.receive(b"welcome:-:0:0")
    assert session.outgoing() == told
    session.receive(b"welcome:0:1:0")
    assert session.outgoing() == []
    session.greet()
    assert session.outgoing() == []
    session.receive(b"welcome:0:1:0")
    assert session.outgoing() == told


def test_what_a_command_used_precedes_its_reply_and_is_said_again_with_it():
    session = fresh()
    commands_of(session, b"welcome:0:1:0", b"run:a", b"echo:b")
    session.reply(1, "OK:R", {"cpu_s": 0.5})
    session.reply(2, "OK:ECHO(b)", {})
    said = [b'USED:1:{"cpu_s": 0.5}', b"RE:1:OK:R", b"RE:2:OK:ECHO(b)"]
    assert session.outgoing() == said
    session.greet()
    session.receive(b"welcome:0:1:0")
    assert session.outgoing() == said
    session.receive(b"ack:1")
    session.greet()
    session.receive(b"welcome:0:1:1")
    assert session.outgoing() == said[2:]
    assert session.sent == 2  # it is not counted


def test_what_the_worker_itself_used_is_told_only_where_it_may_reply():
    session = fresh()
    session.tell_use({"tmp_mb": 1.0})
    commands_of(session, b"welcome:-:0:0")
    session.tell_use({"tmp_mb": 1.0})
    assert session.outgoing() == []
    commands_of(session, b"welcome:0:1:0")
    session.tell_use({})
    session.tell_use({"tmp_mb": 2.0})
    assert session.outgoing() == [b'USED:0:{"tmp_mb": 2.0}']


def test_an_original_coordinator_is_not_told_what_a_command_used():
    session = fresh()
    commands_of(session, b"run:a")
    session.reply(1, "OK:R", {"cpu_s": 0.5})
    session.tell_use({"tmp_mb": 2.0})
    assert session.outgoing() == [b"OK:R"]


def test_an_original_coordinator_is_not_told_what_was_used():
    session = WorkerSession("ab12", "L7", lambda: {"hello_s": 0.5})
    session.greet()
    commands_of(session, b"echo:a")
    assert session.outgoing() == []


def test_a_spare_keeps_its_replies_until_it_has_an_actor():
    session = fresh()
    commands_of(session, b"welcome:-:0:0", b"echo:a")
    session.reply(1, "OK:ECHO(a)")
    session.log(1, b"printed")
    assert session.outgoing() == []
    session.receive(b"welcome:5:2:0")
    assert session.outgoing() == [b"RE:1:OK:ECHO(a)"]
    assert (session.actor, session.attempt) == (5, 2)


def test_a_second_welcome_on_a_connection_asks_for_nothing_again():
    session = fresh()
    commands_of(session, b"welcome:3:1:0", b"echo:a")
    session.reply(1, "OK:ECHO(a)")
    session.outgoing()
    session.receive(b"welcome:3:2:0")
    assert session.outgoing() == []
    assert session.attempt == 2


def test_on_a_new_connection_the_replies_after_k_are_sent_again():
    session = fresh()
    commands_of(session, b"welcome:3:1:0", b"echo:a")
    for text in "abc":
        session.reply(1, text)
    session.outgoing()
    session.greet()
    session.reply(1, "d")
    assert session.outgoing() == []
    session.receive(b"welcome:3:1:1")
    assert session.outgoing() == [b"RE:1:b", b"RE:1:c", b"RE:1:d"]


def test_without_a_connection_replies_are_kept_and_live_output_is_not():
    session = fresh()
    commands_of(session, b"welcome:3:1:0", b"run:a")
    session.part()
    session.log(1, b"printed")
    session.ping()
    session.reply(1, "OK")
    assert session.outgoing() == []
    session.greet()
    session.receive(b"welcome:3:1:0")
    assert session.outgoing() == [b"RE:1:OK"]


def test_what_was_acknowledged_before_it_could_be_sent_again_is_not_sent():
    session = fresh()
    session.receive(b"welcome:3:1:0")
    for text in "abc":
        session.reply(0, text)
    commands_of(session, b"welcome:3:1:0", b"ack:2")
    assert session.outgoing() == [b"RE:0:c"]


def test_the_coordinator_is_asked_only_where_it_welcomed():
    session = fresh()
    session.ping()
    assert session.outgoing() == []
    session.receive(b"welcome:-:0:0")
    session.ping()
    assert session.outgoing() == [b"ping:"]


def test_who_answered_is_judged_anew_on_each_connection():
    session = fresh()
    assert (session.answered, session.original) == (False, False)
    session.receive(b"ping:")
    assert not session.answered
    session.receive(b"welcome:-:0:0")
    assert (session.answered, session.original) == (True, False)
    session.part()
    assert not session.answered
    original = fresh()
    original.receive(b"echo:a")
    assert (original.answered, original.original) == (True, True)


def test_a_welcomes_k_lets_nothing_be_dropped_and_an_ack_does():
    session = fresh()
    session.receive(b"welcome:3:1:0")
    session.reply(1, "a")
    session.greet()
    session.receive(b"welcome:3:1:1")
    session.greet()
    session.receive(b"welcome:3:1:0")
    assert session.outgoing() == [b"RE:1:a"]
    session.receive(b"ack:1")
    session.greet()
    with pytest.raises(SessionOver, match="the first 1 are gone"):
        session.receive(b"welcome:3:1:0")


def test_a_full_outbox_lasts_until_an_ack():
    session = fresh()
    session.receive(b"welcome:3:1:0")
    for _ in range(session_module.OUTBOX_REPLIES):
        session.reply(1, "OK")
    session.outgoing()
    assert session.full
    session.receive(b"ack:1")
    assert not session.full


def test_a_full_outbox_is_judged_by_its_bytes_too():
    session = fresh()
    session.receive(b"welcome:3:1:0")
    session.reply(1, "x" * session_module.OUTBOX_BYTES)
    assert session.full
    session.receive(b"ack:1")
    assert not session.full


def test_an_ack_for_what_was_never_said_ends_the_session():
    session = fresh()
    session.receive(b"welcome:3:1:0")
    with pytest.raises(SessionOver, match="only 0 exist"):
        session.receive(b"ack:1")


def test_a_known_session_obeys_no_command_without_a_welcome_but_quit():
    session = fresh()
    session.receive(b"welcome:3:1:0")
    session.greet()
    assert commands_of(session, b"quit:")[0].is_quit
    with pytest.raises(SessionOver, match="without a welcome"):
        session.receive(b"echo:a")


def test_a_reply_that_fits_no_frame_becomes_a_failure():
    session = fresh()
    session.receive(b"echo:a")
    session.reply(1, "x" * (session_module.LARGEST_REPLY + 1))
    assert session.outgoing()[0].startswith(b"FAIL(the reply of 16777153 bytes exceeds the limit")


def test_a_malformed_welcome_is_refused():
    with pytest.raises(BadMessage):
        fresh().receive(b"welcome:me")


def test_bytes_that_are_no_utf8_pass_unaltered():
    session = fresh()
    numbered = commands_of(session, b"echo:\xff\xfe")[0]
    session.reply(1, f"OK:ECHO({numbered.command.argument})")
    assert session.outgoing() == [b"OK:ECHO(\xff\xfe)"]


# ---------------------------------------------------------------- many cuts


class FarSide:
    """A coordinator with a list of commands that records what it hears."""

    def __init__(self, commands: list[bytes]) -> None:
        self._commands = commands
        self._to_say: deque[bytes] = deque()
        self.record: list[bytes] = []

    def welcome(self, payload: bytes) -> bytes:
        hello = Hello.parse(payload)
        known = self._commands[: hello.received]
        assert hello.crc == zlib.crc32(b"".join(map(frame, known)))
        self._to_say = deque(self._commands[hello.received :])
        return b"welcome:3:1:%d" % len(self.record)

    def say(self, chance: Random) -> bytes:
        """Send the next command, or sometimes acknowledge replies."""
        if self._to_say and chance.random() < 0.8:
            return self._to_say.popleft()
        return b"ack:%d" % chance.randint(0, len(self.record))


def test_whatever_is_cut_each_command_is_done_once_and_each_reply_heard_once():
    for seed in range(100):
        is_cut_as_chance_has_it(seed)


def is_cut_as_chance_has_it(seed):
    chance = Random(seed)
    commands = [b"echo:%d" % n for n in range(20)]
    far, session = FarSide(commands), WorkerSession("ab12")
    waiting: deque[NumberedCommand] = deque()
    done: list[bytes] = []
    said: list[bytes] = []

    def carry_out() -> None:
        if waiting:
            numbered = waiting.popleft()
            done.append(numbered.command.payload())
            for text in ["INFO:a:b", "OK"][chance.randrange(2) :]:
                session.reply(numbered.number, text)
                said.append(b"RE:%d:%b" % (numbered.number, text.encode()))

    for _ in range(1000):  # connections; some fifteen are enough
        to_worker = deque([far.welcome(session.greet())])
        to_far: deque[bytes] = deque()
        for _ in range(chance.randrange(40)):  # until it is cut, and everything in flight is lost
            match chance.randrange(5):
                case 0:
                    to_worker.append(far.say(chance))
                case 1 if to_worker:
                    waiting.extend(commands_of(session, to_worker.popleft()))
                case 2:
                    carry_out()
                case 3:
                    to_far.extend(session.outgoing())
                case 4 if to_far:
                    far.record.append(to_far.popleft())
        session.part()
        for _ in range(chance.randrange(3)):
            carry_out()
        if len(done) == len(commands) and len(far.record) >= len(said):
            break
    assert done == commands
    assert far.record == said
