"""Which inputs failed of actors that are done, grouped by the reason; and who has which input. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mu.jobs.summary import JSON, readable

MOST_REASONS = 100
"""How many reasons are told, the most frequent first."""
MOST_NAMED = 12
"""How many actors and inputs are named for each."""


@dataclass(slots=True)
class _Reason:
    """Inputs that failed of the same reason."""

    inputs: int = 0
    actors: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def by_reason(
    results: Iterable[tuple[int, object]], failed: Callable[[object], Mapping[str, str]]
) -> list[JSON]:
    """Return why inputs failed, from the actors' results; `failed` is the pipeline's method."""
    reasons: dict[str, _Reason] = {}
    for actor, result in results:
        for name, reason in failed(result).items():
            one = reasons.setdefault(reason, _Reason())
            one.inputs += 1
            if len(one.names) < MOST_NAMED:
                one.names.append(name)
            if len(one.actors) < MOST_NAMED and one.actors[-1:] != [actor]:
                one.actors.append(actor)
    most = sorted(reasons.items(), key=lambda named: -named[1].inputs)[:MOST_REASONS]
    return [
        {"reason": readable(reason), "inputs": one.inputs, "actors": one.actors}
        | {"names": [readable(name) for name in one.names]}
        for reason, one in most
    ]


def actors_with(
    given: Iterable[tuple[int, Mapping[str, object]]],
    inputs: Callable[[dict[str, object]], Iterable[str]],
    part: str,
) -> list[int]:
    """Return the actors with an input that has this part in its name, in upper or lower case."""
    part = part.lower()
    return [
        number for number, one in given if any(part in name.lower() for name in inputs(dict(one)))
    ]
