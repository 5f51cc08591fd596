"""The daemon's side of the local engine: finding, restarting and stopping it."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from kit.film import wait_until
from kit.local import EngineOwner, client_at, processes_of, running_engine
from stage import Daemon, free_port, free_ports_conf

from mu.engines.local.neighbours import started_at


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_clean_stop_ends_the_engine(tmp_path: Path) -> None:
    with EngineOwner(tmp_path) as daemon:
        assert client_at(daemon.told["port"], tmp_path).list_functions()["Functions"] == []
        assert daemon.stop() == 0
    assert processes_of(tmp_path) == {}
    assert not (tmp_path / "local" / "engine.json").exists()


def test_a_killed_daemons_engine_is_found_again(tmp_path: Path) -> None:
    with EngineOwner(tmp_path) as first:
        first.kill()
    with EngineOwner(tmp_path) as second:
        assert second.told == first.told
    assert processes_of(tmp_path) == {}


def test_an_engine_without_a_daemon_ends_itself(tmp_path: Path) -> None:
    with EngineOwner(tmp_path, linger=1.5) as daemon:
        time.sleep(2)
        assert alive(daemon.told["pid"])
        daemon.kill()
    wait_until(lambda: processes_of(tmp_path) == {}, what="the engine ended")


def test_a_stale_engine_json_is_ignored(tmp_path: Path) -> None:
    with EngineOwner(tmp_path) as first:
        os.kill(first.told["pid"], signal.SIGKILL)
        first.kill()
    assert (tmp_path / "local" / "engine.json").exists()
    with EngineOwner(tmp_path) as second:
        assert second.told["pid"] != first.told["pid"]
    assert processes_of(tmp_path) == {}


def test_an_engine_that_dies_is_restarted_on_its_port(tmp_path: Path) -> None:
    with EngineOwner(tmp_path) as daemon:
        os.kill(daemon.told["pid"], signal.SIGKILL)
        client = client_at(daemon.told["port"], tmp_path)

        def answers() -> bool:
            try:
                return bool(client.list_functions())
            except (EndpointConnectionError, ConnectionClosedError):
                return False

        wait_until(answers, what="it answers again")
    assert processes_of(tmp_path) == {}


def test_a_port_in_use_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with EngineOwner(tmp_path, port) as daemon:
            assert daemon.told["error"] == (
                "the local engine did not start: "
                f"cannot listen on 127.0.0.1:{port}: Address already in use"
            )
    assert processes_of(tmp_path) == {}


def test_one_home_has_one_engine(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        (tmp_path / "local" / "engine.json").unlink()
        with EngineOwner(tmp_path) as daemon:
            assert "another engine is running" in daemon.told["error"]
        assert alive(engine.pid)


def test_the_old_module_name_still_works() -> None:
    command = [sys.executable, "-m", "mu.engines.local.api", "--help"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.startswith("usage: python -m mu.engines.local ")


class Stranger:
    """Another program that listens where engine.json says, and answers as an engine would."""

    def __init__(self, port: int, answer: dict[str, Any]) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._body = json.dumps(answer).encode() + b"\n"
        self.heard = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.heard += connection.recv(2**16) or b"connected"
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + self._body)

    def close(self) -> None:
        self._server.close()


@pytest.mark.parametrize("lives", [True, False])
def test_a_stranger_where_a_lost_engine_was_is_neither_adopted_nor_ended(
    tmp_path: Path, lives: bool
) -> None:
    """After a power loss: engine.json is there, and its port and pid belong to others."""
    with subprocess.Popen(["sleep", "987"]) as victim:
        folder = tmp_path / "local"
        folder.mkdir()
        told = {"id": "ab", "pid": victim.pid, "port": free_port(), "why_shared": ""}
        told |= {"private_tmp": True, "started": started_at(victim.pid)}
        (folder / "engine.json").write_text(json.dumps(told))
        stranger = Stranger(told["port"], told)
        with (folder / "engine.lock").open("a") as lock:
            if lives:  # even then: the process that holds the port must be the engine
                fcntl.flock(lock, fcntl.LOCK_EX)
            with EngineOwner(tmp_path) as daemon:
                if lives:
                    assert "another engine is running" in daemon.told["error"]
                else:
                    assert daemon.told["port"] != told["port"]
                    assert daemon.told["pid"] not in (victim.pid, os.getpid())
        assert stranger.heard == b""
        stranger.close()
        assert victim.poll() is None
        victim.kill()
    assert processes_of(tmp_path) == {}


def test_a_process_that_has_the_engines_id_but_another_age_is_not_ended(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        file = tmp_path / "local" / "engine.json"
        told = json.loads(file.read_text())
        assert told["started"] == started_at(engine.pid)
        file.write_text(json.dumps({**told, "started": told["started"] - 1}))
        with EngineOwner(tmp_path) as daemon:
            assert "another engine is running" in daemon.told["error"]
        assert alive(engine.pid)
        assert engine.lam.list_functions()


def test_an_engine_of_an_earlier_version_is_found(tmp_path: Path) -> None:
    """It did not say when it started."""
    with EngineOwner(tmp_path) as first:
        first.kill()
        file = tmp_path / "local" / "engine.json"
        told = json.loads(file.read_text())
        del told["started"]
        file.write_text(json.dumps(told))
        with EngineOwner(tmp_path) as second:
            assert second.told == first.told
    assert processes_of(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[1]",
        '{"id": "a"}',
        '{"id": 1, "pid": "x", "port": null}',
        '{"id": "a", "pid": -1}',
    ],
)
def test_an_engine_json_that_is_none_is_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "engine.json").write_text(content)
    with EngineOwner(tmp_path) as daemon:
        assert daemon.told["port"]


def test_a_stranger_on_the_port_of_an_engine_that_died_gets_no_event(tmp_path: Path) -> None:
    """The daemon's launches wait until the engine is back, since they contain private keys."""
    daemon = Daemon(tmp_path, conf=free_ports_conf(mu="on_stop = cancel", jobs="retries = 0"))
    try:
        port = daemon.ports["local"]
        engine = json.loads((daemon.home / "local" / "engine.json").read_text())

        def take_port() -> socket.socket | None:
            try:
                return socket.create_server(("127.0.0.1", port))
            except OSError:  # the engine is not quite dead
                return None

        os.kill(engine["pid"], signal.SIGKILL)
        with wait_until(take_port, what="the port is free") as stranger:
            log = daemon.process.log
            wait_until(lambda: "ended unexpectedly" in log.read_text(), what="it noticed")
            daemon.ask("/jobs", {"pipeline": "hello", "workers": 2})
            wait_until(lambda: "Address already in use" in log.read_text(), what="it retries")
            stranger.settimeout(0.5)
            with pytest.raises(TimeoutError):
                stranger.accept()
    finally:
        daemon.stop()
