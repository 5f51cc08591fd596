"""Shows replayed attempts: a row for each, or every event of an actor's."""

import json
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from mu.cli.display.tables import table
from mu.cli.display.text import COLOURS, GROUPS, ago, cut, many, one_line, shortened, span
from mu.client.answers import AttemptJson, DivergenceJson, HistoryJson

LONGEST_LINE = 500
"""How many characters of an event or effect are shown."""


def attempts_table(history: HistoryJson, now: float) -> RenderableType:
    """Return a row for each attempt, and above them a sentence for each divergence."""
    attempts, created = history["attempts"], history["created"]
    head = f"Job {history['id']}: {history['pipeline']}, created {ago(now - created)}"
    if not attempts:
        return Text(f"{head}; it has no attempts.")
    names = ("actor", "attempt", "began", "duration", "events", "ended", "replay")
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
    diverged = [(one, found) for one in attempts if (found := one["diverged"])]
    parts = [_divergence(*pair) for pair in diverged[:GROUPS]]
    if len(diverged) > GROUPS:
        parts.append(Text(f"{many(len(diverged) - GROUPS, 'more attempt')} diverged."))
    actors = many(len({one["actor"] for one in attempts}), "actor")
    parts.append(Text(f"{head}; {many(len(attempts), 'attempt')} at {actors}."))
    return Group(*parts, Text(), table(names, rows, cuts={"ended"}))


def events_page(attempt: AttemptJson, created: float) -> RenderableType:
    """Return the events of one attempt, each with its effects below, and whether it replays."""
    began = f"{span(attempt['began'] - created)} after the job was created"
    if not attempt["attempt"]:
        return Text(f"Actor {attempt['actor']}, {began}: {shortened(attempt['error'] or '')}")
    session = attempt["session"]
    worker = f"session {session[:8]}" if session else "a worker of the original protocol"
    who = f"Actor {attempt['actor']}, attempt {attempt['attempt']}, {worker}"
    diverged = attempt["diverged"]
    return Group(
        Text(f"{who}, began {began}.", style="bold"),
        *_steps(attempt, created),
        _divergence(attempt, diverged) if diverged else Text(f"It replays{_end(attempt)}."),
        Text(),
    )


def _steps(attempt: AttemptJson, created: float) -> Iterator[Text]:
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


def _end(attempt: AttemptJson) -> str:
    """Return what the effects do not show: the attempt still runs, or was ended from outside."""
    if attempt["finished"] is None:
        return "; it has not ended"
    did = attempt["course"][-1]["effects"] if attempt["course"] else []
    if any(effect[0] == "finish" for effect in did or ()):
        return ""
    return f"; it was ended: {shortened(attempt['error'] or 'no reason was recorded')}"


def _how_it_ended(attempt: AttemptJson) -> str:
    if attempt["finished"] is None:
        return f"not yet, at {cut(attempt['label'], 100)}"
    return f"failed: {cut(attempt['error'], 100)}" if attempt["error"] else "done"


def _how_it_replays(attempt: AttemptJson) -> Text:
    if attempt["diverged"]:
        return Text(f"diverges at event {attempt['diverged']['event']}", style=COLOURS["failed"])
    return Text("replays" if attempt["attempt"] else "")


def _divergence(attempt: AttemptJson, diverged: DivergenceJson) -> Text:
    who = f"Actor {attempt['actor']}, attempt {attempt['attempt']}"
    return Text(f"{who} diverges: {shortened(diverged['message'])}", style="red")


def _shown(text: str) -> str:
    return cut(text.replace("\0", "\\0"), LONGEST_LINE)


def _event(event: list[object]) -> str:
    match event:
        case ["entered", *_]:
            return "(begins)"
        case ["answered", _, text, *_]:
            return str(text)
        case ["informed", _, key, value, *_]:
            return f"INFO:{key}:{value}"
        case ["elapsed", _, timer]:
            return f"(timer {timer} fires)"
        case ["lost", _, reason]:
            return f"(worker lost: {reason})"
        case ["resumed", float() as at, float() as stopped_at]:
            return f"(resumed by a restarted daemon, {span(at - stopped_at)} after the last record)"
    return json.dumps(event)


def _effect(effect: list[object]) -> str:
    match effect:
        case ["send", command]:
            return str(command)
        case ["settimer", timer, (int() | float()) as seconds]:
            return f"(set timer {timer}: {seconds:g} s)"
        case ["canceltimer", timer]:
            return f"(cancel timer {timer})"
        case ["finish", None, None]:
            return "(done)"
        case ["finish", None, result]:
            return f"(done: {json.dumps(result, ensure_ascii=False)})"
        case ["finish", error, _]:
            return f"(failed: {error})"
    return json.dumps(effect)
