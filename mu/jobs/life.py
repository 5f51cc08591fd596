"""A job's life: its states, and the one table of the steps between them.

docs/architecture.md has a drawing of this table.
"""

from enum import Enum


class JobState(Enum):
    """Where a job is in its life."""

    ORDERED = "ordered"
    """Its order is not on disk yet, so it is not shown to users."""
    PLANNING = "planning"
    """Its order is on disk; the pipeline's `plan` is running."""
    LAUNCHING = "launching"
    """Workers are being launched."""
    RUNNING = "running"
    """Every launch has been answered, or every actor has had a worker."""
    FINISHING = "finishing"
    """Every actor has ended; the pipeline's `finish` is running."""
    STOPPING = "stopping"
    """It was cancelled or has failed: its workers are told to quit."""
    ENDING = "ending"
    """How it ended is being written to disk."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Step(Enum):
    """What moves a job from one state to the next."""

    RECORDED = "the order is on disk"
    PLANNED = "the plan is recorded"
    STAFFED = "every launch was answered, or every actor has a worker"
    SETTLED = "every actor has ended"
    STOPPED = "cancelled, failed or out of time"
    CONCLUDED = "how it ended is known"
    DONE = "its end is on disk: done"
    FAILED = "its end is on disk: failed"
    CANCELLED = "its end is on disk: cancelled"


TRANSITIONS: dict[JobState, dict[Step, JobState]] = {
    JobState.ORDERED: {Step.RECORDED: JobState.PLANNING, Step.STOPPED: JobState.STOPPING},
    JobState.PLANNING: {Step.PLANNED: JobState.LAUNCHING, Step.STOPPED: JobState.STOPPING},
    JobState.LAUNCHING: {
        Step.STAFFED: JobState.RUNNING,
        Step.SETTLED: JobState.FINISHING,
        Step.STOPPED: JobState.STOPPING,
    },
    JobState.RUNNING: {Step.SETTLED: JobState.FINISHING, Step.STOPPED: JobState.STOPPING},
    JobState.FINISHING: {Step.CONCLUDED: JobState.ENDING, Step.STOPPED: JobState.STOPPING},
    JobState.STOPPING: {Step.CONCLUDED: JobState.ENDING},
    JobState.ENDING: {
        Step.DONE: JobState.DONE,
        Step.FAILED: JobState.FAILED,
        Step.CANCELLED: JobState.CANCELLED,
    },
    JobState.DONE: {},
    JobState.FAILED: {},
    JobState.CANCELLED: {},
}

ACTIVE = {JobState.ORDERED, JobState.PLANNING, JobState.LAUNCHING, JobState.RUNNING}
"""The states in which a job may still begin something."""
OVER = {JobState.DONE, JobState.FAILED, JobState.CANCELLED}

SHOWN = {
    JobState.PLANNING: "launching",
    JobState.LAUNCHING: "launching",
    JobState.RUNNING: "running",
    JobState.FINISHING: "running",
    JobState.DONE: "done",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
"""What users see. In states that are not listed, they see what they saw before."""


def follow(state: JobState, step: Step) -> JobState:
    """Return the state that a step leads to. Raises ValueError if the table has none."""
    try:
        return TRANSITIONS[state][step]
    except KeyError:
        raise ValueError(f"a job that is {state.value} cannot take the step {step.name}") from None
