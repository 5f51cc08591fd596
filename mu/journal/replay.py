"""Back from what was recorded: a machine that is given its events again has the same effects."""

from collections.abc import Iterable

from mu.events import Effect, Event, digest, encode, from_json
from mu.journal.records import Happened
from mu.machine import Machine


class Diverged(Exception):
    """A machine no longer does what it did; `position` is the event's, from 0."""

    def __init__(self, position: int, event: Event, effects: list[Effect]) -> None:
        now = ", ".join(map(encode, effects)) or "nothing"
        super().__init__(
            f"event {position}, {encode(event)}, now has other effects than when it was recorded:"
            f" {now}. A state or script must use neither clock nor chance, nor change meanwhile"
        )
        self.position = position
        self.event = event


def step(machine: Machine, happened: Happened, position: int = 0) -> tuple[Event, list[Effect]]:
    """Give a machine its next recorded event; return that, and its effects.

    Raises Diverged, and ValueError for a broken record.
    """
    event = from_json(happened.event)
    effects = machine.receive(event)
    if digest(effects) != happened.effects:
        raise Diverged(position, event, effects)
    return event, effects


def replay(machine: Machine, happened: Iterable[Happened]) -> list[Effect]:
    """Give a machine that is new its recorded events; return all effects.

    Raises Diverged at the first event whose effects differ, and ValueError for a broken record.
    """
    effects: list[Effect] = []
    for position, one in enumerate(happened):
        effects += step(machine, one, position)[1]
    return effects
