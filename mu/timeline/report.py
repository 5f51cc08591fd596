"""Writes a report of a job: one HTML file without scripts, which needs nothing from any host."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from mu.timeline.attempts import AWAY, OK, QUIT
from mu.timeline.course import FAILED
from mu.timeline.figures import attempts, cold_start, durations, in_seconds, quantile
from mu.timeline.plot import plot
from mu.timeline.shape import ActorCourseJson, TimelineJson

SLOWEST = 20
"""How many of the slowest actors are listed apart."""
MOST_REASONS = 50
NAMED = 10
"""How many actors are named for each reason."""
SHOWN_RESULT = 20_000
"""Characters shown of a job's result."""

STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;
padding:0 1em}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}
th,td{text-align:left;padding:.2em 1em .2em 0;vertical-align:top;border-bottom:1px solid #8883}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}pre{white-space:pre-wrap;overflow-wrap:anywhere}
svg{width:100%;height:auto}.failed{color:#d13b1f}.quiet{opacity:.7}td{overflow-wrap:anywhere}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def report(job: Mapping[str, Any], timeline: TimelineJson) -> str:
    """Return a report as HTML; `job` is that of GET /jobs/ID, the timeline has all commands."""
    name = f"{job['name']} ({job['id']})" if job.get("name") else job["id"]
    title = f"Job {name}: {job['pipeline']}, {job['state']} after {in_seconds(timeline['seconds'])}"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><title>'
        f"{escape(title)}</title><style>{STYLE}</style></head><body>"
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="failed">{escape(job["error"])}</p>' if job.get("error") else "",
        _facts(job, timeline),
        _heading("Timeline", plot(timeline)),
        _heading("Failures", _failures(timeline)),
        _heading("Commands", _commands(timeline)),
        _heading(f"The {SLOWEST} slowest actors", _slowest(timeline)),
        _folded("All actors", _actors(timeline["actors"], timeline["seconds"])),
        _folded("Parameters", _json(job.get("params"))),
        _folded("Result", _json(job.get("result"))),
    ]
    return "\n".join([head, *filter(None, parts), "</body></html>\n"])


def _facts(job: Mapping[str, Any], timeline: TimelineJson) -> str:
    tried = [attempt for _, attempt in attempts(timeline)]
    lost = sum(len(attempt["away"]) for attempt in tried)
    inputs, launches = job.get("inputs") or {}, job.get("launches") or {}
    cost, used = job.get("cost_usd"), job.get("gb_s")
    created = datetime.fromtimestamp(timeline["created"], UTC)
    regions = ", ".join(job.get("regions") or [])
    facts = {
        "Ordered": f"{created:%Y-%m-%d %H:%M:%S} UTC",
        "Engine": f"{job.get('engine')}, function {job.get('function')}, {regions}",
        "Actors": _counts(job.get("counts") or {}),
        "Inputs": _counts(inputs),
        "Launches": _counts(launches),
        "Attempts": f"{len(tried):,}; connections lost: {lost:,}",
        "Workers without an actor": f"{len(timeline['unused']):,}",
        "Cost": "unknown" if cost is None else f"{cost:.4f} USD",
        "Use": "unknown" if used is None else f"{used:,.1f} GB-s",
    }
    if not timeline["exact"]:
        facts["Note"] = (
            "An earlier version of mu recorded this job: when commands were sent is estimated."
        )
    return _table((), ((name, told) for name, told in facts.items()))


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def _failures(timeline: TimelineJson) -> str:
    """Return a table of what attempts failed of, the most frequent first."""
    reasons: dict[str, list[int]] = {}
    for actor in timeline["actors"]:
        for attempt in actor.get("attempts", []):
            if attempt["error"] is not None:
                reasons.setdefault(attempt["error"], []).append(actor["actor"])
    if not reasons:
        return "<p>No attempt failed.</p>"
    ordered = sorted(reasons.items(), key=lambda one: -len(one[1]))
    rows = [(len(actors), _named(actors), reason) for reason, actors in ordered[:MOST_REASONS]]
    more = len(ordered) - len(rows)
    rest = f'<p class="quiet">and {more:,} other reasons</p>' if more else ""
    return _table(("attempts", "actors", "reason"), rows) + rest


def _named(actors: Sequence[int]) -> str:
    numbers = sorted(set(actors))
    more = f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else ""
    return ", ".join(map(str, numbers[:NAMED])) + more


def _commands(timeline: TimelineJson) -> str:
    """Return a table of how long each kind of command took."""
    failed: dict[str, int] = {}
    for _, attempt in attempts(timeline):
        for name, _, _, ended, outcome in attempt["commands"]:
            if ended is not None and outcome != OK:
                failed[name] = failed.get(name, 0) + 1
    rows = [
        (
            name,
            len(seconds),
            failed.get(name, 0),
            *(in_seconds(quantile(seconds, part)) for part in (0.5, 0.95)),
            in_seconds(max(seconds)),
            in_seconds(sum(seconds)),
        )
        for name, seconds in sorted(durations(timeline).items(), key=lambda one: -sum(one[1]))
        if name != QUIT
    ]
    if not rows:
        return "<p>No command was answered.</p>"
    return _table(("command", "count", "failed", "median", "95 %", "longest", "together"), rows)


def _slowest(timeline: TimelineJson) -> str:
    ends = sorted(timeline["actors"], key=lambda actor: -_took(actor, timeline["seconds"]))
    return _actors(ends[:SLOWEST], timeline["seconds"])


def _actors(actors: Iterable[ActorCourseJson], now: float) -> str:
    """Return a table of actors: how they ended, and how long they did what."""
    columns = (
        "actor",
        "state",
        "attempts",
        "cold start",
        "retrieve",
        "run",
        "upload",
        "away",
        "took",
    )
    return _table(columns, (_row(actor, now) for actor in actors))


def _row(actor: ActorCourseJson, now: float) -> tuple[object, ...]:
    states = actor["states"]
    spent: dict[str, float] = {}
    for (at, state), end in zip(states, [*(at for at, _ in states[1:]), now], strict=True):
        spent[state] = spent.get(state, 0.0) + end - at
    tried = [one for one in actor.get("attempts", []) if one["attempt"]]
    start = cold_start(tried[-1]["launched"], tried[-1]["hello"]) if tried else None
    doing = (in_seconds(spent[name]) if name in spent else "" for name in _SPENT)
    return (
        actor["actor"],
        states[-1][1],
        len(tried),
        "" if start is None else in_seconds(start),
        *doing,
        in_seconds(_took(actor, now)),
    )


_SPENT = ("retrieve", "run", "upload", AWAY)


def _took(actor: ActorCourseJson, now: float) -> float:
    """Return the seconds from its first attempt to its end, or until now."""
    tried = [attempt for attempt in actor.get("attempts", []) if attempt["attempt"]]
    if not tried:
        return 0.0
    ends = [now if attempt["ended"] is None else attempt["ended"] for attempt in tried]
    return max(ends) - tried[0]["began"]


# ---------------------------------------------------------------- HTML


def _heading(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def _folded(title: str, content: str) -> str:
    if not content:
        return ""
    return f"<details><summary><b>{escape(title)}</b></summary>{content}</details>"


def _json(value: object) -> str:
    if not value:
        return ""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    more = f"\n... and {len(text) - SHOWN_RESULT:,} characters" if len(text) > SHOWN_RESULT else ""
    return f"<pre>{escape(text[:SHOWN_RESULT])}{more}</pre>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers and times are set to the right."""
    return "".join(_lines(columns, rows))


def _lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield "<table>"
    if columns:
        yield "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in columns) + "</tr>"
    for row in rows:
        yield "<tr>"
        for value in row:
            kind = ' class="n"' if isinstance(value, int) else ""
            kind = f' class="{FAILED}"' if value == FAILED else kind
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            yield f"<td{kind}>{escape(shown)}</td>"
        yield "</tr>"
    yield "</table>"
