"""Makes the answer to GET /jobs/ID/timeline from a job's course."""

from collections.abc import Iterable
from itertools import islice

from mu.strict_json import pack
from mu.timeline.attempts import AttemptCourse, CommandCourse, Segment
from mu.timeline.course import ActorCourse, JobCourse
from mu.timeline.shape import (
    ActorCourseJson,
    AttemptCourseJson,
    CommandRow,
    Point,
    TimelineJson,
)

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
) -> bytes:
    """Return the course of a job until it ended, or until now, as the JSON of a TimelineJson.

    It has at most `most` actors, those with a number over `after`; and their `commands`, if wanted.
    """
    start, until = course.created, max(until, course.last)
    head: TimelineJson = {
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
        "actors": [],
    }
    chosen = islice((one for number, one in course.actors.items() if number > after), most)
    actors = (
        pack(_actor(one, course.opened(one.number), start, until, commands)) for one in chosen
    )
    return pack(head).removesuffix(b"]}") + b",".join(actors) + b"]}"


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
    last_second, last_state = -1.0, ""
    for at, state in segments:
        second = round(at - start, DIGITS) if at > start else 0.0
        if second == last_second:
            row.pop()
            last_second, last_state = row[-1] if row else (-1.0, "")
        if state != last_state:
            row.append((second, state))
            last_second, last_state = second, state
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
        "waits": [
            (round(one.begun - start, DIGITS), round(one.waits_until - start, DIGITS), one.name)
            for one in attempt.commands
            if one.waited and one.begun
        ],
        "commands": [_command(command, start) for command in attempt.commands],
    }


def _command(one: CommandCourse, start: float) -> CommandRow:
    sent, begun, ended = one.sent, one.begun, one.ended
    first = round(sent - start, DIGITS)
    return (
        one.name,
        first,
        None if not begun else first if begun == sent else round(begun - start, DIGITS),
        None if ended is None else round(ended - start, DIGITS),
        one.outcome or None,
    )


def _since(start: float, at: float | None) -> float | None:
    return None if at is None else round(at - start, DIGITS)
