"""Runs the commands of Slurm. They may block for long, so call this in threads."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended: its exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def good(self) -> bool:
        return self.status == 0


class Commands:
    """Each may take `timeout_s` seconds; then it is killed, and has not answered."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, words: Sequence[str], given: str = "") -> Ran:
        """Run a command; `given` is its stdin."""
        if shutil.which(words[0]) is None:
            return Ran(127, "", f"{words[0]} is not installed here")
        # SQUEUE_FORMAT and its like would change what is printed.
        env = {name: text for name, text in os.environ.items() if not name.startswith("SQUEUE_")}
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace", env=env
        ) as process:
            self._running.add(process)
            try:
                out, err = process.communicate(given, self._timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                return Ran(-1, "", f"{words[0]} did not answer within {self._timeout_s:g} s")
            finally:
                self._running.discard(process)
        return Ran(process.returncode, out, err)

    def stop(self) -> None:
        """Kill what runs."""
        for process in list(self._running):
            process.kill()
