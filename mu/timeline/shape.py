"""The JSON of GET /jobs/ID/timeline, as types. All times are in seconds since the job's order."""

from typing import NotRequired, TypedDict

Span = tuple[float, float | None, str]
"""When it began and ended (None: it has not), and why."""
WaitSpan = tuple[float, float, str]
"""When a program waited, and the name of its command."""
Point = tuple[float, str]
"""When something began, and what."""
CommandRow = tuple[str, float, float | None, float | None, str | None]
"""A command's name, when it was sent, begun and ended, and its outcome."""


class UnusedLaunchJson(TypedDict):
    """A launch whose worker got no actor: a spare that was not needed, or one that was late."""

    launched: float
    accepted: float | None
    hello: float | None
    answer: str | None


class AttemptCourseJson(TypedDict):
    """One attempt at an actor. Attempt 0: no worker connected in time."""

    attempt: int
    worker: str | None
    launched: float | None
    accepted: float | None
    hello: float | None
    began: float
    ended: float | None
    spare: bool
    straggler: bool
    error: str | None
    states: list[Point]
    away: list[Span]
    commands: list[CommandRow]
    waits: NotRequired[list[WaitSpan]]
    """When programs waited for states of other workers, and of which command."""


class ActorCourseJson(TypedDict):
    """An actor: what it did from when on, one after the other."""

    actor: int
    attempt: int
    states: list[Point]
    attempts: NotRequired[list[AttemptCourseJson]]
    """With `detail=commands`."""


class TimelineJson(TypedDict):
    """What the actors of a job did, and when."""

    id: str
    created: float
    """Seconds since the epoch."""
    seconds: float
    """From the order to the job's end, or until now."""
    ended: bool
    exact: bool
    """False: an earlier version of mu recorded the job, without the commands that it sent."""
    unused: list[UnusedLaunchJson]
    actors: list[ActorCourseJson]
