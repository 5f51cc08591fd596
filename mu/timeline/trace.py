"""A timeline as a table, CSV, and as Chrome trace events, which Perfetto shows."""

import csv
from collections.abc import Iterable, Iterator
from io import StringIO

from mu.strict_json import JSON
from mu.timeline.attempts import QUIT
from mu.timeline.shape import ActorCourseJson, AttemptCourseJson, TimelineJson

COLUMNS = [
    "actor",
    "attempt",
    "what",
    "name",
    "sent",
    "begin",
    "end",
    "seconds",
    "outcome",
    "worker",
]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(timeline: TimelineJson) -> Iterator[str]:
    """Yield the lines of a table with a row for each attempt, state, command and lost connection."""
    yield _line(COLUMNS)
    for actor in timeline["actors"]:
        for attempt in actor.get("attempts", []):
            for row in _rows(attempt):
                yield _line((actor["actor"], attempt["attempt"], *row, attempt["worker"]))


def _rows(attempt: AttemptCourseJson) -> Iterator[tuple[object, ...]]:
    """Yield what, name, sent, begin, end, seconds and outcome."""
    launched, hello, ended = attempt["launched"], attempt["hello"], attempt["ended"]
    if launched is not None and not attempt["spare"]:
        accepted = attempt["accepted"]
        yield "start", "", launched, accepted, hello, _between(launched, hello), None
    began, error = attempt["began"], attempt["error"]
    outcome = error or (None if ended is None else "ok")
    kind = "spare" if attempt["spare"] else "straggler" if attempt["straggler"] else ""
    yield "attempt", kind, None, began, ended, _between(began, ended), outcome
    states = attempt["states"]
    ends = [at for at, _ in states[1:]] + [ended]
    for (at, name), end in zip(states, ends, strict=False):
        yield "state", name, None, at, end, _between(at, end), None
    for name, sent, begun, end, outcome in attempt["commands"]:
        yield "command", name, sent, begun, end, _between(begun, end), outcome
    for begun, end, name in attempt.get("waits", []):
        yield "wait", name, None, begun, end, _between(begun, end), None
    for lost, back, reason in attempt["away"]:
        yield "away", "", None, lost, back, _between(lost, back), reason


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(end - begin, 3)


def _line(values: Iterable[object]) -> str:
    """Return a line of CSV; no text in it is a formula for a spreadsheet."""
    text = StringIO()
    safe = (
        f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
        for value in values
    )
    csv.writer(text, lineterminator="\n").writerow(safe)
    return text.getvalue()


# ---------------------------------------------------------------- Chrome trace events

_LANE = 1_000_000
"""The thread ids of an actor's further lanes; no job has so many actors."""


def chrome_trace(timeline: TimelineJson) -> JSON:
    """Return a timeline in the Trace Event Format: one thread for each actor.

    Commands that run at the same time get further threads of their actor.
    """
    events: list[JSON] = [_named("process_name", 0, f"job {timeline['id']}")]
    for actor in timeline["actors"]:
        events += _actor_events(actor, timeline["seconds"])
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"job": timeline["id"], "created": timeline["created"]},
    }


def _actor_events(actor: ActorCourseJson, now: float) -> Iterator[JSON]:
    number = actor["actor"]
    free: list[float] = []  # when each lane is free
    for attempt in actor.get("attempts", []):
        for begin, end, name, kind, outcome in sorted(
            _slices(attempt, now), key=lambda one: one[0]
        ):
            lane = next((n for n, at in enumerate(free) if at <= begin), len(free))
            if lane == len(free):
                free.append(0.0)
                beside = f" ({lane + 1})" if lane else ""
                yield _named("thread_name", number + lane * _LANE, f"actor {number}{beside}")
                order = {"sort_index": number}
                yield _named("thread_sort_index", number + lane * _LANE, order)
            free[lane] = end
            yield {
                "name": name,
                "cat": kind,
                "ph": "X",
                "ts": round(begin * 1e6),
                "dur": round((end - begin) * 1e6),
                "pid": 1,
                "tid": number + lane * _LANE,
                "args": {"attempt": attempt["attempt"], "outcome": outcome},
            }


def _slices(
    attempt: AttemptCourseJson, now: float
) -> Iterator[tuple[float, float, str, str, str | None]]:
    """Yield when something began and ended, its name, its kind and its outcome."""
    ended = now if attempt["ended"] is None else attempt["ended"]
    launched, hello = attempt["launched"], attempt["hello"]
    if launched is not None and hello is not None and not attempt["spare"]:
        yield launched, hello, "cold start", "start", None
    for name, sent, begun, end, outcome in attempt["commands"]:
        if name != QUIT:
            yield begun or sent, ended if end is None else end, name, "command", outcome
    for begin, end, _ in attempt.get("waits", []):
        yield begin, end, "wait", "state", None
    for lost, back, reason in attempt["away"]:
        yield lost, ended if back is None else back, "away", "connection", reason
    if attempt["error"] is not None:
        yield ended, ended, "failed", "attempt", attempt["error"]


def _named(what: str, thread: int, name: object) -> JSON:
    args = name if isinstance(name, dict) else {"name": name}
    return {"name": what, "ph": "M", "pid": 1, "tid": thread, "args": args}
