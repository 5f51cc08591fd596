"""Workers waiting without an actor, and which actors are slow enough to get one of them."""

import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from mu.jobs.actors import Actor
from mu.jobs.driver import WorkerLine
from mu.messages import Hello


class Spares:
    """Connected workers without an actor: spares, and workers that connect before the plan."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[WorkerLine, Hello] = OrderedDict()
        self._lines: dict[str, WorkerLine] = {}  # by session; an original worker has none

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, line: WorkerLine, hello: Hello) -> None:
        """Keep a worker waiting."""
        self._waiting[line] = hello
        if hello.session:
            self._lines[hello.session] = line
        line.wait()

    def take(self) -> tuple[WorkerLine, Hello]:
        """Remove and return the worker that has waited longest."""
        line, hello = self._waiting.popitem(last=False)
        self._lines.pop(hello.session, None)
        return line, hello

    def all(self) -> list[tuple[WorkerLine, Hello]]:
        """Return all workers, the longest waiting first."""
        return list(self._waiting.items())

    def take_all(self) -> Iterator[tuple[WorkerLine, Hello]]:
        """Remove and yield all workers."""
        while self._waiting:
            yield self.take()

    def leave(self, line: WorkerLine) -> None:
        """Forget a worker whose connection is lost."""
        hello = self._waiting.pop(line, None)
        if hello is not None:
            self._lines.pop(hello.session, None)

    def has(self, session: str) -> bool:
        """Whether the worker with that session waits; an original worker has none."""
        return session in self._lines

    def replace(self, hello: Hello) -> None:
        """Close the older connection of a worker that has connected again."""
        line = self._lines.get(hello.session)
        if line is not None:
            self.leave(line)
            line.supersede("its worker has connected again")


def stragglers(
    actors: Sequence[Actor],
    factor: float,
    now: float,
    peers: Callable[[Actor], object] = lambda actor: None,
) -> Iterator[Actor]:
    """Yield the actors that have run longer than `factor` times the median of their finished peers.

    `peers` returns the same value for those of one stage. It yields none of a stage before half of
    it is done, and none that already have two attempts.
    """
    stages: dict[object, list[Actor]] = {}
    for actor in actors:
        stages.setdefault(peers(actor), []).append(actor)
    for stage in stages.values():
        times = [actor.took for actor in stage if actor.took is not None]
        if len(times) < max(1, len(stage) // 2):
            continue
        longest = factor * statistics.median(times)
        for actor in stage:
            running = actor.outcome is None and len(actor.attempts) == 1
            if running:
                attempt = actor.attempts[0]
                if now - attempt.began - attempt.downtime > longest:
                    yield actor
