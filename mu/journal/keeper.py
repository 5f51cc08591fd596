"""The journal of a running daemon: opened at its start, pruned, and closed at its end."""

import json
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mu.config import Config
from mu.journal.archive import Archive
from mu.journal.ledger import Ledger, NoJournal
from mu.journal.writer import Journal, JournalReactor
from mu.totals import Durations

PRUNE_S = 600.0
"""How often ended jobs are pruned from the journal."""


class JournalKeeper:
    """Owns the journal's file; with [journal] enabled = no, there is none."""

    log = Logger()

    def __init__(
        self,
        path: Path,
        config: Config,
        reactor: JournalReactor,
        failed: Callable[[str], object],
        pruned: Callable[[list[str]], object],
        commits: Durations | None = None,
    ) -> None:
        """`failed` is called with the reason if the file can no longer be written.

        `pruned` is called with the ids of jobs whose records were deleted.
        """
        self.path = path
        self.archive: Archive | None = None
        """None until `open`, or if there is no journal."""
        self._config = config
        self._reactor = reactor
        self._failed = failed
        self._commits = commits
        self._pruned = pruned
        self._journal: Journal | None = None
        self._pruning: IDelayedCall | None = None

    @property
    def keeps(self) -> bool:
        """Whether jobs outlive the daemon."""
        return self._journal is not None

    @property
    def lag_s(self) -> float:
        """How long the oldest record that is not on disk has waited, in seconds."""
        return 0.0 if self._journal is None else self._journal.lag_s

    @property
    def backlog(self) -> int:
        """How many records are not on disk yet."""
        return 0 if self._journal is None else self._journal.written - self._journal.synced

    def last_ports(self) -> dict[str, int]:
        """Return the ports that workers of running jobs may still connect to. Raises JournalError."""
        if not self._config.journal.enabled:
            return {}
        archive = Archive(self.path)
        running = archive.running()
        try:
            ports = archive.ports() if running else {}
        except ValueError as error:
            self.log.error(
                "{path}: the ports of the last start cannot be read: {error}; free ones are used",
                path=str(self.path),
                error=str(error),
            )
            ports = {}
        archive.close()
        return ports

    def open(self) -> Ledger:
        """Return what writes the journal. Raises JournalError."""
        options = self._config.journal
        if not options.enabled:
            return NoJournal()
        self.archive = Archive(self.path)
        self._journal = Journal(
            self.path, self._reactor, options.commit_s, self._failed, self._commits
        )
        self._prune(self._journal)
        return self._journal

    def reload(self, config: Config) -> None:
        """Take a new configuration."""
        self._config = config

    def note_ports(self, ports: dict[str, int]) -> None:
        """Note the ports for the next start."""
        if self.archive is not None:
            self.archive.note("ports", json.dumps(ports))

    def close(self) -> Deferred[None]:
        """Commit everything."""
        if self._pruning is not None:
            self._pruning.cancel()
        return succeed(None) if self._journal is None else self._journal.close()

    def _prune(self, journal: Journal) -> None:
        options = self._config.journal
        keep_s = options.keep_days * 86400
        journal.prune(self._config.jobs.keep, keep_s, options.max_bytes, self._pruned)
        self._pruning = self._reactor.callLater(PRUNE_S, self._prune, journal)
