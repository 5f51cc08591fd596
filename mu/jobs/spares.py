"""Workers that wait without an actor, and which actors are slow enough to get one of them."""

import statistics
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from mu.jobs.actors import Actor
from mu.jobs.driver import WorkerLine
from mu.messages import Hello


class Spares:
    """Connected workers without an actor: spares, and early workers until the plan is there."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[WorkerLine, Hello] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, line: WorkerLine, hello: Hello) -> None:
        """Let a worker wait."""
        self._waiting[line] = hello
        line.wait()

    def take(self) -> tuple[WorkerLine, Hello]:
        """Return the worker that has waited longest, which waits no more."""
        return self._waiting.popitem(last=False)

    def take_all(self) -> Iterator[tuple[WorkerLine, Hello]]:
        """Yield all workers, which wait no more."""
        while self._waiting:
            yield self.take()

    def leave(self, line: WorkerLine) -> None:
        """Forget a worker whose connection is gone."""
        self._waiting.pop(line, None)

    def replace(self, hello: Hello) -> None:
        """Close the older connection of a worker that has connected again."""
        older = [line for line, one in self._waiting.items() if one.session == hello.session]
        for line in older if hello.session else []:
            del self._waiting[line]
            line.supersede("its worker has connected again")


def stragglers(actors: Sequence[Actor], factor: float, now: float) -> Iterator[Actor]:
    """Yield the actors that run for over `factor` times the median of those that are done.

    None before half of the actors are done. Actors with a second attempt are left out.
    """
    times = [actor.took for actor in actors if actor.took is not None]
    if len(times) < max(1, len(actors) // 2):
        return
    longest = factor * statistics.median(times)
    for actor in actors:
        running = actor.outcome is None and len(actor.attempts) == 1
        if running and now - actor.attempts[0].began > longest:
            yield actor
