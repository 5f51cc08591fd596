"""The worker and its neighbours: states over the relay, with real sockets and real programs."""

import hashlib
import os
import re
import socket
import zlib
from pathlib import Path

import pytest
from kit.workers import PATIENCE_S, Peer, RunningWorker, Token, coordinator, make_papers
from mu_worker.neighbour import RELAY_FRAME_LIMIT

from mu.wire import frame

SILENT = {"nonblock": 1, "bg_silent": 1}
ENCODER = """#!/bin/sh
# Writes its last argument as final.state in the folder that its first names.
printf %s "$2" >"$1/final.state"
"""


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "xc-dump").write_text(ENCODER)
    (folder / "xc-dump").chmod(0o755)
    return folder


@pytest.fixture
def boss(home):
    with coordinator(home) as running:
        yield running


class Relay:
    """A relay's port; the test itself plays the relay."""

    def __init__(self) -> None:
        self.port = 0
        self.listen()
        self.peers: list[Peer] = []

    def listen(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.listener.settimeout(PATIENCE_S)
        self.port = self.listener.getsockname()[1]

    def command(self, me: int = 1) -> str:
        return f"connect:127.0.0.1:{self.port}:HELLO_STATE:u:{me}:{me + 1}"

    def accept(self) -> Peer:
        self.peers.append(Peer(self.listener.accept()[0], RELAY_FRAME_LIMIT))
        return self.peers[-1]

    def close(self) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.sock.close()


@pytest.fixture
def relay():
    running = Relay()
    yield running
    running.close()


def state(number: int, content: bytes) -> bytes:
    return b"STATE(%d):%b" % (number, zlib.compress(content))


def read(sent: bytes) -> tuple[int, bytes]:
    """Return the number and the content of a state that was sent."""
    form = re.match(rb"STATE\((\d+)\):", sent)
    return int(form[1]), zlib.decompress(sent[form.end() :])


def tmpdir(peer: Peer) -> Path:
    return Path(peer.ask("get:_tmpdir").removeprefix("OK:GET(").removesuffix(")"))


def start(boss, relay, event=None) -> tuple[RunningWorker, Peer, Peer]:
    """Start a worker and connect it to the relay; return it and both other ends."""
    worker = boss.start({**SILENT, **(event or {})})
    peer = boss.accept().welcome()
    assert peer.ask(relay.command()).startswith("OK:CONNECT(")
    there = relay.accept()
    assert there.hear() == b"HELLO_STATE:u:1:2"
    return worker, peer, there


def give(peer: Peer, **values: int) -> None:
    for name, value in values.items():
        assert peer.ask(f"seti:{name}:{value}") == f"OK:SETI({name})"


def dismiss(worker: RunningWorker, peer: Peer) -> str:
    """End the worker; return its stderr."""
    peer.say("quit:")
    assert worker.ending()["status"] == "quit"
    assert "Traceback" not in worker.stderr
    return worker.stderr


# ---------------------------------------------------------------- states that come


def test_a_run_waits_for_the_neighbours_state(boss, relay):
    _, peer, there = start(boss, relay, {"expect_statefile": 1})
    give(peer, run_iter=3)
    peer.say("run:##INSTATEWAIT## cat - ##TMPDIR##/2.state", "echo:meanwhile")
    assert peer.answer() == "OK:ECHO(meanwhile)"
    there.say(state(2, b"the second"))
    assert peer.answer().startswith("OK:RETVAL(0):OUTPUT(go\nthe second)")


def test_a_state_may_be_there_before_the_run(boss, relay):
    _, peer, there = start(boss, relay, {"expect_statefile": 1, "nonblock": 0})
    there.say(state(0, b"early"))
    give(peer, run_iter=1)
    answer = peer.ask("run:##INSTATEWAIT## cat; echo ##INSTATESWITCH##")
    folder = tmpdir(peer)
    assert f"OUTPUT(go\n-r -I {folder}/0.state -p {folder}/prev.ivf\n)" in answer


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(1_000_000), bytes(3_000_000)])
def test_a_state_arrives_whole_in_whatever_pieces(boss, relay, content):
    _, peer, there = start(boss, relay, {"expect_statefile": 1})
    give(peer, run_iter=1)
    peer.say("run:##INSTATEWAIT## (read go; sha256sum ##TMPDIR##/0.state)")
    whole = frame(state(0, content))
    for at in range(min(len(whole), 200)):
        there.sock.sendall(whole[at : at + 1])
    there.sock.sendall(whole[200:])
    assert hashlib.sha256(content).hexdigest() in peer.answer()


def test_a_state_appears_by_a_rename(boss, relay):
    """While it arrives, there is no file with its name, and an older one is left alone."""
    _, peer, there = start(boss, relay)
    folder = tmpdir(peer)
    (folder / "5.state").write_text("older")
    whole = frame(state(5, os.urandom(500_000)))
    there.sock.sendall(whole[:-1])
    assert peer.ask("run:cat ##TMPDIR##/5.state").startswith("OK:RETVAL(0):OUTPUT(older)")
    before = (folder / "5.state").stat().st_ino
    there.sock.sendall(whole[-1:])
    peer.ask("run:while test $(wc -c <##TMPDIR##/5.state) = 5; do sleep 0.01; done")
    assert (folder / "5.state").stat().st_ino != before
    assert sorted(path.name for path in folder.iterdir()) == ["5.state"]


def test_a_state_that_a_command_puts_there_is_found(boss, relay):
    _, peer, _ = start(boss, relay, {"expect_statefile": 1, "nonblock": 1, "bg_silent": 1})
    give(peer, run_iter=1)
    peer.say("run:read nothing || echo empty; ##INSTATEWAIT## (read go; cat ##TMPDIR##/0.state)")
    peer.say("run:echo whole >##TMPDIR##/0.state")
    answers = {peer.answer()[:30] for _ in range(2)}
    assert answers == {"OK:RETVAL(0):OUTPUT():COMMAND(", "OK:RETVAL(0):OUTPUT(empty\nwhol"}


def test_what_waits_ends_with_a_worker_that_is_killed(boss, relay, tmp_path):
    worker, peer, _ = start(boss, relay, {"expect_statefile": 1})
    token = Token(tmp_path)
    give(peer, run_iter=1)
    peer.say(f"run:exec 3>{token.path}; echo up; ##INSTATEWAIT## cat")
    assert peer.hear() == b"LOG:3:up\n"
    worker.process.kill()
    worker.process.wait()
    token.wait_gone()


DAMAGED = [
    (b"STATE(0):no zlib at all", "it is damaged: Error -3 while decompressing data"),
    (state(0, b"x" * 1000)[:-5], "it is damaged: its end is missing"),
    (state(0, b"x" * 1000) + b"more", "it is damaged: there is data after its end"),
    (b"STATE(0):", "it is damaged: its end is missing"),
]


@pytest.mark.parametrize(("sent", "why"), DAMAGED)
def test_a_damaged_state_fails_the_run_that_waits_for_it_and_nothing_else(boss, relay, sent, why):
    worker, peer, there = start(boss, relay, {"expect_statefile": 1})
    give(peer, run_iter=1)
    peer.say("run:##INSTATEWAIT## cat")
    there.say(sent)
    assert peer.answer().startswith(f"FAIL(state 0 of the neighbour is unusable: {why}")
    assert peer.ask("run:##INSTATEWAIT## cat").startswith(
        "FAIL(state 0 of the neighbour is unusable"
    )
    there.say(state(0, b"whole"))
    there.say(state(1, b"next"))
    give(peer, run_iter=2)
    assert "OUTPUT(whole)" in peer.ask("run:##INSTATEWAIT## (read go; cat ##TMPDIR##/0.state)")
    assert f"the relay: state 0 is unusable: {why}" in dismiss(worker, peer)


@pytest.mark.parametrize("sent", [b"", b"S", b"STATE(x):y", b"STATE(1)", b"x" * 100, b"AT:3"])
def test_a_frame_of_another_kind_is_dropped_with_a_note(boss, relay, sent):
    worker, peer, there = start(boss, relay, {"expect_statefile": 1})
    there.say(sent, state(0, b"after it"))
    give(peer, run_iter=1)
    assert peer.ask("run:##INSTATEWAIT## (read go; cat ##TMPDIR##/0.state)").startswith(
        "OK:RETVAL(0)"
    )
    assert "the relay: dropped a frame without a state: " in dismiss(worker, peer)


def test_a_malformed_header_loses_the_relay_and_nothing_else(boss, relay):
    worker, peer, there = start(boss, relay)
    there.sock.sendall(b"GET / HTTP/1.1\r\n")
    assert there.hear() == b""
    assert peer.ask("echo:still here") == "OK:ECHO(still here)"
    assert "the relay: connection lost: a frame must begin with 12 decimal digits" in dismiss(
        worker, peer
    )


def test_a_disk_that_takes_nothing_fails_the_run_that_waits_and_nothing_else(boss, relay):
    """An unwritable folder stands for a full disk."""
    worker, peer, there = start(boss, relay, {"expect_statefile": 1})
    peer.ask("set:_tmpdir:/proc/no/such")
    give(peer, run_iter=1)
    there.say(state(0, b"content"))
    answer = peer.ask("run:##INSTATEWAIT## cat")
    assert answer.startswith(
        "FAIL(state 0 of the neighbour is unusable: it could not be written to disk: "
    )
    assert peer.ask("echo:still here") == "OK:ECHO(still here)"
    dismiss(worker, peer)


# ---------------------------------------------------------------- states that go


def test_after_a_background_run_of_the_encoder_the_state_is_sent(boss, relay):
    _, peer, there = start(boss, relay, {"send_statefile": 1})
    give(peer, run_iter=7)
    assert peer.ask("run:./xc-dump ##TMPDIR## content").startswith("OK:RETVAL(0)")
    assert read(there.hear()) == (7, b"content")


@pytest.mark.parametrize(
    ("values", "command"),
    [
        ({"send_statefile": 0}, "./xc-dump ##TMPDIR## content"),
        ({"nonblock": 0}, "./xc-dump ##TMPDIR## content"),
        ({}, "printf content >##TMPDIR##/final.state; : xc-dumper my.xc-enc"),
        ({}, "./xc-dump ##TMPDIR## content; exit 1"),
    ],
)
def test_otherwise_nothing_is_sent(boss, relay, values, command):
    _, peer, there = start(boss, relay, {"send_statefile": 1})
    give(peer, **values)
    peer.ask(f"run:{command}")
    give(peer, send_statefile=1, nonblock=1, run_iter=9)
    peer.ask("run:./xc-dump ##TMPDIR## last")
    assert read(there.hear()) == (9, b"last")


@pytest.mark.parametrize("nonblock", [0, 1])
def test_with_send_statefile_2_the_state_of_any_program_is_sent(boss, relay, nonblock):
    _, peer, there = start(boss, relay, {"send_statefile": 2, "nonblock": nonblock})
    answer = peer.ask("run:printf any >##TMPDIR##/final.state")
    assert answer.startswith("OK:RETVAL(0):OUTPUT()")
    assert read(there.hear()) == (0, b"any")


def test_with_send_statefile_2_a_program_must_write_its_state(boss, relay):
    _, peer, _ = start(boss, relay, {"send_statefile": 2})
    wrong = (
        "FAIL(send_statefile is 2, but the program did not write ##TMPDIR##/final.state: OK:RETVAL"
    )
    assert peer.ask("run:echo hi").startswith(wrong)
    assert peer.ask("run:printf any >##TMPDIR##/final.state").startswith("OK:RETVAL(0)")
    assert peer.ask("run:echo hi").startswith(wrong)
    assert peer.ask("run:exit 4").startswith("OK:RETVAL(4)")


def test_an_encoder_that_leaves_no_state_fails_where_one_is_to_be_sent(boss, relay):
    _, peer, _ = start(boss, relay, {"send_statefile": 1})
    answer = peer.ask("run:: xc-enc")
    assert answer == "FAIL(final.state could not be sent: No such file or directory)"


def test_without_a_relay_a_run_just_ends(boss):
    peer = boss.converse({**SILENT, "send_statefile": 1})
    assert peer.ask("run:./xc-dump ##TMPDIR## content").startswith("OK:RETVAL(0)")


def test_old_states_are_dropped_and_the_output_is_kept(boss, relay):
    _, peer, _ = start(boss, relay)
    folder = tmpdir(peer)
    for number in range(5):
        (folder / f"{number}.state").touch()
    (folder / "output.ivf").write_text("encoded")
    give(peer, run_iter=3)
    peer.ask("run:: xc-enc")
    kept = ["0.state", "2.state", "3.state", "4.state", "output.ivf", "prev.ivf"]
    assert sorted(path.name for path in folder.iterdir()) == kept
    assert (folder / "prev.ivf").read_text() == "encoded"
    assert (folder / "prev.ivf").stat().st_ino != (folder / "output.ivf").stat().st_ino
    give(peer, run_iter=2, minimal_recode=1)
    peer.ask("run:: xc-enc")
    assert (folder / "0.state").exists()


# ---------------------------------------------------------------- without AT, as in the original


def test_an_original_relay_is_told_the_hello_and_no_more(boss, relay):
    _, peer, there = start(boss, relay, {"send_statefile": 1})
    peer.ask("run:./xc-dump ##TMPDIR## 1")
    peer.ask("run:./xc-dump ##TMPDIR## 2")
    assert [read(there.hear()), read(there.hear())] == [(0, b"1"), (0, b"2")]


def test_what_was_sent_goes_out_before_close_connect_is_answered(boss, relay):
    _, peer, there = start(boss, relay, {"send_statefile": 2})
    peer.ask("run:head -c 30000000 /dev/urandom >##TMPDIR##/final.state")
    peer.say("close_connect:", "ping:now")
    assert peer.hear() == b"pong:now"
    assert len(read(there.hear())[1]) == 30_000_000
    assert peer.answer() == "OK:CLOSE_CONNECT"
    assert there.hear() == b""


def test_what_was_sent_goes_out_before_the_worker_ends(boss, relay):
    worker, peer, there = start(boss, relay, {"send_statefile": 2})
    peer.ask("run:head -c 30000000 /dev/urandom >##TMPDIR##/final.state")
    peer.say("quit:")
    assert len(read(there.hear())[1]) == 30_000_000
    assert worker.ending()["status"] == "quit"
    assert not tmpfiles(worker)


def tmpfiles(worker: RunningWorker) -> list[str]:
    folders = re.findall(r"/tmp/mu_[0-9a-f]{16}", worker.stderr)
    return [folder for folder in folders if os.path.exists(folder)]


def test_a_relay_that_does_not_read_holds_up_no_command(boss, relay):
    _, peer, _ = start(boss, relay, {"send_statefile": 2})
    answer = peer.ask("run:head -c 30000000 /dev/urandom >##TMPDIR##/final.state")
    assert answer.startswith("OK:RETVAL(0)")
    assert peer.ask("echo:a") == "OK:ECHO(a)"


# ---------------------------------------------------------------- AT

AT = {"relay_ext": 1}


def at(boss, relay, event=None) -> tuple[RunningWorker, Peer, Peer]:
    """As start, with a relay that knows AT but has not answered yet."""
    return start(boss, relay, {**AT, "send_statefile": 1, **(event or {})})


def again(relay: Relay, expected: str) -> Peer:
    """Accept the worker's next connection, which must send that AT."""
    there = relay.accept()
    assert there.hear() == b"HELLO_STATE:u:1:2"
    assert there.hear() == expected.encode()
    return there


def quiet(there: Peer, peer: Peer) -> bool:
    """Return whether the worker sends nothing, even after it has answered its coordinator."""
    assert peer.ask("echo:a") == "OK:ECHO(a)"
    there.sock.setblocking(False)
    try:
        there.sock.recv(1)
    except BlockingIOError:
        return True
    finally:
        there.sock.settimeout(PATIENCE_S)
    return False


def xc_dump(peer: Peer, content: str, iteration: int = 0) -> None:
    peer.say(f"seti:run_iter:{iteration}", f"run:./xc-dump ##TMPDIR## {content}; echo >&2 ran")
    assert peer.answer() == "OK:SETI(run_iter)"
    assert b":ran" in peer.hear()


def test_the_second_frame_is_at_and_nothing_follows_before_the_answer(boss, relay):
    _, peer, there = at(boss, relay)
    assert there.hear() == b"AT:1:0:0"
    xc_dump(peer, "one")
    assert quiet(there, peer)
    there.say("AT:0")
    assert read(there.hear()) == (0, b"one")


def test_the_attempt_is_the_one_of_the_welcome(boss, relay):
    boss.start({**SILENT, **AT})
    peer = boss.accept()
    peer.hello()
    peer.say("welcome:5:3:0", relay.command(5))
    there = relay.accept()
    assert [there.hear(), there.hear()] == [b"HELLO_STATE:u:5:6", b"AT:3:0:0"]


def test_a_run_is_answered_once_the_relay_has_its_state_on_disk(boss, relay):
    _, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:0")
    xc_dump(peer, "one")
    assert read(there.hear()) == (0, b"one")
    there.say("AT:0")
    assert peer.ask("echo:not yet") == "OK:ECHO(not yet)"
    there.say("AT:1")
    assert peer.answer().startswith("OK:RETVAL(0)")


def test_states_come_with_an_f_in_front(boss, relay):
    worker, peer, there = at(boss, relay, {"expect_statefile": 1})
    there.hear()
    there.say("AT:0", b"F:" + state(0, b"neighbour's"), b"F:rubbish", b"F:" + state(1, b"next"))
    give(peer, run_iter=2)
    peer.ask("run:##INSTATEWAIT## (read go; cat ##TMPDIR##/?.state)")
    there.cut()
    again(relay, "AT:1:0:3")
    noted = dismiss(worker, peer)
    assert "dropped a frame without a state: b'F:rubbish'" in noted


@pytest.mark.parametrize("said", [b"F:early", b"AT:x", b"AT:1:2", b"what"])
def test_a_relay_that_says_something_before_its_at_is_lost_and_tried_again(boss, relay, said):
    worker, peer, there = at(boss, relay)
    there.hear()
    there.say(said)
    assert there.hear() == b""
    there = again(relay, "AT:1:0:0")
    there.say("AT:0")
    xc_dump(peer, "one")
    assert read(there.hear()) == (0, b"one")
    there.say("AT:1")
    assert peer.answer().startswith("OK:RETVAL(0)")
    noted = dismiss(worker, peer)
    assert f"the relay: connection lost: its first frame must be AT:<n>, got {said!r}" in noted
    assert "the relay: reconnected" in noted


@pytest.mark.parametrize("held", [0, 1])
def test_a_frame_lost_in_its_middle_is_sent_again_by_number(boss, relay, held):
    """Whether or not the relay already has it."""
    _, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:0")
    xc_dump(peer, "one")
    assert there.sock.recv(10)
    there.cut()
    there = again(relay, "AT:1:1:0")
    there.say(f"AT:{held}")
    if held:
        assert peer.answer().startswith("OK:RETVAL(0)")
        assert quiet(there, peer)
    else:
        assert read(there.hear()) == (0, b"one")
        there.say("AT:1")
        assert peer.answer().startswith("OK:RETVAL(0)")


def test_after_a_cut_the_frames_after_those_held_are_sent_in_order(boss, relay):
    _, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:0")
    for number in range(4):
        xc_dump(peer, f"n{number}", number)
    assert [read(there.hear())[0] for _ in range(4)] == [0, 1, 2, 3]
    there.say("AT:1")
    assert peer.answer().startswith("OK:RETVAL(0)")
    there.cut()
    there = again(relay, "AT:1:4:0")
    there.say("AT:2")
    assert [read(there.hear()) for _ in range(2)] == [(2, b"n2"), (3, b"n3")]
    there.say("AT:3", "AT:4")
    assert all(peer.answer().startswith("OK:RETVAL(0)") for _ in range(3))


def test_a_later_attempt_sends_from_its_first_frame_on_though_the_relay_has_more(boss, relay):
    """The relay ignores them by their numbers."""
    _, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:2")
    for number in range(3):
        peer.say(f"seti:run_iter:{number}", f"run:./xc-dump ##TMPDIR## n{number}")
        assert peer.answer() == "OK:SETI(run_iter)"
        if number < 2:
            assert peer.answer().startswith("OK:RETVAL(0)")
        assert read(there.hear()) == (number, b"n%d" % number)
    there.say("AT:3")
    assert peer.answer().startswith("OK:RETVAL(0)")


def test_a_state_that_came_in_part_comes_again(boss, relay):
    _, peer, there = at(boss, relay, {"expect_statefile": 1})
    there.hear()
    there.say("AT:0", b"F:" + state(0, b"first"))
    there.sock.sendall(frame(b"F:" + state(1, os.urandom(200_000)))[:100_000])
    give(peer, run_iter=1)
    assert peer.ask("run:##INSTATEWAIT## (read go; cat ##TMPDIR##/0.state)").startswith(
        "OK:RETVAL(0)"
    )
    there.cut()
    there = again(relay, "AT:1:0:1")
    there.say("AT:0", b"F:" + state(1, b"second"))
    give(peer, run_iter=2)
    assert "OUTPUT(second)" in peer.ask("run:##INSTATEWAIT## (read go; cat ##TMPDIR##/1.state)")


def test_a_relay_that_is_gone_is_tried_until_it_is_back(boss, relay):
    worker, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:0")
    relay.listener.close()
    there.cut()
    worker.noted("the relay: connection lost:")
    assert peer.ask(relay.command()) == "FAIL(already connected)"
    xc_dump(peer, "one")
    relay.listen()
    there = again(relay, "AT:1:1:0")
    there.say("AT:0")
    assert read(there.hear()) == (0, b"one")
    there.say("AT:1")
    assert peer.answer().startswith("OK:RETVAL(0)")


def test_close_connect_ends_the_trying(boss, relay):
    worker, peer, there = at(boss, relay)
    there.hear()
    relay.listener.close()
    there.cut()
    worker.noted("the relay: connection lost:")
    assert peer.ask("close_connect:") == "OK:CLOSE_CONNECT"
    relay.listen()
    assert peer.ask(relay.command()).startswith("OK:CONNECT(")
    again(relay, "AT:1:0:0")


def test_after_close_connect_a_name_goes_on_where_it_was(boss, relay):
    _, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:0")
    xc_dump(peer, "one")
    there.hear()
    there.say("AT:1")
    peer.answer()
    assert peer.ask("close_connect:") == "OK:CLOSE_CONNECT"
    assert peer.ask(relay.command()).startswith("OK:CONNECT(")
    again(relay, "AT:1:1:0")


def test_close_connect_waits_for_the_relay_to_hold_what_was_sent(boss, relay):
    _, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:0")
    xc_dump(peer, "one")
    there.hear()
    peer.say("close_connect:", "ping:now")
    assert peer.hear() == b"pong:now"
    there.say("AT:1")
    assert peer.answer().startswith("OK:RETVAL(0)")
    assert peer.answer() == "OK:CLOSE_CONNECT"


def test_a_close_connect_that_waits_in_vain_fails_the_run_and_is_answered(boss, relay):
    worker = boss.start(
        {**SILENT, **AT, "send_statefile": 1}, limits={"mu_worker.neighbour.CLOSE_S": 0.1}
    )
    peer = boss.accept().welcome()
    peer.ask(relay.command())
    xc_dump(peer, "one")
    peer.say("close_connect:")
    assert peer.answer() == (
        "FAIL(the connection to the relay was closed before it held the state)"
    )
    assert peer.answer() == "OK:CLOSE_CONNECT"
    dismiss(worker, peer)


def test_a_relay_that_lost_what_it_held_is_given_up(boss, relay):
    worker, peer, there = at(boss, relay)
    there.hear()
    there.say("AT:0")
    xc_dump(peer, "one")
    there.hear()
    there.say("AT:1")
    peer.answer()
    there.cut()
    again(relay, "AT:1:1:0").say("AT:0")
    worker.noted("the relay: gave up: the relay has only 0 frames, but it had more")
    assert peer.ask(relay.command()).startswith("OK:CONNECT(")


def test_a_silent_relay_is_lost_after_a_while(boss, relay):
    worker = boss.start({**SILENT, **AT}, limits={"mu_worker.neighbour.ANSWER_S": 0.2})
    peer = boss.accept().welcome()
    peer.ask(relay.command())
    relay.accept()
    worker.noted("the relay: connection lost: no answer within 0.2 s")
    again(relay, "AT:1:0:0")


def test_over_tls_states_go_and_come(home, tmp_path, relay):
    papers = make_papers()
    context = papers.server_context(tmp_path)
    with coordinator(home, context) as boss:
        event = {**papers.event(), **SILENT, **AT, "expect_statefile": 1, "send_statefile": 2}
        boss.start(event)
        peer = boss.accept().welcome()
        peer.say(relay.command())
        there = Peer(context.wrap_socket(relay.listener.accept()[0], server_side=True))
        assert peer.answer().startswith("OK:CONNECT(")
        assert [there.hear(), there.hear()] == [b"HELLO_STATE:u:1:2", b"AT:1:0:0"]
        content = os.urandom(3_000_000)
        there.say("AT:0", b"F:" + state(0, content))
        give(peer, run_iter=1)
        peer.say("run:##INSTATEWAIT## (read go; cat ##TMPDIR##/0.state >##TMPDIR##/final.state)")
        assert read(there.hear()) == (1, content)
        there.say("AT:1")
        assert peer.answer().startswith("OK:RETVAL(0)")
        there.sock.close()


# ---------------------------------------------------------------- size


def memory(worker: RunningWorker) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def test_large_states_go_and_come_in_little_memory(boss, relay):
    """75 MiB in one frame through the worker, which sends on what it received."""
    worker, peer, there = at(boss, relay, {"expect_statefile": 1, "send_statefile": 2})
    there.hear()
    there.say("AT:0")
    before = memory(worker)
    packer, content = zlib.compressobj(1), os.urandom(2**15) + bytes(3 * 2**15)
    packed = b"".join([packer.compress(content) for _ in range(600)] + [packer.flush()])
    payload = b"F:STATE(0):" + packed
    give(peer, run_iter=1)
    peer.say(
        "run:##INSTATEWAIT## (read go; mv ##TMPDIR##/0.state ##TMPDIR##/final.state)", "ping:now"
    )
    assert peer.hear() == b"pong:now"
    there.sock.sendall(b"%012d " % len(payload) + payload)
    assert read(there.hear())[1] == zlib.decompress(packed)
    there.say("AT:1")
    assert peer.answer().startswith("OK:RETVAL(0)")
    assert memory(worker) - before < 30_000


def test_a_frame_over_the_limit_is_not_sent(boss, relay):
    boss.start(
        {**SILENT, "send_statefile": 2}, limits={"mu_worker.neighbour.RELAY_FRAME_LIMIT": 99}
    )
    peer = boss.accept().welcome()
    peer.ask(relay.command())
    answer = peer.ask("run:head -c 1000 /dev/urandom >##TMPDIR##/final.state")
    assert re.fullmatch(
        r"FAIL\(final.state could not be sent: compressed it has \d+ bytes, over the limit of"
        r" 99 bytes for a frame\)",
        answer,
    )


def test_a_frame_that_is_announced_over_the_limit_loses_the_relay(boss, relay):
    worker, _, there = start(boss, relay)
    there.sock.sendall(b"%012d " % 2**30)
    worker.noted("the relay: connection lost: a frame must have at most")
