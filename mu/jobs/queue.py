"""The actors of a job that could begin now, in the order in which they get workers."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice

from mu.jobs.actors import Actor
from mu.places import FIRST, RETRY, SPARE


class ActorQueue:
    """First the actors to retry, then those that never had a worker, both in the plan's order.

    Others may wait for an actor, but only for those before it in the order. So an actor that timed
    out while it waited does not go before the one that it waited for.
    """

    def __init__(self, order: Sequence[int] = (), actors: Iterable[Actor] = ()) -> None:
        self._places = {number: place for place, number in enumerate(order)}
        self._retries: list[tuple[int, int]] = []  # place in the order, and number
        self._actors = {actor.number: actor for actor in actors}
        # The first of a plain dict may take O(n) to find.
        self._untried = OrderedDict.fromkeys(number for number in order if number in self._actors)

    def __len__(self) -> int:
        return len(self._untried) + len(self._retries)

    @property
    def first(self) -> Actor:
        """The next one; there must be one."""
        number = self._retries[0][1] if self._retries else next(iter(self._untried))
        return self._actors[number]

    def next(self, count: int) -> list[Actor]:
        """Return the next `count` actors."""
        retries = [number for _, number in self._retries[:count]]
        untried = islice(self._untried, max(0, count - len(retries)))
        return [self._actors[number] for number in (*retries, *untried)]

    def add(self, actors: Iterable[Actor]) -> None:
        """Queue actors that may begin from now on, behind the others."""
        added = {actor.number: actor for actor in actors}
        self._actors |= added
        self._untried.update(dict.fromkeys(sorted(added, key=self._places.__getitem__)))

    def retry(self, actor: Actor) -> None:
        """Queue an actor again."""
        self._actors[actor.number] = actor
        place = self._places[actor.number], actor.number
        at = bisect_left(self._retries, place)
        if self._retries[at : at + 1] != [place]:
            self._retries.insert(at, place)

    def remove(self, actor: Actor) -> None:
        """Take an actor out, if it is queued."""
        self._untried.pop(actor.number, None)
        place = self._places[actor.number], actor.number
        at = bisect_left(self._retries, place)
        if self._retries[at : at + 1] == [place]:
            del self._retries[at]

    def urgency(self, index: int) -> int:
        """Return what the worker after the next `index` ones is for: RETRY, FIRST or SPARE."""
        if index < len(self._retries):
            return RETRY
        return FIRST if index < len(self) else SPARE
