"""The process between the warm parent and the handler: pid 1 of its sandbox.

It mounts /tmp, starts the handler's process, logs its output, reaps orphans, enforces the timeout
and the memory limit, and records how the handler ended. When it ends, the kernel kills everything
left in the sandbox. Without namespaces, it finds and kills its descendants itself.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from mu.engines.local import kernel, runtime
from mu.engines.local.sandbox_messages import (
    ANSWERED,
    BROKEN,
    FAILED,
    SandboxSetup,
    SandboxTask,
    error_payload,
)

MEMORY_CHECK_S, SOONEST_CHECK_S = 1.0, 0.05
"""The longest and the shortest time between two checks of a sandbox's memory."""
GROWTH_MB_S = 500.0
"""How fast its memory may grow; the time to the next check follows from what is left of it."""
LOG_BEGINNING, LOG_END = 2**18, 2**15
_CHUNK = 2**16
_KILLED = "Runtime exited with error: signal: killed"


@dataclass(frozen=True, slots=True)
class HandlerExit:
    """How the handler's process ended; `code` is None if it was killed, and `why` says why.

    `kind` goes into the payload, `status` into the REPORT line: AWS words them differently.
    """

    code: int | None
    why: str = ""
    kind: str = "Runtime.ExitError"
    status: str = "error\tError Type: Runtime.ExitError"
    peak_mb: float = 0


class InvocationLog:
    """The output of one invocation: the beginning is written at once, the last part at the end."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._space = LOG_BEGINNING
        self._end = bytearray()
        self._omitted = 0

    def write(self, printed: bytes) -> None:
        if self._space:
            beginning = printed[: self._space]
            self._put(beginning)
            self._space -= len(beginning)
            printed = printed[len(beginning) :]
        self._end += printed
        if len(self._end) > 2 * LOG_END:
            self._omitted += len(self._end) - LOG_END
            del self._end[:-LOG_END]

    def close(self, last_lines: str) -> None:
        if self._omitted:
            self._put(b"\nmu: %d bytes omitted here\n" % self._omitted)
        self._put(self._end + last_lines.encode())
        os.close(self._file)

    def _put(self, written: bytes | bytearray) -> None:
        with suppress(OSError):  # if the disk is full, lose the log rather than the worker
            os.write(self._file, written)


def supervise(task: SandboxTask, setup: SandboxSetup) -> NoReturn:
    """Run the task in this process, forked for it, and exit with the status for the report."""
    status = BROKEN
    try:
        status = _supervise(task, setup)
    except BaseException as error:
        print(f"mu: sandbox {task.id} failed: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _supervise(task: SandboxTask, setup: SandboxSetup) -> int:
    os.setsid()
    os.makedirs(task.folder)  # before /tmp is private
    answer = os.open(f"{task.folder}/answer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    log = InvocationLog(task.log)
    if setup.shared_tmp:
        kernel.adopt_orphans()
    else:
        kernel.enter_private_tmp(task.folder, task.tmpfs)
        kernel.hide(setup.home, [*setup.kept, task.code])
        # So that ps and killall see only this sandbox; some containers forbid it.
        with suppress(OSError):
            kernel.mount("proc", "/proc", "proc")
    started = time.monotonic()
    log.write(f"START RequestId: {task.id} Version: $LATEST\n".encode())
    output, printer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(printer, True)
    watch = HandlerWatch(task, log, output)
    if setup.shared_tmp:
        watch.end_at_sigterm()
    child = os.fork()
    if child == 0:
        watch.forget()
        os.dup2(printer, 1)
        os.dup2(printer, 2)
        runtime.run(task, setup, answer)
    os.close(printer)
    ended = watch.wait_for(child, started + task.timeout)
    watch.read_output()  # one pipe buffer: later output of other processes is lost
    if setup.shared_tmp:
        kill_descendants()
    answered = ended.code in (ANSWERED, FAILED) and os.fstat(answer).st_size > 0
    log.close(_last_lines(task, ended, time.monotonic() - started, answered))
    if answered:
        return ANSWERED if ended.code == ANSWERED else FAILED
    os.ftruncate(answer, 0)
    os.pwrite(answer, error_payload(task.id, ended.kind, ended.why), 0)
    return FAILED


class HandlerWatch:
    """Watches the handler's process: its output, end, running time and memory."""

    def __init__(self, task: SandboxTask, log: InvocationLog, output: int) -> None:
        self._task, self._log, self._output = task, log, output
        self._terminated = False
        self._peak_mb = 0.0
        self._woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def end_at_sigterm(self) -> None:
        """Used only without namespaces: with them, a SIGTERM from inside the sandbox is ignored."""
        signal.signal(signal.SIGTERM, self._end)

    def forget(self) -> None:
        """Restore the signal handlers, in a process forked from this one."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _end(self, *_: object) -> None:
        self._terminated = True

    def wait_for(self, child: int, deadline: float) -> HandlerExit:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._output, select.POLLIN)
        check = time.monotonic() + self._pause_s(0)
        while True:
            now = time.monotonic()
            if self._terminated:
                return HandlerExit(None, _KILLED, peak_mb=self._peak_mb)
            if now >= deadline:
                why = f"Task timed out after {self._task.timeout:.2f} seconds"
                return HandlerExit(None, why, "Sandbox.Timedout", "timeout", self._peak_mb)
            if now >= check:
                used = self._used_mb()
                check = now + self._pause_s(used)
                if used > self._task.memory:
                    status = "error\tError Type: Runtime.OutOfMemory"
                    return HandlerExit(None, _KILLED, status=status, peak_mb=self._task.memory)
            ready = {fd for fd, _ in poll.poll(1000 * (min(check, deadline) - now) + 1)}
            if self._output in ready and not self.read_output():
                poll.unregister(self._output)  # all processes have closed it
            if self._woken in ready:
                os.read(self._woken, 4096)
                ended = self._reap(child)
                if ended is not None:
                    return ended

    def read_output(self) -> bool:
        """Log the output so far; return whether there can be more."""
        try:
            printed = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return True
        self._log.write(printed)
        return bool(printed)

    def _reap(self, child: int) -> HandlerExit | None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return None
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
            return HandlerExit(code, why, peak_mb=max(self._peak_mb, usage.ru_maxrss / 1024))

    def _pause_s(self, used: float) -> float:
        """Return how long to wait until the next check, given the memory in use, in MB."""
        left_s = (self._task.memory - used) / GROWTH_MB_S
        return min(max(SOONEST_CHECK_S, left_s), MEMORY_CHECK_S)

    def _used_mb(self) -> float:
        """Return the memory of all processes; pages that forks share are counted about once."""
        processes = kernel.descendants()
        resident = sorted(map(kernel.resident_mb, processes))
        used = sum(resident)
        if used > self._task.memory and len(processes) > 1:
            used = resident[-1] + sum(sorted(map(kernel.proportional_mb, processes))[:-1])
        self._peak_mb = max(self._peak_mb, used)
        return used


def kill_descendants() -> None:
    """Kill children until none is left; their orphans become children in turn."""
    while True:
        for pid in kernel.children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _last_lines(task: SandboxTask, ended: HandlerExit, seconds: float, answered: bool) -> str:
    taken = seconds * 1000
    error = "" if answered else f"RequestId: {task.id} Error: {ended.why}\n{ended.kind}\n"
    return (
        f"{error}END RequestId: {task.id}\n"
        f"REPORT RequestId: {task.id}\tDuration: {taken:.2f} ms\t"
        f"Billed Duration: {int(taken) + 1} ms\tMemory Size: {task.memory} MB\t"
        f"Max Memory Used: {ended.peak_mb:.0f} MB\t"
        + ("\n" if answered else f"Status: {ended.status}\n")
    )
