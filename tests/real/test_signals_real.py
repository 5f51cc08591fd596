"""Signals to a running daemon: SIGHUP reloads, and a second SIGTERM is no fault."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from kit.film import wait_until
from kit.nursery import daemons, popen_daemon
from stage import Daemon, Process, free_ports_conf


@pytest.fixture
def calm(tmp_path):
    daemon = Daemon(tmp_path, conf=free_ports_conf(local="enabled = no", jobs="retries = 1"))
    yield daemon
    daemon.stop()


def hang_up(daemon, until="not reloaded: the ports"):
    """Send SIGHUP, and return what the daemon logged of it."""
    before = len(log_of(daemon))
    os.kill(daemon.process.pid, signal.SIGHUP)
    wait_until(lambda: until in log_of(daemon)[before:])
    return log_of(daemon)[before:]


def log_of(daemon):
    return daemon.process.log.read_text() if daemon.process.log.exists() else ""


def order(daemon):
    return daemon.ask("/jobs", {"pipeline": "hello", "engine": "external"})


def test_sighup_reloads_options_for_new_jobs_and_says_what_needs_a_restart(calm):
    first = order(calm)
    text = calm.conf.read_text().replace("retries = 1", "retries = 7\nkeep = 5")
    calm.conf.write_text(text + "[launch]\npublic_host = ::1\nregion = eu-west-1\n")
    said = hang_up(calm)
    assert "reloaded for new jobs: [launch] region, [jobs] retries" in said
    assert "needs a restart: [launch] public_host, [jobs] keep" in said
    assert "tokens: unchanged" in said
    second = order(calm)
    assert (first["retries"], second["retries"]) == (1, 7)
    assert second["event"]["region"] == "eu-west-1"
    assert (first["event"]["addr"], second["event"]["addr"]) == ("127.0.0.1", "127.0.0.1")
    assert calm.ask(f"/jobs/{first['id']}")["state"] == "running"


def test_sighup_with_a_broken_configuration_keeps_the_old_one(calm):
    calm.conf.write_text(calm.conf.read_text().replace("retries = 1", "retries = many"))
    (calm.home / "token").chmod(0o600)
    said = hang_up(calm)
    assert "the old configuration stays in use: " in said
    assert "[jobs] retries must be a whole number, got many" in said
    assert order(calm)["retries"] == 1


def test_sighup_reloads_the_token(calm):
    old = calm.token
    (calm.home / "token").write_text("another-one\n")
    assert "tokens: reloaded" in hang_up(calm)
    assert status(calm, "another-one") == 200
    assert status(calm, old) == 401
    (calm.home / "token").write_text("\n")
    assert "the old tokens stay in use: the token in " in hang_up(calm)
    assert status(calm, "another-one") == 200
    (calm.home / "token").write_text("another-one")


def status(daemon, token):
    request = urllib.request.Request(f"{daemon.url}/jobs")
    request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_sighup_reopens_redirected_output(calm):
    log = calm.process.log
    moved = log.with_name("daemon.log.1")
    log.rename(moved)
    said = hang_up(calm)
    assert f"log files reopened: {log}" in said
    before = moved.read_text()
    assert "mu is ready" in before
    hang_up(calm)
    assert moved.read_text() == before


def test_sighup_reopens_twistds_log_file(tmp_path):
    (tmp_path / "mu.conf").write_text(free_ports_conf(local="enabled = no"))
    log, moved = tmp_path / "twistd.log", tmp_path / "twistd.log.old"
    twistd = str(Path(sys.executable).with_name("twistd"))
    command = [twistd, "-n", "--pidfile=", f"--logfile={log}", "mu", "--config", "mu.conf"]
    process = Process("the daemon", command, tmp_path / "output", {})
    try:
        process.wait_for((tmp_path / "home" / "ports.json").exists, "ports.json")
        log.rename(moved)
        os.kill(process.pid, signal.SIGHUP)
        wait_until(lambda: log.exists() and "log files reopened: " in log.read_text())
    finally:
        process.stop()
    assert "Server Shut Down" in log.read_text()
    assert "mu is ready" in moved.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_to_end_is_no_fault(calm, number):
    order(calm)

    def signalled_until_it_ends():
        if calm.process.runs:
            with suppress(ProcessLookupError):  # it may have ended since
                os.kill(calm.process.pid, number)
        return not calm.process.runs

    wait_until(signalled_until_it_ends)
    assert calm.process.stop() == -number
    assert "Traceback" not in log_of(calm)
    assert "ReactorNotRunning" not in log_of(calm)


def test_a_relay_alone_reopens_its_log_and_lives_on(calm, tmp_path):
    folder = tmp_path / "relay"
    twistd = str(daemons().twistd)
    export = [twistd, "mu-relay", "--config", str(calm.conf), "--export", str(folder)]
    subprocess.run([*export, "--host", "[::1]"], check=True, capture_output=True, cwd=tmp_path)
    (folder / "mu.conf").write_text(f"[mu]\nhome = {folder}\n[relay]\nport = 0\nhost = ::1\n")
    command = [twistd, "-n", "--pidfile=", "mu-relay", "--config", str(folder / "mu.conf")]
    process = Process("the relay", command, folder / "relay.log", {}, popen_daemon)
    try:
        process.wait_for((folder / "ports.json").exists, "ports.json")
        wait_until(lambda: "the relay is ready" in process.log.read_text())

        def heard():  # one that comes before the reactor runs is ignored
            os.kill(process.pid, signal.SIGHUP)
            return "not reloaded: the configuration" in process.log.read_text()

        wait_until(heard)
        assert json.loads((folder / "ports.json").read_text())["relay"]
    finally:
        assert process.stop() == -signal.SIGTERM
