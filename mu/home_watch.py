"""Watches that a process's files are still there: nobody would find what it does without them."""

from collections.abc import Callable
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mu.home import Presence

CHECK_S = 1.0


class HomeWatch:
    """Checks about once a second; calls `gone` once with the path that was removed or replaced."""

    def __init__(self, clock: IReactorTime, gone: Callable[[Path], object], *paths: Path) -> None:
        """All of these paths must exist. Raises OSError."""
        self._clock = clock
        self._gone = gone
        self._present = [Presence(*paths)]
        self._call: IDelayedCall | None = None

    def add(self, path: Path) -> None:
        """Watch this path, too. Raises OSError."""
        self._present.append(Presence(path))

    def check(self) -> None:
        """Check now, and from now on."""
        self.stop()
        for present in self._present:
            gone = present.gone()
            if gone is not None:
                self._gone(gone)
                return
        self._call = self._clock.callLater(CHECK_S, self.check)

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
