"""The daemon's side of the local engine: finding, restarting and stopping it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from kit.film import wait_until
from kit.local import EngineOwner, client_at, processes_of, running_engine


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
    with EngineOwner(tmp_path, linger=0.4) as daemon:
        time.sleep(0.8)
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
