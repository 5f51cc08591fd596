"""Writes a report of a job: one HTML file, which needs nothing from any host.

It has a summary that needs no scripts, and the page's own view of the job, whose data are in the file.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from typing import Any

from mu.strict_json import JSON
from mu.timeline.attempts import AWAY, OK, QUIT, WAIT
from mu.timeline.course import FAILED
from mu.timeline.figures import attempts, cold_start, durations, in_seconds, quantile
from mu.timeline.plot import STYLE as PLOT_STYLE
from mu.timeline.plot import plot
from mu.timeline.shape import ActorCourseJson, TimelineJson

SLOWEST = 20
"""How many of the slowest actors are listed apart."""
MOST_REASONS = 50
NAMED = 10
"""How many actors are named for each reason."""
SHOWN_RESULT = 20_000
"""Characters shown of a job's result."""

MOST_LISTED = 1000
"""How many actors the summary lists."""
MOST_ACTORS = 10_000
"""How many actors the page in a report has."""
MOST_DETAILED = 2000
"""Of how many actors it has attempts that failed, the last reply, the use and a small result."""
SHOWN_TEXT = 500
"""Characters shown of an actor's error, reply or result."""
MOST_FAILURES = 5

STYLE = """
.summary{max-width:1280px;margin:0 auto;padding:16px 20px}.summary h2{margin-top:2em}
.summary table{border-collapse:collapse;width:auto}.summary th,.summary td{text-align:left;padding:.2em 1em .2em 0;
vertical-align:top;border-bottom:1px solid #8883;overflow-wrap:anywhere}
.summary td.n,.summary th.n{text-align:right;font-variant-numeric:tabular-nums}
.summary svg{width:100%;height:auto}.failed{color:#d13b1f}.quiet{opacity:.7}
"""


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The page in a report: its module, its stylesheet, and the rows of GET /jobs/ID/workers."""

    script: str
    style: str
    actors: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]] = ()
    """GET /jobs/ID/failures."""
    use: Sequence[str] = ()
    """Sentences about what the workers used."""


def report(job: Mapping[str, Any], timeline: TimelineJson, page: ReportPage) -> str:
    """Return a report as HTML; `job` is that of GET /jobs/ID, the timeline has all commands."""
    name = f"{job['name']} ({job['id']})" if job.get("name") else job["id"]
    title = f"Job {name}: {job['pipeline']}, {job['state']} after {in_seconds(timeline['seconds'])}"
    style = page.style + STYLE
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, page.script)}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        '<div id="page" hidden><header><nav id="path"></nav></header><main id="main"></main></div>'
        f'<details id="summary" class="summary" open><summary>{escape(title)}</summary>'
    )
    parts = [
        f'<p class="failed">{escape(job["error"])}</p>' if job.get("error") else "",
        _facts(job, timeline),
        *(f"<p>{escape(sentence)}</p>" for sentence in page.use if sentence),
        _heading("Timeline", plot(timeline)),
        _heading("Failures", _failures(timeline)),
        _heading("Commands", _commands(timeline)),
        _heading(f"The {SLOWEST} slowest actors", _slowest(timeline)),
        _folded("All actors", _all(timeline)),
        _folded("Parameters", _json(job.get("params"))),
        _folded("Result", _json(job.get("result"))),
    ]
    tail = (
        f'</details><script type="text/plain" id="data">{_packed(job, timeline, page)}</script>'
        f'<script type="module">{page.script}</script></body></html>\n'
    )
    return "\n".join([head, *filter(None, parts), tail])


def _policy(style: str, script: str) -> str:
    """Return a policy that allows this script and these styles, and nothing else."""
    styles = f"{_hash(style)} {_hash(PLOT_STYLE)}"
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {styles}; base-uri 'none';"
        " form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _packed(job: Mapping[str, Any], timeline: TimelineJson, page: ReportPage) -> str:
    """Return what the page shows, as JSON, compressed, in base64."""
    actors = page.actors
    first = sorted(actors, key=lambda one: (one["state"] != FAILED, not one.get("failures")))
    shown = {one["actor"]: place < MOST_DETAILED for place, one in enumerate(first[:MOST_ACTORS])}
    told = {
        "job": {**job, "result": _short(job.get("result"), SHOWN_RESULT)},
        "at": timeline["created"] + timeline["seconds"],
        "failures": page.failures,
        "actors": [_told(one, shown[one["actor"]]) for one in actors if one["actor"] in shown],
        "timeline": {
            "created": timeline["created"],
            "actors": [
                {"actor": one["actor"], "states": one["states"]}
                for one in timeline["actors"]
                if one["actor"] in shown
            ],
        },
    }
    text = json.dumps(told, separators=(",", ":"))
    return b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _told(actor: Mapping[str, Any], detailed: bool) -> JSON:
    """Return what the page shows of an actor."""
    told = {**actor, "error": _cut(actor["error"]), "result": None, "failures": []}
    if detailed:
        told["result"] = _short(actor.get("result"), SHOWN_TEXT)
        told["last_reply"] = _cut(actor.get("last_reply"))
        told["failures"] = [
            {**one, "error": _cut(one["error"]), "last_reply": _cut(one.get("last_reply"))}
            for one in (actor.get("failures") or [])[-MOST_FAILURES:]
        ]
    else:
        told["last_reply"], told["used"] = "", None
    return told


def _cut(text: str | None) -> str | None:
    return text and text[:SHOWN_TEXT]


def _short(value: object, most: int) -> object:
    """Return a JSON value, or the beginning of a large one as a text."""
    text = json.dumps(value)
    return value if len(text) <= most else f"{text[:most]} ..."


def _all(timeline: TimelineJson) -> str:
    """Return the table of all actors; of very many, the slowest."""
    actors, now = timeline["actors"], timeline["seconds"]
    if len(actors) <= MOST_LISTED:
        return _actors(actors, now)
    slowest = sorted(actors, key=lambda actor: -_took(actor, now))[:MOST_LISTED]
    note = f"<p>The {MOST_LISTED:,} slowest of {len(actors):,}; mu trace has all.</p>"
    return note + _actors(sorted(slowest, key=lambda actor: actor["actor"]), now)


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
        "wait",
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


_SPENT = ("retrieve", "run", "upload", WAIT, AWAY)


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
