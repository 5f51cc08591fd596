"""What people see of recorded courses: a row for each attempt, and each event of some."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mu.cli.console import COLOURS, GROUPS, ago, cut, many, one_line, shortened, span, table

LONGEST_LINE = 500
"""Characters of an event or an effect that are shown."""

Told = Mapping[str, Any]


def attempts_table(told: Told, now: float) -> RenderableType:
    """Return a row for each attempt, and above that what diverges, in sentences."""
    attempts, created = told["attempts"], told["created"]
    head = f"Job {told['id']}: {told['pipeline']}, ordered {ago(now - created)}"
    if not attempts:
        return Text(f"{head}; no actor has been tried.")
    names = ("actor", "attempt", "began", "took", "events", "ended", "replay")
    rows = [
        (
            str(one["actor"]),
            str(one["attempt"] or ""),
            span(one["began"] - created),
            span((one["finished"] or one["heard"]) - one["began"]),
            str(one["events"]),
            _how_it_ended(one),
            _how_it_replays(one),
        )
        for one in attempts
    ]
    diverged = [one for one in attempts if one["diverged"]]
    parts = [_divergence(one) for one in diverged[:GROUPS]]
    if len(diverged) > GROUPS:
        parts.append(Text(f"{many(len(diverged) - GROUPS, 'more attempt')} diverged."))
    actors = many(len({one["actor"] for one in attempts}), "actor")
    parts.append(Text(f"{head}; {many(len(attempts), 'attempt')} at {actors}."))
    return Group(*parts, Text(), table(names, rows, gives={"ended"}))


def course(attempt: Told, created: float) -> RenderableType:
    """Return the lines of one attempt: its events with their effects below them, how it replays."""
    began = f"{span(attempt['began'] - created)} after the order"
    if not attempt["attempt"]:
        return Text(f"Actor {attempt['actor']}, {began}: {shortened(attempt['error'])}")
    worker = f"session {attempt['session'][:8]}" if attempt["session"] else "an original worker"
    who = f"Actor {attempt['actor']}, attempt {attempt['attempt']}, {worker}"
    return Group(
        Text(f"{who}, began {began}.", style="bold"),
        *_steps(attempt, created),
        _divergence(attempt) if attempt["diverged"] else Text(f"It replays{_end(attempt)}."),
        Text(),
    )


def _steps(attempt: Told, created: float) -> Iterator[Text]:
    number = 0
    for step in attempt["course"]:
        restart = step["event"][0] == "resumed"
        place = "" if restart else str(number)
        yield one_line(f"{place:>5} {step['at'] - created:>10.3f}  {_shown(_event(step['event']))}")
        if attempt["diverged"] and attempt["diverged"]["event"] == number and not restart:
            yield one_line(f"{'':18}! it diverges here", "red")
        for effect in step["effects"] or ():
            yield one_line(f"{'':18}> {_shown(_effect(effect))}", "dim")
        number += not restart


def _end(attempt: Told) -> str:
    """Return what the machine's own end does not say: that it goes on, or was ended from outside."""
    if attempt["finished"] is None:
        return "; it goes on"
    did = attempt["course"][-1]["effects"] if attempt["course"] else []
    if any(effect[0] == "finish" for effect in did):
        return ""
    return f"; it was ended: {shortened(attempt['error'] or 'its record says no more')}"


def _how_it_ended(attempt: Told) -> str:
    if attempt["finished"] is None:
        return f"goes on at {cut(attempt['label'], 100)}"
    return f"failed: {cut(attempt['error'], 100)}" if attempt["error"] else "done"


def _how_it_replays(attempt: Told) -> Text:
    if attempt["diverged"]:
        return Text(f"diverges at event {attempt['diverged']['event']}", style=COLOURS["failed"])
    return Text("replays" if attempt["attempt"] else "")


def _divergence(attempt: Told) -> Text:
    who = f"Actor {attempt['actor']}, attempt {attempt['attempt']}"
    return Text(f"{who} diverges: {shortened(attempt['diverged']['message'])}", style="red")


def _shown(text: str) -> str:
    return cut(text.replace("\0", "\\0"), LONGEST_LINE)


def _event(event: list[Any]) -> str:
    match event:
        case ["entered", _]:
            return "(begins)"
        case ["answered", _, text, *_]:
            return str(text)
        case ["informed", _, key, value, *_]:
            return f"INFO:{key}:{value}"
        case ["elapsed", _, timer]:
            return f"(timer {timer} has run out)"
        case ["lost", _, reason]:
            return f"(given up: {reason})"
        case ["resumed", at, stopped_at]:
            return f"(a daemon goes on, {span(at - stopped_at)} after all that was recorded)"
    return json.dumps(event)


def _effect(effect: list[Any]) -> str:
    match effect:
        case ["send", command]:
            return str(command)
        case ["settimer", timer, seconds]:
            return f"(timer {timer}: {seconds:g} s)"
        case ["canceltimer", timer]:
            return f"(no timer {timer})"
        case ["finish", None, None]:
            return "(done)"
        case ["finish", None, result]:
            return f"(done: {json.dumps(result, ensure_ascii=False)})"
        case ["finish", error, _]:
            return f"(failed: {error})"
    return json.dumps(effect)
