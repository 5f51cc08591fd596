"""Replays recorded events: given its events again, a machine must produce the same effects."""

from collections.abc import Iterable
from dataclasses import replace

from mu.events import Effect, Event, Finish, digest, encode, old_digest, read_event
from mu.journal.records import Happened
from mu.machine import Machine


class Diverged(Exception):
    """A machine no longer does what it did; `position` is that of the event, counted from 0."""

    def __init__(self, position: int, event: Event, effects: list[Effect]) -> None:
        now = ", ".join(map(encode, effects)) or "nothing"
        super().__init__(
            f"event {position}, {encode(event)}, now has effects other than those recorded: {now}."
            " A state or script must not use the clock or random numbers, and its code must not"
            " change while its job runs"
        )
        self.position = position
        self.event = event


def step(
    machine: Machine, happened: Happened, position: int = 0, error: str | None = None
) -> tuple[Event, list[Effect]]:
    """Give a machine its next recorded event; return the event and its effects.

    A newer version may word the error of a Finish differently; the returned effects have the
    recorded wording. `error` is that text if the record lacks it: the error of the AttemptEnded.

    Raises Diverged, and ValueError for a broken record.
    """
    event = read_event(happened.event)
    effects = machine.receive(event)
    if _matches(effects, happened.effects):
        return event, effects
    recorded = error if happened.error is None else happened.error
    reworded = effects if recorded is None else [_reword(effect, recorded) for effect in effects]
    if not _matches(reworded, happened.effects):
        raise Diverged(position, event, effects)
    return event, reworded


def _matches(effects: list[Effect], recorded: int | str) -> bool:
    return (digest if isinstance(recorded, int) else old_digest)(effects) == recorded


def _reword(effect: Effect, error: str) -> Effect:
    if isinstance(effect, Finish) and effect.error is not None:
        return replace(effect, error=error)
    return effect


def replay(
    machine: Machine, happened: Iterable[Happened], error: str | None = None
) -> list[Effect]:
    """Give a new machine its recorded events; return all effects. `error` is as in step.

    Raises Diverged at the first event whose effects differ, and ValueError for a broken record.
    """
    effects: list[Effect] = []
    for position, one in enumerate(happened):
        effects += step(machine, one, position, error)[1]
    return effects
