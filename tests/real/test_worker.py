"""The worker in its own process, with a coordinator, programs and an S3 server that are real."""

import hashlib
import os
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from kit.workers import ROOT, Coordinator, Token, bare, coordinator, make_papers

from mu.wire import Framer, frame


@pytest.fixture(scope="module")
def s3(s3_files):
    return s3_files


@pytest.fixture
def home(tmp_path):
    """The bundle's folder."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    return folder


@pytest.fixture
def boss(home):
    with coordinator(home) as running:
        yield running


@pytest.fixture(scope="module")
def papers():
    return make_papers()


def tmpdir(peer) -> Path:
    return Path(peer.ask("get:_tmpdir").removeprefix("OK:GET(").removesuffix(")"))


def peak_memory_kb(worker) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


# ---------------------------------------------------------------- both kinds of coordinator


def test_an_original_coordinator_hears_what_the_original_said(boss):
    worker = boss.start({"launch": "L1"})
    peer = boss.accept()
    first = peer.hear()
    assert re.fullmatch(
        rb"OK:HELLO\(session=[0-9a-f]{32},launch=L1,received=0:00000000,sent=0\)", first
    )
    peer.say("set:a:b", "get:a", "run:echo hi", "geti:a", "nonsense")
    assert [peer.hear() for _ in range(6)] == [
        b"OK:SET(a)",
        b"OK:GET(b)",
        b"OK:RETVAL(0):OUTPUT(hi\n):COMMAND(echo hi)",
        b"INFO:a:b",
        b"OK:GETI(a)",
        b"FAIL(no such command 'nonsense')",
    ]
    peer.say("quit:")
    assert peer.hear() == b""
    ending = worker.ending()
    assert (ending["status"], ending["received"], ending["sent"]) == ("quit", 6, 6)


def test_a_welcomed_worker_numbers_its_replies_and_shows_output_live(boss):
    peer = boss.converse()
    peer.say("echo:a", "run:echo hi", "geti:run_iter")
    assert [peer.hear() for _ in range(5)] == [
        b"RE:1:OK:ECHO(a)",
        b"LOG:2:hi\n",
        b"RE:2:OK:RETVAL(0):OUTPUT(hi\n):COMMAND(echo hi)",
        b"RE:3:INFO:run_iter:0",
        b"RE:3:OK:GETI(run_iter)",
    ]


def test_frames_may_come_one_byte_at_a_time(boss):
    peer = boss.converse()
    for byte in frame(b"echo:a") + frame(b"echo:b"):
        peer.sock.sendall(bytes([byte]))
    assert [peer.answer(), peer.answer()] == ["OK:ECHO(a)", "OK:ECHO(b)"]


def test_large_frames_pass_in_both_directions(boss):
    peer = boss.converse()
    text = "x" * 12_000_000
    assert peer.ask(f"echo:{text}") == f"OK:ECHO({text})"


def test_bytes_that_are_no_utf8_pass_through_a_program(boss):
    peer = boss.converse()
    answer = peer.ask(b"run:printf '%s' '\xff\xfe'")
    assert answer.startswith("OK:RETVAL(0):OUTPUT(\udcff\udcfe):COMMAND(printf")


def test_thousands_of_commands_may_be_sent_at_once(boss):
    boss.start()
    peer = boss.accept()
    peer.hello()
    peer.say(*[f"echo:{n}" for n in range(5000)])
    assert [peer.hear() for _ in range(5000)] == [b"OK:ECHO(%d)" % n for n in range(5000)]


def test_a_full_outbox_starts_no_command_until_an_ack(boss):
    peer = boss.converse()
    peer.say(*[f"echo:{n}" for n in range(1500)], "ping:now")
    heard = [peer.hear() for _ in range(1025)]
    assert sorted(heard)[-1] == b"pong:now"
    assert sum(h.startswith(b"RE:") for h in heard) == 1024
    peer.say("ack:1000")
    assert [peer.answer() for _ in range(476)][-1] == "OK:ECHO(1499)"


def test_a_spare_says_nothing_until_it_has_an_actor(boss):
    boss.start()
    peer = boss.accept().welcome(actor="-")
    peer.say("echo:a", "ping:1")
    assert peer.hear() == b"pong:1"
    peer.say("welcome:4:1:0", "echo:b")
    assert [peer.hear(), peer.hear()] == [b"RE:1:OK:ECHO(a)", b"RE:2:OK:ECHO(b)"]


def test_the_counts_at_the_end_are_those_of_the_conversation(boss):
    worker = boss.start()
    peer = boss.accept().welcome()
    assert peer.ask("geti:run_iter") == "INFO:run_iter:0"
    peer.say("ping:", "ack:1", "quit:")
    ending = worker.ending()
    assert (ending["received"], ending["sent"]) == (2, 2)


def test_a_malformed_frame_ends_the_worker_with_a_reason(boss):
    worker = boss.start()
    peer = boss.accept().welcome()
    peer.sock.sendall(b"GET / HTTP/1.1\r\n")
    assert peer.hear() == b""
    ending = worker.ending()
    assert ending["status"] == "lost"
    assert "12 decimal digits" in str(ending["reason"])
    assert "12 decimal digits" in worker.stderr


# ---------------------------------------------------------------- variables


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("set:K:a:b", "OK:SET(K)"),
        ("set:K:", "OK:SET(K)"),
        ("set::V", "FAIL(invalid syntax for SET: expected set:NAME:VALUE, got set::V)"),
        ("set:K", "FAIL(invalid syntax for SET: expected set:NAME:VALUE, got set:K)"),
        ("seti:K:-7", "OK:SETI(K)"),
        ("seti:K:x", "FAIL(could not interpret x as an integer)"),
        ("seti:K", "FAIL(invalid syntax for SETI: expected seti:NAME:VALUE, got seti:K)"),
        ("get:none", "FAIL(no such variable none)"),
        ("geti:none", "FAIL(no such variable none)"),
        ("get:srvkey", "FAIL(no such variable srvkey)"),
        ("echo:", "OK:ECHO()"),
        ("bogus:x", "FAIL(no such command 'bogus:x')"),
        ("echo", "FAIL(no such command 'echo')"),
        ("", "FAIL(no such command '')"),
        ("close_connect:", "OK:CLOSE_CONNECT"),
        ("run:", "FAIL(there is nothing to run: the bundle has no packaged command, and run: has no argument)"),
        ("retrieve:", "FAIL(could not compute download params: no bucket and no key and no file name)"),
        ("upload:", "FAIL(could not compute upload params: no bucket and no key and no file name)"),
        ("upload:K\0", "FAIL(could not compute upload params: no bucket and no file name)"),
    ],
)  # fmt: skip
def test_the_answer_to_one_command(boss, command, answer):
    assert boss.converse().ask(command) == answer


def test_a_failed_command_leaves_the_worker_at_work(boss):
    peer = boss.converse()
    assert peer.ask("run:\0").startswith("FAIL(")
    assert peer.ask("run:" + "x" * 200_000).startswith("FAIL(could not start xxx")
    assert peer.ask("echo:still here") == "OK:ECHO(still here)"


def test_variables_are_dumped_without_secrets(boss):
    peer = boss.converse({"env": {"SECRET": "hush"}, "bucket": "b"})
    answer = peer.ask("dump_vals:")
    assert answer.startswith("OK:DUMP_VALS:")
    assert '"bucket": "b"' in answer
    assert "hush" not in answer


# ---------------------------------------------------------------- programs


def test_an_exit_status_is_no_failure(boss):
    peer = boss.converse()
    assert peer.ask("run:exit 3") == "OK:RETVAL(3):OUTPUT():COMMAND(exit 3)"


def test_a_signal_is_a_negative_status(boss):
    assert boss.converse().ask("run:kill -9 $$").startswith("OK:RETVAL(-9):")


def test_errors_and_output_are_one_stream(boss):
    answer = boss.converse().ask("run:echo a; echo b >&2; echo c")
    assert answer.startswith("OK:RETVAL(0):OUTPUT(a\nb\nc\n):")


def test_a_program_has_an_empty_standard_input(boss):
    assert boss.converse().ask("run:cat; echo end").startswith("OK:RETVAL(0):OUTPUT(end\n)")


def test_commands_run_in_the_bundles_folder(boss, home):
    (home / "tool").write_text("#!/bin/sh\necho tool says $1\n")
    (home / "tool").chmod(0o755)
    assert boss.converse().ask("run:./tool hi").startswith("OK:RETVAL(0):OUTPUT(tool says hi\n)")


def test_commands_get_the_events_environment(boss):
    peer = boss.converse({"env": {"GREETING": "good day"}})
    assert "OUTPUT(good day\n)" in peer.ask('run:echo "$GREETING"')


def test_commands_are_told_the_workers_python(boss):
    assert f"OUTPUT({sys.executable}\n)" in boss.converse().ask('run:echo "$MU_PYTHON"')


def test_the_packaged_command_runs_with_the_events_defaults(boss, home):
    (home / "mu_command.json").write_text('{"command": "echo $A ##INFILE## ##TMPDIR##"}')
    peer = boss.converse({"vars": "A=1;", "infile": "in", "args": ["-x"]})
    folder = tmpdir(peer)
    assert f"COMMAND(A=1; echo $A in {folder} -x)" in peer.ask("run:")
    assert "OUTPUT(1 in" in peer.ask("run:")


def test_in_the_background_a_run_answers_twice(boss):
    peer = boss.converse({"nonblock": 1})
    fifo = tmpdir(peer) / "fifo"
    os.mkfifo(fifo)
    command = f"cat {fifo}; exit 2"
    peer.say(f"run:{command}", "echo:meanwhile")
    assert peer.hear() == b"RE:2:OK:RUNNING(%b)" % command.encode()
    assert peer.hear() == b"RE:3:OK:ECHO(meanwhile)"
    fifo.write_text("done")
    assert peer.answer() == f"OK:RETVAL(2):OUTPUT(done):COMMAND({command})"


def test_a_silent_background_run_answers_once(boss):
    peer = boss.converse({"nonblock": 1, "bg_silent": 1})
    assert peer.ask("run:true") == "OK:RETVAL(0):OUTPUT():COMMAND(true)"


def test_background_runs_run_side_by_side(boss):
    peer = boss.converse({"nonblock": 1, "bg_silent": 1})
    fifo = tmpdir(peer) / "fifo"
    os.mkfifo(fifo)
    peer.say(f"run:read x <{fifo}; echo heard $x", f"run:echo hi >{fifo}")
    answers = {peer.answer(), peer.answer()}
    assert any("OUTPUT(heard hi\n)" in a for a in answers)


def test_nonblock_can_be_switched_at_run_time(boss):
    peer = boss.converse({"nonblock": 1})
    assert peer.ask("run:true") == "OK:RUNNING(true)"
    assert peer.answer().startswith("OK:RETVAL(0)")
    peer.ask("seti:nonblock:0")
    assert peer.ask("run:true").startswith("OK:RETVAL(0)")


def test_a_blocking_run_blocks_the_commands_behind_it_and_not_the_pings(boss):
    peer = boss.converse()
    fifo = tmpdir(peer) / "fifo"
    os.mkfifo(fifo)
    peer.say(f"run:cat {fifo}", "echo:behind", "ping:1")
    assert peer.hear() == b"pong:1"
    fifo.write_text("done")
    assert "OUTPUT(done)" in peer.answer()
    assert peer.answer() == "OK:ECHO(behind)"


def test_output_is_shown_while_the_program_runs(boss):
    peer = boss.converse()
    fifo = tmpdir(peer) / "fifo"
    os.mkfifo(fifo)
    peer.say(f"run:echo before; cat {fifo}")
    assert peer.hear() == b"LOG:2:before\n"
    fifo.write_text("after")
    assert peer.hear() == b"LOG:2:after"
    assert "OUTPUT(before\nafter)" in peer.answer()


def test_an_output_of_20_mb_is_cut_with_a_mark(boss):
    peer = boss.converse({"output_limit": 1000})
    peer.say("run:echo head; head -c 20000000 /dev/zero | tr '\\0' x; echo tail")
    shown = 0
    while (heard := peer.hear()).startswith(b"LOG:"):
        shown += len(heard)
    assert re.fullmatch(
        rb"RE:1:OK:RETVAL\(0\):OUTPUT\(head\nx{495}\n\[\.\.\. 19999010 bytes cut \.\.\.\]\n"
        rb"x{495}tail\n\):COMMAND\(.*\)",
        heard,
    )
    assert shown >= 20_000_000


def test_100_mb_of_output_leave_the_worker_small(boss):
    worker = boss.start()
    peer = boss.accept()
    peer.hello()
    peer.say("run:head -c 100000000 /dev/zero")
    assert len(peer.hear()) < 70_000
    assert peak_memory_kb(worker) < 60_000


def test_a_coordinator_that_does_not_read_stops_no_program(boss):
    worker = boss.start()
    peer = boss.accept().welcome()
    fifo = tmpdir(peer) / "fifo"
    os.mkfifo(fifo)
    peer.say(f"run:head -c 100000000 /dev/zero; echo done >{fifo}")
    assert fifo.read_text() == "done\n"
    shown = 0
    while (heard := peer.hear()).startswith(b"LOG:"):
        shown += len(heard)
        last = heard
    assert heard.startswith(b"RE:2:OK:RETVAL(0)")
    assert shown < 50_000_000
    assert re.search(rb"\[\.\.\. \d+ bytes not shown live \.\.\.\]\n$", last)
    assert peak_memory_kb(worker) < 60_000


def test_an_exit_is_noticed_though_a_grandchild_holds_the_pipe(boss, tmp_path):
    peer = boss.converse()
    token = Token(tmp_path)
    peer.say(f"run:exec 3>{token.path}; sleep 1000 & echo started")
    assert peer.answer().startswith("OK:RETVAL(0):OUTPUT(started\n)")
    peer.say("quit:")
    token.wait_gone()


def test_a_grandchild_may_go_on_printing(boss):
    peer = boss.converse()
    fifo = tmpdir(peer) / "fifo"
    os.mkfifo(fifo)
    peer.say(f"run:(trap '' PIPE; read x <{fifo}; echo $x && echo fine >{fifo}) & true")
    assert peer.answer().startswith("OK:RETVAL(0)")
    fifo.write_text("go\n")
    assert fifo.read_text() == "fine\n"


def test_a_program_may_close_its_output_long_before_it_ends(boss):
    peer = boss.converse()
    fifo = tmpdir(peer) / "fifo"
    os.mkfifo(fifo)
    peer.say(f"run:exec >&- 2>&-; read x <{fifo}; exit 5", "ping:1")
    assert peer.hear() == b"pong:1"
    fifo.write_text("go\n")
    assert peer.answer().startswith("OK:RETVAL(5):OUTPUT():")


@pytest.mark.parametrize("command", ["rm -rf /tmp/*", "cat /tmp/x", "echo $(ls /tmp)"])
def test_where_tmp_is_shared_a_command_that_names_it_is_refused(boss, command):
    peer = boss.converse(environ={"MU_SHARED_TMP": "1"})
    answer = peer.ask(f"run:{command}")
    assert answer.startswith("FAIL(the command names /tmp, which other workers share here")
    assert "##TMPDIR##" in answer
    assert peer.ask("run:mkdir -p ##TMPDIR##/tmp").startswith("OK:RETVAL(0)")


def test_where_tmp_is_shared_a_transfer_that_names_it_is_refused(boss):
    peer = boss.converse({"bucket": "b"}, environ={"MU_SHARED_TMP": "1"})
    assert peer.ask("retrieve:K\0/tmp/x").startswith(
        "FAIL(the file name names /tmp, which other workers share here"
    )


# ---------------------------------------------------------------- the end


def test_quit_ends_a_blocking_program(boss, tmp_path):
    worker = boss.start()
    peer = boss.accept().welcome()
    token = Token(tmp_path)
    peer.say(f"run:exec 3>{token.path}; echo up; sleep 1000")
    assert peer.hear() == b"LOG:1:up\n"
    peer.say("quit:")
    assert peer.hear() == b""
    assert worker.ending()["status"] == "quit"
    token.wait_gone()


def test_quit_ends_background_programs_even_stubborn_ones(boss, tmp_path):
    peer = boss.converse({"nonblock": 1, "bg_silent": 1})
    token = Token(tmp_path)
    peer.say(f"run:trap '' TERM; exec 3>{token.path}; echo up; while :; do sleep 1000; done")
    assert peer.hear() == b"LOG:1:up\n"
    peer.say("quit:")
    token.wait_gone()


def test_what_came_before_quit_is_still_answered(boss):
    peer = boss.converse()
    peer.say("echo:a", "set:k:v", "quit:")
    assert [peer.hear() for _ in range(3)] == [b"RE:1:OK:ECHO(a)", b"RE:2:OK:SET(k)", b""]


def test_a_lost_connection_ends_what_runs(boss, tmp_path):
    worker = boss.start()
    peer = boss.accept().welcome()
    token = Token(tmp_path)
    peer.say(f"run:exec 3>{token.path}; echo up; sleep 1000")
    assert peer.hear() == b"LOG:1:up\n"
    peer.sock.close()
    token.wait_gone()
    assert worker.ending()["status"] == "lost"
    assert "lost the coordinator" in worker.stderr
    assert "Traceback" not in worker.stderr


def test_the_folder_is_private_and_gone_at_the_end(boss):
    worker = boss.start()
    peer = boss.accept().welcome()
    folder = tmpdir(peer)
    assert folder.parent == Path("/tmp")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert peer.ask("run:mkdir ##TMPDIR##/deep; touch ##TMPDIR##/deep/x").startswith("OK")
    peer.say("quit:")
    worker.ending()
    assert not folder.exists()


def test_without_rm_tmpdir_the_folder_stays(boss):
    worker = boss.start()
    peer = boss.accept().welcome()
    folder = tmpdir(peer)
    peer.ask("seti:rm_tmpdir:0")
    peer.say("quit:")
    worker.ending()
    assert folder.exists()
    folder.rmdir()


def test_only_the_workers_own_folder_is_ever_removed(boss, tmp_path):
    (tmp_path / "precious").write_text("x")
    worker = boss.start()
    peer = boss.accept().welcome()
    folder = tmpdir(peer)
    peer.ask(f"set:_tmpdir:{tmp_path}")
    peer.say("quit:")
    worker.ending()
    assert (tmp_path / "precious").exists()
    assert not folder.exists()


def test_a_coordinator_that_is_not_there_is_a_clear_ending(boss):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    worker = boss.start({"port": port})
    ending = worker.ending()
    assert ending == {
        "status": "failed",
        "reason": f"cannot reach 127.0.0.1:{port}: Connection refused",
    }
    assert worker.stderr == f"mu worker: cannot reach 127.0.0.1:{port}: Connection refused\n"


def test_a_bad_event_is_a_clear_error(boss):
    worker = boss.start({"port": "x"})
    assert worker.process.wait(60) == 1
    assert (
        "EventError: event key port must be an integer from 1 to 65535, got 'x'"
        in worker.process.stderr.read().decode()
    )


def test_mode_0_runs_the_packaged_command_and_returns(boss, home):
    (home / "mu_command.json").write_text('{"command": "echo ##INFILE## $X; exit 4"}')
    worker = boss.start({"mode": 0, "infile": "in", "env": {"X": "x"}})
    assert worker.ending() == {
        "status": "done",
        "retval": 4,
        "output": "in x\n",
        "command": "echo in $X; exit 4",
    }


def test_mode_0_without_a_packaged_command_fails(boss):
    assert boss.start({"mode": 0}).ending()["status"] == "failed"


# ---------------------------------------------------------------- TLS


@pytest.fixture
def tls_boss(home, tmp_path, papers):
    with coordinator(home, papers.server_context(tmp_path)) as running:
        yield running


@pytest.mark.parametrize("name", [{}, {"server_name": "mu.test"}])
def test_worker_and_coordinator_check_each_other(tls_boss, papers, name):
    worker = tls_boss.start({**papers.event(), **name})
    peer = tls_boss.accept().welcome()
    assert peer.sock.getpeercert()["subject"] == ((("commonName", "worker"),),)
    text = "x" * 3_000_000
    assert peer.ask(f"echo:{text}") == f"OK:ECHO({text})"
    peer.say("quit:")
    assert worker.ending()["status"] == "quit"


def test_tls_1_2_will_do(home, tmp_path, papers):
    context = papers.server_context(tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with coordinator(home, context) as running:
        peer = running.converse(papers.event())
        assert peer.sock.version() == "TLSv1.2"  # type: ignore[attr-defined]
        assert peer.ask("echo:a") == "OK:ECHO(a)"


def test_many_frames_in_one_tls_record_are_all_answered(tls_boss, papers):
    peer = tls_boss.converse(papers.event())
    peer.say(*[f"echo:{n}" for n in range(500)])
    assert [peer.answer() for _ in range(500)][-1] == "OK:ECHO(499)"


def test_rsa_papers_as_bare_base64_work(home, tmp_path):
    rsa = make_papers("rsa")
    event = {"cacert": bare(rsa.ca), "srvcrt": bare(rsa.worker), "srvkey": bare(rsa.worker_key)}
    with coordinator(home, rsa.server_context(tmp_path)) as running:
        assert running.converse(event).ask("echo:a") == "OK:ECHO(a)"


def refused(boss: Coordinator, event: dict[str, object]) -> str:
    worker = boss.start(event)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        boss.accept()
    ending = worker.ending()
    assert "Traceback" not in worker.stderr
    assert len(worker.stderr.splitlines()) == 1
    return f"{ending['status']}: {ending['reason']}"


def test_a_coordinator_of_another_ca_is_refused(tls_boss, papers):
    reason = refused(tls_boss, papers.event() | {"cacert": make_papers().ca})
    assert reason.startswith(f"failed: TLS with 127.0.0.1:{tls_boss.port} failed: ")


def test_a_coordinator_of_another_name_is_refused(tls_boss, papers):
    reason = refused(tls_boss, papers.event() | {"server_name": "other.test"})
    assert "other.test" in reason


def test_a_worker_without_a_certificate_learns_that_it_is_refused(tls_boss, papers):
    reason = refused(tls_boss, {"cacert": papers.ca})
    assert reason.startswith("lost: ")


# ---------------------------------------------------------------- S3


def test_an_object_is_retrieved_and_uploaded(boss, s3):
    (s3.folder / "things" / "in.txt").write_text("content")
    peer = boss.converse(s3.event)
    folder = tmpdir(peer)
    answer = peer.ask("retrieve:in.txt\0##TMPDIR##/new/folder/in.txt")
    assert answer == "OK:RETRIEVE(things/in.txt)"
    assert [p.name for p in (folder / "new" / "folder").iterdir()] == ["in.txt"]
    assert (folder / "new" / "folder" / "in.txt").read_text() == "content"
    assert peer.ask("upload:a/b/out.txt\0##TMPDIR##/new/folder/in.txt") == (
        "OK:UPLOAD(things/a/b/out.txt)"
    )
    assert (s3.folder / "things" / "a" / "b" / "out.txt").read_text() == "content"


def test_in_the_background_transfers_answer_twice(boss, s3):
    (s3.folder / "things" / "bg.txt").write_text("content")
    peer = boss.converse({**s3.event, "nonblock": 1})
    folder = tmpdir(peer)
    assert peer.ask("retrieve:bg.txt\0##TMPDIR##/x") == f"OK:RETRIEVING(things/bg.txt->{folder}/x)"
    assert peer.answer() == "OK:RETRIEVE(things/bg.txt)"
    assert peer.ask("upload:bg2.txt\0##TMPDIR##/x") == f"OK:UPLOADING({folder}/x->things/bg2.txt)"
    assert peer.answer() == "OK:UPLOAD(things/bg2.txt)"


def test_silent_background_transfers_answer_once(boss, s3):
    (s3.folder / "things" / "silent.txt").write_text("content")
    peer = boss.converse({**s3.event, "nonblock": 1, "bg_silent": 1})
    assert peer.ask("retrieve:silent.txt\0##TMPDIR##/x") == "OK:RETRIEVE(things/silent.txt)"
    assert peer.ask("upload:silent2.txt\0##TMPDIR##/x") == "OK:UPLOAD(things/silent2.txt)"


def test_without_arguments_transfers_use_the_variables(boss, s3):
    (s3.folder / "things" / "var.txt").write_text("content")
    peer = boss.converse(s3.event)
    peer.say("set:inkey:var.txt", "set:targfile:##TMPDIR##/v", "retrieve:")
    assert [peer.answer() for _ in range(3)][-1] == "OK:RETRIEVE(things/var.txt)"
    peer.say("set:outkey:var2.txt", "set:fromfile:##TMPDIR##/v", "upload:")
    assert [peer.answer() for _ in range(3)][-1] == "OK:UPLOAD(things/var2.txt)"


def test_hashed_keys_have_four_digits_in_front(boss, s3):
    peer = boss.converse({**s3.event, "hash_s3keys": 1})
    peer.ask("run:echo x >##TMPDIR##/x")
    digits = hashlib.md5(b"8.png").hexdigest()[:4]
    answer = peer.ask("upload:video/8.png\0##TMPDIR##/x")
    assert answer == f"OK:UPLOAD(things/{digits}-video/8.png)"
    assert peer.ask("retrieve:video/8.png\0##TMPDIR##/y") == answer.replace("UPLOAD", "RETRIEVE")


def test_a_large_object_goes_there_and_back(boss, s3):
    peer = boss.converse(s3.event)
    peer.ask("run:head -c 30000000 /dev/urandom >##TMPDIR##/big")
    assert peer.ask("upload:big\0##TMPDIR##/big") == "OK:UPLOAD(things/big)"
    assert peer.ask("retrieve:big\0##TMPDIR##/again") == "OK:RETRIEVE(things/big)"
    assert peer.ask("run:cmp ##TMPDIR##/big ##TMPDIR##/again").startswith("OK:RETVAL(0)")


def test_a_missing_object_is_named_and_leaves_no_file(boss, s3):
    peer = boss.converse(s3.event)
    folder = tmpdir(peer)
    answer = peer.ask("retrieve:none\0##TMPDIR##/x")
    assert answer.startswith(f"FAIL(could not retrieve things/none to {folder}/x: NoSuchKey")
    assert list(folder.iterdir()) == []
    assert peer.ask("echo:a") == "OK:ECHO(a)"


def test_a_missing_bucket_is_named(boss, s3):
    peer = boss.converse({**s3.event, "bucket": "nobucket"})
    peer.ask("run:touch ##TMPDIR##/x")
    answer = peer.ask("upload:k\0##TMPDIR##/x")
    assert re.match(r"FAIL\(could not upload \S+/x to nobucket/k: NoSuchBucket: ", answer)


def test_a_missing_file_is_named(boss, s3):
    answer = boss.converse(s3.event).ask("upload:k\0no/such/file")
    assert re.match(r"FAIL\(could not upload .*no/such/file to things/k: FileNotFound", answer)


def test_a_wrong_secret_is_s3s_own_complaint(boss, s3):
    env = {**s3.event["env"], "AWS_SECRET_ACCESS_KEY": "wrong"}
    answer = boss.converse({**s3.event, "env": env}).ask("retrieve:k\0##TMPDIR##/x")
    assert "SignatureDoesNotMatch" in answer


def test_a_ping_is_answered_during_a_transfer_that_hangs(boss, home):
    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        endpoint = f"http://127.0.0.1:{black_hole.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        worker = boss.start({"bucket": "bbb", "env": {"AWS_ENDPOINT_URL_S3": endpoint, **keys}})
        peer = boss.accept().welcome()
        peer.say("retrieve:k\0##TMPDIR##/x", "ping:1")
        black_hole.accept()
        peer.say("ping:2")
        assert [peer.hear(), peer.hear()] == [b"pong:1", b"pong:2"]
        peer.say("quit:")
        assert worker.ending()["status"] == "quit"


def test_boto3_is_imported_after_the_hello_and_holds_nothing_up(boss, home):
    fifo = home / "fifo"
    os.mkfifo(fifo)
    (home / "boto3.py").write_text(  # its first import waits for a writer
        f"import os\nfifo = {str(fifo)!r}\n"
        "if os.path.exists(fifo):\n    open(fifo).read()\n    os.unlink(fifo)\n"
        "raise ImportError('no boto3')\n"
    )
    boss.start({"bucket": "things"}, path=f"{home}:{ROOT / 'lambda'}:{ROOT}")
    peer = boss.accept().welcome()
    with fifo.open("w"):  # this succeeds once the worker imports it without a command
        assert peer.ask("echo:a") == "OK:ECHO(a)"
        peer.say("retrieve:k\0##TMPDIR##/x", "ping:1")
        assert peer.hear() == b"pong:1"
    assert peer.answer().endswith("ImportError: no boto3)")


def test_until_the_hello_nothing_slow_is_imported():
    program = "import sys, lambda_function; print(*sys.modules)"
    path = f"{ROOT / 'lambda'}:{ROOT}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env={"PYTHONPATH": path}, capture_output=True
    )
    loaded = set(done.stdout.decode().split())
    assert "mu_worker.connection" in loaded
    slow = {"boto3", "subprocess", "tempfile", "logging", "asyncio", "typing", "threading"}
    assert not loaded & (slow | {"mu_worker.loop", "mu_worker.store"})


# ---------------------------------------------------------------- the relay


def relay_frame(listener: socket.socket) -> tuple[socket.socket, bytes]:
    listener.settimeout(20)
    sock, _ = listener.accept()
    sock.settimeout(20)
    framer, heard = Framer(), []
    while not heard:
        heard.extend(framer.feed(sock.recv(4096)))
    return sock, heard[0]


def test_connect_opens_the_relay_and_says_hello_there(boss):
    peer = boss.converse()
    with socket.create_server(("127.0.0.1", 0)) as relay:
        where = f"127.0.0.1:{relay.getsockname()[1]}:HELLO_STATE:u:1:2"
        assert peer.ask(f"connect:{where}") == f"OK:CONNECT({where})"
        sock, hello = relay_frame(relay)
        assert hello == b"HELLO_STATE:u:1:2"
        assert peer.ask(f"connect:{where}") == "FAIL(already connected)"
        assert peer.ask("close_connect:") == "OK:CLOSE_CONNECT"
        assert sock.recv(1) == b""
        assert peer.ask(f"connect:{where}") == f"OK:CONNECT({where})"
        sock.close()


def test_the_relay_is_spoken_to_over_tls_where_the_coordinator_is(tls_boss, papers, tmp_path):
    peer = tls_boss.converse(papers.event())
    with socket.create_server(("127.0.0.1", 0)) as plain:
        peer.say(f"connect:127.0.0.1:{plain.getsockname()[1]}:HELLO_STATE:u:1:2")
        with papers.server_context(tmp_path).wrap_socket(plain, server_side=True) as relay:
            sock, hello = relay_frame(relay)
    assert hello == b"HELLO_STATE:u:1:2"
    assert peer.answer().startswith("OK:CONNECT(")
    sock.close()


def test_a_relay_that_goes_away_may_be_connected_again(boss):
    peer = boss.converse()
    with socket.create_server(("127.0.0.1", 0)) as relay:
        where = f"127.0.0.1:{relay.getsockname()[1]}:HELLO_STATE:u:1:2"
        peer.ask(f"connect:{where}")
        relay_frame(relay)[0].close()
        while (answer := peer.ask(f"connect:{where}")) == "FAIL(already connected)":
            pass
        assert answer == f"OK:CONNECT({where})"


@pytest.mark.parametrize("argument", ["", "host", "host:1", "host:x:HELLO", ":1:HELLO", "h:0:H"])
def test_a_malformed_connect_fails(boss, argument):
    answer = boss.converse().ask(f"connect:{argument}")
    assert answer == f"FAIL(expected connect:HOST:PORT:HELLO, got connect:{argument})"


@pytest.mark.parametrize(
    "argument", ["[::1]", "[::1]:", "[::1]:1", "[::1:1:H", "::1:1:H", "[]:1:H"]
)
def test_a_malformed_ipv6_connect_fails(boss, argument):
    answer = boss.converse().ask(f"connect:{argument}")
    assert answer == f"FAIL(expected connect:HOST:PORT:HELLO, got connect:{argument})"


def test_a_relay_may_have_an_ipv6_address(boss):
    peer = boss.converse()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as relay:
        where = f"[::1]:{relay.getsockname()[1]}:HELLO_STATE:u:1:2"
        assert peer.ask(f"connect:{where}") == f"OK:CONNECT({where})"
        assert relay_frame(relay)[1] == b"HELLO_STATE:u:1:2"
    answer = boss.converse().ask("connect:[::1]:1:H")
    assert answer == "FAIL(cannot reach [::1]:1: Connection refused)"
    answer = boss.converse().ask("connect:a..b:1:H")
    assert answer.startswith("FAIL(cannot reach a..b:1: ")


def test_a_relay_that_is_not_there_fails(boss):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    answer = boss.converse().ask(f"connect:127.0.0.1:{port}:H")
    assert answer == f"FAIL(cannot reach 127.0.0.1:{port}: Connection refused)"
