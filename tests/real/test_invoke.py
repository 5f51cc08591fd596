"""`mu invoke` on the daemon's local engine, and on an AWS that throttles and refuses."""

import json
import os
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from kit.cli import ENV, refusal, run

from mu.functions.bundle import bundle


class Throttling(BaseHTTPRequestHandler):
    """Throttles the first request of each event; refuses all for the function `none`."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[Counter[bytes]] = Counter()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen[body] += 1
        status, answer = 202, b""
        if "/functions/none/" in self.path:
            status, answer = 404, b'{"Message": "Function not found: none"}'
        elif self.seen[body] == 1:
            status, answer = 429, b'{"Reason": "CallerRateLimitExceeded"}'
        self.send_response(status)
        if status == 404:
            self.send_header("x-amzn-ErrorType", "ResourceNotFoundException")
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


class QuietServer(ThreadingHTTPServer):
    """Takes many connections at once, and does not print that clients close them."""

    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def aws(tmp_path):
    """The environment of a shell whose AWS is a server here."""
    Throttling.seen.clear()
    with QuietServer(("127.0.0.1", 0), Throttling) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        keys = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "s", "NO_PROXY": "*"}
        yield ENV | keys | {"AWS_ENDPOINT_URL": url, "MU_HOME": str(tmp_path)}
        server.shutdown()


@pytest.fixture
def shared():
    """A folder that sandboxes see, too: /tmp is their own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def test_each_launch_on_the_local_engine_has_its_own_number(daemon, shared, tmp_path):
    zipped = bundle(tmp_path / "noting.zip", command=f"touch {shared}/part-##INFILE##").path
    daemon.create_function("noting", zipped)
    event = tmp_path / "event.json"
    event.write_text('{"mode": 0, "infile": "##ID##"}')
    done = run("invoke", "noting", "-n", 3, "--payload", event, "--engine", "local", daemon=daemon)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 of 3 launches of noting accepted in ")
    until = time.monotonic() + 60
    while (there := sorted(os.listdir(shared))) != ["part-0", "part-1", "part-2"]:
        assert time.monotonic() < until, there
        time.sleep(0.05)


def test_launches_that_are_throttled_are_repeated(aws):
    words = ["invoke", "count", "-n", 20, "--payload", "-", "--json"]
    done = run(*words, "--engine", "lambda", env=aws, input='["##ID##", "and ##ID##"]')
    told = json.loads(done.stdout)
    assert (done.returncode, told["answers"]) == (0, {"accepted": 20, "throttled": 20})
    assert Throttling.seen == {f'["{n}", "and {n}"]'.encode(): 2 for n in range(20)}


def test_the_first_refused_launch_ends_the_command(aws):
    done = run("invoke", "none", "-n", 500, "--engine", "lambda", env=aws)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.startswith("0 of 500 launches of none accepted in ")
    assert " times: ResourceNotFoundException: Function not found: none" in second
    assert Throttling.seen[b"{}"] < 500


def test_what_cannot_be_launched_is_refused_before_anything_is_sent(tmp_path):
    home = ["--home", tmp_path]
    broken = tmp_path / "event.json"
    broken.write_text("{'mode': 1}")
    says = refusal(*home, "invoke", "f", "--payload", broken)
    assert "--payload must be JSON: " in says
    says = refusal(*home, "invoke", "f", "-n", 10**9)
    assert "as [jobs] max_workers allows, got 1000000000" in says
