"""The daemon's log: Twisted's, without debug lines unless `[mu] debug = yes`."""

from typing import ClassVar

from twisted.logger import Logger


class DaemonLogger(Logger):
    """A Twisted logger for modules that write debug lines."""

    debugging: ClassVar[bool] = False
    """Whether debug lines are logged, by all such loggers of the process."""

    def debug(self, format: str | None = None, **kwargs: object) -> None:
        if DaemonLogger.debugging:
            super().debug(format, **kwargs)
