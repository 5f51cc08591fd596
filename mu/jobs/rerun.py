"""Reruns: what is known of a job that has ended, and the plan of a new one that repeats a part of it.

A rerun copies the plan and the outcomes of the old job into its own first records, so it depends on
the old job's records only while it is ordered.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mu.events import Finish
from mu.jobs.plan import sizes_of
from mu.jobs.spec import JobSpec, left_out
from mu.jobs.stages import behind
from mu.journal.records import (
    AttemptEnded,
    NobodyCame,
    Ordered,
    Planned,
    Record,
    Skipped,
    read_record,
)
from mu.plugins import ActorInput, Outcome
from mu.states.origin import explained, is_deliberate

NO_END = "it had not ended when its job did"
"""The error of an actor that never had a worker."""


class NoRerun(Exception):
    """A job cannot be rerun; the text says why."""


@dataclass(frozen=True, slots=True)
class EarlierJob:
    """A job that has ended, as the journal has it."""

    id: str
    state: str
    """How it ended: done, failed or cancelled."""
    order: Mapping[str, object]
    plan: Planned
    outcomes: list[Outcome]
    """Those that its `finish` got, or would have got."""


def read_earlier(job_id: str, state: str, lines: Iterable[str]) -> EarlierJob:
    """Return the job with these records. Raises NoRerun."""
    ordered: Ordered | None = None
    plan: Planned | None = None
    ends = Ends()
    for line in lines:
        if line.startswith('["happened"'):  # by far the most, and not needed
            continue
        try:
            record = read_record(line)
        except ValueError as error:
            raise NoRerun(f"the records of job {job_id} are damaged: {error}") from None
        if isinstance(record, Ordered):
            ordered = record
        elif isinstance(record, Planned):
            plan = record
        else:
            ends.take(record)
    if ordered is None:
        raise NoRerun(
            f"the records of job {job_id} are no longer in the journal (see keep_days and max_bytes"
            " in mu.conf)"
        )
    if plan is None:
        raise NoRerun(f"job {job_id} ended before it had a plan: order it again")
    actors = plan.actors
    if actors is None:
        actors = sorted(ordered.order.get("actors") or range(len(plan.inputs)))
    own = [_outcome(actor, plan.inputs[actor], ends.known.get(actor)) for actor in actors]
    return EarlierJob(job_id, state, ordered.order, plan, merged(read_outcomes(plan), own))


class Ends:
    """How actors ended, from the records of their job."""

    def __init__(self) -> None:
        self.known: dict[int, Finish] = {}
        """By actor, as far as is known."""

    def take(self, record: Record) -> None:
        """Take the next record. The first success of an actor counts, or else its last failure."""
        if not isinstance(record, AttemptEnded | NobodyCame | Skipped):
            return
        known = self.known.get(record.actor)
        if known is None or known.error is not None:
            self.known[record.actor] = Finish(record.error, getattr(record, "result", None))


def _outcome(actor: int, given: ActorInput, end: Finish | None) -> Outcome:
    if end is None:
        return Outcome(NO_END, None, actor, given)
    return Outcome(end.error, end.result, actor, given)


def read_outcomes(plan: Planned) -> list[Outcome]:
    """Return the outcomes that a plan has from an earlier job."""
    return [Outcome(error, result, actor, given) for actor, error, result, given in plan.earlier]


def merged(earlier: Iterable[Outcome], own: Iterable[Outcome]) -> list[Outcome]:
    """Return all outcomes, sorted by actor, those of an earlier job first."""
    return sorted([*earlier, *own], key=lambda outcome: outcome.actor)


def plan_rerun(spec: JobSpec, earlier: EarlierJob) -> Planned:
    """Return the plan of a job that reruns what failed. Raises NoRerun.

    Those that waited for an actor which runs again do, too, since its result may be another. An
    outcome is dropped if its actor runs again, unless that is only with a part of its input.
    """
    again, inputs, sizes = _asked(spec, earlier)
    if not again and earlier.state == "done":
        raise NoRerun(f"job {earlier.id} has nothing to rerun: none of its inputs failed")
    kept = [
        outcome
        for outcome in earlier.outcomes
        if outcome.actor not in again
        or not (outcome.error or outcome.input == again[outcome.actor])
    ]
    rows = [[one.actor, one.error, one.result, one.input] for one in kept]
    plan = earlier.plan
    return Planned(inputs, plan.order, sorted(again), rows, sizes, plan.after, plan.stages)


def _asked(
    spec: JobSpec, earlier: EarlierJob
) -> tuple[dict[int, ActorInput], list[ActorInput], list[int]]:
    """Return the input of each actor that is to run again, and the inputs and sizes of all."""
    name = spec.pipeline.name
    try:
        again = dict(spec.pipeline.rerun(spec.params, earlier.outcomes))
        known = {outcome.actor for outcome in earlier.outcomes}
        for actor, given in again.items():
            if actor not in known or not isinstance(given, dict):
                raise TypeError(
                    f"rerun() must return a dict with the input of actors that the job had, got"
                    f" {actor!r:.80}: {given!r:.80}"
                )
        for actor in behind(again, earlier.plan.after) & known:
            again.setdefault(actor, earlier.plan.inputs[actor])
        json.dumps(list(again.values()), allow_nan=False)
        if alone := left_out(spec.pipeline, spec.params, again):
            raise ValueError(f"{alone}, which would not run again: order it again")
        inputs = [again.get(actor, given) for actor, given in enumerate(earlier.plan.inputs)]
        return again, inputs, sizes_of(spec.pipeline, inputs)
    except Exception as error:  # a pipeline's author may raise anything
        if isinstance(error, ValueError) and is_deliberate(error):  # its text is for users
            raise NoRerun(f"job {earlier.id} cannot be rerun: {error}") from None
        raise NoRerun(f"the rerun of {name} failed: {explained(error)}") from error
