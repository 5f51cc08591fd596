"""The programs that the worker runs: a shell starts them, and the loop's selector watches them."""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector

from mu.messages import encode
from mu_worker.excerpt import Excerpt

READ_BYTES = 65536
MOST_AFTER_EXIT = 2**20
"""How much a pipe can hold at most when its program has ended, in bytes (Linux's default limit).
More would be a grandchild's output, which may never end."""
GRACE_S = 0.5
"""The time between SIGTERM and SIGKILL, in seconds."""
POLL_S = 0.05
TAKE_PIPE = "exec 9<&0 </dev/null\n"
"""Put before a command that waits: its standard input is empty, as that of any other."""

OnExit = Callable[[int, bytes, resource.struct_rusage], None]
"""Called with the exit status (negative: a signal), the output, and what the program used."""


class Program:
    """One shell command in its own process group, with stdout and stderr in one pipe.

    The program ends when the shell ends. A grandchild may keep the pipe open and continue; what it
    prints is read and discarded, so that it gets no SIGPIPE.
    """

    def __init__(
        self,
        command: str,
        folder: str,
        output_limit: int,
        on_output: Callable[[bytes], None],
        on_exit: OnExit,
        waits: bool = False,
    ) -> None:
        """Start it in `folder`. Raises OSError or ValueError if it cannot be started.

        If it `waits`, what `wake` writes can be read from its descriptor 9.
        """
        self._on_output = on_output
        self._on_exit = on_exit
        self._output = Excerpt(output_limit)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", encode(f"{TAKE_PIPE}{command}" if waits else command)],
            cwd=folder,
            stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)

    def wake(self) -> None:
        """Write a line for a shell that waits."""
        if self.process.stdin is not None:
            with suppress(OSError):  # it has ended
                self.process.stdin.write(b"\n")

    def read(self) -> bool:
        """Read one chunk from the pipe; return whether more may follow."""
        try:
            chunk = os.read(self.pipe, READ_BYTES)
        except BlockingIOError:
            return True
        if chunk and self.process.returncode is None:
            self._output.add(chunk)
            self._on_output(chunk)
        return bool(chunk)

    def ended(self) -> bool:
        """Return whether it has ended; the first time, report its exit status and its output."""
        if self.process.returncode is not None:
            return True
        # Read the pipe before the status is known: read() discards everything after that.
        if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self._drain()
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._on_exit(self.process.returncode, self._output.bytes(), used)
        return True

    def close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _drain(self) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.closed:  # its descriptor may now belong to another file
            return
        for _ in range(MOST_AFTER_EXIT // READ_BYTES):
            try:
                chunk = os.read(self.pipe, READ_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                return
            self._output.add(chunk)
            self._on_output(chunk)


class Programs:
    """All running programs, and the process groups that remain when they have ended."""

    def __init__(self, selector: BaseSelector, folder: str, output_limit: int) -> None:
        self._selector = selector
        self._folder = folder
        self._output_limit = output_limit
        self._running: dict[
            Program, int
        ] = {}  # with their pidfds; -1: not supported by this system
        self._piped: set[Program] = set()  # those whose pipe is still open
        self._groups: set[int] = set()

    def start(
        self,
        command: str,
        on_output: Callable[[bytes], None],
        on_exit: OnExit,
        waits: bool = False,
    ) -> Program:
        """Run `command`, as a Program. Raises OSError or ValueError if it cannot be started."""
        program = Program(command, self._folder, self._output_limit, on_output, on_exit, waits)
        self._groups.add(program.process.pid)
        self._piped.add(program)
        self._selector.register(program.pipe, EVENT_READ, lambda _: self._on_pipe(program))
        try:
            pidfd = os.pidfd_open(program.process.pid)
        except OSError:
            pidfd = -1
        else:
            self._selector.register(pidfd, EVENT_READ, lambda _: self._on_exit(program))
        self._running[program] = pidfd
        return program

    def end(self, program: Program) -> None:
        """Kill a program with its process group; its exit is reported."""
        if program in self._running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(program.process.pid, signal.SIGKILL)

    @property
    def timeout_s(self) -> float | None:
        """How long the loop may wait before it calls `poll`; None: no limit."""
        return POLL_S if -1 in self._running.values() else None

    def poll(self) -> None:
        """Check the programs without a pidfd."""
        for program, pidfd in list(self._running.items()):
            if pidfd == -1:
                self._on_exit(program)

    def stop(self) -> None:
        """Stop everything that was started here, including grandchildren, without reports.

        Grandchildren have time until their shell ends: an empty group looks like a group of
        zombies, which not every init process reaps at once.
        """
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while any(p.process.poll() is None for p in self._running) and time.monotonic() < deadline:
            time.sleep(0.005)
        self._signal(signal.SIGKILL)
        for program, pidfd in self._running.items():
            program.process.wait()
            if pidfd != -1:
                self._selector.unregister(pidfd)
                os.close(pidfd)
        for program in list(self._piped):
            self._close_pipe(program)
        self._running.clear()
        self._groups.clear()

    def _on_pipe(self, program: Program) -> None:
        if not program.read():
            self._close_pipe(program)

    def _on_exit(self, program: Program) -> None:
        if program.ended():
            pidfd = self._running.pop(program)
            if pidfd != -1:
                self._selector.unregister(pidfd)
                os.close(pidfd)
            self._forget_empty_groups()

    def _close_pipe(self, program: Program) -> None:
        self._selector.unregister(program.pipe)
        self._piped.discard(program)
        program.close()

    def _signal(self, number: int) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    def _forget_empty_groups(self) -> None:
        for group in list(self._groups):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                self._groups.discard(group)
            except PermissionError:
                pass


def run_once(command: str, folder: str, output_limit: int) -> tuple[int, bytes]:
    """Run `command` and wait for it; return its exit status and its output, cut to the limit."""
    from selectors import DefaultSelector

    ends: list[tuple[int, bytes]] = []
    with DefaultSelector() as selector:
        programs = Programs(selector, folder, output_limit)
        programs.start(
            command, lambda _: None, lambda status, output, _: ends.append((status, output))
        )
        while not ends:
            for key, mask in selector.select(programs.timeout_s):
                key.data(mask)
            programs.poll()
        programs.stop()
    return ends[0]
