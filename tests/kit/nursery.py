"""Starts workers, daemons and `mu` quickly: a process that has imported what they need forks them.

It is a program of its own, with one thread, since forking pytest's process would not be safe. Each
request is a JSON array (arguments, environment, folder) with the new process's stdout, stderr and a pipe,
to which the exit status is written once it has ended. The first argument is the Python code to run.

A daemon starts its local engine as `sys.executable -P -m mu.engines.local`. In a forked daemon that is
a script, SHIM, which has the engine forked, too. The engine starts its warm parent in the same way, which
another nursery forks: that one has imported what a warm parent imports, and no more.
"""

import atexit
import ctypes
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # a warm parent has its own
    from mu.engines.local.sandbox_messages import SandboxSetup

WORKER = ("boto3", "botocore.config", "lambda_function", "mu_worker.store")
"""What a worker imports."""
DAEMON = (
    "mu.cli.commands",
    "mu.engines.local.__main__",
    "mu.pipelines.s3",
    "mu.service",
    "twisted.scripts._twistd_unix",
)
"""What a daemon, a local engine and `mu` import, beside the installed plugins."""
WARM_PARENT = ("mu.engines.local.namespaces", "mu.engines.local.warm_parent")
"""A warm parent's own modules; what workers need comes with them."""
ENGINE = ("-P", "-m", "mu.engines.local")
NAMESPACES = ("-S", "-P", "-m", "mu.engines.local.namespaces")
ENGINE_FORKED = "import os; os.setsid(); sys.executable = {shim!r}\n"
"""Has the local engines of a program forked."""
WARM_PARENT_FORKED = """
from types import SimpleNamespace
from mu.engines.local import pool
pool.sys = SimpleNamespace(executable={shim!r})
"""
"""Has the warm parents of an engine forked. What else it looks for is beside the real interpreter."""
RUN_DAEMON = "from twisted.scripts.twistd import run; run()"
RUN_ENGINE = "from mu.engines.local.__main__ import main; sys.exit(main())"
RUN_NAMESPACES = "sys.modules['__main__'].enter_namespaces()"
RUN_MU = "from mu.cli.commands import main; main()"
RUN_AWS = f"import runpy; runpy.run_path({str(Path(__file__).with_name('aws_cli.py'))!r}, run_name='__main__')"
SHIM_OPTIONS = b"-IS"
"""The interpreter's in a shim, which tell it from the process that it stands for."""
SHIM = """#!{python} -IS
import json, os, socket, sys

words = sys.argv[1:]
for prefix, path, code in {forked}:
    if words[: len(prefix)] == prefix and "LD_PRELOAD" not in os.environ:
        break
else:
    os.execv({python!r}, [{python!r}, *words])
status, theirs = os.pipe()
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
    sock.connect(path)
    request = [[code, *words[len(prefix) :]], dict(os.environ), os.getcwd(), [{python!r}, *words]]
    socket.send_fds(sock, [json.dumps(request).encode()], [theirs, 1, 2, 0])
    sock.recv(16)
for number in (0, 1, 2, theirs):
    os.close(number)
sys.exit(int(os.read(status, 16) or 1) & 255)
"""
"""Has a program forked, with its own files, and ends as it does."""
SPARE_BYTES = 4096
"""The room for a forked process's command line."""
ROOT = Path(__file__).resolve().parents[2]


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
            with suppress(ProcessLookupError):  # it ends, and its status is on its way
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


class ForkedEngine(Ended):
    """A local engine, or a program that starts one; `line` is the first one that it printed."""

    def __init__(self, pid: int, status: int, line: bytes) -> None:
        super().__init__(pid, status)
        self.line = line

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


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
    """The forking process; `warm_parents` is the one for those of its engines."""

    def __init__(
        self,
        search_path: str,
        preloaded: Sequence[str],
        interpreter: Sequence[str] = (sys.executable, "-P"),
        packages: str = "",
        warm_parents: "Nursery | None" = None,
    ) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._sock, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        with theirs:
            self._folder = Path(tempfile.mkdtemp(prefix="nursery"))
            make_shims(self._folder, warm_parents.folder if warm_parents else self._folder)
            words = [str(self._folder), str(theirs.fileno()), packages, *preloaded]
            self._process = subprocess.Popen(
                [*interpreter, __file__, *words, " " * SPARE_BYTES],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": search_path},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    @property
    def folder(self) -> Path:
        """The folder with its socket."""
        return self._folder

    @property
    def shims(self) -> Path:
        """A folder with a `mu` that is forked."""
        return self._folder / "bin"

    @property
    def twistd(self) -> Path:
        """A `twistd` that is forked, with its local engines as programs of their own."""
        return self._folder / "twistd"

    @property
    def aws(self) -> Path:
        """A folder with an `aws` that is kit.aws_cli, forked."""
        return self._folder / "aws"

    def start_engine(
        self, options: list[str], environ: Mapping[str, str], folder: Path
    ) -> "ForkedEngine":
        """Start a local engine with these options; its warm parent is not forked."""
        shown = [sys.executable, *ENGINE, *options]
        return self._start_engine([RUN_ENGINE, *options], environ, folder, shown)

    def start_owner(
        self, code: str, words: list[str], environ: Mapping[str, str], folder: Path
    ) -> "ForkedEngine":
        """Start a program that starts local engines; it prints a line, too."""
        arguments = [self._engine_forked() + code, *words]
        return self._start_engine(arguments, environ, folder, [sys.executable, "-c", *words])

    def _start_engine(
        self, arguments: list[str], environ: Mapping[str, str], folder: Path, shown: list[str]
    ) -> "ForkedEngine":
        (told, out), (status, theirs) = os.pipe(), os.pipe()
        pid = self._fork(arguments, environ, folder, shown, [theirs, out, 2])
        os.close(out)
        os.close(theirs)
        with os.fdopen(told, "rb") as file:
            return ForkedEngine(pid, status, file.readline())

    def start(self, arguments: list[str], environ: Mapping[str, str], folder: Path) -> Child:
        """Start a worker."""
        pipes = [os.pipe() for _ in range(3)]
        status, out, err = (write for _, write in pipes)
        shown = [sys.executable, "-c", *arguments]
        pid = self._fork(arguments, environ, folder, shown, [status, out, err])
        for write in (status, out, err):
            os.close(write)
        status, out, err = (read for read, _ in pipes)
        return Child(pid, out, err, status)

    def start_daemon(
        self, command: list[str], environ: Mapping[str, str], folder: Path, log: BinaryIO
    ) -> ForkedDaemon:
        """Start `twistd`, as in a session of its own."""
        status, theirs = os.pipe()
        arguments = [self._engine_forked() + RUN_DAEMON, *command[1:]]
        shown = [sys.executable, *command]
        pid = self._fork(arguments, environ, folder, shown, [theirs, log.fileno(), log.fileno()])
        os.close(theirs)
        return ForkedDaemon(pid, status)

    def _engine_forked(self) -> str:
        return ENGINE_FORKED.format(shim=str(self._folder / "python"))

    def _fork(
        self,
        arguments: list[str],
        environ: Mapping[str, str],
        folder: Path,
        shown: list[str],
        files: list[int],
    ) -> int:
        request = json.dumps([arguments, dict(environ), str(folder), shown]).encode()
        socket.send_fds(self._sock, [request], files)
        return int(self._sock.recv(16))

    def close(self) -> None:
        self._sock.close()
        self._process.wait()
        shutil.rmtree(self._folder)


@cache
def daemons() -> Nursery:
    """Return the process that forks daemons, local engines and `mu`; it ends when pytest does."""
    made = Nursery(os.environ.get("PYTHONPATH", ""), DAEMON, warm_parents=warm_parents())
    atexit.register(made.close)
    return made


@cache
def warm_parents() -> Nursery:
    """Return the process that forks the warm parents of local engines; it ends when pytest does."""
    start = (os.path.realpath(sys.executable), "-S", "-P")
    made = Nursery(str(ROOT), WARM_PARENT, start, sysconfig.get_path("purelib"))
    atexit.register(made.close)
    return made


def popen_daemon(
    command: list[str], *, stdout: BinaryIO, env: Mapping[str, str], cwd: Path, **more: Any
) -> "subprocess.Popen[bytes] | ForkedDaemon":
    """Start `twistd ...`, as subprocess.Popen would."""
    if "LD_PRELOAD" in env:  # for a process that starts as such
        return subprocess.Popen(command, stdout=stdout, env=env, cwd=cwd, **more)
    return daemons().start_daemon(command, env, cwd, stdout)


# ---------------------------------------------------------------- the process


def serve(folder: Path, sock: socket.socket, packages: str, preloaded: Sequence[str]) -> None:
    preload(preloaded, packages)
    gc.collect()
    gc.freeze()  # the memory stays shared
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "socket"))
    listener.listen(64)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([sock.fileno(), listener.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        report(statuses)
        callers = [sock] if sock.fileno() in ready else []
        if listener.fileno() in ready:
            callers.append(listener.accept()[0])
        for caller in callers:
            request, files, _, _ = socket.recv_fds(caller, 2**20, 4)
            if not request and caller is sock:
                return
            if not request:
                continue
            status, *output = files
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in (wake, woken, status, *statuses.values()):
                    os.close(number)
                for one in {sock, listener, caller}:
                    one.close()
                run(output, *json.loads(request))
            for number in output:
                os.close(number)
            statuses[pid] = status
            caller.send(b"%d" % pid)


def preload(names: Sequence[str], packages: str) -> None:
    """Import these modules, and what is loaded with them; a warm parent's come from `packages`."""
    for name in names:
        __import__(name)
    if packages:
        path = sys.path[:]
        sys.path.append(packages)
        sys.modules["mu.engines.local.warm_parent"].warm_up()
        sys.path[:] = path
        return
    import boto3

    read_models_once()
    for name in ("s3", "lambda"):
        boto3.session.Session("-", "-", region_name="us-east-1").client(name)
    if "mu.service" in names:
        sys.modules["mu.registry"].Registry.installed()


def renew_reactor() -> None:
    """Give a forked process its own epoll; modules keep the reactor that they have imported."""
    if reactor := sys.modules.get("twisted.internet.reactor"):
        for reader in reactor._internalReaders:
            reader.connectionLost(None)
        reactor.__init__()


def enter_namespaces() -> None:
    """Be what an engine starts, but for a new interpreter where what is imported stays visible."""
    from mu.engines.local import namespaces, warm_parent

    execute = namespaces.become_warm_parent

    def become_warm_parent(setup: "SandboxSetup") -> None:
        if setup.place:
            execute(setup)
        sys.argv[1:] = [setup.to_json()]
        show([sys.executable, "-S", "-P", "-m", WARM_PARENT[1], *sys.argv[1:]])
        warm_parent.main()

    namespaces.become_warm_parent = become_warm_parent
    namespaces.main()


def read_models_once() -> None:
    """Have boto3's sessions share the models of services, which take most of a client's time."""
    from botocore.loaders import JSONFileLoader

    read = JSONFileLoader.load_file
    read_once = cache(lambda path: read(JSONFileLoader(), path))
    JSONFileLoader.load_file = lambda self, path: read_once(path)


def make_shims(folder: Path, warm_parents: Path) -> None:
    """Write the scripts that have engines, their warm parents, `mu`, `twistd` and kit.aws_cli forked."""
    (folder / "bin").mkdir()
    (folder / "aws").mkdir()
    forked = WARM_PARENT_FORKED.format(shim=str(folder / "python"))
    engine = (list(ENGINE), str(folder / "socket"), forked + RUN_ENGINE)
    namespaces = (list(NAMESPACES), str(warm_parents / "socket"), RUN_NAMESPACES)
    for name, programs in (
        ("python", [engine, namespaces]),
        ("bin/mu", [([], str(folder / "socket"), RUN_MU)]),
        ("twistd", [([], str(folder / "socket"), RUN_DAEMON)]),
        ("aws/aws", [([], str(folder / "socket"), RUN_AWS)]),
    ):
        path = folder / name
        path.write_text(SHIM.format(python=sys.executable, forked=programs))
        path.chmod(0o755)


def report(statuses: dict[int, int]) -> None:
    """Say how those that have ended did."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = statuses.pop(ended[0])
            with suppress(BrokenPipeError):
                os.write(status, b"%d" % os.waitstatus_to_exitcode(ended[1]))
            os.close(status)


def show(words: list[str]) -> None:
    """Have these words in /proc/PID/cmdline, in place of the first process's."""
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    text = b"\0".join(map(os.fsencode, words))[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def run(
    output: list[int],
    arguments: list[str],
    environ: dict[str, str],
    folder: str,
    shown: list[str],
) -> None:
    """Be the new process."""
    code = 1
    try:
        for number, file in zip((1, 2, 0), output, strict=False):
            os.dup2(file, number)
            os.close(file)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
        show(shown)
        renew_reactor()
        os.environ.clear()
        os.environ.update(environ)
        found = environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [path for path in found if path and path not in sys.path]
        os.chdir(folder)
        script, *sys.argv[1:] = arguments
        exec(script, {"__name__": "__main__", "sys": sys})
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
    place, descriptor, site, *names, _ = sys.argv[1:]
    serve(Path(place), socket.socket(fileno=int(descriptor)), site, names)
