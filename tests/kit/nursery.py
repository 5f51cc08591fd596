"""Starts workers and daemons quickly: a process that has imported what they need forks one per request.

It is a program of its own, with one thread, since forking pytest's process would not be safe. Each
request is a JSON array (arguments, environment, folder) with the new process's stdout, stderr and a pipe,
to which the exit status is written once it has ended. The first argument is the Python code to run.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

WORKER = ("boto3", "botocore.config", "lambda_function", "mu_worker.store")
"""What a worker imports."""
DAEMON = (
    "mu.engines.builtin",
    "mu.jobs.conductor",
    "mu.jobs.restore",
    "mu.journal.keeper",
    "mu.net.transport",
    "mu.net.web",
    "mu.pipelines.s3",
    "mu.ports",
    "mu.protocol",
    "mu.registry",
    "mu.relay.hub",
    "mu.relay.transport",
    "mu.reload",
    "twisted.scripts._twistd_unix",
    "werkzeug.routing",
)
"""What a daemon imports, but for the reactor: a forked one would share its epoll with the others."""


class Ended:
    """The exit status of a forked process, with as much of Popen as tests use."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit status, or None once the time has passed."""
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedDaemon(Ended):
    """A daemon; its output goes to a file."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit status. Raises TimeoutExpired."""
        if super().wait(timeout) is None:
            raise subprocess.TimeoutExpired("twistd", timeout or 0)
        return self.returncode

    def poll(self) -> int | None:
        return super().wait(0)


class Child(Ended):
    """A forked worker; its output goes to pipes."""

    def __init__(self, pid: int, stdout: int, stderr: int, status: int) -> None:
        super().__init__(pid, status)
        self.stdout = os.fdopen(stdout, "rb", 0)
        self.stderr = os.fdopen(stderr, "rb", 0)

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        """Return the rest of its output once it has ended. Raises TimeoutExpired."""
        parts: dict[int, bytes] = {}
        files = {file.fileno(): file for file in (self.stdout, self.stderr)}
        while files:
            ready, _, _ = select.select([*files], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired("worker", timeout)
            for number in ready:
                read = os.read(number, 65536)
                parts[number] = parts.get(number, b"") + read
                if not read:
                    del files[number]
        if self.wait(timeout) is None:
            raise subprocess.TimeoutExpired("worker", timeout)
        out, err = (parts[file.fileno()] for file in (self.stdout, self.stderr))
        self.stdout.close()
        self.stderr.close()
        return out, err


class Nursery:
    """The forking process."""

    def __init__(self, search_path: str, preloaded: Sequence[str]) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._sock, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *preloaded],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": search_path},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(self, arguments: list[str], environ: Mapping[str, str], folder: Path) -> Child:
        """Start a worker."""
        pipes = [os.pipe() for _ in range(3)]
        theirs = [write for _, write in pipes]
        pid = self._fork(arguments, environ, folder, theirs)
        for write in theirs:
            os.close(write)
        return Child(pid, *(read for read, _ in pipes))

    def start_daemon(
        self, words: list[str], environ: Mapping[str, str], folder: Path, log: BinaryIO
    ) -> ForkedDaemon:
        """Start `twistd` with these words, as in a session of its own."""
        code = "import os; os.setsid(); from twisted.scripts.twistd import run; run()"
        status, theirs = os.pipe()
        files = [log.fileno(), log.fileno(), theirs]
        pid = self._fork([code, *words], environ, folder, files)
        os.close(theirs)
        return ForkedDaemon(pid, status)

    def _fork(
        self, arguments: list[str], environ: Mapping[str, str], folder: Path, files: list[int]
    ) -> int:
        request = json.dumps([arguments, dict(environ), str(folder)]).encode()
        socket.send_fds(self._sock, [request], files)
        return int(self._sock.recv(16))

    def close(self) -> None:
        self._sock.close()
        self._process.wait()


@cache
def _daemons() -> Nursery:
    made = Nursery(os.environ.get("PYTHONPATH", ""), DAEMON)
    atexit.register(made.close)
    return made


def popen_daemon(
    command: list[str], *, stdout: BinaryIO, env: Mapping[str, str], cwd: Path, **more: Any
) -> "subprocess.Popen[bytes] | ForkedDaemon":
    """Start `twistd ...`, as subprocess.Popen would."""
    if "LD_PRELOAD" in env:  # for a process that starts as such
        return subprocess.Popen(command, stdout=stdout, env=env, cwd=cwd, **more)
    return _daemons().start_daemon(command[1:], env, cwd, stdout)


# ---------------------------------------------------------------- the process


def serve(sock: socket.socket, preloaded: Sequence[str]) -> None:
    for name in preloaded:
        __import__(name)
    assert "twisted.internet.reactor" not in sys.modules
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([sock.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        report(statuses)
        if sock.fileno() in ready:
            request, files, _, _ = socket.recv_fds(sock, 2**20, 3)
            if not request:
                return
            *output, status = files
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in (sock.fileno(), wake, woken, status, *statuses.values()):
                    os.close(number)
                run(output, *json.loads(request))
            for number in output:
                os.close(number)
            statuses[pid] = status
            sock.send(b"%d" % pid)


def report(statuses: dict[int, int]) -> None:
    """Say how those that have ended did."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = statuses.pop(ended[0])
            with suppress(BrokenPipeError):
                os.write(status, b"%d" % os.waitstatus_to_exitcode(ended[1]))
            os.close(status)


def run(output: list[int], arguments: list[str], environ: dict[str, str], folder: str) -> None:
    """Be the new process."""
    code = 1
    try:
        os.dup2(output[0], 1)
        os.dup2(output[1], 2)
        for number in output:
            os.close(number)
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(folder)
        script, *sys.argv[1:] = arguments
        exec(script, {"__name__": "__main__"})
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
