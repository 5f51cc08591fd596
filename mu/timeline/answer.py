"""Makes the answer to GET /jobs/ID/timeline from a job's course."""

from collections.abc import Iterable

from mu.timeline.attempts import AttemptCourse, Segment
from mu.timeline.course import ActorCourse, JobCourse
from mu.timeline.shape import ActorCourseJson, AttemptCourseJson, Point, TimelineJson

DIGITS = 3
"""Digits after the decimal point of all seconds."""


def timeline_json(
    job: str, course: JobCourse, until: float, ended: bool, commands: bool
) -> TimelineJson:
    """Return the course of a job until it ended, or until now; with its `commands`, if wanted."""
    start, until = course.created, max(until, course.last)
    return {
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
        "actors": [
            _actor(one, course.opened(one.number), start, until, commands)
            for one in course.actors.values()
        ],
    }


def _actor(
    actor: ActorCourse, opened: float | None, start: float, until: float, commands: bool
) -> ActorCourseJson:
    attempts = actor.attempts
    told: ActorCourseJson = {
        "actor": actor.number,
        "attempt": attempts[-1].number if attempts else 0,
        "states": _row(actor.segments(until, opened), start),
    }
    if commands:
        told["attempts"] = [_attempt(attempt, start) for attempt in attempts]
    return told


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


def _attempt(attempt: AttemptCourse, start: float) -> AttemptCourseJson:
    launch = attempt.launch
    hello = launch.hello if launch else attempt.began if attempt.number else None
    return {
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
        "commands": [
            (
                one.name,
                round(one.sent - start, DIGITS),
                _since(start, one.begun or None),
                _since(start, one.ended),
                one.outcome or None,
            )
            for one in attempt.commands
        ],
    }


def _since(start: float, at: float | None) -> float | None:
    return None if at is None else round(at - start, DIGITS)
