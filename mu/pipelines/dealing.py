"""Orders in which connecting workers become actors: each is a permutation of range(actors).

And which actors have to run again with those that failed.
"""

from collections.abc import Iterable

from mu.plugins import ActorInput, Outcome

__all__ = ["deal", "first_come", "is_order", "whole_groups"]


def first_come(actors: int) -> list[int]:
    """Return the default order: the n-th worker to connect becomes actor n."""
    return list(range(actors))


def deal(actors: int, distance: int) -> list[int]:
    """Deal round-robin over groups of `distance` actors, so that all groups begin early.

    The original's "rotating goose": with 8 actors and a keyframe distance of 5, workers 0 to 7
    become actors 0 5 1 6 2 7 3 4.
    """
    return [
        actor for place in range(min(distance, actors)) for actor in range(place, actors, distance)
    ]


def whole_groups(outcomes: Iterable[Outcome], size: int) -> dict[int, ActorInput]:
    """Return the rerun of all groups of `size` actors in which one failed (see Pipeline.rerun).

    For actors that pass a state on within their group: the states of an earlier job are gone.
    """
    known = list(outcomes)
    failed = {outcome.actor // size for outcome in known if outcome.error}
    return {one.actor: one.input for one in known if one.actor // size in failed}


def is_order(order: object, actors: int) -> bool:
    """Return whether `order` is a list with each number of range(actors) once."""
    return isinstance(order, list) and sorted(order) == list(range(actors))
