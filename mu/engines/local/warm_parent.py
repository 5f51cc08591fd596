"""The warm parent: it has imported what workers need, and forks a sandbox for each task.

It imports that once the engine has a function, since most of the time of its start goes there.

mu.engines.local.namespaces becomes it. It reads tasks from standard input and writes reports to
standard output. It has a single thread and uses the standard library only, so that forking is safe
and cheap. When its input ends, the engine is gone, and all sandboxes are killed.
"""

import gc
import importlib
import os
import select
import signal
import sys
import time
import types
from collections.abc import Iterable
from typing import cast

from mu.engines.local import kernel
from mu.engines.local.runtime import role_variables
from mu.engines.local.sandbox_messages import (
    BROKEN,
    WARM_UP,
    LineBuffer,
    SandboxReport,
    SandboxSetup,
    SandboxTask,
)
from mu.engines.local.supervisor import supervise

WARM = [
    "base64",
    "concurrent.futures",
    "ctypes",
    "dataclasses",
    "datetime",
    "encodings.idna",
    "hashlib",
    "json",
    "logging",
    "pathlib",
    "queue",
    "random",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tarfile",
    "tempfile",
    "threading",
    "traceback",
    "urllib.request",
    "uuid",
    "zipfile",
    "zlib",
]
PYOPENSSL = "urllib3.contrib.pyopenssl"
STOP_S = 1.5


def take_pipes() -> tuple[int, int]:
    """Move both pipes away from descriptors 0 and 1, which print() and the sandboxes use."""
    tasks, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    os.set_blocking(tasks, False)
    return tasks, reports


def keep_role_variables() -> None:
    kept = role_variables(os.environ)
    os.environ.clear()
    os.environ.update(kept, HOME="/nonexistent")


def extend_search_path(setup: SandboxSetup) -> None:
    sys.path[:] = [path for path in sys.path if path != setup.checkout]
    sys.path += [path for path in setup.search_path if path not in sys.path]


def warm_up() -> None:
    """Import what workers import, once for all of them. boto3 may be missing on this machine.

    botocore does without pyOpenSSL, as on AWS: to load it takes a third of boto3's time and memory.
    """
    gc.disable()  # all of this stays
    for name in WARM:
        importlib.import_module(name)
    sys.modules[PYOPENSSL] = cast(types.ModuleType, None)  # the import fails
    try:
        boto3 = importlib.import_module("boto3")
        # The default session keeps the loaded models, but not the keys.
        boto3.client(
            "s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-"
        )
    except Exception as error:
        print(
            f"mu: sandboxes start without boto3 preloaded: {error!r}", file=sys.stderr, flush=True
        )
    finally:
        del sys.modules[PYOPENSSL]
    gc.freeze()
    gc.enable()


def forget_own_modules() -> None:
    """Unload our modules, since the bundle has its own `mu`."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mu"]:
        del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")


class WarmParent:
    """Forks and reaps sandboxes until its input ends."""

    def __init__(self, setup: SandboxSetup, tasks: int, reports: int) -> None:
        self._setup = setup
        self._tasks, self._reports = tasks, reports
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._running: dict[int, str] = {}
        self._warm = False
        if setup.shared_tmp:
            kernel.adopt_orphans()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._tasks, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        lines = LineBuffer()
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._tasks in ready:
                received = os.read(self._tasks, 2**18)
                if not received:
                    return
                self._start_all(lines.feed(received))

    def _start_all(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if not self._warm:
                self._warm = True
                warm_up()
            if line == WARM_UP:
                continue
            task = SandboxTask.from_line(line)
            try:
                self._start(task)
            except OSError as error:
                print(f"mu: cannot start {task.id}: {error}", file=sys.stderr, flush=True)
                self._report(SandboxReport(task.id, BROKEN))

    def _start(self, task: SandboxTask) -> None:
        if not self._setup.shared_tmp:
            kernel.next_child_gets_new_pids(self._own_pids)
        own_pid = os.getpid()
        pid = os.fork()
        if pid:
            self._running[pid] = task.id
            return
        try:
            self._reset_child()
            if self._setup.shared_tmp:
                kernel.die_with_parent(own_pid, signal.SIGTERM)
        except BaseException:
            os._exit(BROKEN)
        supervise(task, self._setup)

    def _reset_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (
            self._tasks,
            self._reports,
            self._own_pids,
            self._woken,
            self._waker,
        ):
            os.close(descriptor)

    def _reap(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            request = self._running.pop(pid, None)
            if request is not None:
                self._report(SandboxReport(request, os.waitstatus_to_exitcode(status)))
            if self._setup.shared_tmp and status:
                self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Without namespaces: kill the processes that a killed supervisor left behind."""
        for pid in kernel.children():
            if pid not in self._running:
                os.kill(pid, signal.SIGKILL)

    def _report(self, report: SandboxReport) -> None:
        os.write(self._reports, report.to_line())

    def kill_all(self) -> None:
        """Kill everything. With namespaces, the kernel does it when this process ends."""
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while self._running and time.monotonic() < end:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not self._running.pop(pid, None):
                time.sleep(0.005)


def main() -> None:
    setup = SandboxSetup.from_json(sys.argv[1])
    tasks, reports = take_pipes()
    os.write(reports, setup.to_json().encode() + b"\n")
    keep_role_variables()
    extend_search_path(setup)
    forget_own_modules()
    parent = WarmParent(setup, tasks, reports)
    try:
        parent.run()
    finally:
        if setup.shared_tmp:
            parent.kill_all()
        os._exit(0)


if __name__ == "__main__":
    main()
