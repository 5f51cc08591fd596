"""A job's launches: what the engine answered to each, and whose workers may still connect."""

import math
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from mu.journal.records import Launched, Launching

LATE = "late"
"""Recorded as the answer to a launch whose worker did not connect in time."""


@dataclass(slots=True)
class Launch:
    """One invocation and its worker."""

    number: int
    begun: float
    """When it was recorded, before its invocation, in seconds since the epoch."""
    invoked: float = 0.0
    """When the engine was first asked; 0: it was not, or a daemon of before asked it."""
    due: float = math.inf
    """When it is overdue, in seconds since the epoch."""
    answer: str = ""
    """The engine's answer; empty: none yet."""
    session: str | None = None
    """The session of the worker that connected with it; None: none has."""
    used: bool = False
    """Whether the worker has told what it ran before its hello."""
    memory_mb: float | None = None
    """The memory of its function, as the worker told; None: unknown."""
    request: str = ""
    """The id of its invocation, as the worker told; empty: unknown."""
    ended: str = ""
    """How its worker ended, as its engine told; empty: it may still run."""
    pending: str = ""
    """Why it waits in its engine, as that told; empty: it does not, or the engine did not tell."""


class Launches(Mapping[str, Launch]):
    """Maps a one-time launch id to its launch.

    An engine has `accept_s` seconds to accept a launch; then its worker has `hello_s` to say hello.
    """

    def __init__(self, accept_s: float, hello_s: float) -> None:
        self._accept_s = accept_s
        self._hello_s = hello_s
        self._all: dict[str, Launch] = {}
        self._coming: dict[str, Launch] = {}  # launches whose worker may still connect
        self._invoked: set[str] = set()  # those of them that were made
        self._pending: dict[str, str] = {}  # those that wait in their engine, and why
        self._by_session: dict[str, str] = {}
        self._unanswered = 0
        self.counts: Counter[str] = Counter()
        """How often engines gave each answer."""
        self.answered: float | None = None
        """When all launches had been answered for the first time."""

    def __getitem__(self, launch_id: str) -> Launch:
        return self._all[launch_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def number(self, launch_id: str) -> int | None:
        """Return the number of a launch; None: it is unknown."""
        launch = self._all.get(launch_id)
        return None if launch is None else launch.number

    @property
    def coming(self) -> int:
        """How many workers may still connect."""
        return len(self._coming)

    @property
    def invoked_coming(self) -> int:
        """How many of them were invoked; the others wait for a place."""
        return len(self._invoked)

    def plan(self, count: int, at: float) -> list[Launching]:
        """Return the records of `count` new launches."""
        first = len(self._all)
        return [Launching(at, secrets.token_hex(8), first + place) for place in range(count)]

    def begin(self, record: Launching) -> None:
        """Apply a new launch."""
        launch = Launch(record.number, record.at)
        self._all[record.launch] = self._coming[record.launch] = launch
        self._unanswered += 1

    def invoked(self, launch_id: str, now: float) -> None:
        """Note that an invocation is made; the engine's time to accept it begins."""
        launch = self._all[launch_id]
        if launch.due == math.inf:
            launch.due = now + self._accept_s
            launch.invoked = launch.invoked or now
        if launch_id in self._coming:
            self._invoked.add(launch_id)

    def answer(self, record: Launched) -> bool:
        """Apply an engine's answer, or that the worker is late; return whether all are answered."""
        launch = self._all[record.launch]
        self._unanswered -= not launch.answer
        launch.answer = record.answer
        if record.answer == LATE:
            self._expect_no_more(record.launch)
        else:
            launch.due = record.at + self._hello_s
            self.counts[record.answer] += 1
        if self._unanswered == 0 and record.answer != LATE and self.answered is None:
            self.answered = record.at or None
        return self._unanswered == 0

    def arrive(self, launch_id: str, session: str) -> int | None:
        """Apply that the worker of a launch connected; return the launch's number."""
        launch = self._all.get(launch_id)
        if launch is None:
            return None
        launch.session = session
        if session:
            self._by_session[session] = launch_id
        self._expect_no_more(launch_id)
        return launch.number

    def _expect_no_more(self, launch_id: str) -> None:
        self._coming.pop(launch_id, None)
        self._invoked.discard(launch_id)
        self._pending.pop(launch_id, None)

    def of_session(self, session: str) -> str:
        """Return the id of the launch that started a worker; empty: unknown."""
        return self._by_session.get(session, "")

    def holding(self) -> Iterator[tuple[str, Launch]]:
        """Yield the launches whose worker runs or may still start."""
        for name, launch in self._all.items():
            if launch.answer not in ("", LATE):
                yield name, launch

    def outstanding(self) -> str:
        """Return the id of the oldest launch whose worker has not connected; empty: there is none.

        A worker that may still come in time goes before those that are late.
        """
        for launches in (self._coming, self._all):
            for name, launch in launches.items():
                if launch.session is None and launch.due < math.inf:  # it was invoked
                    return name
        return ""

    def wait(self, launch_id: str, why: str, now: float) -> None:
        """Note that a launch waits in its engine: its worker's time to say hello begins anew."""
        launch = self._coming.get(launch_id)
        if launch is not None:
            launch.pending = self._pending[launch_id] = why
            if launch.answer:
                launch.due = now + self._hello_s

    def give_up(self, launch_id: str, why: str, now: float) -> None:
        """Note that the worker of a launch has ended: if it has not said hello, it is overdue."""
        launch = self._all[launch_id]
        launch.ended = why
        if launch_id in self._coming:
            launch.due = min(launch.due, now)

    @property
    def pending(self) -> str:
        """Why launches wait in their engine; empty: none is known to wait."""
        return next(iter(self._pending.values()), "")

    def overdue(self, now: float) -> dict[str, Launch]:
        """Return the launches whose worker should have connected by now."""
        return {name: one for name, one in self._coming.items() if one.due <= now}

    def lose(self, known: Set[str]) -> None:
        """Apply that the workers of all but the `known` sessions are lost; they may reconnect."""
        for launch in self._all.values():
            lost = launch.session and launch.session not in known
            if lost:  # an original worker, which has no session, cannot reconnect
                launch.session = None

    def restart(self, now: float) -> list[str]:
        """Wait again for workers after a restart; return the ids of launches without an answer."""
        self._coming = {
            name: launch
            for name, launch in self._all.items()
            if launch.answer != LATE and launch.session is None
        }
        self._invoked = {name for name, launch in self._coming.items() if launch.answer}
        for launch in self._coming.values():
            launch.due = now + self._hello_s if launch.answer else math.inf
        return [name for name, launch in self._coming.items() if not launch.answer]
