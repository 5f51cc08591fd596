"""Back from what was recorded: a machine that is given its events again has the same effects."""

from collections.abc import Iterable
from dataclasses import dataclass

from mu.events import Effect, Event, decode, digest, encode
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


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event, encoded, and the digest of its effects."""

    event: str
    effects: str


def record(event: Event, effects: Iterable[Effect]) -> Recorded:
    return Recorded(encode(event), digest(effects))


def replay(machine: Machine, recorded: Iterable[Recorded]) -> list[Effect]:
    """Give a machine that is new its recorded events; return all effects.

    Raises Diverged at the first event whose effects differ, and ValueError for a broken record.
    """
    effects: list[Effect] = []
    for position, one in enumerate(recorded):
        event = decode(one.event)
        now = machine.receive(event)
        if digest(now) != one.effects:
            raise Diverged(position, event, now)
        effects += now
    return effects
