"""Reads a job's history from a journal: each attempt at an actor, replayed event by event.

The journal has only a digest of an event's effects. The effects themselves come from a replay with
the pipeline as it is installed now, which may behave differently.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mu.config import Config
from mu.events import Effect, encode
from mu.jobs.spec import Limits, new_machine
from mu.jobs.summary import JSON
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
    time_of,
)
from mu.journal.replay import Diverged, step
from mu.machine import Machine
from mu.parameters import FieldError, Params, read_fields
from mu.registry import Registry
from mu.states.context import JobFacts

JOURNAL = "journal.db"
"""In the daemon's home."""


class NoCourse(Exception):
    """The history cannot be read; the text says why, and what to do."""


@dataclass(slots=True)
class Course:
    """The records of one attempt at an actor. Attempt 0: no worker connected in time."""

    actor: int
    attempt: int
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
    courses: list[Course]
    """Sorted by actor and attempt."""


@dataclass(frozen=True, slots=True)
class Played:
    """An attempt that was replayed."""

    course: Course
    effects: list[list[Effect]]
    """The effects of each event, up to the one that diverged."""
    label: str
    """The label of the machine's last state."""
    diverged: Diverged | None


def tell(
    config: Config, name: str, actor: int | None = None, registry: Registry | None = None
) -> JSON:
    """Replay all attempts of a job, and return them as JSON.

    `name` is an id, the start of one, or `last`. With `actor`, only its attempts are returned, with
    every event. Raises NoCourse.
    """
    path = config.home / JOURNAL
    try:
        archive = Archive(path, read_only=True)
    except JournalError as error:
        raise NoCourse(str(error)) from None
    try:
        history = read(archive, find(archive.jobs(), name, path))
    except sqlite3.Error as error:
        raise NoCourse(f"cannot read {path}: {error}") from None
    finally:
        archive.close()
    chosen = [course for course in history.courses if actor in (None, course.actor)]
    if actor is not None and actor >= len(history.inputs):
        raise NoCourse(f"job {history.id} has no actor {actor}; it has {len(history.inputs)}")
    limits = Limits(max_held=config.worker.max_held, max_info=config.worker.max_info)
    new_machine_of = machines(history, registry or Registry.installed(), limits)
    played = (play(course, new_machine_of(course.actor)) for course in chosen)
    return {
        "id": history.id,
        "pipeline": history.ordered.order["pipeline"],
        "created": history.ordered.at,
        "attempts": [describe(one, whole=actor is not None) for one in played],
    }


def find(ids: list[str], name: str, where: Path) -> str:
    """Return the id of the named job. Raises NoCourse."""
    if name == "last" and ids:
        return ids[-1]
    found = [name] if name in ids else [one for one in ids if name and one.startswith(name)]
    if not found:
        raise NoCourse(
            f"there is no job {name!r} in {where}: it belongs to another daemon, or was dropped"
            if ids
            else f"there are no jobs in {where} yet"
        )
    if len(found) > 1:
        some = " including" if len(found) > 5 else ""
        raise NoCourse(f"{name!r} matches {len(found)} jobs,{some} {', '.join(found[-5:])}")
    return found[0]


def read(archive: Archive, job_id: str) -> History:
    """Return a job's history. Raises NoCourse."""
    try:
        ordered, *records = map(read_record, archive.lines(job_id))
        if not isinstance(ordered, Ordered):
            raise ValueError("the first record is not its order")
        inputs = [one.inputs for one in records if isinstance(one, Planned)]
        return History(job_id, ordered, inputs[-1] if inputs else [], courses(records))
    except (KeyError, ValueError) as error:
        raise NoCourse(f"the records of job {job_id} are damaged: {error}") from None


def courses(records: Iterable[Record]) -> list[Course]:
    """Return the attempts in a job's records, sorted by actor and attempt.

    Raises KeyError for a record that belongs to no attempt.
    """
    found: dict[tuple[int, int], Course] = {}
    absences: list[Course] = []
    for record in records:
        match record:
            case Assigned(at=at, actor=actor, attempt=attempt, session=session):
                found[actor, attempt] = Course(actor, attempt, session, at)
            case Happened(actor=actor, attempt=attempt):
                found[actor, attempt].records.append(record)
            case AttemptEnded(actor=actor, attempt=attempt):
                found[actor, attempt].end = record
            case Resumed():
                for course in found.values():
                    if course.end is None:
                        course.records.append(record)
            case NobodyCame(at=at, actor=actor, error=error):
                end = AttemptEnded(at, actor, 0, error, None, "", "", True)
                absences.append(Course(actor, 0, "", at, end=end))
    by_number = sorted(found.values(), key=lambda course: course.attempt)
    return sorted([*absences, *by_number], key=lambda course: course.actor)


def machines(history: History, registry: Registry, limits: Limits) -> Callable[[int], Machine]:
    """Return a function that makes a new machine for the actor of a number. Raises NoCourse."""
    ordered, order = history.ordered, history.ordered.order
    name = order["pipeline"]
    pipeline = registry.pipelines.get(name)
    if pipeline is None:
        why = [f": {broken.reason}" for broken in registry.broken if broken.name == name]
        raise NoCourse(
            f"job {history.id} has pipeline {name!r}, which is no longer installed here"
            + (why[0] if why else "")
        )
    try:
        params = read_fields(pipeline.parameters, order["params"], "params")
    except FieldError as error:
        raise NoCourse(
            f"pipeline {name} no longer accepts the order of job {history.id}: {error}"
        ) from None
    facts = JobFacts(
        history.id,
        Params(params, workers=order["workers"]),
        len(history.inputs),
        ordered.relay,
        ordered.uniq,
    )
    return lambda actor: new_machine(pipeline, facts, actor, history.inputs[actor], limits)


def play(course: Course, machine: Machine) -> Played:
    """Give the events of an attempt to a new machine, until one has effects other than recorded.

    Raises NoCourse for a damaged record.
    """
    effects: list[list[Effect]] = []
    error = course.end.error if course.end else None
    events = (record for record in course.records if isinstance(record, Happened))
    try:
        for position, happened in enumerate(events):
            effects.append(step(machine, happened, position, error)[1])
    except Diverged as diverged:
        return Played(course, effects, machine.label, diverged)
    except ValueError as error:
        raise NoCourse(f"a record of actor {course.actor} is damaged: {error}") from None
    return Played(course, effects, machine.label, None)


# ---------------------------------------------------------------- as JSON


def describe(played: Played, whole: bool) -> JSON:
    """Return an attempt as JSON, including every event if `whole`."""
    course, end, diverged = played.course, played.course.end, played.diverged
    told: JSON = {
        "actor": course.actor,
        "attempt": course.attempt,
        "session": course.session,
        "began": course.began,
        "heard": time_of(course.records[-1]) if course.records else course.began,
        "finished": end.at if end else None,
        "label": end.label if end else played.label,
        "error": end.error if end else None,
        "result": end.result if end else None,
        "events": sum(isinstance(record, Happened) for record in course.records),
        "diverged": diverged and {"event": diverged.position, "message": str(diverged)},
    }
    return told | ({"course": list(_steps(played))} if whole else {})


def _steps(played: Played) -> Iterator[JSON]:
    """Yield each event with its effects; those after a divergence are unknown."""
    effects = iter(played.effects)
    for record in played.course.records:
        if isinstance(record, Resumed):
            event = ["resumed", record.at, record.stopped_at]
            yield {"at": record.at, "event": event, "effects": []}
        else:
            did = next(effects, None)
            told = None if did is None else [json.loads(encode(effect)) for effect in did]
            yield {"at": time_of(record), "event": record.event, "effects": told}
