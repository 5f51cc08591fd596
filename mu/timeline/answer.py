"""Makes the answer to GET /jobs/ID/timeline from a job's course."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from mu.strict_json import dumps
from mu.timeline.attempts import AttemptCourse, CommandCourse, Segment
from mu.timeline.course import ActorCourse, JobCourse
from mu.timeline.shape import Point

DIGITS = 3
"""Digits after the decimal point of all seconds."""


def timeline_json(
    job: str,
    course: JobCourse,
    until: float,
    ended: bool,
    commands: bool,
    after: int = -1,
    most: int | None = None,
) -> str:
    """Return the course of a job until it ended, or until now, as the JSON of a TimelineJson.

    It has at most `most` actors, those with a number over `after`; and their `commands`, if wanted.
    """
    start, until = course.created, max(until, course.last)
    head = {
        "id": job,
        "created": start,
        "seconds": round(until - start, DIGITS),
        "ended": ended,
        "exact": course.told,
        "unused": [
            {
                "launched": round(launch.launched - start, DIGITS),
                "accepted": _since(start, launch.accepted),
                "hello": _since(start, launch.hello),
                "answer": launch.answer or None,
            }
            for launch in course.launches.values()
            if not launch.used
        ],
    }
    chosen = islice((one for number, one in course.actors.items() if number > after), most)
    actors = (_actor(one, course.opened(one.number), start, until, commands) for one in chosen)
    return _with(head, "actors", actors)


def _with(told: object, name: str, values: Iterable[str]) -> str:
    """Return a JSON object with one more member: a list of values that are JSON already."""
    return f'{_dumps(told)[:-1]},"{name}":[{",".join(values)}]}}'


def _dumps(told: object) -> str:
    return dumps(told, compact=True)


def _actor(
    actor: ActorCourse, opened: float | None, start: float, until: float, commands: bool
) -> str:
    attempts = actor.attempts
    told = {
        "actor": actor.number,
        "attempt": attempts[-1].number if attempts else 0,
        "states": _row(actor.segments(until, opened), start),
    }
    if not commands:
        return _dumps(told)
    return _with(told, "attempts", (_attempt(attempt, start) for attempt in attempts))


def _row(segments: Iterable[Segment], start: float) -> list[Point]:
    """Return segments without those that took no time, or continue the one before."""
    row: list[Point] = []
    for at, state in segments:
        second = round(at - start, DIGITS) if at > start else 0.0
        if row and row[-1][0] == second:
            row.pop()
        if not row or row[-1][1] != state:
            row.append((second, state))
    return row


def _attempt(attempt: AttemptCourse, start: float) -> str:
    launch = attempt.launch
    hello = launch.hello if launch else attempt.began if attempt.number else None
    told = {
        "attempt": attempt.number,
        "worker": attempt.worker or None,
        "launched": _since(start, launch.launched if launch else None),
        "accepted": _since(start, launch.accepted if launch else None),
        "hello": _since(start, hello),
        "began": round(attempt.began - start, DIGITS),
        "ended": _since(start, attempt.ended),
        "spare": attempt.spare,
        "straggler": attempt.straggler,
        "error": attempt.error,
        "states": [(round(at - start, DIGITS), name) for at, name in attempt.states],
        "away": [
            (round(one.began - start, DIGITS), _since(start, one.ended), one.reason)
            for one in attempt.breaks
        ],
        "waits": [
            (round(one.begun - start, DIGITS), round(one.waits_until - start, DIGITS), one.name)
            for one in attempt.commands
            if one.waited and one.begun
        ],
    }
    return _with(told, "commands", (_command(command, start) for command in attempt.commands))


def _command(one: CommandCourse, start: float) -> str:
    """Return a CommandRow. There are many, and this is faster than the json module."""
    begun = f"{one.begun - start:.3f}" if one.begun else "null"
    ended = "null" if one.ended is None else f"{one.ended - start:.3f}"
    return f"[{_text(one.name)},{one.sent - start:.3f},{begun},{ended},{_text(one.outcome)}]"


@lru_cache(1000)
def _text(text: str) -> str:
    return _dumps(text or None)


def _since(start: float, at: float | None) -> float | None:
    return None if at is None else round(at - start, DIGITS)
