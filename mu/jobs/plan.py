"""Checks what a pipeline plans: the inputs of its actors, their order, and which wait for which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mu.jobs.spec import JobSpec
from mu.journal.records import Planned
from mu.pipelines.dealing import is_order
from mu.plugins import ALL, ActorInput, Pipeline, Staged

LONGEST_STAGE = 100
"""The most characters of a stage's name."""
MOST_IN_CYCLE = 10
"""How many actors of a cycle an error names."""

Wanted = str | tuple[int, ...]
"""What an actor waits for: the name of a stage, ALL, or sorted numbers of actors."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A plan's inputs, and which actors wait for which; the rows are as in the record Planned."""

    inputs: list[ActorInput]
    after: list[list[list[int]]]
    stages: list[list[object]]


def checked_plan(spec: JobSpec, plan: object, most: int) -> Planned:
    """Return the record of a plan. Raises TypeError or ValueError if it cannot be carried out."""
    arranged = arrange(plan)
    inputs, after = arranged.inputs, arranged.after
    if not inputs:
        raise ValueError("there is nothing to do: the plan has no actors")
    if len(inputs) > most:
        raise ValueError(f"it has {len(inputs)} actors, but max_workers is {most}")
    if spec.actors and max(spec.actors) >= len(inputs):
        raise ValueError(
            f"actor {max(spec.actors)} was ordered, but it has only actors 0 to {len(inputs) - 1}"
        )
    if after and spec.pipeline.all_at_once:
        raise ValueError("its actors must all run at the same time, so none may wait for another")
    if spec.actors:
        _refuse_missing(after, set(spec.actors))
    order, sizes = _order(spec, len(inputs)), sizes_of(spec.pipeline, inputs)
    return Planned(inputs, order, sizes=sizes, after=after, stages=arranged.stages)


def sizes_of(pipeline: Pipeline, inputs: Sequence[ActorInput]) -> list[int]:
    """Return how many inputs each actor has; empty: one each."""
    sizes = [len(pipeline.inputs(given)) for given in inputs]
    return sizes if any(size != 1 for size in sizes) else []


def _order(spec: JobSpec, actors: int) -> list[int]:
    """Return the order in which actors get workers."""
    order: Sequence[int] = spec.pipeline.order(spec.params, actors)
    if not is_order(order, actors):
        raise ValueError(f"order() must name each actor once, got {order!r:.200}")
    return list(order)


# ---------------------------------------------------------------- which actors wait for which


def arrange(plan: object) -> Arrangement:
    """Return the inputs of a plan, and which actors wait for which.

    Raises TypeError for what is no plan, and ValueError if actors wait for one another, or for
    others that there are not.
    """
    if not isinstance(plan, list) or not all(isinstance(one, dict | Staged) for one in plan):
        raise TypeError(f"plan() must return a list of dicts, one for each actor, not {plan!r:.80}")
    staged = {actor: one for actor, one in enumerate(plan) if isinstance(one, Staged)}
    inputs = [one.input if isinstance(one, Staged) else one for one in plan]
    if not staged:
        return Arrangement(inputs, [], [])
    stages: dict[str, list[int]] = {}
    waiting: dict[Wanted, list[int]] = {}
    read: dict[int, Wanted] = {}  # by the id of `after`, which many may share
    for actor, one in staged.items():
        _check(actor, one)
        if one.stage:
            stages.setdefault(one.stage, []).append(actor)
        if id(one.after) not in read:
            read[id(one.after)] = _read_after(actor, one.after, len(plan))
        if wanted := read[id(one.after)]:
            waiting.setdefault(wanted, []).append(actor)
    last = set(waiting.get(ALL, ()))
    before = stages | {ALL: [actor for actor in range(len(plan)) if actor not in last]}
    rows: dict[tuple[int, ...], list[int]] = {}  # two may name the same actors
    for awaited, actors in waiting.items():
        numbers = tuple(before.get(awaited, ())) if isinstance(awaited, str) else awaited
        if not numbers:
            raise ValueError(_unknown(awaited, actors[0], stages))
        rows.setdefault(numbers, []).extend(actors)
    after = [[list(numbers), sorted(actors)] for numbers, actors in rows.items()]
    if cycle := _cycle(after, len(plan)):
        raise ValueError(_circular(cycle))
    return Arrangement(inputs, after, [[name, actors] for name, actors in stages.items()])


def _check(actor: int, one: Staged) -> None:
    """Raise TypeError or ValueError for a Staged that cannot be."""
    if not isinstance(one.input, dict):
        raise TypeError(
            f"actor {actor}: the input of a Staged must be a dict, got {one.input!r:.80}"
        )
    name = one.stage
    if not isinstance(name, str) or not (name.isprintable() and len(name) <= LONGEST_STAGE):
        raise TypeError(
            f"actor {actor}: the name of a stage must be at most {LONGEST_STAGE} printable"
            f" characters, got {name!r:.200}"
        )
    if name == ALL:
        raise ValueError(
            f"actor {actor}: a stage cannot have the name {ALL!r}: it means all actors"
        )


def _read_after(actor: int, after: object, actors: int) -> Wanted:
    """Return the name of the stage that an actor waits for, or sorted numbers; empty: neither."""
    if isinstance(after, str):
        return after
    if not isinstance(after, list | tuple | range) or any(type(one) is not int for one in after):
        raise TypeError(
            f"actor {actor}: after must be a list of the numbers of actors, the name of a stage or"
            f" {ALL!r}, got {after!r:.200}"
        )
    numbers = tuple(sorted({*after}))
    if wrong := [one for one in numbers if not 0 <= one < actors]:
        raise ValueError(
            f"actor {actor} waits for actor {wrong[0]}, but there are only actors 0 to {actors - 1}"
        )
    return numbers


def _unknown(wanted: Wanted, actor: int, stages: dict[str, list[int]]) -> str:
    """Say that an actor waits for nobody."""
    if wanted == ALL:
        return f"actor {actor} waits for {ALL!r}, but no actor comes before: each has after={ALL!r}"
    known = f"the stages are {', '.join(stages)}" if stages else "there are no stages"
    return f"actor {actor} waits for the stage {wanted!r:.200}, but {known}"


def _refuse_missing(after: list[list[list[int]]], chosen: set[int]) -> None:
    """Raise ValueError if an actor of an order waits for one that the order leaves out."""
    for before, behind in after:
        missing = next((actor for actor in before if actor not in chosen), None)
        waiting = next((actor for actor in behind if actor in chosen), None)
        if None not in (missing, waiting):
            raise ValueError(
                f"actor {waiting} was ordered, but not actor {missing}, which it waits for"
            )


def _cycle(after: list[list[list[int]]], actors: int) -> list[int]:
    """Return actors each of which waits for the next, and the last one for the first; or none."""
    gate_of = {actor: row for row, (_, behind) in enumerate(after) for actor in behind}
    left = [len(before) for before, _ in after]
    beyond: dict[int, list[int]] = {}
    for row, (before, _) in enumerate(after):
        for actor in before:
            beyond.setdefault(actor, []).append(row)
    ready = [actor for actor in range(actors) if actor not in gate_of]
    for actor in ready:  # it grows
        for row in beyond.get(actor, ()):
            left[row] -= 1
            if not left[row]:
                ready += after[row][1]
    stuck = set(range(actors)).difference(ready)
    return list(_around(stuck, gate_of, after)) if stuck else []


def _around(
    stuck: set[int], gate_of: dict[int, int], after: list[list[list[int]]]
) -> Iterator[int]:
    """Yield the actors of one cycle among those that can never begin."""
    path: dict[int, int] = {}
    actor = min(stuck)
    while actor not in path:
        path[actor] = len(path)
        actor = next(one for one in after[gate_of[actor]][0] if one in stuck)
    yield from list(path)[path[actor] :]


def _circular(cycle: list[int]) -> str:
    """Say that these actors wait for one another."""
    if len(cycle) == 1:
        return f"actor {cycle[0]} waits for itself"
    some = [f"actor {actor}" for actor in cycle[:MOST_IN_CYCLE]]
    more = "..." if len(cycle) > MOST_IN_CYCLE else f"actor {cycle[0]}"
    return f"actors wait for one another: {' for '.join([*some, more])}"
