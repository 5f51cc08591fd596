"""A job's launches: what the engine answered to each, and whose workers may still come."""

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from mu.journal.records import Launched, Launching

LATE = "late"
"""Recorded as the answer of a launch whose worker has not come in time."""


@dataclass(slots=True)
class Launch:
    """One invocation and its worker."""

    number: int
    due: float
    """When it counts as late, in seconds since the epoch."""
    answer: str = ""
    """The engine's; empty: none yet."""
    session: str | None = None
    """The worker that came with it; None: none has."""


class Launches(Mapping[str, Launch]):
    """One-time launch id to launch.

    An engine has `accept_s` seconds to accept a launch, then its worker `hello_s` for its hello.
    """

    def __init__(self, accept_s: float, hello_s: float) -> None:
        self._accept_s = accept_s
        self._hello_s = hello_s
        self._all: dict[str, Launch] = {}
        self._coming: dict[str, Launch] = {}  # those whose worker may still come
        self._unanswered = 0
        self.counts: Counter[str] = Counter()
        """How often engines gave each answer."""
        self.answered: float | None = None
        """When the last launch was answered, the first time that all were."""

    def __getitem__(self, launch_id: str) -> Launch:
        return self._all[launch_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def number(self, launch_id: str) -> int | None:
        """Return the number of a launch, if it is known."""
        launch = self._all.get(launch_id)
        return None if launch is None else launch.number

    @property
    def coming(self) -> int:
        """How many workers may still come."""
        return len(self._coming)

    def plan(self, count: int, at: float) -> list[Launching]:
        """Return the records of that many new launches."""
        first = len(self._all)
        return [Launching(at, secrets.token_hex(8), first + place) for place in range(count)]

    def begin(self, record: Launching) -> None:
        """Take in a new launch."""
        launch = Launch(record.number, record.at + self._accept_s)
        self._all[record.launch] = self._coming[record.launch] = launch
        self._unanswered += 1

    def answer(self, record: Launched) -> bool:
        """Take in an engine's answer, or that the worker is late; return whether all are answered."""
        launch = self._all[record.launch]
        self._unanswered -= not launch.answer
        launch.answer = record.answer
        if record.answer == LATE:
            self._coming.pop(record.launch, None)
        else:
            launch.due = record.at + self._hello_s
            self.counts[record.answer] += 1
        if self._unanswered == 0 and record.answer != LATE and self.answered is None:
            self.answered = record.at or None
        return self._unanswered == 0

    def arrive(self, launch_id: str, session: str) -> int | None:
        """Take in that the worker of a launch has come; return the launch's number."""
        launch = self._all.get(launch_id)
        if launch is None:
            return None
        launch.session = session
        self._coming.pop(launch_id, None)
        return launch.number

    def overdue(self, now: float) -> dict[str, Launch]:
        """Return the launches whose worker should have come by now."""
        return {name: one for name, one in self._coming.items() if one.due <= now}

    def lose(self, known: Set[str]) -> None:
        """Take in that workers were lost, all but those of the `known` sessions: they may come again."""
        for launch in self._all.values():
            if launch.session is not None and launch.session not in known:
                launch.session = None

    def restart(self, now: float) -> list[str]:
        """Wait for workers anew after a restart; return the ids of launches without an answer."""
        self._coming = {
            name: launch
            for name, launch in self._all.items()
            if launch.answer != LATE and launch.session is None
        }
        for launch in self._coming.values():
            launch.due = now + (self._hello_s if launch.answer else self._accept_s)
        return [name for name, launch in self._coming.items() if not launch.answer]
