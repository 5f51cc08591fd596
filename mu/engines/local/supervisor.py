"""The process between the warm parent and the handler: one for each sandbox, its pid 1.

It gives the sandbox its /tmp, starts the handler's process, buries orphans, watches the clock and
the memory, and writes down how it ended. When it ends, the kernel kills all that is left inside.
On a machine that refuses namespaces it finds and kills its descendants itself.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from mu.engines.local import kernel, runtime
from mu.engines.local.order import ANSWERED, BROKEN, FAILED, Ground, Order, error_payload

MEMORY_CHECK_S = 3.0
_WATCHED = {signal.SIGCHLD, signal.SIGTERM}
_PAGE_MB = os.sysconf("SC_PAGESIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Ending:
    """How the handler's process ended; `code` is None where it was ended, and `why` says why."""

    code: int | None
    why: str = ""
    kind: str = "Runtime.ExitError"
    peak_mb: int = 0


def supervise(order: Order, ground: Ground) -> NoReturn:
    """Run the order, in a process forked for it; the exit status is the report's."""
    status = BROKEN
    try:
        status = _supervise(order, ground)
    except BaseException as error:
        print(f"mu: sandbox {order.id} broke: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _supervise(order: Order, ground: Ground) -> int:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    answer = _open_folder(order)
    if ground.shared_tmp:
        kernel.adopt_orphans()
    else:
        kernel.enter_private_tmp(f"{order.folder}/tmp")
        _show_own_processes()
    started = time.monotonic()
    os.write(2, f"START RequestId: {order.id} Version: $LATEST\n".encode())
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        runtime.run(order, ground, answer)
    ending = _watch(child, order, ground, started + order.timeout)
    if ground.shared_tmp:
        kill_descendants()
    _write_report(order, ending, time.monotonic() - started)
    return _settle(answer, order, ending)


def _open_folder(order: Order) -> int:
    """Make the sandbox's files, while /tmp is still the machine's; return its answer's."""
    os.makedirs(f"{order.folder}/tmp")
    os.chmod(f"{order.folder}/tmp", 0o1777)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return os.open(f"{order.folder}/answer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _show_own_processes() -> None:
    """Let ps, killall and the memory watch see this sandbox only; some containers refuse it."""
    try:
        kernel.mount("proc", "/proc", "proc")
    except OSError:
        return


def _watch(child: int, order: Order, ground: Ground, deadline: float) -> Ending:
    private = not ground.shared_tmp and os.path.realpath("/proc/self") == f"/proc/{os.getpid()}"
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            why = f"Task timed out after {order.timeout:.2f} seconds"
            return Ending(None, why, "Sandbox.Timedout")
        told = signal.sigtimedwait(_WATCHED, min(left, MEMORY_CHECK_S))
        if told is not None and told.si_signo == signal.SIGTERM:
            return Ending(None, "Runtime exited with error: signal: killed")
        ended = _reap(child)
        if ended is not None:
            return ended
        if told is None and private and _resident_mb() > order.memory:
            os.write(2, f"mu: over the limit of {order.memory} MB, killed\n".encode())
            return Ending(None, "Runtime exited with error: signal: killed")


def _reap(child: int) -> Ending | None:
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid != child:
            continue
        code = os.waitstatus_to_exitcode(status)
        why = f"Runtime exited with error: exit status {code}"
        if code == 0:
            why = "Runtime exited without providing a reason"
        elif code < 0:
            name = signal.strsignal(-code) or f"signal {-code}"
            why = f"Runtime exited with error: signal: {name.lower()}"
        return Ending(code, why, peak_mb=usage.ru_maxrss // 1024)


def _resident_mb() -> float:
    pages = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/statm") as file:
                    pages += int(file.read().split()[1])
            except OSError:
                continue  # it has just ended
    return pages * _PAGE_MB


def kill_descendants() -> None:
    """Kill children until none is left: the orphans of each become children in turn."""
    while True:
        for pid in kernel.children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _write_report(order: Order, ending: Ending, seconds: float) -> None:
    lines = f"END RequestId: {order.id}\n"
    if ending.code is None:
        lines = f"{order.id} {ending.why}\n{lines}"
    lines += (
        f"REPORT RequestId: {order.id}\tDuration: {seconds * 1000:.2f} ms\t"
        f"Memory Size: {order.memory} MB\tMax Memory Used: {ending.peak_mb} MB\n"
    )
    os.write(2, lines.encode())


def _settle(answer: int, order: Order, ending: Ending) -> int:
    """Leave a payload in the answer's file; return the status that tells which kind it is."""
    if ending.code in (ANSWERED, FAILED) and os.fstat(answer).st_size:
        return ending.code
    os.ftruncate(answer, 0)
    os.pwrite(answer, error_payload(order.id, ending.kind, ending.why), 0)
    return FAILED
