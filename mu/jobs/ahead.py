"""Which actors may begin soon, so that their workers can be launched before that."""

import statistics
from collections.abc import Callable, Iterator, Sequence

from mu.jobs.actors import Actor
from mu.jobs.stages import Gate, Stages


def medians(actors: Sequence[Actor], peers: Callable[[int], object]) -> dict[object, float]:
    """Return how long the actors of each stage took, in seconds, if one of it is done."""
    took: dict[object, list[float]] = {}
    for actor in actors:
        if actor.took is not None:
            took.setdefault(peers(actor.number), []).append(actor.took)
    return {stage: statistics.median(times) for stage, times in took.items()}


def opening(stages: Stages, actors: Sequence[Actor], seconds: float, now: float) -> Iterator[Gate]:
    """Yield the gates expected to open within this many seconds, going by how long peers took.

    An actor without a peer that is done may take any time.
    """
    known = {actor.number: actor for actor in actors}
    usual = medians(actors, stages.peers)

    def ends_soon(number: int) -> bool:
        actor = known.get(number)
        if actor is None or actor.outcome is not None:
            return True
        takes = usual.get(stages.peers(number))
        if takes is None or not actor.attempts:
            return False
        attempt = actor.attempts[0]
        return attempt.began + attempt.downtime + takes - now <= seconds

    for gate in stages.closed_gates():
        if all(map(ends_soon, gate.before)):
            yield gate
