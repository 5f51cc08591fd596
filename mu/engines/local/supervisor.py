"""The process between the warm parent and the handler: one for each sandbox, its pid 1.

It gives the sandbox its /tmp, starts the handler's process, keeps what it prints, buries orphans,
watches the clock and the memory, and writes down how it ended. When it ends, the kernel kills all
that is left inside. On a machine that refuses namespaces it finds and kills its descendants itself.
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
from mu.engines.local.order import ANSWERED, BROKEN, FAILED, Ground, Order, error_payload

MEMORY_CHECK_S = 1.0
LOG_BEGINNING, LOG_END = 2**18, 2**15
_CHUNK = 2**16
_KILLED = "Runtime exited with error: signal: killed"


@dataclass(frozen=True, slots=True)
class Ending:
    """How the handler's process ended; `code` is None where it was ended, and `why` says why.

    `kind` goes into the payload and `status` into the REPORT line; AWS names them differently.
    """

    code: int | None
    why: str = ""
    kind: str = "Runtime.ExitError"
    status: str = "error\tError Type: Runtime.ExitError"
    peak_mb: float = 0


class Log:
    """What one invocation prints: the beginning, at once, and in the end the end of it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._room = LOG_BEGINNING
        self._end = bytearray()
        self._left_out = 0

    def write(self, printed: bytes) -> None:
        if self._room:
            beginning = printed[: self._room]
            self._put(beginning)
            self._room -= len(beginning)
            printed = printed[len(beginning) :]
        self._end += printed
        if len(self._end) > 2 * LOG_END:
            self._left_out += len(self._end) - LOG_END
            del self._end[:-LOG_END]

    def close(self, last_lines: str) -> None:
        if self._left_out:
            self._put(b"\nmu: %d bytes are left out here\n" % self._left_out)
        self._put(self._end + last_lines.encode())
        os.close(self._file)

    def _put(self, written: bytes | bytearray) -> None:
        with suppress(OSError):  # a full disk ends the log, not the worker
            os.write(self._file, written)


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
    os.makedirs(order.folder)  # while /tmp is still the machine's
    answer = os.open(f"{order.folder}/answer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    log = Log(order.log)
    if ground.shared_tmp:
        kernel.adopt_orphans()
    else:
        kernel.enter_private_tmp(order.folder, order.tmpfs)
        with suppress(OSError):  # let ps and killall see this sandbox only; some containers refuse
            kernel.mount("proc", "/proc", "proc")
    started = time.monotonic()
    log.write(f"START RequestId: {order.id} Version: $LATEST\n".encode())
    output, printer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(printer, True)
    watch = Watch(order, log, output)
    if ground.shared_tmp:
        watch.end_at_sigterm()
    child = os.fork()
    if child == 0:
        watch.forget()
        os.dup2(printer, 1)
        os.dup2(printer, 2)
        runtime.run(order, ground, answer)
    os.close(printer)
    ending = watch.until_the_end_of(child, started + order.timeout)
    watch.keep_output()  # a full pipe's worth: who still prints, prints in vain
    if ground.shared_tmp:
        kill_descendants()
    answered = ending.code in (ANSWERED, FAILED) and os.fstat(answer).st_size > 0
    log.close(_last_lines(order, ending, time.monotonic() - started, answered))
    if answered:
        return ANSWERED if ending.code == ANSWERED else FAILED
    os.ftruncate(answer, 0)
    os.pwrite(answer, error_payload(order.id, ending.kind, ending.why), 0)
    return FAILED


class Watch:
    """Sees the handler's process through: its output, its end, its time, its memory."""

    def __init__(self, order: Order, log: Log, output: int) -> None:
        self._order, self._log, self._output = order, log, output
        self._told_to_end = False
        self._peak_mb = 0.0
        self._woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def end_at_sigterm(self) -> None:
        """Only where namespaces are refused: elsewhere SIGTERM comes from inside, and is nothing."""
        signal.signal(signal.SIGTERM, self._end)

    def forget(self) -> None:
        """Be without it again, in a process forked from this one."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _end(self, *_: object) -> None:
        self._told_to_end = True

    def until_the_end_of(self, child: int, deadline: float) -> Ending:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._output, select.POLLIN)
        check = time.monotonic() + MEMORY_CHECK_S
        while True:
            now = time.monotonic()
            if self._told_to_end:
                return Ending(None, _KILLED, peak_mb=self._peak_mb)
            if now >= deadline:
                why = f"Task timed out after {self._order.timeout:.2f} seconds"
                return Ending(None, why, "Sandbox.Timedout", "timeout", self._peak_mb)
            if now >= check:
                check = now + MEMORY_CHECK_S
                if self._uses_too_much():
                    status = "error\tError Type: Runtime.OutOfMemory"
                    return Ending(None, _KILLED, status=status, peak_mb=self._order.memory)
            ready = {fd for fd, _ in poll.poll(1000 * (min(check, deadline) - now) + 1)}
            if self._output in ready and not self.keep_output():
                poll.unregister(self._output)  # all who could print have closed it
            if self._woken in ready:
                os.read(self._woken, 4096)
                ended = self._reap(child)
                if ended is not None:
                    return ended

    def keep_output(self) -> bool:
        """Keep what has been printed; return whether more may come."""
        try:
            printed = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return True
        self._log.write(printed)
        return bool(printed)

    def _reap(self, child: int) -> Ending | None:
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
            return Ending(code, why, peak_mb=max(self._peak_mb, usage.ru_maxrss / 1024))

    def _uses_too_much(self) -> bool:
        """Whether its processes hold more than they may; what forks share is counted about once."""
        processes = kernel.descendants()
        resident = sorted(map(kernel.resident_mb, processes))
        used = sum(resident)
        if used > self._order.memory and len(processes) > 1:
            used = resident[-1] + sum(sorted(map(kernel.proportional_mb, processes))[:-1])
        self._peak_mb = max(self._peak_mb, used)
        return used > self._order.memory


def kill_descendants() -> None:
    """Kill children until none is left: the orphans of each become children in turn."""
    while True:
        for pid in kernel.children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _last_lines(order: Order, ending: Ending, seconds: float, answered: bool) -> str:
    taken = seconds * 1000
    error = "" if answered else f"RequestId: {order.id} Error: {ending.why}\n{ending.kind}\n"
    return (
        f"{error}END RequestId: {order.id}\n"
        f"REPORT RequestId: {order.id}\tDuration: {taken:.2f} ms\t"
        f"Billed Duration: {int(taken) + 1} ms\tMemory Size: {order.memory} MB\t"
        f"Max Memory Used: {ending.peak_mb:.0f} MB\t"
        + ("\n" if answered else f"Status: {ending.status}\n")
    )
