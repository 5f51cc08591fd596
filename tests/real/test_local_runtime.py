"""Bundles in Amazon's own runtime, awslambdaric, a client of the Runtime API."""

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.workers import PATIENCE_S, Coordinator, coordinator, make_papers

from mu.functions.bundle import bundle

pytest.importorskip("awslambdaric", reason="pip install awslambdaric")

SCRIPT = '#!/bin/sh\necho "$1 from $(basename "$PWD")"\n'


class RuntimeApi:
    """Gives the runtime one event at a time, and receives its result."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connection: socket.socket | None = None
        self._received = b""

    def give(self, request: str, event: dict[str, Any]) -> None:
        """Answer the runtime's request for the next event."""
        assert self._asked() == ("get", "/2018-06-01/runtime/invocation/next", b"")
        self._answer(
            json.dumps(event).encode(),
            {
                "Lambda-Runtime-Aws-Request-Id": request,
                "Lambda-Runtime-Deadline-Ms": "9999999999999",
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:0:function:f",
            },
        )

    def hear(self, request: str) -> tuple[str, Any]:
        """Return what it posts for that event: response or error, and the payload."""
        method, path, body = self._asked()
        self._answer(b"", {})
        before, _, kind = path.rpartition("/")
        assert (method, before) == ("post", f"/2018-06-01/runtime/invocation/{request}")
        return kind, json.loads(body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()

    def _asked(self) -> tuple[str, str, bytes]:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().lower().splitlines()
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        method, path, _ = first.split()
        return method, path, body

    def _receive(self) -> None:
        received = self._connection.recv(65536) if self._connection else b""
        if not received:  # it may open a new connection at any time
            if self._connection is not None:
                self._connection.close()
            self._connection, _ = self._listener.accept()
            self._connection.settimeout(PATIENCE_S)
        self._received += received

    def _answer(self, body: bytes, headers: dict[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        status = "200 OK" if body else "202 Accepted"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{lines}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        assert self._connection is not None
        self._connection.sendall(head.encode() + body)


@pytest.fixture(scope="module")
def unzipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle, unzipped as on Lambda."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "say.sh").write_text(SCRIPT)
    made = bundle(folder / "f.zip", executables=[folder / "say.sh"], command="./say.sh ##QUALITY##")
    task = folder / "task"
    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(task)
        for entry in archive.infolist():
            os.chmod(task / entry.filename, entry.external_attr >> 16)
    return task


@contextmanager
def runtime(task: Path) -> Iterator[RuntimeApi]:
    """Run awslambdaric with the bundle; it polls the RuntimeApi for events."""
    api = RuntimeApi()
    process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", "lambda_function.lambda_handler"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(task),
            "LAMBDA_TASK_ROOT": str(task),
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "AWS_REGION": "eu-west-1",
        },
        cwd=task,
        start_new_session=True,
    )
    try:
        yield api
        assert process.poll() is None, "the runtime has ended"
    finally:
        api.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_amazons_runtime_runs_a_bundles_own_command_repeatedly(unzipped: Path) -> None:
    with runtime(unzipped) as api:
        for request in ("one", "two"):
            api.give(request, {"mode": 0, "quality": request})
            kind, ending = api.hear(request)
            assert kind == "response", ending
            assert (ending["status"], ending["retval"]) == ("done", 0)
            assert ending["output"] == f"{request} from task\n"


def test_amazons_runtime_runs_a_worker_driven_by_a_coordinator(
    unzipped: Path, tmp_path: Path
) -> None:
    papers = make_papers()
    with coordinator(tmp_path, papers.server_context(tmp_path)) as ours, runtime(unzipped) as api:
        for request in ("cold", "warm"):
            drive(ours, api, request, papers.event())


def drive(ours: Coordinator, api: RuntimeApi, request: str, papers: dict[str, object]) -> None:
    where = {"mode": 1, "addr": "127.0.0.1", "port": ours.port, "server_name": "mu.test"}
    api.give(request, {**where, **papers, "rm_tmpdir": 1})
    peer = ours.accept().welcome()
    assert peer.ask(f"echo:hello {request}") == f"OK:ECHO(hello {request})"
    assert peer.ask("set:cmdquality:loud").startswith("OK:SET")
    assert peer.ask("run:").startswith("OK:RETVAL(0):OUTPUT(loud from task\n)")
    folder = peer.ask("get:_tmpdir")[len("OK:GET(") : -1]
    assert os.path.isdir(folder)
    peer.say("quit:")
    kind, ending = api.hear(request)
    assert kind == "response", ending
    assert ending["status"] == "quit", ending
    assert not os.path.exists(folder)


def test_amazons_runtime_reports_an_invalid_event(unzipped: Path) -> None:
    with runtime(unzipped) as api:
        api.give("bad", {"mode": "sideways"})
        kind, told = api.hear("bad")
        assert (kind, told["errorType"]) == ("error", "EventError")
        api.give("good", {"mode": 0, "quality": "still"})
        assert api.hear("good")[1]["output"] == "still from task\n"
