"""What SIGHUP asks for: takes what can change while the daemon runs, and logs what cannot."""

from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from mu.config import Config, ConfigError, read_config, reloaded
from mu.home import Tokens, read_tokens
from mu.signals import LogFiles


class Reloader:
    """Holds the daemon's configuration and tokens, which a reload replaces."""

    log = Logger()

    def __init__(self, config: Config, tokens: Tokens, source: Path | None) -> None:
        """`source` is the file that the configuration comes from."""
        self.config = config
        self.tokens = tokens
        self._source = source
        self._log_files: LogFiles | None = None

    def find_logs(self) -> None:
        """Find the log files. Must come after twistd has opened its log."""
        self._log_files = LogFiles()

    def reload(self, take: Callable[[Config, Tokens], object] | None) -> None:
        """Reload everything, and call `take` with it; None: the daemon is starting or stopping."""
        if take is None:
            self.log.info("received SIGHUP while starting or stopping: nothing is reloaded")
            return
        self._reopen_logs()
        self._reload_tokens()
        self._reload_config()
        take(self.config, self.tokens)
        self.log.info("not reloaded: the ports, the CA and the local engine need a restart")

    def _reopen_logs(self) -> None:
        assert self._log_files is not None
        try:
            files = ", ".join(self._log_files.reopen()) or "none"
            self.log.info("received SIGHUP; log files reopened: {files}", files=files)
        except OSError as error:
            self.log.error("a log file cannot be reopened: {error}", error=error)

    def _reload_tokens(self) -> None:
        try:
            tokens = read_tokens(self.config.home)
            same = tokens == self.tokens
            self.log.info("tokens: {what}", what="unchanged" if same else "reloaded")
            self.tokens = tokens
        except (OSError, ValueError) as error:
            self.log.error("the old tokens stay in use: {error}", error=error)

    def _reload_config(self) -> None:
        if self._source is None:
            self.log.info("configuration: there is no file, so that nothing changed")
            return
        try:
            new = read_config(self._source, lambda said: self.log.warn("{said}", said=said))
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
