"""What SIGHUP asks for: takes what can change while the daemon runs, and logs what cannot."""

from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from mu.config import Config, ConfigError, read_config, reloaded
from mu.home import read_token
from mu.signals import LogFiles


class Reloader:
    """Holds the daemon's configuration and token, which a reload replaces."""

    log = Logger()

    def __init__(self, config: Config, token: str, source: Path | None) -> None:
        """`source` is the file that the configuration comes from."""
        self.config = config
        self.token = token
        self._source = source
        self._log_files: LogFiles | None = None

    def find_logs(self) -> None:
        """Find the log files. Must come after twistd has opened its log."""
        self._log_files = LogFiles()

    def reload(self, take: Callable[[Config, str], object] | None) -> None:
        """Reload everything, and call `take` with it; None: the daemon is starting or stopping."""
        if take is None:
            self.log.info("received SIGHUP while starting or stopping: nothing is reloaded")
            return
        self._reopen_logs()
        self._reload_token()
        self._reload_config()
        take(self.config, self.token)
        self.log.info("not reloaded: the ports, the CA and the local engine need a restart")

    def _reopen_logs(self) -> None:
        assert self._log_files is not None
        try:
            files = ", ".join(self._log_files.reopen()) or "none"
            self.log.info("received SIGHUP; log files reopened: {files}", files=files)
        except OSError as error:
            self.log.error("a log file cannot be reopened: {error}", error=error)

    def _reload_token(self) -> None:
        try:
            token = read_token(self.config.home / "token")
            self.log.info("token: {what}", what="unchanged" if token == self.token else "reloaded")
            self.token = token
        except (OSError, ValueError) as error:
            self.log.error("the old token stays in use: {error}", error=error)

    def _reload_config(self) -> None:
        if self._source is None:
            self.log.info("configuration: there is no file, so that nothing changed")
            return
        try:
            new = read_config(self._source)
        except ConfigError as error:
            self.log.error("the old configuration stays in use: {error}", error=error)
            return
        self.config, taken, left = reloaded(self.config, new)
        self.log.info(
            "configuration {file}: reloaded for new jobs: {taken}; needs a restart: {left}",
            file=str(self._source),
            taken=", ".join(taken) or "nothing",
            left=", ".join(left) or "nothing",
        )
