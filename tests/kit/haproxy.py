"""HAProxy in front of a daemon, with the configuration that `mu init --haproxy` writes."""

import os
import shutil

import pytest
from stage import Daemon, Process, free_port, listens

from kit.cli import inside

PROGRAM = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")


def behind_haproxy(conf: str) -> str:
    """Return the configuration of a daemon behind HAProxy, or skip the test."""
    if PROGRAM is None:
        pytest.skip("haproxy is not installed (Debian: haproxy)")
    port = free_port()
    return conf.replace("[worker]\nport = 0\n", f"[worker]\nport = {port}\nhaproxy = yes\n")


def start_haproxy(daemon: Daemon) -> Process:
    """Start HAProxy for a daemon that runs behind it."""
    folder = daemon.conf.parent
    done = inside("init", folder, "--haproxy", "--force")
    assert done.exit_code == 0, done.output
    command = [str(PROGRAM), "-db", "-f", str(folder / "mu-haproxy.cfg")]
    running = Process("HAProxy", command, folder / "haproxy.log", {})
    running.wait_for(lambda: listens(daemon.ports["worker"]), "answer on its port")
    assert running.runs, running.last_words()
    return running
