"""A worker that loses its connection, over real TLS: it resumes, and nothing is done twice."""

import json
import os
import re
import ssl
import zlib
from pathlib import Path

import pytest
from kit.workers import (
    ROOT,
    Coordinator,
    Peer,
    RunningWorker,
    Token,
    coordinator,
    make_papers,
)

from mu.wire import frame


@pytest.fixture(scope="module")
def papers():
    return make_papers()


@pytest.fixture
def boss(tmp_path, papers):
    """A coordinator whose workers try to reconnect for 10 s."""
    event = {**papers.event(), "reconnect_s": 10}
    with coordinator(tmp_path, papers.server_context(tmp_path), event) as running:
        yield running


def start(boss: Coordinator, *args, **more) -> tuple[RunningWorker, Peer]:
    worker = boss.start(*args, **more)
    return worker, boss.accept().welcome()


def resume(boss: Coordinator, replies: int) -> Peer:
    """Welcome a worker that reconnects; the coordinator has `replies` of its replies."""
    peer = boss.accept()
    assert peer.hello().session
    peer.say(f"welcome:0:1:{replies}")
    return peer


def dismiss(worker: RunningWorker, peer: Peer) -> dict[str, object]:
    """End the worker, which must send nothing more."""
    peer.say("quit:")
    assert peer.hear() == b""
    ending = worker.ending()
    assert ending["status"] == "quit"
    assert "Traceback" not in worker.stderr
    return ending


def leave(worker: RunningWorker, peer: Peer) -> None:
    """End the worker, which may tell what it used."""
    peer.say("quit:")
    assert worker.ending()["status"] == "quit"


def lose(worker: RunningWorker, peer: Peer) -> None:
    """Cut the connection; return when the worker has noticed."""
    peer.cut()
    worker.noted("lost the coordinator")


def fifo(folder: Path, name: str = "fifo") -> Path:
    os.mkfifo(folder / name)
    return folder / name


# ---------------------------------------------------------------- what it used


def test_only_where_the_event_asks_a_worker_tells_what_it_used_before_its_hello(boss):
    worker, peer = start(boss, {"usage_ext": 1})
    used = re.fullmatch(rb"USED:0:(.+)", peer.hear())
    told = json.loads(used[1])
    assert told.keys() == {"init_s", "hello_s"}
    assert all(0 < seconds < 60 for seconds in told.values())
    assert peer.ask("echo:a") == "OK:ECHO(a)"
    lose(worker, peer)
    peer = resume(boss, 1)
    assert peer.hear() == used[0]
    dismiss(worker, peer)
    worker, peer = start(boss)
    assert peer.ask("echo:a") == "OK:ECHO(a)"
    dismiss(worker, peer)


# ---------------------------------------------------------------- cuts


@pytest.mark.parametrize("lost", [Peer.cut, lambda peer: peer.sock.close()], ids=["reset", "close"])
def test_a_command_cut_in_the_middle_counts_only_when_it_comes_whole(boss, lost):
    worker, peer = start(boss)
    peer.sock.sendall(frame(b"echo:a") + frame(b"echo:b")[:-1])
    assert peer.hear() == b"RE:1:OK:ECHO(a)"
    lost(peer)
    peer = boss.accept()
    hello = peer.hello()
    assert (hello.received, hello.crc, hello.sent) == (1, zlib.crc32(frame(b"echo:a")), 1)
    peer.say("welcome:0:1:1", "echo:b")
    assert peer.hear() == b"RE:2:OK:ECHO(b)"
    assert dismiss(worker, peer)["received"] == 3
    lines = r"mu worker: lost the coordinator: .+\nmu worker: reconnected to the coordinator\n"
    assert re.fullmatch(lines, worker.stderr)


def test_a_reply_cut_in_the_middle_is_sent_again_whole(boss):
    worker, peer = start(boss)
    text = "x" * 3_000_000
    peer.say(f"echo:{text}")
    assert peer.sock.recv(1000)
    peer.cut()
    peer = resume(boss, replies=0)
    assert peer.hear() == f"RE:1:OK:ECHO({text})".encode()
    dismiss(worker, peer)


@pytest.mark.parametrize("nonblock", [0, 1])
def test_a_program_outlives_a_cut_and_is_answered_once(boss, tmp_path, nonblock):
    worker, peer = start(boss, {"nonblock": nonblock, "bg_silent": 1})
    go = fifo(tmp_path)
    peer.say(f"run:echo up; cat {go}")
    assert peer.hear() == b"LOG:1:up\n"
    lose(worker, peer)
    go.write_text("done")
    peer = resume(boss, replies=0)
    assert peer.answer().startswith("OK:RETVAL(0):OUTPUT(up\ndone)")
    assert peer.ask("echo:a") == "OK:ECHO(a)"
    dismiss(worker, peer)


def test_a_command_from_before_the_cut_is_not_carried_out_again(boss, tmp_path):
    worker, peer = start(boss)
    go = fifo(tmp_path)
    peer.say(f"run:echo once >>##TMPDIR##/log; echo ran >{go}")
    assert go.read_text() == "ran\n"
    peer.cut()
    peer = resume(boss, replies=0)
    assert peer.answer().startswith("OK:RETVAL(0)")
    assert "OUTPUT(once\n)" in peer.ask("run:cat ##TMPDIR##/log")
    dismiss(worker, peer)


def test_variables_and_files_are_still_there(boss):
    worker, peer = start(boss)
    peer.ask("set:k:v")
    folder = peer.ask("get:_tmpdir")
    peer.cut()
    peer = resume(boss, replies=2)
    assert (peer.ask("get:k"), peer.ask("get:_tmpdir")) == ("OK:GET(v)", folder)
    dismiss(worker, peer)


def test_what_was_ordered_before_is_carried_out_without_a_coordinator(boss, tmp_path):
    worker, peer = start(boss)
    go, behind = fifo(tmp_path), fifo(tmp_path, "behind")
    peer.say(f"run:echo up; cat {go}", "echo:a", f"run:echo last >{behind}")
    assert peer.hear() == b"LOG:1:up\n"
    lose(worker, peer)
    go.write_text("")
    assert behind.read_text() == "last\n"
    peer = resume(boss, replies=0)
    numbers = [re.match(rb"RE:(\d)", peer.hear())[1] for _ in range(3)]
    assert numbers == [b"1", b"2", b"3"]
    dismiss(worker, peer)


def test_a_transfer_goes_on_without_a_coordinator(boss, tmp_path):
    go = fifo(tmp_path)
    (tmp_path / "boto3.py").write_text(f"open({str(go)!r}).read()\nraise ImportError('no boto3')\n")
    worker, peer = start(boss, path=f"{tmp_path}:{ROOT / 'lambda'}:{ROOT}")
    peer.ask("set:bucket:b")
    peer.say("retrieve:k\0##TMPDIR##/x", "ping:1")
    assert peer.hear() == b"pong:1"
    lose(worker, peer)
    go.write_text("")
    peer = resume(boss, replies=1)
    assert peer.answer().endswith("ImportError: no boto3)")
    dismiss(worker, peer)


def test_replies_after_k_are_sent_again_and_those_before_are_not(boss):
    worker, peer = start(boss)
    for n in range(4):
        peer.ask(f"echo:{n}")
    peer.cut()
    peer = resume(boss, replies=2)
    assert [peer.hear(), peer.hear()] == [b"RE:3:OK:ECHO(2)", b"RE:4:OK:ECHO(3)"]
    dismiss(worker, peer)


def test_a_connection_may_be_lost_again_and_again(boss):
    worker, peer = start(boss)
    for n in range(4):
        assert peer.ask(f"echo:{n}") == f"OK:ECHO({n})"
        peer.cut()
        peer = resume(boss, replies=n + 1)
    assert dismiss(worker, peer)["sent"] == 4


def test_with_a_full_outbox_no_command_is_started(boss, tmp_path):
    worker, peer = start(boss, limits={"mu_worker.session.OUTBOX_REPLIES": 3})
    go, third = fifo(tmp_path), fifo(tmp_path, "third")
    fourth = tmp_path / "fourth"
    peer.say(f"run:echo up; cat {go}", "echo:a", f"run:echo x >{third}", f"run:touch {fourth}")
    assert peer.hear() == b"LOG:1:up\n"
    lose(worker, peer)
    go.write_text("")
    third.read_text()
    peer = resume(boss, replies=0)
    assert [peer.answer()[:9] for _ in range(3)] == ["OK:RETVAL", "OK:ECHO(a", "OK:RETVAL"]
    peer.say("ping:1")
    assert peer.hear() == b"pong:1"
    assert not fourth.exists()
    peer.say("ack:1")
    assert peer.hear().startswith(b"RE:4:OK:RETVAL(0)")
    dismiss(worker, peer)


def test_a_spare_comes_back_as_a_spare_and_answers_when_it_has_an_actor(boss):
    worker = boss.start()
    peer = boss.accept().welcome(actor="-")
    peer.say("echo:a", "ping:1")
    assert peer.hear() == b"pong:1"
    peer.cut()
    peer = boss.accept().welcome(actor="-")
    peer.say("ping:2")
    assert peer.hear() == b"pong:2"
    peer.say("welcome:4:1:0", "echo:b")
    assert [peer.hear(), peer.hear()] == [b"RE:1:OK:ECHO(a)", b"RE:2:OK:ECHO(b)"]
    dismiss(worker, peer)


def test_a_malformed_frame_ends_its_connection_only(boss):
    worker, peer = start(boss)
    peer.sock.sendall(b"GET / HTTP/1.1\r\n")
    assert peer.hear() == b""
    peer = resume(boss, replies=0)
    assert peer.ask("echo:a") == "OK:ECHO(a)"
    dismiss(worker, peer)
    assert "12 decimal digits" in worker.stderr


# ---------------------------------------------------------------- the first connection


def test_a_coordinator_that_is_not_there_yet_is_waited_for(boss):
    boss.listener.close()
    worker = boss.start()
    worker.noted("cannot reach")
    boss.listen()
    peer = boss.accept().welcome()
    assert peer.ask("echo:a") == "OK:ECHO(a)"
    dismiss(worker, peer)


def test_a_failed_handshake_is_tried_again(boss):
    worker = boss.start()
    boss.listener.accept()[0].close()
    worker.noted("TLS with")
    dismiss(worker, boss.accept().welcome())


def test_a_connection_without_a_welcome_is_tried_again(boss):
    worker = boss.start()
    peer = boss.accept()
    session = peer.hello().session
    peer.cut()
    peer = boss.accept()
    assert peer.hello().session == session
    peer.say("welcome:0:1:0")
    dismiss(worker, peer)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_hello_answered_with_quit_ends_the_worker(boss, attempt):
    worker = boss.start()
    if attempt == 2:
        boss.accept().welcome().cut()
    peer = boss.accept()
    peer.hello()
    dismiss(worker, peer)


# ---------------------------------------------------------------- silence


def test_a_silent_coordinator_is_asked_and_when_it_does_not_answer_lost(boss):
    limits = {"mu_worker.link.ASK_S": 0.1, "mu_worker.link.ANSWER_S": 1}
    worker, silent = start(boss, limits=limits)
    for _ in range(3):
        assert silent.hear() == b"ping:"
        silent.say("pong:")
    peer = resume(boss, replies=0)
    assert [silent.hear(), silent.hear()] == [b"ping:", b""]
    peer.say("quit:")
    assert worker.ending()["status"] == "quit"
    assert "the coordinator was silent for 1.1 s" in worker.stderr


def test_a_spare_asks_a_silent_coordinator_too(boss):
    boss.start({"reconnect_s": 0}, limits={"mu_worker.link.ASK_S": 0.1})
    assert boss.accept().welcome(actor="-").hear() == b"ping:"


def test_a_connection_on_which_no_welcome_comes_is_given_up(boss):
    worker = boss.start(limits={"mu_worker.link.WELCOME_S": 1, "mu_worker.link.ASK_S": 0.1})
    silent = boss.accept()
    assert silent.hello().session
    silent.say("ping:are you there")  # is no welcome
    peer = boss.accept().welcome()
    assert silent.hear() == b""
    peer.say("quit:")
    assert worker.ending()["status"] == "quit"
    assert "no welcome within 1 s" in worker.stderr


def test_an_original_coordinator_is_never_asked(boss):
    worker = boss.start(limits={"mu_worker.link.ASK_S": 0.1, "mu_worker.link.WELCOME_S": 1})
    peer = boss.accept()
    peer.hello()
    peer.say("run:sleep 1.1", "echo:a")  # longer than both limits
    assert [peer.hear()[:9], peer.hear()] == [b"OK:RETVAL", b"OK:ECHO(a)"]
    dismiss(worker, peer)


# ---------------------------------------------------------------- the end


def is_over(worker: RunningWorker) -> str:
    """Return why the worker ended; it must have stopped everything that it started."""
    ending = worker.ending()
    assert ending["status"] == "lost"
    assert "Traceback" not in worker.stderr
    return str(ending["reason"])


def test_without_reconnect_s_a_lost_connection_is_the_end(boss):
    worker, peer = start(boss, {"reconnect_s": 0})
    peer.sock.close()
    assert is_over(worker) == "the other side closed the connection"


def test_an_original_coordinator_is_not_tried_again(boss):
    worker = boss.start()
    peer = boss.accept()
    peer.hello()
    assert peer.ask("echo:a") == "OK:ECHO(a)"
    peer.sock.close()
    assert is_over(worker) == "the other side closed the connection"


def test_a_session_that_cannot_go_on_is_not_tried_again(boss):
    worker, peer = start(boss)
    peer.ask("echo:a")
    peer.say("ack:1", "ping:1")
    assert peer.hear() == b"pong:1"
    peer.cut()
    peer = resume(boss, replies=0)
    assert peer.hear() == b""
    assert is_over(worker).endswith("1 exist, and the first 1 are gone")


def test_after_reconnect_s_everything_ends(boss, tmp_path):
    worker, peer = start(boss, {"reconnect_s": 0.5})
    folder = Path(peer.ask("get:_tmpdir").removeprefix("OK:GET(").removesuffix(")"))
    token = Token(tmp_path)
    peer.say(f"run:exec 3>{token.path}; echo up; sleep 1000")
    assert peer.hear() == b"LOG:2:up\n"
    boss.listener.close()
    peer.cut()
    token.wait_gone()
    refused = f"cannot reach 127.0.0.1:{boss.port}: Connection refused"
    assert is_over(worker) == f"could not reconnect within 0.5 s: {refused}"
    assert not folder.exists()


def test_an_attempt_under_way_does_not_delay_the_end(boss):
    worker, peer = start(boss, {"reconnect_s": 0.5})
    peer.cut()  # and nobody accepts: the handshake of the next connection would take 30 s
    assert is_over(worker).startswith("could not reconnect within 0.5 s: ")


def test_a_worker_that_is_refused_gives_up_in_the_end(boss, papers):
    worker = boss.start({**papers.event(), "cacert": make_papers().ca, "reconnect_s": 0.3})
    with pytest.raises((ssl.SSLError, ConnectionError)):
        boss.accept()
    assert is_over(worker).startswith("could not reconnect within 0.3 s: ")


# ---------------------------------------------------------------- what commands used


def used_by(peer, *commands):
    """Send commands; return what each told that it used, and its reply; None: it told nothing."""
    peer.say(*commands)
    told = []
    while len(told) < len(commands):
        used, heard = None, peer.hear()
        if heard.startswith(b"USED:"):
            number, _, used = heard.removeprefix(b"USED:").partition(b":")
            heard = peer.hear()
            assert heard.startswith(b"RE:%b:" % number)
        if heard.startswith(b"RE:"):
            told.append((used and json.loads(used), heard))
    return told


BURN = """exec python3 -c '
import time
held = bytearray(100 << 20)
while time.process_time() < 0.3: pass
'"""
"""Exceeds what a worker needs itself by far; no sample may see it."""


def test_a_slow_command_tells_what_it_used_and_a_quick_one_nothing(boss):
    worker, peer = start(boss, {"usage_ext": 1})
    assert peer.hear().startswith(b"USED:0:")
    (quick, _), (burnt, _), (failed, reply) = used_by(
        peer, "echo:a", f"run:{BURN}", "retrieve:no/such\0##TMPDIR##/file"
    )
    assert quick is None
    assert set(burnt) == {"cpu_s", "peak_mb", "busy_s", "idle_s"}
    assert 0.3 <= burnt["cpu_s"] < 2
    assert 100 < burnt["peak_mb"] < 200
    assert burnt["cpu_s"] <= burnt["busy_s"] + 0.05  # two clocks
    assert reply.startswith(b"RE:3:FAIL(")
    assert failed is None  # it could not begin: there is no bucket
    leave(worker, peer)


def test_commands_side_by_side_tell_the_time_that_any_of_them_ran_once(boss):
    worker, peer = start(boss, {"usage_ext": 1, "nonblock": 1, "bg_silent": 1})
    assert peer.hear().startswith(b"USED:0:")
    told = used_by(peer, "run:sleep 1.5", "run:sleep 1.5", "run:sleep 1.5")
    assert 1.5 <= sum(used["busy_s"] for used, _ in told) < 4.5
    leave(worker, peer)


def test_without_usage_ext_nothing_is_told(boss):
    worker, peer = start(boss, {})
    assert used_by(peer, "run:true") == [(None, b"RE:1:OK:RETVAL(0):OUTPUT():COMMAND(true)")]
    leave(worker, peer)
