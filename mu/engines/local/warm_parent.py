"""The warm parent: it has imported what workers need, and forks a sandbox for each order.

Started by enclosure, it reads orders from its standard input and writes reports to its
standard output. One thread, standard library only, so that forking is safe and cheap. When its
input ends, the engine is gone: all sandboxes are killed.
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

from mu.engines.local import kernel
from mu.engines.local.order import BROKEN, Ground, Lines, Order, Report
from mu.engines.local.runtime import role_variables
from mu.engines.local.supervisor import supervise

WARM = [
    "base64",
    "concurrent.futures",
    "ctypes",
    "dataclasses",
    "datetime",
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
STOP_S = 1.5


def take_pipes() -> tuple[int, int]:
    """Move both pipes out of the way of print() and of the sandboxes' standard input."""
    orders, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    os.set_blocking(orders, False)
    return orders, reports


def keep_role_variables() -> None:
    kept = role_variables(os.environ)
    os.environ.clear()
    os.environ.update(kept, HOME="/nonexistent")


def extend_search_path(ground: Ground) -> None:
    sys.path[:] = [path for path in sys.path if path != ground.checkout]
    sys.path += [path for path in ground.search_path if path not in sys.path]


def warm_up() -> None:
    """Import what a worker will, once for all of them; boto3 is not there on every machine."""
    for name in WARM:
        importlib.import_module(name)
    try:
        boto3 = importlib.import_module("boto3")
        # The default session keeps the loaded models; keys that are given are not kept.
        boto3.client(
            "s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-"
        )
    except Exception as error:
        print(f"mu: sandboxes start without a warm boto3: {error!r}", file=sys.stderr, flush=True)


def forget_own_modules() -> None:
    """Keep our modules out of the bundle's way, which brings a `mu` of its own."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mu"]:
        del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")


class WarmParent:
    """Forks and buries sandboxes, until its orders end."""

    def __init__(self, ground: Ground, orders: int, reports: int) -> None:
        self._ground = ground
        self._orders, self._reports = orders, reports
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._running: dict[int, str] = {}
        if ground.shared_tmp:
            kernel.adopt_orphans()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        lines = Lines()
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._bury()
            if self._orders in ready:
                received = os.read(self._orders, 2**18)
                if not received:
                    return
                self._start_all(lines.feed(received))

    def _start_all(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            order = Order.from_line(line)
            try:
                self._start(order)
            except OSError as error:
                print(f"mu: cannot start {order.id}: {error}", file=sys.stderr, flush=True)
                self._tell(Report(order.id, BROKEN))

    def _start(self, order: Order) -> None:
        if not self._ground.shared_tmp:
            kernel.next_child_gets_new_pids(self._own_pids)
        own_pid = os.getpid()
        pid = os.fork()
        if pid:
            self._running[pid] = order.id
            return
        try:
            self._forget_parenthood()
            if self._ground.shared_tmp:
                kernel.die_with_parent(own_pid, signal.SIGTERM)
        except BaseException:
            os._exit(BROKEN)
        supervise(order, self._ground)

    def _forget_parenthood(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (
            self._orders,
            self._reports,
            self._own_pids,
            self._woken,
            self._waker,
        ):
            os.close(descriptor)

    def _bury(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            request = self._running.pop(pid, None)
            if request is not None:
                self._tell(Report(request, os.waitstatus_to_exitcode(status)))
            if self._ground.shared_tmp and status:
                self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Only where namespaces are refused: end what a killed supervisor has left behind."""
        for pid in kernel.children():
            if pid not in self._running:
                os.kill(pid, signal.SIGKILL)

    def _tell(self, report: Report) -> None:
        os.write(self._reports, report.to_line())

    def kill_all(self) -> None:
        """Only where namespaces are refused: else the kernel does it when this process ends."""
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while self._running and time.monotonic() < end:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not self._running.pop(pid, None):
                time.sleep(0.005)


def main() -> None:
    ground = Ground.from_json(sys.argv[1])
    orders, reports = take_pipes()
    os.write(reports, ground.to_json().encode() + b"\n")
    keep_role_variables()
    extend_search_path(ground)
    warm_up()
    forget_own_modules()
    gc.collect()
    gc.freeze()
    parent = WarmParent(ground, orders, reports)
    try:
        parent.run()
    finally:
        if ground.shared_tmp:
            parent.kill_all()
        os._exit(0)


if __name__ == "__main__":
    main()
