"""A canary: the first launches of a job on a function that nobody knows to reach the coordinator.

If none of its workers can connect, thousands would run for minutes and cost as much as a whole job.
So few go ahead, until one of them connects. This is pure.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Unproven:
    """A region from which no worker of the function has connected yet."""

    coming: set[str] = field(default_factory=set)
    """Launches that went ahead and whose workers may still connect."""
    step: int = 0
    ahead: int = 0
    """How many launches went ahead, without those that found no place."""
    failed: int = 0
    """How many of their workers did not connect."""
    held: list[str] = field(default_factory=list)


class Canary:
    """Holds back the launches for `regions`, except the first ones.

    `steps` says how many go ahead at a time: the first number at once, the next if none of their
    workers has connected in time, and after the last number all.
    """

    def __init__(self, steps: Sequence[int], regions: Iterable[str]) -> None:
        self._steps = steps
        self._regions = {region: _Unproven() for region in regions} if steps else {}

    @property
    def waits(self) -> bool:
        """Whether launches are held back."""
        return any(one.held for one in self._regions.values())

    @property
    def unproven(self) -> Collection[str]:
        """The regions from which no worker has connected."""
        return self._regions.keys()

    def admit(self, region: str, launches: Sequence[str]) -> list[str]:
        """Return those that may be launched now, and hold back the others."""
        one = self._regions.get(region)
        if one is None:
            return list(launches)
        one.held += launches
        return self._release(one)

    def prove(self, region: str) -> list[str]:
        """Note that a worker connected from a region; return the launches that it held back."""
        one = self._regions.pop(region, None)
        return [] if one is None else one.held

    def miss(self, region: str, late: Collection[str], placeless: Collection[str]) -> None:
        """Note launches whose workers did not connect in time.

        The `placeless` among them cannot have run, so that they say nothing about the function.
        """
        one = self._regions[region]
        missed = one.coming.intersection(late)
        unfit = missed.intersection(placeless)
        one.coming -= missed
        one.ahead -= len(unfit)
        one.failed += len(missed) - len(unfit)
        if not one.coming and missed != unfit:
            one.step += 1

    def release(self, region: str) -> list[str]:
        """Return the launches for a region that is not proven which may be made by now."""
        return self._release(self._regions[region])

    def failed(self, region: str) -> int:
        """Return how many workers could not connect from a region that is not proven."""
        return self._regions[region].failed

    def _release(self, one: _Unproven) -> list[str]:
        most = sum(self._steps[: one.step + 1]) if one.step < len(self._steps) else math.inf
        free = int(min(len(one.held), max(0, most - one.ahead)))
        released, one.held = one.held[:free], one.held[free:]
        one.ahead += free
        one.coming.update(released)
        return released
