"""The relay on real sockets: in the daemon, and as a process of its own."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest
from kit.nursery import daemons, popen_daemon
from kit.relay import join_relay
from stage import Daemon, Process, free_ports_conf

from mu.net.certificates import Authority

MIB = 2**20
RELAY = ("-n", "--pidfile=", "mu-relay")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    conf = free_ports_conf(local="enabled = no", relay="settle_s = 0.1", mu="on_stop = cancel")
    running = Daemon(tmp_path_factory.mktemp("relay"), conf=conf)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def authority(daemon):
    return Authority.at_home(daemon.home)


def join(daemon, authority, me, partner, *frames, uniq="u", **options):
    hello = f"HELLO_STATE:{uniq}:{me}:{partner}".encode()
    return join_relay(daemon.ports["relay"], authority, hello, *frames, **options)


def memory_kib(pid, what="VmRSS"):
    return int(Path(f"/proc/{pid}/status").read_text().split(f"{what}:")[1].split()[0])


def test_two_workers_pass_frames_through_the_daemon(daemon, authority):
    a = join(daemon, authority, 1, 2, b"early", uniq="pair")
    b = join(daemon, authority, 2, 1, uniq="pair")
    a.say(b"", bytes(range(256)), b"x" * 3_000_000)
    assert [b.hear() for _ in range(4)] == [b"early", b"", bytes(range(256)), b"x" * 3_000_000]
    b.say(b"back")
    assert a.hear() == b"back"
    a.close()
    b.close()


def test_workers_are_told_where_the_relay_is(daemon):
    told = daemon.ask("/jobs", {"pipeline": "hello", "engine": "external"})
    assert told["event"]["relay_ext"] == 1
    assert daemon.ports["relay"] > 0


def test_a_daemon_may_do_without_a_relay(tmp_path):
    conf = free_ports_conf(local="enabled = no", relay="enabled = no")
    daemon = Daemon(tmp_path, conf=conf)
    try:
        assert set(daemon.ports) == {"worker", "control"}
        assert not (daemon.home / "relay").exists()
    finally:
        daemon.stop()


def test_at_is_answered_from_disk(daemon, authority):
    a = join(daemon, authority, 1, 2, b"AT:1:0:0", uniq="at")
    b = join(daemon, authority, 2, 1, b"AT:1:0:0", uniq="at")
    assert (a.hear(), b.hear()) == (b"AT:0", b"AT:0")
    a.say(b"state", b"y" * 400_000)
    assert b.hear() == b"F:state"
    assert b.hear() == b"F:" + b"y" * 400_000
    told = a.hear()
    assert (told if told == b"AT:2" else a.hear()) == b"AT:2"
    a.close()
    b.close()


def test_a_frame_of_100_mib_never_sits_in_memory(daemon, authority):
    a = join(daemon, authority, 1, 2, uniq="huge")
    b = join(daemon, authority, 2, 1, uniq="huge", timeout=120)
    before = memory_kib(daemon.process.pid)
    files = set((daemon.home / "relay").glob("*.frame"))
    piece = os.urandom(MIB)
    peak = []

    def send():
        a.sock.sendall(b"%012d " % (100 * MIB))
        for _ in range(100):
            a.sock.sendall(piece)
        a.say(b"end")

    sender = threading.Thread(target=send)
    sender.start()
    taken, expected = 0, 13 + 100 * MIB
    buffer = bytearray(MIB)
    last = b""
    while taken < expected:
        count = b.sock.recv_into(buffer, min(MIB, expected - taken))
        taken += count
        last = bytes(buffer[:count])
        peak.append(memory_kib(daemon.process.pid))
    assert last[-1000:] == piece[-1000:]
    assert b.hear() == b"end"
    sender.join()
    assert max(peak) - before < 40 * 1024
    time.sleep(0.1)
    assert set((daemon.home / "relay").glob("*.frame")) == files
    a.close()
    b.close()


def test_a_reader_that_stops_stops_its_writer_and_nobody_else(daemon, authority):
    a = join(daemon, authority, 1, 2, uniq="slow")
    b = join(daemon, authority, 2, 1, uniq="slow")
    time.sleep(0.3)
    before = memory_kib(daemon.process.pid)
    a.sock.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        for _ in range(100):
            a.say(b"z" * MIB)
            sent += 1
    assert sent < 50
    assert memory_kib(daemon.process.pid) - before < 40 * 1024
    c = join(daemon, authority, 3, 4, b"fine", uniq="slow")
    d = join(daemon, authority, 4, 3, uniq="slow")
    assert d.hear() == b"fine"
    for _ in range(sent):
        assert b.hear() == b"z" * MIB
    for one in (a, b, c, d):
        one.close()


def test_a_frame_that_was_half_read_is_given_whole_to_the_successor(daemon, authority):
    a = join(daemon, authority, 1, 2, uniq="half")
    b = join(daemon, authority, 2, 1, uniq="half")
    time.sleep(0.3)
    body = os.urandom(3 * MIB)
    a.say(body)
    assert len(b.sock.recv(100_000)) > 0
    b.close()
    assert join(daemon, authority, 2, 1, uniq="half").hear() == body
    a.close()


def test_a_stranger_is_refused_and_nothing_else_ends(daemon, authority):
    b = join(daemon, authority, 2, 1, uniq="strange")
    stranger = join_relay(daemon.ports["relay"], authority, b"OK:HELLO")
    assert stranger.hear() == b""
    join(daemon, authority, 1, 2, b"still here", uniq="strange")
    assert b.hear() == b"still here"
    log = daemon.process.log.read_text()
    assert "refused: it began with b'OK:HELLO' instead of HELLO_STATE" in log


def test_mailboxes_outlive_a_relay_that_is_killed(tmp_path):
    home = tmp_path / "home"
    conf = free_ports_conf(local="enabled = no", relay="memory = 1048576")
    daemon = Daemon(tmp_path, conf=conf)
    authority = Authority.at_home(home)
    a = join(daemon, authority, 1, 2, b"AT:1:0:0")
    bodies = [os.urandom(size) for size in (10, 100_000, 2_000_000)]
    a.say(*bodies)
    heard = a.hear()
    while heard != b"AT:3":
        heard = a.hear()
    plain = join(daemon, authority, 7, 8, *[b"p%d" % n + b"x" * 50_000 for n in range(40)])
    deadline = time.monotonic() + 60
    with sqlite3.connect(home / "relay" / "relay.db") as database:
        while time.monotonic() < deadline:
            count = database.execute("select count(*) from frames where name = '8'").fetchone()[0]
            if count == 40:
                break
            time.sleep(0.02)
    assert count == 40
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.kill()
    plain.close()
    daemon = Daemon(tmp_path, conf=conf)
    try:
        b = join(daemon, authority, 2, 1, b"AT:1:0:0")
        assert [b.hear() for _ in range(4)] == [b"AT:0", *(b"F:" + body for body in bodies)]
        a = join(daemon, authority, 1, 2, b"AT:1:3:0")
        assert a.hear() == b"AT:3"
        other = join(daemon, authority, 8, 7)
        assert [other.hear()[:3] for _ in range(40)] == [
            b"p%d" % n + b"x" * (n < 10) for n in range(40)
        ]
    finally:
        daemon.stop()


# ---------------------------------------------------------------- alone


def test_a_relay_alone_needs_three_files_and_serves_the_same_workers(daemon, authority, tmp_path):
    folder = tmp_path / "alone"
    command = [str(daemons().twistd), *RELAY]
    exported = subprocess.run(
        [*command, "--config", daemon.conf, "--export", folder, "--host", "127.0.0.1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert exported.returncode == 0, exported.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "relay.key", "relay.pem"]
    assert (folder / "relay.key").stat().st_mode & 0o077 == 0
    conf = folder / "relay.conf"
    conf.write_text("[mu]\nhome = .\n[relay]\nport = 0\nrelay_keep_s = 60\nsettle_s = 0.1\n")
    command += ["--config", str(conf)]
    process = Process("the relay", command, tmp_path / "log", {}, popen_daemon)
    try:
        ports = process.wait_for(lambda: read_ports(folder), "ports.json")
        alone = type("Alone", (), {"ports": ports})
        b = join(alone, authority, 2, 1, b"AT:1:0:0")
        a = join(alone, authority, 1, 2, b"AT:1:0:0")
        a.say(b"hello")
        assert [b.hear(), b.hear()] == [b"AT:0", b"F:hello"]
        b.close()
        again = join(alone, authority, 2, 1, b"AT:1:0:1")
        assert again.hear() == b"AT:0"
        later = join(alone, authority, 2, 1, b"AT:2:0:0")
        assert [later.hear(), later.hear()] == [b"AT:0", b"F:hello"]
        second = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert second.returncode != 0
        assert "another daemon runs there" in second.stderr
    finally:
        process.stop()
    assert "Server Shut Down" in process.last_words()
    assert not (folder / "ports.json").exists()


def read_ports(folder):
    try:
        return json.loads((folder / "ports.json").read_text())
    except (OSError, ValueError):
        return None


@pytest.mark.parametrize(
    ("files", "args", "says"),
    [
        ([], [], "must contain ca.pem, relay.pem, relay.key (see --export)"),
        (["ca.pem", "relay.pem", "relay.key"], [], "must contain ca.pem"),
        ([], ["--export", "x"], "--export needs --host"),
        ([], ["--export", "x", "--host", "h"], "has no CA"),
    ],
)
def test_a_relay_alone_that_lacks_something_says_what(tmp_path, files, args, says):
    for name in files:
        (tmp_path / name).write_text("no PEM")
    (tmp_path / "relay.conf").write_text("[mu]\nhome = .\n[relay]\nport = 0\n")
    command = [daemons().twistd, *RELAY, "--config", "relay.conf", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert says in done.stderr + done.stdout
