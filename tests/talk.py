"""Talk to a machine without a network: answers in, effects out."""

from collections.abc import Mapping
from typing import Any

from mu.events import Answered, Effect, Entered, Event, Informed
from mu.machine import JobFacts, Machine
from mu.messages import parse_info
from mu.states.script import ScriptWorker, first_state


def machine(first: Any, params: Any = None, actor: int = 0, given: Mapping[str, Any] | None = None):
    """Return a machine whose first state is of the class `first`, or what `first(worker)` gives."""
    worker = ScriptWorker(JobFacts("j1", params or {}), actor, given)
    begin = (lambda w: first(w, w.actor)) if isinstance(first, type) else first
    return Machine(worker, first_state(begin))


def talk(first: Any, *answers: str | Event, **about: Any) -> list[Effect]:
    """Return all effects of a machine that is told these answers, one second apart."""
    return effects_of(machine(first, **about), *answers)


def effects_of(driven: Machine, *answers: str | Event) -> list[Effect]:
    effects = driven.receive(Entered(0.0))
    for at, answer in enumerate(answers, 1):
        effects += driven.receive(event(answer, float(at)) if isinstance(answer, str) else answer)
    return effects


def event(text: str, at: float) -> Event:
    info = parse_info(text)
    return Informed(at, *info) if info else Answered(at, text)
