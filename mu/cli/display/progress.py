"""Shows a running job: a bar and what its actors do, live on a terminal, or one line at a time."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mu.cli.answers import ActorJson, JobJson
from mu.cli.display.tables import coloured
from mu.cli.display.text import clean, cost, counted, cut, one_line, ordered, span, took

NO_STATE = "(no state yet)"
OTHERS = "elsewhere"


def progress(job: JobJson, actors: Sequence[ActorJson], now: float) -> RenderableType:
    """Return an overview of a job: failed actors, a bar, counts, what running actors wait for."""
    counts = job["counts"]
    ended = counts["done"] + counts["failed"] + counts.get("cancelled", 0)
    bar = ProgressBar(
        total=max(1, job["workers"]),
        completed=ended,
        complete_style="red" if counts["failed"] else "cyan",
        finished_style="red" if counts["failed"] else "green",
    )
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    figures = [f"{ended}/{job['workers']}", span(took(job, now)), cost(job)]
    row.add_row(coloured(job["state"]), bar, "  ".join(figure for figure in figures if figure))
    parts: list[RenderableType] = [Text(ordered(job), no_wrap=True, overflow="ellipsis")]
    for actor in [actor for actor in actors if actor["state"] == "failed"][:3]:
        parts.append(
            one_line(f"Actor {actor['actor']} failed: {cut(actor['error'] or '', 300)}", "red")
        )
    parts += [row, one_line(f"{counted(counts)}{_retried(actors)}")]
    if not job["finished"]:  # once it has, the list of actors is out of date
        parts += [one_line(f"{number:>7} {what}", "dim") for number, what in waits(actors, now)]
    return Group(*parts)


def progress_line(job: JobJson, actors: Sequence[ActorJson], now: float) -> str:
    """Return the overview on one line."""
    duration, counts = span(took(job, now)), counted(job["counts"])
    line = f"{duration:>8}  {job['state']}: {counts}{_retried(actors)}"
    at = labels(actors)
    if sum(number for number, _ in at) != job["counts"]["running"]:
        return line  # the list of actors is outdated, or there is none
    return f"{line} ({', '.join(f'{number} {label}' for number, label in at)})" if at else line


def labels(actors: Iterable[ActorJson], most: int = 4) -> list[tuple[int, str]]:
    """Return the number of running actors in each state, most first: `(14, "Retrieve")`."""
    at = Counter(clean(actor["label"]) for actor in actors if actor["state"] == "running")
    named = [(number, label or NO_STATE) for label, number in at.most_common(most)]
    others = sum(at.values()) - sum(number for number, _ in named)
    return [*named, *([(others, OTHERS)] if others else [])]


def waits(actors: Iterable[ActorJson], now: float, most: int = 5) -> list[tuple[int, str]]:
    """Return what actors wait for, each with their number and how long, most first."""
    alike: dict[tuple[str, str], list[float]] = {}
    for actor in actors:
        if actor["state"] in ("waiting", "running"):
            at = (cut(actor["label"], 40) or NO_STATE) if actor["state"] == "running" else ""
            what = at, cut(actor.get("waits_for") or "", 40)
            alike.setdefault(what, []).append(now - actor["since"])
    order = sorted(alike.items(), key=lambda one: -len(one[1]))
    lines = []
    for (at, wanted), spans in order[:most]:
        waiting = f"waiting for {wanted}" if wanted else "" if at else "waiting"
        words = ": ".join(word for word in (at, waiting) if word)
        up_to = "up to " if len(spans) > 1 else ""
        lines.append((len(spans), f"{words}, {up_to}{span(max(spans))}"))
    others = sum(len(spans) for _, spans in order[most:])
    return [*lines, *([(others, OTHERS)] if others else [])]


def _retried(actors: Iterable[ActorJson]) -> str:
    number = sum(bool(actor.get("failures")) and actor["state"] != "failed" for actor in actors)
    return f"; {number} retried" if number else ""
