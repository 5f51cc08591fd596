"""Programs that the worker runs: started by the shell, watched by the loop's selector."""

import os
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
"""The most that a pipe can still hold when its program has ended, in bytes (Linux's default
limit); more would be a grandchild's output, which has no end."""
GRACE_S = 0.5
"""Between asking what still runs to end, and making it."""
POLL_S = 0.05


class Program:
    """One shell command in a process group of its own, output and errors in one pipe.

    When the shell ends, the program has ended: a grandchild may hold the pipe open and go on,
    and what it still prints is read and thrown away, so that it never gets a SIGPIPE from us.
    """

    def __init__(
        self,
        command: str,
        folder: str,
        output_limit: int,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int, bytes], None],
    ) -> None:
        """Start it in `folder`. Raises OSError or ValueError where it cannot be started."""
        self._on_output = on_output
        self._on_exit = on_exit
        self._output = Excerpt(output_limit)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", encode(command)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)

    def read(self) -> bool:
        """Take one chunk from the pipe; return whether more may come."""
        try:
            chunk = os.read(self.pipe, READ_BYTES)
        except BlockingIOError:
            return True
        if chunk and self.process.returncode is None:
            self._output.add(chunk)
            self._on_output(chunk)
        return bool(chunk)

    def ended(self) -> bool:
        """Whether it has; the first time, its exit is reported, with all that it printed."""
        if self.process.returncode is not None:
            return True
        # take what is in the pipe before the status is known: read() keeps nothing after that
        if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self._drain()
        self._on_exit(self.process.wait(), self._output.bytes())
        return True

    def close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _drain(self) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.closed:  # its number may be another file's by now
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
    """All that runs, and whatever of their process groups is left when they have ended."""

    def __init__(self, selector: BaseSelector, folder: str, output_limit: int) -> None:
        self._selector = selector
        self._folder = folder
        self._output_limit = output_limit
        self._running: dict[Program, int] = {}  # and their pidfds; -1: this system has none
        self._piped: set[Program] = set()  # whose pipe is still open
        self._groups: set[int] = set()

    def start(
        self,
        command: str,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int, bytes], None],
    ) -> Program:
        """Run `command`. Raises OSError or ValueError where it cannot be started."""
        program = Program(command, self._folder, self._output_limit, on_output, on_exit)
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
        """Kill a program and its group; its exit is reported."""
        if program in self._running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(program.process.pid, signal.SIGKILL)

    @property
    def patience_s(self) -> float | None:
        """How long the loop may sleep before it calls `poll`; None: as long as it likes."""
        return POLL_S if -1 in self._running.values() else None

    def poll(self) -> None:
        """Look for exits that no pidfd tells."""
        for program, pidfd in list(self._running.items()):
            if pidfd == -1:
                self._on_exit(program)

    def stop(self) -> None:
        """End everything that was started here, grandchildren included; nothing is reported.

        Grandchildren have until their shell has ended: an empty group cannot be told from one of
        zombies, which not every init takes away at once.
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
            command, lambda _: None, lambda status, output: ends.append((status, output))
        )
        while not ends:
            for key, mask in selector.select(programs.patience_s):
                key.data(mask)
            programs.poll()
        programs.stop()
    return ends[0]
