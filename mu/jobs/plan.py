"""Checks what a pipeline plans: the inputs of its actors, and their order."""

from collections.abc import Sequence

from mu.jobs.spec import JobSpec
from mu.journal.records import Planned
from mu.pipelines.dealing import is_order
from mu.plugins import ActorInput, Pipeline


def checked_plan(spec: JobSpec, inputs: object, most: int) -> Planned:
    """Return the record of a plan. Raises TypeError or ValueError if it cannot be carried out."""
    if not isinstance(inputs, list) or not all(isinstance(given, dict) for given in inputs):
        raise TypeError(
            f"plan() must return a list of dicts, one for each actor, not {inputs!r:.80}"
        )
    if not inputs:
        raise ValueError("there is nothing to do: the plan has no actors")
    if len(inputs) > most:
        raise ValueError(f"it has {len(inputs)} actors, but max_workers is {most}")
    if spec.actors and max(spec.actors) >= len(inputs):
        raise ValueError(
            f"actor {max(spec.actors)} was ordered, but it has only actors 0 to {len(inputs) - 1}"
        )
    return Planned(inputs, _order(spec, len(inputs)), sizes=sizes_of(spec.pipeline, inputs))


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
