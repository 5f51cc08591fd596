"""Threads for blocking calls. A socket tells the loop that a result is ready."""

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

Work = Callable[[], Callable[[], None]]
"""Called in a thread; it returns a function for the loop to call. It must not raise."""


class Threads:
    """At most `size` threads, started on demand. `fileno` becomes readable when one has finished.

    They are daemon threads: the process does not wait for one that hangs in a system call.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: SimpleQueue[Work | None] = SimpleQueue()
        self._done: deque[Callable[[], None]] = deque()
        self._threads: list[Thread] = []
        self._unfinished = 0
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)

    def fileno(self) -> int:
        return self._bell.fileno()

    def start(self, work: Work) -> None:
        self._unfinished += 1
        if len(self._threads) < min(self._unfinished, self._size):
            thread = Thread(target=self._serve, name="mu-worker", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._waiting.put(work)

    def deliver(self) -> None:
        """Call, in this thread, the functions that finished work returned."""
        with suppress(BlockingIOError):
            self._bell.recv(4096)
        while self._done:
            self._unfinished -= 1
            self._done.popleft()()

    def stop(self, wait_s: float) -> None:
        """Accept no more work, and wait up to `wait_s` for running work; its results are dropped."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(wait_s / len(self._threads))
        self._button.close()
        self._bell.close()

    def _serve(self) -> None:
        while (work := self._waiting.get()) is not None:
            self._done.append(work())
            with suppress(OSError):  # full: the loop wakes up anyway; closed: it has ended
                self._button.send(b"!")
