"""Runs `mu`, in this process or as a program, and servers that stand in for a daemon."""

import contextlib
import os
import socket
import subprocess
import threading

from click.testing import CliRunner

from kit.nursery import daemons
from mu.cli.commands import cli
from mu.client.address import Address
from mu.client.control_port import ControlPort

ENV = {name: value for name, value in os.environ.items() if not name.startswith("MU_")}


def run(*args, daemon=None, **options):
    """Run `mu` as a program."""
    env = ENV | ({"MU_HOME": str(daemon.home)} if daemon else {})
    return subprocess.run(
        [daemons().shims / "mu", *map(str, args)],
        capture_output=True,
        timeout=120,
        **{"env": env, "text": True, **options},
    )


def inside(*args, daemon=None, **env):
    """Run it in this process, which is faster."""
    where = ["--home", str(daemon.home)] if daemon else []
    unset = {"MU_HOME": None, "MU_TOKEN": None, "AWS_ROLE": None}
    return CliRunner().invoke(cli, [*where, *map(str, args)], env=unset | env)


def refusal(*args, status=2, **more):
    """Return the error message of a command that fails."""
    ended = inside(*args, **more)
    assert (ended.exit_code, ended.stdout) == (status, ""), ended.output
    assert "Traceback" not in ended.stderr
    return ended.stderr


def home_with(folder, ports='{"control": 1}', token="t0ken"):
    """Write what a running daemon has in its home folder; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ports.json").write_text(ports)
    (folder / "token").write_text(token)
    return folder


def http(status, body, headers=()):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


@contextlib.contextmanager
def answering(*answers, timeout_s=10.0):
    """A client of a server that gives these answers, one for each connection; None: no answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve():
            for answer in answers:
                line, _ = server.accept()
                with line:
                    line.recv(65536)
                    if answer is None:
                        asked.wait(60)
                    else:
                        line.sendall(answer)

        asked = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        client = ControlPort(Address(url, "t", "not there", "not yours"), timeout_s)
        try:
            yield client
        finally:
            asked.set()
            thread.join()
