"""What people see of jobs, actors and pipelines: sentences, and tables that fit 80 columns."""

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
STOPPED = "stopped with the job"
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


def waits(actors: Iterable[Told], now: float, most: int = 5) -> list[tuple[int, str]]:
    """Return how many actors have waited for what, and how long, the most first."""
    alike: dict[tuple[str, str], list[float]] = {}
    for actor in actors:
        if actor["state"] in ("waiting", "running"):
            at = cut(actor["label"], 40) if actor["state"] == "running" else "waiting"
            what = at or "(no state yet)", cut(actor.get("waits_for") or "", 40)
            alike.setdefault(what, []).append(now - actor["since"])
    order = sorted(alike.items(), key=lambda one: -len(one[1]))
    told = []
    for (at, wanted), spans in order[:most]:
        longest = f"{'up to ' if len(spans) > 1 else ''}{span(max(spans))}"
        told.append((len(spans), f"{at}, {longest}{' for ' if wanted else ''}{wanted}"))
    others = sum(len(spans) for _, spans in order[most:])
    return [*told, *([(others, "elsewhere")] if others else [])]


def _again(actors: Iterable[Told]) -> str:
    number = sum(bool(actor.get("failures")) and actor["state"] != "failed" for actor in actors)
    return f"; {number} tried again" if number else ""


def ordered(job: Told) -> str:
    """Return the sentence about an order that was taken."""
    workers = many(job["workers"], "worker")
    return f"Job {job['id']}: {job['pipeline']} with {workers} on engine {job['engine']}"


def ended(job: Told) -> str:
    """Return the sentence on how a job ended; `failures` tells of its actors."""
    how = {"done": "is done", "cancelled": "was cancelled"}.get(job["state"], job["state"])
    text = f"Job {job['id']} {how} after {span(took(job, job['finished']))}"
    if job["state"] == "done":
        failed = job["counts"]["failed"]
        rest = f", {failed} failed" if failed else ""
        cost = _cost(job).replace("  ", ", ")
        return f"{text}: {many(job['workers'], 'worker')}{rest}{cost}."
    error = job["error"] or "it does not say why"
    summary = _FAILED.match(error)
    if summary:  # the actors' own sentences stand above, in full
        error = f"{summary[0]}."
    return f"{text}: {shortened(error)}"


_FAILED = re.compile(r"\d+ of \d+ actors failed(?=: actor )")


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
        *told, *([Text()] if told else []), table(names, rows, gives={"pipeline", "workers"})
    )


def failures(actors: Sequence[Told], job: Told, every: bool = False) -> list[RenderableType]:
    """Return each way in which actors failed, the most frequent first: why, and the last reply.

    Those that failed only because the job was stopped come last.
    """
    failed = [actor for actor in actors if actor["state"] == "failed"]
    ways = _alike((_why(actor, job), actor) for actor in failed)
    ways.sort(key=lambda way: way[0].endswith(STOPPED))
    if not ways:
        return []
    shown = ways if every else ways[:GROUPS]
    told: list[RenderableType] = []
    for error, group in shown:
        told.append(Text(f"{_who(group)} failed:", style="bold red"))
        told += [_indented(line) for line in (error, *_circumstances(group[0], len(group) > 1))]
    left = sum(len(group) for _, group in ways[len(shown) :])
    if left:
        more = f"{many(left, 'more actor')} failed: mu workers {job['id']} --state failed"
        told.append(Text(more))
    one = shown[0][1][0]["actor"]
    told.append(Text(f"What one printed: mu log {job['id']} -a {one}", style="dim"))
    return told


def _why(actor: Told, job: Told) -> str | None:
    error, reason = actor["error"], job["error"]
    if reason and error and error.endswith(reason):
        return f"{error.removesuffix(reason)}{STOPPED}"
    return error  # type: ignore[no-any-return]


def tried_again(actors: Sequence[Told]) -> list[RenderableType]:
    """Return why actors that have not failed needed more than one attempt."""
    ways = _alike(
        (actor["failures"][-1]["error"], actor)
        for actor in actors
        if actor["state"] != "failed" and actor.get("failures")
    )
    told: list[RenderableType] = []
    for error, group in ways[:GROUPS]:
        told += [Text(f"{_who(group)} tried again:", style="yellow"), _indented(error)]
    left = sum(len(group) for _, group in ways[GROUPS:])
    return [*told, *([Text(f"{many(left, 'more actor')} tried again.")] if left else [])]


def _alike(named: Iterable[tuple[str | None, Told]]) -> list[tuple[str, list[Told]]]:
    """Return the actors by their sentence, the most frequent first; addresses do not tell apart."""
    ways: dict[str, list[tuple[str, Told]]] = {}
    for sentence, actor in named:
        sentence = sentence or "it does not say why"
        ways.setdefault(_ADDRESS.sub("", sentence), []).append((sentence, actor))
    order = sorted(ways.items(), key=lambda way: -len(way[1]))
    return [
        (group[0][0] if len(group) == 1 else common, [actor for _, actor in group])
        for common, group in order
    ]


_ADDRESS = re.compile(r"(?<=its worker) at \S+:\d+(?= is gone)")
_NUMBER = re.compile(r"[0-9a-f]*\d[0-9a-f]*")
"""Ports, the names of temporary folders, ...: what differs between failures that are alike."""


def _who(group: Sequence[Told]) -> str:
    numbers = [actor["actor"] for actor in group]
    return (
        f"Actor {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} actors ({ranges(numbers)})"
    )


def _circumstances(actor: Told, of_many: bool) -> Iterator[str]:
    """Yield what an actor's error does not say: its worker's last reply, other attempts' errors."""
    reply, error = actor["last_reply"], actor["error"] or ""
    whose = f" of actor {actor['actor']}" if of_many else ""
    if reply and repr(reply)[1:60] not in error:
        yield f"Last reply{whose} before that: {shortened(repr(reply), IN_A_LIST)}"
    for failure in actor.get("failures", ())[:-1]:
        if not _NUMBER.sub("", error).startswith(_NUMBER.sub("", failure["error"])):
            what = f"Attempt {failure['attempt']}{whose} failed" if failure["attempt"] else "Before"
            yield f"{what}: {shortened(failure['error'], IN_A_LIST)}"


def _indented(text: str) -> RenderableType:
    return Padding(Text(shortened(text)), (0, 0, 0, 2), expand=False)


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
    """Return a row for each actor, those that failed first; columns in which nothing stands are left out."""
    columns: dict[str, Callable[[Told], str | Text]] = {
        "actor": lambda actor: str(actor["actor"]),
        "state": lambda actor: _state(actor["state"]),
        "attempt": lambda actor: str(actor["attempt"]),
        "at": lambda actor: cut(_at(actor), 30),
        "waits for": lambda actor: cut(actor.get("waits_for") or "", 60),
        "since": lambda actor: ago(now - actor["since"]),
        "last reply": lambda actor: cut(actor["last_reply"], 80),
    }
    if all(actor["attempt"] < 2 for actor in actors):
        del columns["attempt"]
    if not any(actor.get("waits_for") for actor in actors):
        del columns["waits for"]
    rows = [
        [tell(actor) for tell in columns.values()]
        for actor in sorted(actors, key=lambda actor: str(actor["state"]) != "failed")
    ]
    return table(list(columns), rows, gives={"at", "waits for", "last reply"})


def _at(actor: Told) -> str:
    """Return the state that an actor's machine is in; of one that failed, the one before that."""
    label: str = actor["label"]
    before, found, _ = (actor["error"] or "").partition(f": {label.removeprefix('ErrorState ')}")
    return before if found else label


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
    known = table(("pipeline", "what it does"), rows, wraps={"what it does"})
    return Group(*broken, *([Text()] if broken else []), known)


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
        table(names, rows, gives={"default"}, wraps={"takes", "what it is"})
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
    row.add_row(
        _state(job["state"]), bar, f"{ended}/{job['workers']}  {span(took(job, now))}{_cost(job)}"
    )
    parts: list[RenderableType] = [Text(ordered(job), no_wrap=True, overflow="ellipsis")]
    for actor in [actor for actor in actors if actor["state"] == "failed"][:3]:
        parts.append(
            one_line(f"Actor {actor['actor']} failed: {cut(actor['error'] or '', 300)}", "red")
        )
    parts += [row, one_line(f"{counted(counts)}{_again(actors)}")]
    if not job["finished"]:  # what is known of the actors is from before
        parts += [one_line(f"{number:>7} {what}", "dim") for number, what in waits(actors, now)]
    return Group(*parts)


def _cost(job: Told) -> str:
    return f"  ${job['cost_usd']:.4f}" if job.get("cost_usd") else ""


def progress_line(job: Told, actors: Sequence[Told], now: float) -> str:
    """Return the same on one line."""
    line = f"{span(took(job, now)):>8}  {job['state']}: {counted(job['counts'])}{_again(actors)}"
    at = labels(actors)
    if sum(number for number, _ in at) != job["counts"]["running"]:
        return line  # the list of actors is from before, or there are none
    return f"{line} ({', '.join(f'{number} {label}' for number, label in at)})" if at else line


def cut(text: str, most: int) -> str:
    """Return the text, cleaned, on one line of at most so many characters."""
    text = clean(text).replace("\n", " ")
    return text if len(text) <= most else f"{text[:most]}…"


def one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _state(state: str) -> Text:
    return Text(state, style=COLOURS.get(state, ""))


def table(
    names: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    gives: Collection[str] = (),
    wraps: Collection[str] = (),
) -> Table:
    """Return a table. Where it is too wide, columns in `gives` are cut and those in `wraps` fold."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(names):
        widest = max([len(name), *(cell_len(str(row[place])) for row in rows)])
        yields = name in gives or name in wraps
        made.add_column(
            name,
            no_wrap=not yields,  # rich narrows only columns that may wrap
            min_width=min(widest, 12) if yields else widest,
        )
    for row in rows:
        cells = zip(names, row, strict=True)
        made.add_row(*(one_line(str(cell)) if name in gives else cell for name, cell in cells))
    return made
