"""Runs one worker on any machine, as Lambda runs one: a sandbox, a time limit and a memory limit.

The worker is a child process that calls the bundle's handler. Its parent, this process, has one
thread; it waits, and ends whatever the worker started.
"""

import ctypes
import json
import os
import signal
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from shutil import rmtree
from typing import NoReturn

from mu_worker import private_tmp
from mu_worker.usage import resident_mb

FAILED, UNUSABLE, TIMED_OUT, OUT_OF_MEMORY = 1, 2, 124, 137
"""Exit statuses: the worker failed; what was given cannot be used; a limit ended the worker."""
MEMORY_CHECK_S = 1.0
Handler = Callable[[Mapping[str, object], object], dict[str, object]]
"""A bundle's handler, as Lambda calls it: with an event, and a context."""
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36
_OWNER_ONLY = 0o077


class RunnerError(Exception):
    """Something that was given cannot be used; the message is for users."""


@dataclass(frozen=True, slots=True)
class WorkerRun:
    """What to run. `bundle` is a folder or a zip; `work` is where to make the worker's folder."""

    event: Mapping[str, object]
    bundle: str
    work: str
    timeout_s: float | None = None
    memory_mb: int | None = None


def read_event(path: str, remove: bool) -> dict[str, object]:
    """Return the event in a file that only its owner may read, or of stdin for `-`.

    Raises RunnerError.
    """
    try:
        if path == "-":
            text = sys.stdin.buffer.read()
        else:
            text = _read_secret(path)
            if remove:
                os.unlink(path)
        event = json.loads(text)
    except OSError as error:
        raise RunnerError(f"cannot read the event in {path}: {error.strerror}") from None
    except ValueError as error:  # its text may have the key
        where = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise RunnerError(f"the event in {path} must be a JSON object: no JSON{where}") from None
    if not isinstance(event, dict):
        raise RunnerError(f"the event in {path} must be a JSON object, got {type(event).__name__}")
    return event


def _read_secret(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & _OWNER_ONLY:
            raise RunnerError(
                f"the event in {path} has a private key, so its mode must be 0600, got {mode:04o}:"
                f" chmod 600 {path}"
            )
        return file.read()


def read_own_keys(path: str, index: int) -> dict[str, object]:
    """Return what one worker's event has beside the shared one, from that line of a file.

    The first line has index 0. Raises RunnerError.
    """
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number == index:
                    keys: dict[str, object] = dict(json.loads(line))
                    return keys
    except OSError as error:
        raise RunnerError(f"cannot read the launches in {path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise RunnerError(f"line {index + 1} of {path} must be a JSON object") from None
    raise RunnerError(f"{path} has no line for index {index}")


def run(what: WorkerRun) -> int:
    """Run the worker; return an exit status. Its result is printed as JSON. Raises RunnerError."""
    try:
        folder = tempfile.mkdtemp(prefix="mu_run_", dir=what.work)
    except OSError as error:
        raise RunnerError(f"cannot make a folder in {what.work}: {error.strerror}") from None
    try:
        root = _unpacked(what.bundle, folder)
        tmp = f"{folder}/tmp"
        os.mkdir(tmp)
        os.chmod(tmp, 0o1777)
        return _Supervisor(what).run(lambda: _work(what, root, tmp))
    finally:
        rmtree(folder, ignore_errors=True)


def _unpacked(bundle: str, folder: str) -> str:
    """Return the folder of a bundle; a zip is unpacked in `folder`. Raises RunnerError."""
    root = os.path.realpath(bundle)
    if os.path.isfile(root):
        source, root = root, f"{folder}/bundle"
        try:
            with zipfile.ZipFile(source) as archive:
                for info in archive.infolist():
                    path = archive.extract(info, root)
                    mode = stat.S_IMODE(info.external_attr >> 16)
                    if mode and not info.is_dir():
                        os.chmod(path, mode)
        except (OSError, zipfile.BadZipFile) as error:
            raise RunnerError(f"cannot unpack the bundle {bundle}: {error}") from None
    if not os.path.isfile(f"{root}/lambda_function.py"):
        raise RunnerError(
            f"{bundle} must be a bundle of mu, a folder or a zip: it has no lambda_function.py"
        )
    return root


class _Supervisor:
    """The parent of the worker's process."""

    def __init__(self, what: WorkerRun) -> None:
        self._what = what
        limit = what.memory_mb
        self._watched_mb = None if limit is None or _cluster_limit_mb() <= limit else limit

    def run(self, work: Callable[[], NoReturn]) -> int:
        """Run `work` in a child process, and return the exit status for it."""
        libc = ctypes.CDLL(None)
        libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0)  # what loses its parent becomes this process's child
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_ENDING})
        sys.stdout.flush()
        parent, begun = os.getpid(), time.monotonic()
        child = os.fork()
        if child == 0:
            libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, *_ENDING})
            if os.getppid() != parent:
                os._exit(FAILED)
            work()
        try:
            return self._wait(child, begun)
        finally:
            _kill_children()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, *_ENDING})

    def _wait(self, child: int, begun: float) -> int:
        timeout_s = self._what.timeout_s
        until = float("inf") if timeout_s is None else begun + timeout_s
        while True:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return _ended(TIMED_OUT, f"the worker ran for its time limit, {timeout_s:g} s")
            if self._watched_mb is not None:
                used = resident_mb(self._watched_mb)
                if used > self._watched_mb:
                    return _ended(
                        OUT_OF_MEMORY,
                        f"the worker was out of memory: {used:.0f} of {self._watched_mb} MB",
                    )
                left_s = min(left_s, MEMORY_CHECK_S)
            waits = min(left_s, 3600.0)
            told = signal.sigtimedwait({signal.SIGCHLD, *_ENDING}, waits)
            if told is not None and told.si_signo != signal.SIGCHLD:
                name = signal.Signals(told.si_signo).name
                return _ended(128 + told.si_signo, f"the worker was ended by {name}")
            while (ended := _reaped()) is not None:
                pid, status = ended
                if pid == child and status < 0:
                    name = signal.Signals(-status).name
                    return _ended(128 - status, f"the worker was killed by {name}")
                if pid == child:
                    return status


def _ended(status: int, why: str) -> int:
    print(f"mu worker: {why}", file=sys.stderr, flush=True)
    return status


def _reaped() -> tuple[int, int] | None:
    """Return a child that has ended, and its exit status; None: there is none."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _kill_children() -> None:
    """Kill children until none is left; their own become children in turn."""
    while True:
        with open("/proc/thread-self/children") as file:
            for pid in file.read().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _cluster_limit_mb() -> float:
    """Return the memory limit of this process's control groups; inf: there is none."""
    limits = [float("inf")]
    try:
        with open("/proc/self/cgroup") as file:
            lines = file.read().splitlines()
    except OSError:
        return limits[0]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = "/sys/fs/cgroup" if not controllers else "/sys/fs/cgroup/memory"
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        while True:
            with suppress(OSError, ValueError), open(f"{base}{path}/{name}") as file:
                limits.append(int(file.read()) / 2**20)  # `max` is no number
            if path in ("", "/"):
                break
            path = os.path.dirname(path)
    return min(limits)


# ---------------------------------------------------------------- the child


def _work(what: WorkerRun, root: str, tmp: str) -> NoReturn:
    """Call the bundle's handler, print its result, and exit."""
    status = FAILED
    try:
        os.setsid()
        root = _enter(root, tmp)
        told = _handler(root, what.memory_mb)(what.event, None)
        print(json.dumps(told), flush=True)
        status = FAILED if told.get("status") in ("failed", "lost") else 0
    except ValueError as error:  # an invalid event
        print(f"mu worker: {error}", file=sys.stderr, flush=True)
        status = UNUSABLE
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _enter(root: str, tmp: str) -> str:
    """Get a /tmp of one's own, if the system allows it; return where the bundle is now."""
    needed = [root, sys.prefix, sys.base_prefix, *filter(os.path.isdir, sys.path)]
    try:
        places = private_tmp.enter(tmp, needed)
    except OSError as error:
        os.environ["MU_SHARED_TMP"] = "1"  # commands that name /tmp are refused
        print(f"mu worker: /tmp is shared: {error.strerror}", file=sys.stderr, flush=True)
        return root
    sys.path = [private_tmp.moved(path, places) for path in sys.path]
    sys.executable = private_tmp.moved(sys.executable, places)
    return private_tmp.moved(root, places)


def _handler(root: str, memory_mb: int | None) -> Handler:
    """Return the bundle's handler; the bundle may be of another version than this program."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mu", "mu_worker")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()
    sys.path.insert(0, root)
    os.environ |= {"LAMBDA_TASK_ROOT": root, "MU_RUNNER": "1"}
    os.environ.pop("PYTHONPATH", None)  # it was for this program: others have modules of their own
    libraries = [root, f"{root}/lib", os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    if memory_mb is not None:
        os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] = str(memory_mb)
    os.chdir(root)
    from lambda_function import lambda_handler

    return lambda_handler
