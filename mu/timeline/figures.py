"""Figures from a timeline: how many actors did what at each time, and how long things took."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mu.timeline.attempts import AWAY, IDLE
from mu.timeline.course import BLOCKED, CANCELLED, DONE, FAILED, LAUNCHING, STARTING, WAITING
from mu.timeline.shape import ActorCourseJson, AttemptCourseJson, TimelineJson

WORKING = "working"
PHASES = (DONE, FAILED, CANCELLED, WORKING, IDLE, AWAY, STARTING, LAUNCHING, WAITING, BLOCKED)
"""What an actor can be doing; all commands are `working`."""


def concurrency(timeline: TimelineJson, points: int) -> dict[str, list[int]]:
    """Return how many actors were in each phase, at this many times from the order to the end."""
    length = timeline["seconds"] or 1.0
    changes = {phase: [0] * (points + 1) for phase in PHASES}
    for actor in timeline["actors"]:
        states = actor["states"]
        ends = [at for at, _ in states[1:]] + [math.inf]
        for (at, state), end in zip(states, ends, strict=True):
            first = min(points, math.ceil(at / length * (points - 1)))
            last = points if end == math.inf else math.ceil(end / length * (points - 1))
            change = changes[state if state in changes else WORKING]
            change[first] += 1
            change[min(points, last)] -= 1
    counts: dict[str, list[int]] = {}
    for phase, change in changes.items():
        total, row = 0, []
        for step in change[:points]:
            total += step
            row.append(total)
        if any(row):
            counts[phase] = row
    return counts


def attempts(timeline: TimelineJson) -> Iterator[tuple[ActorCourseJson, AttemptCourseJson]]:
    """Yield each attempt with its actor; those without a worker are left out."""
    for actor in timeline["actors"]:
        for attempt in actor.get("attempts", []):
            if attempt["attempt"]:
                yield actor, attempt


def cold_starts(timeline: TimelineJson) -> list[float]:
    """Return how long each worker took from its launch to its hello, in seconds."""
    found = [cold_start(one["launched"], one["hello"]) for one in timeline["unused"]]
    found += [cold_start(one["launched"], one["hello"]) for _, one in attempts(timeline)]
    return [seconds for seconds in found if seconds is not None]


def cold_start(launched: float | None, hello: float | None) -> float | None:
    """Return the seconds from a worker's launch to its hello, if both are known."""
    return None if launched is None or hello is None else hello - launched


def durations(timeline: TimelineJson) -> dict[str, list[float]]:
    """Return how long commands took that were answered, in seconds, by name."""
    found: dict[str, list[float]] = {}
    for _, attempt in attempts(timeline):
        for name, _, begun, ended, _ in attempt["commands"]:
            if begun is not None and ended is not None:
                found.setdefault(name, []).append(ended - begun)
    return found


def run_times(timeline: TimelineJson) -> tuple[str, list[float]]:
    """Return what was measured, and the seconds: of `run` commands, or else of attempts."""
    if runs := durations(timeline).get("run"):
        return "run commands", runs
    whole = [
        one["ended"] - one["began"] for _, one in attempts(timeline) if one["ended"] is not None
    ]
    return "attempts", whole


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value below which that part of them lies; there must be one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie in each of several ranges of the same width, from `first` on."""

    first: float
    width: float
    counts: list[int]


def histogram(values: Sequence[float], most: int = 40) -> Histogram:
    """Return the distribution of values in ranges with round limits: few of few, `most` of many."""
    low, high = min(values), max(values)
    most = min(most, 6 + math.isqrt(len(values)))
    width = nice((high - low) / most or high / 10 or 0.001)
    first = math.floor(low / width)
    counts = Counter(math.floor(value / width + 1e-9) - first for value in values)
    return Histogram(first * width, width, [counts[place] for place in range(max(counts) + 1)])


def nice(width: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... (and 0.5, 0.2, ...) that is not smaller.

    >>> nice(0.3), nice(7), nice(20)
    (0.5, 10.0, 20.0)
    """
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= width * 0.999999)


def ticks(length: float, most: int) -> list[float]:
    """Return at most that many round values from 0 to `length`, which must be more than 0."""
    step = nice(length / most)
    return [step * place for place in range(int(length / step + 1e-9) + 1)]


def in_seconds(value: float) -> str:
    """Return a time for people: `0.25 s`, `12 s`, `3:05`, `1:02:05`."""
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
