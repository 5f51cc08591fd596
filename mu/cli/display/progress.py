"""Shows how far a job is and what its actors do, live on a terminal, or one line at a time."""

from collections import deque
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mu.cli.display.tables import coloured
from mu.cli.display.text import (
    clean,
    cost,
    counted,
    cut,
    inputs_counted,
    inputs_of,
    one_line,
    ordered,
    span,
    took,
)
from mu.client.answers import GroupJson, JobJson, OverviewJson

NO_STATE = "(no state yet)"
OTHERS = "elsewhere"
MOST_GROUPS = 5
"""How many different things that actors wait for are shown."""


class Pace:
    """How fast a job handles its inputs, over the last minute or since its first worker's hello."""

    WINDOW_S = 60.0
    ENOUGH_S = 10.0
    """A shorter part of the window says too little."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()  # when, and how many were handled

    def note(self, job: JobJson, now: float) -> float:
        """Note how far the job is; return the inputs handled per second. 0: it is unknown."""
        inputs = inputs_of(job)
        handled = inputs["done"] + inputs["failed"]
        if not self._seen or now >= self._seen[-1][0] + 1:
            self._seen.append((now, handled))
        while now - self._seen[0][0] > self.WINDOW_S:
            self._seen.popleft()
        began, before = self._seen[0] if self._seen else (now, handled)
        if now - began < self.ENOUGH_S:
            began, before = job.get("first_hello") or now, 0
        return max(0.0, (handled - before) / (now - began)) if now > began else 0.0


def progress(overview: OverviewJson, now: float, pace: float = 0.0) -> RenderableType:
    """Return an overview of a job: failed actors, a bar, counts, what running actors wait for.

    `pace` is in inputs per second; 0: it is unknown.
    """
    job, counts = overview["job"], overview["job"]["counts"]
    inputs = inputs_of(job)
    handled, failed = inputs["done"] + inputs["failed"], inputs["failed"] or counts["failed"]
    bar = ProgressBar(
        total=max(1, inputs["total"]),
        completed=handled,
        complete_style="red" if failed else "cyan",
        finished_style="red" if failed else "green",
    )
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    figures = [f"{handled}/{inputs['total']}", span(took(job, now)), cost(job)]
    row.add_row(coloured(job["state"]), bar, "  ".join(figure for figure in figures if figure))
    parts: list[RenderableType] = [Text(ordered(job), no_wrap=True, overflow="ellipsis")]
    for one in overview["failed"]:
        parts.append(
            one_line(f"Actor {one['actor']} failed: {cut(one['error'] or '', 300)}", "red")
        )
    actors, *of_inputs = _figures(overview, pace)
    parts += [row, one_line(actors), *([one_line("; ".join(of_inputs))] if of_inputs else [])]
    parts += [one_line(f"{number:>7} {what}", "dim") for number, what in waits(overview, now)]
    return Group(*parts)


def progress_line(overview: OverviewJson, now: float, pace: float = 0.0) -> str:
    """Return the overview on one line."""
    job = overview["job"]
    line = f"{span(took(job, now)):>8}  {job['state']}: {'; '.join(_figures(overview, pace))}"
    groups = [group for group in overview["groups"] if group["state"] == "running"]
    at = ", ".join(f"{group['actors']} {_what(group)}" for group in groups[:MOST_GROUPS])
    return f"{line} ({at})" if at else line


def _figures(overview: OverviewJson, pace: float) -> Iterator[str]:
    """Yield the counts of actors, and of inputs if they are not the same, and how fast it goes."""
    job = overview["job"]
    inputs, counts, retried = inputs_of(job), job["counts"], overview["retried"]
    if not sum(counts.values()):
        yield counted(counts)
        return
    several = inputs["total"] != sum(counts.values())
    actors = counted(counts) + (f", {retried} retried" if retried else "")
    yield f"actors: {actors}" if several else actors
    if several:
        yield inputs_counted(job)
    left = inputs["total"] - inputs["done"] - inputs["failed"]
    if pace and left and not job["finished"]:
        yield f"{rate(pace)}, about {span(left / pace)} left"


def rate(pace: float) -> str:
    """Return `12/s`, `3.5/min` or `1.2/h`."""
    unit, size = next((one for one in (("s", 1), ("min", 60)) if pace * one[1] >= 1), ("h", 3600))
    number = pace * size
    return f"{number:.0f}/{unit}" if number >= 10 else f"{number:.1f}/{unit}"


def waits(overview: OverviewJson, now: float) -> list[tuple[int, str]]:
    """Return what actors wait for, each with their number and how long, most first."""
    lines = []
    for group in overview["groups"][:MOST_GROUPS]:
        up_to = "up to " if group["actors"] > 1 else ""
        lines.append((group["actors"], f"{_what(group)}, {up_to}{span(now - group['since'])}"))
    counts = overview["job"]["counts"]
    others = counts["waiting"] + counts["running"] - sum(number for number, _ in lines)
    return [*lines, *([(others, OTHERS)] if others > 0 else [])]


def _what(group: GroupJson) -> str:
    """Return where the actors of a group are, and what they wait for."""
    at = (cut(group["label"], 40) or NO_STATE) if group["state"] == "running" else ""
    wanted = cut(group["waits_for"] or "", 40)
    waiting = f"waiting for {wanted}" if wanted else "" if at else "waiting"
    return clean(": ".join(word for word in (at, waiting) if word))
