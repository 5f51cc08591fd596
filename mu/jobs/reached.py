"""Remembers which functions' workers have reached the coordinator, in a file of the home."""

import json
from dataclasses import dataclass
from pathlib import Path

from twisted.logger import Logger

from mu.home import write_private

KEPT = 1000
"""How many functions are remembered; those that were proven first are forgotten first."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way from the workers of a function to the coordinator."""

    engine: str
    function: str
    region: str
    host: str
    """Where they connect to."""

    def __str__(self) -> str:
        return " ".join((self.engine, self.function, self.region, self.host))


class Reached:
    """The ways that have worked, each with the version of the function, which a deployment changes."""

    log = Logger()

    def __init__(self, path: Path | None = None) -> None:
        """`path` is the file; None: remember only while the daemon runs."""
        self._path = path
        self._versions = {} if path is None else self._read(path)

    def knows(self, way: Way, version: str) -> bool:
        """Return whether a worker has come this way since that version was deployed."""
        return self._versions.get(str(way)) == version

    def note(self, way: Way, version: str) -> None:
        """Remember that a worker has come this way."""
        if self.knows(way, version):
            return
        self._versions.pop(str(way), None)
        self._versions[str(way)] = version
        while len(self._versions) > KEPT:
            del self._versions[next(iter(self._versions))]
        if self._path is None:
            return
        try:
            write_private(self._path, json.dumps(self._versions, indent=1) + "\n")
        except OSError as error:  # the next daemon starts few workers first: no reason to stop
            self.log.warn("cannot write {path}: {why}", path=str(self._path), why=error.strerror)

    def _read(self, path: Path) -> dict[str, str]:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(told, dict):
                raise ValueError("it is not an object")
            return {way: version for way, version in told.items() if isinstance(version, str)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self.log.warn(
                "{path} cannot be read, so no function is known to reach this daemon: {why}",
                path=str(path),
                why=str(error),
            )
            return {}
