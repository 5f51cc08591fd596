"""Reads a job's history from a journal: each attempt at an actor, replayed event by event.

The journal has only a digest of an event's effects. The effects themselves come from a replay with
the pipeline as it is installed now, which may behave differently.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mu.config import Config
from mu.events import Effect, Finish, encode, read_event
from mu.jobs.rerun import Ends, read_outcomes
from mu.jobs.spec import Limits, new_machine
from mu.jobs.stages import Results, Stages
from mu.journal.archive import Archive
from mu.journal.database import JournalError
from mu.journal.records import (
    Assigned,
    AttemptEnded,
    Happened,
    NobodyCame,
    Ordered,
    Planned,
    Record,
    Resumed,
    read_record,
    refuse_gaps,
    time_of,
)
from mu.journal.replay import Diverged, step
from mu.machine import Machine
from mu.parameters import FieldError, Params, read_fields
from mu.registry import Registry
from mu.states.context import JobFacts
from mu.strict_json import JSON

JOURNAL = "journal.db"
"""In the daemon's home."""


class NoHistory(Exception):
    """The history cannot be read; the text says why, and what to do."""


@dataclass(slots=True)
class RecordedAttempt:
    """The records of one attempt at an actor. Attempt 0: no worker connected in time."""

    actor: int
    number: int
    session: str
    began: float
    """Seconds since the epoch."""
    records: list[Happened | Resumed] = field(default_factory=list)
    end: AttemptEnded | None = None
    """None: it has not ended."""


@dataclass(frozen=True, slots=True)
class History:
    """A job, as recorded in the journal."""

    id: str
    ordered: Ordered
    inputs: list[JSON]
    """The input of each actor, from the plan."""
    attempts: list[RecordedAttempt]
    """Sorted by actor and attempt."""
    before: Callable[[int], Mapping[int, Any] | None] = lambda actor: None
    """Returns the results of the actors that one waited for; None: it waited for nobody."""


@dataclass(frozen=True, slots=True)
class ReplayedAttempt:
    """An attempt that was replayed."""

    attempt: RecordedAttempt
    effects: list[list[Effect]]
    """The effects of each event, up to the one that diverged."""
    label: str
    """The label of the machine's last state."""
    diverged: Diverged | None


def replay_job(
    config: Config, name: str, actor: int | None = None, registry: Registry | None = None
) -> JSON:
    """Replay all attempts of a job, and return them as JSON.

    `name` is an id, the start of one, or `last`. With `actor`, only its attempts are returned, with
    every event. Raises NoHistory.
    """
    path = config.home / JOURNAL
    try:
        with closing(Archive(path, read_only=True)) as archive:
            history = read(archive, find(archive.jobs(), name, path))
    except JournalError as error:
        raise NoHistory(str(error)) from None
    chosen = [attempt for attempt in history.attempts if actor in (None, attempt.actor)]
    if actor is not None and actor >= len(history.inputs):
        raise NoHistory(f"job {history.id} has no actor {actor}; it has {len(history.inputs)}")
    limits = Limits(max_held=config.worker.max_held, max_info=config.worker.max_info)
    new_machine_of = machines(history, registry or Registry.installed(), limits)
    replayed = (replay(attempt, new_machine_of(attempt.actor)) for attempt in chosen)
    return {
        "id": history.id,
        "pipeline": history.ordered.order["pipeline"],
        "created": history.ordered.at,
        "attempts": [describe(one, whole=actor is not None) for one in replayed],
    }


def find(ids: list[str], name: str, where: Path) -> str:
    """Return the id of the named job. Raises NoHistory."""
    if name == "last" and ids:
        return ids[-1]
    found = [name] if name in ids else [one for one in ids if name and one.startswith(name)]
    if not found:
        raise NoHistory(
            f"there is no job {name!r} in {where}: it belongs to another daemon, or was dropped"
            if ids
            else f"there are no jobs in {where} yet"
        )
    if len(found) > 1:
        some = " including" if len(found) > 5 else ""
        raise NoHistory(f"{name!r} matches {len(found)} jobs,{some} {', '.join(found[-5:])}")
    return found[0]


def read(archive: Archive, job_id: str) -> History:
    """Return a job's history. Raises NoHistory."""
    try:
        ordered, *records = map(read_record, archive.lines(job_id))
        refuse_gaps([ordered, *records])
        if not isinstance(ordered, Ordered):
            raise ValueError("the first record is not its order")
        plan = next((one for one in records if isinstance(one, Planned)), Planned([], []))
        return History(
            job_id, ordered, plan.inputs, attempts(records), results_before(plan, records)
        )
    except (KeyError, ValueError) as error:
        raise NoHistory(f"the records of job {job_id} are damaged: {error}") from None


def attempts(records: Iterable[Record]) -> list[RecordedAttempt]:
    """Return the attempts in a job's records, sorted by actor and attempt.

    Raises KeyError for a record that belongs to no attempt.
    """
    found: dict[tuple[int, int], RecordedAttempt] = {}
    absences: list[RecordedAttempt] = []
    for record in records:
        match record:
            case Assigned(at=at, actor=actor, attempt=attempt, session=session):
                found[actor, attempt] = RecordedAttempt(actor, attempt, session, at)
            case Happened(actor=actor, attempt=attempt):
                found[actor, attempt].records.append(record)
            case AttemptEnded(actor=actor, attempt=attempt):
                found[actor, attempt].end = record
            case Resumed():
                for one in found.values():
                    if one.end is None:
                        one.records.append(record)
            case NobodyCame(at=at, actor=actor, error=error):
                end = AttemptEnded(at, actor, 0, error, None, "", "", True)
                absences.append(RecordedAttempt(actor, 0, "", at, end=end))
    by_number = sorted(found.values(), key=lambda attempt: attempt.number)
    return sorted([*absences, *by_number], key=lambda attempt: attempt.actor)


def results_before(
    plan: Planned, records: Iterable[Record]
) -> Callable[[int], Mapping[int, Any] | None]:
    """Return a function that returns the results of the actors that one waited for."""
    stages, ends = Stages(plan.after), Ends()
    if not stages:
        return lambda actor: None
    for record in records:
        ends.take(record)
    known: dict[int, Finish | None] = {one.actor: one for one in read_outcomes(plan)}
    known |= ends.known
    results = cache(lambda gate: Results(gate, known.get))

    def before(actor: int) -> Mapping[int, Any] | None:
        gate = stages.gate(actor)
        return None if gate is None else results(gate)

    return before


def machines(history: History, registry: Registry, limits: Limits) -> Callable[[int], Machine]:
    """Return a function that makes a new machine for the actor of a number. Raises NoHistory."""
    ordered, order = history.ordered, history.ordered.order
    name = order["pipeline"]
    pipeline = registry.pipelines.get(name)
    if pipeline is None:
        why = [f": {broken.reason}" for broken in registry.broken if broken.name == name]
        raise NoHistory(
            f"job {history.id} has pipeline {name!r}, which is no longer installed here"
            + (why[0] if why else "")
        )
    try:
        params = read_fields(pipeline.parameters, order["params"], "params")
    except FieldError as error:
        raise NoHistory(
            f"pipeline {name} no longer accepts the order of job {history.id}: {error}"
        ) from None
    facts = JobFacts(
        history.id,
        Params(params, workers=order["workers"]),
        len(history.inputs),
        ordered.relay,
        ordered.uniq,
    )
    return lambda actor: new_machine(
        pipeline, facts, actor, history.inputs[actor], limits, history.before(actor)
    )


def replay(attempt: RecordedAttempt, machine: Machine) -> ReplayedAttempt:
    """Give the events of an attempt to a new machine, until one has effects other than recorded.

    Raises NoHistory for a damaged record.
    """
    effects: list[list[Effect]] = []
    error = attempt.end.error if attempt.end else None
    events = (record for record in attempt.records if isinstance(record, Happened))
    try:
        for position, happened in enumerate(events):
            effects.append(step(machine, happened, position, error)[1])
    except Diverged as diverged:
        return ReplayedAttempt(attempt, effects, machine.label, diverged)
    except ValueError as error:
        raise NoHistory(f"a record of actor {attempt.actor} is damaged: {error}") from None
    return ReplayedAttempt(attempt, effects, machine.label, None)


# ---------------------------------------------------------------- as JSON


def describe(replayed: ReplayedAttempt, whole: bool) -> JSON:
    """Return an attempt as JSON, including every event if `whole`."""
    attempt, end, diverged = replayed.attempt, replayed.attempt.end, replayed.diverged
    described: JSON = {
        "actor": attempt.actor,
        "attempt": attempt.number,
        "session": attempt.session,
        "began": attempt.began,
        "heard": time_of(attempt.records[-1]) if attempt.records else attempt.began,
        "finished": end.at if end else None,
        "label": end.label if end else replayed.label,
        "error": end.error if end else None,
        "result": end.result if end else None,
        "events": sum(isinstance(record, Happened) for record in attempt.records),
        "diverged": diverged and {"event": diverged.position, "message": str(diverged)},
    }
    return described | ({"course": list(_steps(replayed))} if whole else {})


def _steps(replayed: ReplayedAttempt) -> Iterator[JSON]:
    """Yield each event with its effects; those after a divergence are unknown."""
    effects = iter(replayed.effects)
    for record in replayed.attempt.records:
        if isinstance(record, Resumed):
            event = ["resumed", record.at, record.stopped_at]
            yield {"at": record.at, "event": event, "effects": []}
        else:
            did = next(effects, None)
            shown = None if did is None else [json.loads(encode(effect)) for effect in did]
            event = json.loads(encode(read_event(record.event)))
            yield {"at": time_of(record), "event": event, "effects": shown}
