"""The embedded S3 server: rclone, which serves a folder over the S3 API on the loopback address.

It is a child of the engine, and so lives as long: it outlives a killed daemon, and ends with the
engine, however that ends. <home>/local/s3.json has its port while it is needed; an engine that finds
this file starts it again, on the same port.
"""

import csv
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import mu
from mu.aws.s3 import EMBEDDED_BUCKET
from mu.engines.local.key import S3_KEY, make_key
from mu.engines.reactors import ILocalReactor

START_S, STOP_S, RESTART_S = 30.0, 5.0, 1.0
LINE_LIMIT = 4096
INSTALL = "pip install 'mu[files]'"
_LISTENS = re.compile(r"Starting s3 server on \[http://127\.0\.0\.1:([0-9]+)/")
_OPTIONS = [
    *("--etag-hash", ""),  # an MD5 in each ETag would read all files whenever they are listed
    *("--multipart-streaming-buffer-limit", "64M"),
    *("--multipart-streaming-buffer-total", "256M"),
]


class S3ServerError(Exception):
    """The server cannot be started; the message is one sentence for the user."""


class _RunningS3(ProcessProtocol):
    """Reads what the server logs; `port` fires when it listens, `ended` when it has ended."""

    log = Logger("mu.engines.local")

    def __init__(self) -> None:
        self.port: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._rest, self._last = b"", "it ended without a word"

    def errReceived(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LINE_LIMIT:]
        for line in lines:
            text = line.decode(errors="replace")[:LINE_LIMIT]
            self._last = text or self._last
            found = _LISTENS.search(text)
            if found and not self.port.called:
                self.port.callback(int(found[1]))
            elif text:
                self.log.info("S3 server: {text}", text=text)

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)
        if not self.port.called:
            self.port.errback(S3ServerError(f"the S3 server did not start: {self._last}"))


class EmbeddedS3:
    """Runs the server from the first `start` until `stop`, and restarts it if it dies.

    `port` is the wanted one; 0 picks a free one, which stays the same from then on.
    """

    log = Logger("mu.engines.local")

    def __init__(self, home: Path, port: int, reactor: ILocalReactor) -> None:
        self._home, self._reactor = home, reactor
        self._note = home / "local" / "s3.json"
        self._port = port
        self._waiting: list[Deferred[int]] = []
        self._listening = False
        self._process: IProcessTransport | None = None
        self._running: _RunningS3 | None = None
        self._restart: IDelayedCall | None = None

    def resume(self) -> None:
        """Start the server again if it was running when the last engine was killed."""
        try:
            port = int(json.loads(self._note.read_bytes())["port"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.log.warn("{file} is left out: {error}", file=str(self._note), error=error)
            port = 0
        self._port = self._port or port
        self._start_again()

    def start(self) -> Deferred[int]:
        """Return a Deferred of the server's port, started if need be. It fails with S3ServerError."""
        asked: Deferred[int] = Deferred()
        if self._listening:
            asked.callback(self._port)
            return asked
        self._waiting.append(asked)
        if len(self._waiting) == 1:
            self._spawn().addCallbacks(self._listens, self._failed)
        return asked

    def stop(self) -> Deferred[None]:
        """End the server; the Deferred fires when it has ended."""
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        running, self._running, self._listening = self._running, None, False
        self._note.unlink(missing_ok=True)
        if running is None or self._process is None or running.ended.called:
            return succeed(None)
        process = self._process
        process.signalProcess("TERM")
        kill = self._reactor.callLater(STOP_S, process.signalProcess, "KILL")
        return running.ended.addBoth(lambda _: kill.cancel() if kill.active() else None)

    def _spawn(self) -> Deferred[int]:
        rclone = _rclone()
        if rclone is None:
            why = "the embedded S3 server needs rclone, which is not installed with mu here"
            return _fail(f"{why}: {INSTALL}")
        try:
            (self._home / "files" / EMBEDDED_BUCKET).mkdir(mode=0o700, parents=True, exist_ok=True)
            key = make_key(self._home, S3_KEY)
        except (OSError, ValueError) as error:
            return _fail(f"the S3 server cannot start: {error}")
        running, self._process = _RunningS3(), None
        self._running = running
        running.ended.addCallback(lambda _: self._ended(running))
        command = [sys.executable, "-P", "-m", "mu.engines.local.tied", str(os.getpid())]
        command += [rclone, "--config", "/dev/null", "serve", "s3", *_OPTIONS]
        command += ["--addr", f"127.0.0.1:{self._port}", str(self._home / "files")]
        env = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        env["PYTHONPATH"] = str(Path(mu.__file__).resolve().parent.parent)
        env["RCLONE_AUTH_KEY"] = _csv(f"{key.access_key},{key.secret_key}")
        fds = {0: "w", 1: "r", 2: "r"}
        try:
            self._process = self._reactor.spawnProcess(running, command[0], command, env, childFDs=fds)  # fmt: skip
        except OSError as error:
            return _fail(f"the S3 server did not start: {error}")
        return running.port.addTimeout(START_S, self._reactor)

    def _listens(self, port: int) -> None:
        self._port, self._listening = port, True
        new = self._note.with_suffix(".new")
        new.write_text(json.dumps({"port": port}) + "\n")
        new.replace(self._note)
        self.log.info("the S3 server listens on 127.0.0.1:{port}", port=port)
        self._tell(port)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(S3ServerError):
            failure = Failure(S3ServerError(f"the S3 server did not start: {failure.value}"))
        self.log.error("{why}", why=failure.getErrorMessage())
        self.stop()
        self._tell(failure)

    def _tell(self, outcome: int | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.callback(outcome)

    def _ended(self, running: _RunningS3) -> None:
        if running is not self._running or not self._listening:
            return  # it was stopped, or never listened
        self._listening = False
        self.log.error("the S3 server ended unexpectedly; restarting it")
        self._restart = self._reactor.callLater(RESTART_S, self._start_again)

    def _start_again(self) -> None:
        self.start().addErrback(lambda _: None)  # it is logged


def _rclone() -> str | None:
    """Return the program: the one that is installed beside this Python, or another."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("rclone", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))


def _is_foreign(name: str) -> bool:
    """Whether a variable is not the server's business: it might change it, or it is a secret."""
    return name.startswith(("RCLONE_", "AWS_"))


def _csv(text: str) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow([text])
    return written.getvalue()


def _fail(why: str) -> Deferred[int]:
    failed: Deferred[int] = Deferred()
    failed.errback(S3ServerError(why))
    return failed
