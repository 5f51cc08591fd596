"""What signals do to a daemon: SIGHUP reloads it, and only the first of SIGTERM and SIGINT counts."""

import gc
import os
import signal
import stat
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from twisted.logger import Logger
from twisted.python.logfile import BaseLogFile


class SignalReactor(Protocol):
    """What the handlers need of the reactor."""

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None: ...
    def callWhenRunning(self, callable: Callable[..., object], *args: object) -> object: ...


class Signals:
    """Handles a daemon's signals from `install` on; `reload` is called after SIGHUP."""

    log = Logger()

    def __init__(self, reactor: SignalReactor, reload: Callable[[], None]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._ending = False

    def install(self) -> None:
        """Put handlers around those of the running reactor."""
        signal.signal(signal.SIGHUP, self._hung_up)
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)
            if callable(before):  # a shell's background job ignores SIGINT
                signal.signal(number, self._only_once(before))

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._reload)

    def _only_once(
        self, end: Callable[[int, FrameType | None], object]
    ) -> Callable[[int, FrameType | None], None]:
        """Twisted's handler fails in a reactor that is stopping already."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._ending:
                name = signal.Signals(number).name
                self.log.info("received {name} again: already stopping", name=name)
            else:
                self._ending = True
                end(number, frame)

        return ask


def ignore_hang_up() -> None:
    """Ignore SIGHUP, which would end the process, until `Signals` handles it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


class LogFiles:
    """The files that this process logs to: twistd's --logfile, and redirected output."""

    def __init__(self) -> None:
        """Find the files. Must come after twistd has opened its log."""
        # twistd has no other way to get at the log file that it has opened.
        self._files = [one for one in gc.get_objects() if issubclass(type(one), BaseLogFile)]
        self._outputs = {
            number: os.readlink(f"/proc/self/fd/{number}")
            for number in (1, 2)
            if _is_regular_file(number)
        }

    def reopen(self) -> list[str]:
        """Open the files again by their names, after a log rotation; return these. Raises OSError."""
        for file in self._files:
            file.reopen()
        for number, path in self._outputs.items():
            mode = stat.S_IMODE(os.fstat(number).st_mode)
            new = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)
            os.dup2(new, number)
            os.close(new)
        return sorted({*(file.path for file in self._files), *self._outputs.values()})


def _is_regular_file(number: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(number).st_mode)
    except OSError:  # it is closed
        return False
