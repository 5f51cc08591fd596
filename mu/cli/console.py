"""What people see of jobs, actors and pipelines: sentences, and tables that fit 80 columns."""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mu.cli.arguments import expected

COLOURS = {"done": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
WIDE = 1000
"""Columns where no terminal limits them: what is searched with grep is not to be cut."""
LONGEST = 700
"""Characters of an error that are shown: it may hold all that a command printed."""
IN_A_LIST = 240
"""The same, among other jobs."""
RESULT = 200
"""Characters of a job's result that are shown."""
GROUPS = 5
"""Different failures that are told in full unless all are asked for."""

Told = Mapping[str, Any]


def console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


# ------------------------------------------------ words


def clean(text: str) -> str:
    """Return the text without what a terminal would obey; workers may have printed anything."""
    return "".join(
        char if char == "\n" or char.isprintable() else " " if char in "\t\r" else "\ufffd"
        for char in text
    ).strip("\n")


def span(seconds: float) -> str:
    """Return a span of time in at most two units: `0.83 s`, `5.9 s`, `3 min 5 s`, `2 h 10 min`."""
    for below, decimals in ((0.995, 2), (9.95, 1), (59.5, 0)):
        if seconds < below:
            return f"{max(0.0, seconds):.{decimals}f} s"
    whole = round(seconds)
    units = ("s", 1), ("min", 60), ("h", 3600), ("d", 86400)
    for (smaller, part), (unit, size) in reversed(tuple(itertools.pairwise(units))):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError(seconds)


def ago(seconds: float) -> str:
    """Return how long ago something was, in one unit: `12 s ago`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def took(job: Told, now: float) -> float:
    """Return the seconds from the order to the end, or to now."""
    return max(0.0, float(job["finished"] or now) - float(job["created"]))


def counted(counts: Told) -> str:
    """Return `2 failed, 18 done, 2 running`: failures first, and nothing of what there is none."""
    names = ("failed", "running", "waiting", "done")
    return (
        ", ".join(f"{counts[name]} {name}" for name in names if counts.get(name)) or "no actors yet"
    )


def many(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def labels(actors: Iterable[Told], most: int = 4) -> list[tuple[int, str]]:
    """Return how many running actors are at what, the most first: `(14, "Retrieve")`."""
    at = Counter(clean(actor["label"]) for actor in actors if actor["state"] == "running")
    named = [(number, label or "(no state yet)") for label, number in at.most_common(most)]
    others = sum(at.values()) - sum(number for number, _ in named)
    return [*named, *([(others, "elsewhere")] if others else [])]


def ordered(job: Told) -> str:
    """Return the sentence about an order that was taken."""
    workers = many(job["workers"], "worker")
    return f"Job {job['id']}: {job['pipeline']} with {workers} on engine {job['engine']}"


def ended(job: Told) -> str:
    """Return the sentence on how a job ended; `failures` tells of its actors."""
    how = {"done": "is done", "cancelled": "was cancelled"}.get(job["state"], job["state"])
    text = f"Job {job['id']} {how} after {span(took(job, job['finished']))}"
    if job["state"] == "done":
        return f"{text}: {many(job['workers'], 'worker')}."
    error = job["error"] or "it does not say why"
    summary = f"{job['counts']['failed']} of {job['workers']} actors failed"
    if error.startswith(f"{summary}: actor "):  # their own sentences stand above, in full
        error = f"{summary}."
    return f"{text}: {shortened(error)}"


def shortened(text: str, most: int = LONGEST) -> str:
    text = clean(text)
    return text if len(text) <= most else f"{text[:most]} … ({len(text)} characters in all)"


def result_line(job: Told) -> str:
    """Return the result of a job that is done on one line, or nothing."""
    if job["result"] is None or job["state"] != "done":
        return ""
    text = clean(json.dumps(job["result"], ensure_ascii=False))
    if len(text) > RESULT:
        text = f"{text[:RESULT]} … (all of it: mu watch {job['id']} --json)"
    return f"Result: {text}"


# ------------------------------------------------ tables


def jobs_table(jobs: Sequence[Told], now: float) -> RenderableType:
    """Return what failed, in sentences, and a row for each job in the order that is given."""
    names = ("job", "pipeline", "state", "workers", "ordered", "took")
    rows = [
        (
            job["id"],
            clean(job["pipeline"]),
            _state(job["state"]),
            counted(job["counts"]),
            ago(now - job["created"]),
            span(took(job, now)),
        )
        for job in jobs
    ]
    failed = [job for job in jobs if job["state"] == "failed"]
    told = [
        Text(f"Job {job['id']} failed: {shortened(job['error'] or '', IN_A_LIST)}", style="red")
        for job in failed[-GROUPS:]
    ]
    if len(failed) > GROUPS:
        before = many(len(failed) - GROUPS, "job")
        told.insert(0, Text(f"{before} failed before these: mu watch JOB says why."))
    return Group(
        *told, *([Text()] if told else []), _table(names, rows, gives={"pipeline", "workers"})
    )


def failures(actors: Sequence[Told], job_id: str, every: bool = False) -> list[RenderableType]:
    """Return a sentence for each way in which actors failed, the most frequent first."""
    ways: dict[str, list[int]] = {}
    for actor in actors:
        if actor["state"] == "failed":
            ways.setdefault(actor["error"] or "it does not say why", []).append(actor["actor"])
    if not ways:
        return []
    order = sorted(ways.items(), key=lambda way: -len(way[1]))
    shown = order if every else order[:GROUPS]
    told: list[RenderableType] = []
    for error, numbers in shown:
        who = f"Actor {numbers[0]} failed"
        if len(numbers) > 1:
            who = f"{len(numbers)} actors failed ({ranges(numbers)})"
        told.append(Text(f"{who}:", style="bold red"))
        told.append(Padding(Text(shortened(error)), (0, 0, 0, 2), expand=False))
    left = sum(len(numbers) for _, numbers in order) - sum(len(numbers) for _, numbers in shown)
    if left:
        told.append(Text(f"{many(left, 'more actor')} failed: mu workers {job_id} --state failed"))
    told.append(Text(f"What one printed: mu log {job_id} -a {shown[0][1][0]}", style="dim"))
    return told


def ranges(numbers: Sequence[int], most: int = 8) -> str:
    """Return `0-4, 7, 9-11` for sorted numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:most]]
    return ", ".join(words) + (", …" if len(runs) > most else "")


def workers_table(actors: Sequence[Told], now: float) -> RenderableType:
    """Return a row for each actor, those that failed first."""
    names = ("actor", "state", "at", "heard", "last reply")
    rows = [
        (
            str(actor["actor"]),
            _state(actor["state"]),
            _cut(actor["label"], 30),
            ago(now - actor["since"]) if actor["attempt"] else "never",
            _cut(actor["last_reply"], 80),
        )
        for actor in sorted(actors, key=lambda actor: str(actor["state"]) != "failed")
    ]
    return _table(names, rows, gives={"at", "last reply"})


def pipelines_table(pipelines: Sequence[Told]) -> RenderableType:
    """Return the plugins that are broken, in sentences, and a row for each pipeline."""
    rows = [
        (clean(told["name"]), clean(told["description"]))
        for told in pipelines
        if "error" not in told
    ]
    broken = [
        Text(
            f"Plugin {clean(told['name'])} ({clean(told['owner'])}) cannot be used:"
            f" {shortened(told['error'])}",
            style="red",
        )
        for told in pipelines
        if "error" in told
    ]
    table = _table(("pipeline", "what it does"), rows, wraps={"what it does"})
    return Group(*broken, *([Text()] if broken else []), table)


def pipeline_page(pipeline: Told) -> RenderableType:
    """Return one pipeline with its parameters and an example."""
    names = ("parameter", "default", "takes", "what it is")
    rows = [
        (
            clean(told["name"]),
            Text("required", style="bold") if told["required"] else _default(told["default"]),
            expected(told),
            clean(told["help"]),
        )
        for told in pipeline["parameters"]
    ]
    needed = [f"-p {told['name']}=..." for told in pipeline["parameters"] if told["required"]]
    example = " ".join(["mu launch", pipeline["name"], "-n 5", *needed, "--watch"])
    return Group(
        Text(f"{pipeline['name']}: {clean(pipeline['description'])}"),
        Text(),
        _table(names, rows, gives={"default"}, wraps={"takes", "what it is"})
        if rows
        else Text("It takes no parameters."),
        Text(),
        Text(f"Example: {example}"),
    )


def _default(value: Any) -> str:
    return clean(value if isinstance(value, str) and value else json.dumps(value))


# ------------------------------------------------ a job while it runs


def progress(job: Told, actors: Sequence[Told], now: float) -> RenderableType:
    """Return a job at a glance: what failed, a bar, counts, what running actors are at."""
    counts = job["counts"]
    ended = counts["done"] + counts["failed"]
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
    row.add_row(_state(job["state"]), bar, f"{ended}/{job['workers']}  {span(took(job, now))}")
    parts: list[RenderableType] = [Text(ordered(job), no_wrap=True, overflow="ellipsis")]
    for actor in [actor for actor in actors if actor["state"] == "failed"][:3]:
        parts.append(
            _line(f"Actor {actor['actor']} failed: {_cut(actor['error'] or '', 300)}", "red")
        )
    parts += [row, _line(counted(counts))]
    parts += [_line(f"{number:>7} {label}", "dim") for number, label in labels(actors)]
    return Group(*parts)


def progress_line(job: Told, actors: Sequence[Told], now: float) -> str:
    """Return the same on one line."""
    line = f"{span(took(job, now)):>8}  {job['state']}: {counted(job['counts'])}"
    at = labels(actors)
    if sum(number for number, _ in at) != job["counts"]["running"]:
        return line  # the list of actors is from before, or there are none
    return f"{line} ({', '.join(f'{number} {label}' for number, label in at)})" if at else line


def _cut(text: str, most: int) -> str:
    text = clean(text).replace("\n", " ")
    return text if len(text) <= most else f"{text[:most]}…"


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _state(state: str) -> Text:
    return Text(state, style=COLOURS.get(state, ""))


def _table(
    names: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    gives: Collection[str] = (),
    wraps: Collection[str] = (),
) -> Table:
    """Return a table. Where it is too wide, columns in `gives` are cut and those in `wraps` fold."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(names):
        widest = max([len(name), *(cell_len(str(row[place])) for row in rows)])
        yields = name in gives or name in wraps
        table.add_column(
            name,
            no_wrap=not yields,  # rich narrows only columns that may wrap
            min_width=min(widest, 12) if yields else widest,
        )
    for row in rows:
        cells = zip(names, row, strict=True)
        table.add_row(*(_line(str(cell)) if name in gives else cell for name, cell in cells))
    return table
