"""Words and sentences about jobs that all output shares, and the console to print on."""

import itertools
import re
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from mu.cli.terminal import visible
from mu.client.answers import InputsJson, JobJson

COLOURS = {"done": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
WIDE = 1000
"""Columns if the output is not a terminal: wide, so that text for grep is not cut."""
LONGEST = 700
"""How many characters of an error are shown; it may contain the whole output of a command."""
IN_A_LIST = 240
"""How many characters of an error are shown in a list of several."""
GROUPS = 5
"""Number of different errors shown in full, unless all were asked for."""
NO_REASON = "no reason given"


def console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def beside(screen: Console) -> Console:
    """Return the console for a spinner while `screen`, on stdout, is printed on.

    If that is a terminal, they must be the same, or the spinner would erase what was printed.
    """
    return screen if screen.is_terminal else console(stderr=True)


# ------------------------------------------------ words


def clean(text: str) -> str:
    """Return the text without control characters: workers may print terminal commands."""
    return visible(text.replace("\t", " ").replace("\r", " ")).strip("\n")


def shortened(text: str, most: int = LONGEST) -> str:
    """Return the text, cleaned, with at most `most` characters and a note about the rest."""
    text = clean(text)
    return text if len(text) <= most else f"{text[:most]} … ({len(text)} characters in all)"


def cut(text: str, most: int) -> str:
    """Return the text, cleaned, on one line of at most `most` characters."""
    text = clean(text).replace("\n", " ")
    return text if len(text) <= most else f"{text[:most]}…"


def one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def span(seconds: float) -> str:
    """Return a duration in at most two units: `0.83 s`, `5.9 s`, `3 min 5 s`, `2 h 10 min`."""
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


def size(count: float) -> str:
    """Return a number of bytes in one unit: `512 bytes`, `1.5 MB`, `12 GB`, of 1,000 each."""
    for unit, many_bytes in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= 0.9995 * many_bytes:
            figure = count / many_bytes
            return f"{figure:.1f} {unit}" if figure < 9.95 else f"{figure:.0f} {unit}"
    return many(int(count), "byte")


def ago(seconds: float) -> str:
    """Return how long ago something was, in one unit: `12 s ago`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def many(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def counted(counts: Mapping[str, int]) -> str:
    """Return `2 failed, 2 running, 18 done`: failures first, and no zeros."""
    names = ("failed", "cancelled", "running", "waiting", "done")
    return (
        ", ".join(f"{counts[name]} {name}" for name in names if counts.get(name)) or "no actors yet"
    )


# ------------------------------------------------ sentences about a job


def took(job: JobJson, now: float) -> float:
    """Return the seconds from the order to the end, or to now."""
    return max(0.0, (job["finished"] or now) - job["created"])


def inputs_of(job: JobJson) -> InputsJson:
    """Return the counts of a job's inputs; a job of an earlier version has one for each actor."""
    counts = job["counts"]
    each = InputsJson(total=job["workers"], done=counts["done"], failed=counts["failed"])
    told = job.get("inputs", each)
    return told if told["total"] else each


def inputs_counted(job: JobJson) -> str:
    """Return `12 of 300 inputs, 2 of them failed`."""
    inputs = inputs_of(job)
    failed = f", {inputs['failed']} of them failed" if inputs["failed"] else ""
    return f"{inputs['done'] + inputs['failed']} of {many(inputs['total'], 'input')}{failed}"


def cost(job: JobJson) -> str:
    """Return `$0.0123`, or `$0.0123 (at most $0.0456)`; nothing if it is zero or unknown."""
    known, most = _costs(job)
    return f"{known} (at most {most})" if most else known


def short_cost(job: JobJson) -> str:
    """Return the same as `$0.0123` or `$0.0123-0.0456`, for a table."""
    known, most = _costs(job)
    return f"{known}-{most.removeprefix('$')}" if most else known


def _costs(job: JobJson) -> tuple[str, str]:
    """Return the cost, and the most that it may be if that is more than is shown of it."""
    dollars, at_most = job.get("cost_usd"), job.get("cost_usd_at_most")
    known = f"${dollars:.4f}" if dollars else ""
    most = f"${at_most:.4f}" if known and at_most else ""
    return known, "" if most == known else most


def ordered(job: JobJson) -> str:
    """Return the first line about a job: what was ordered."""
    engine = job.get("engine")
    on = f" on engine {engine}" if engine else ""
    name = f" ({clean(job['name'])})" if job.get("name") else ""
    rerun = f", a rerun of job {job['rerun']}" if job.get("rerun") else ""
    what = f"{job['pipeline']} with {many(job['workers'], 'worker')}{on}{rerun}"
    return f"Job {job['id']}{name}: {what}"


def ended(job: JobJson) -> str:
    """Return a sentence about how a job ended."""
    how = {"done": "finished", "cancelled": "was cancelled"}.get(job["state"], job["state"])
    text = f"Job {job['id']} {how} after {span(took(job, job['finished'] or 0.0))}"
    if job["state"] == "done":
        failed = job["counts"]["failed"]
        parts = [many(job["workers"], "worker"), f"{failed} failed" if failed else ""]
        parts += [
            inputs_counted(job) if inputs_of(job)["total"] != job["workers"] else "",
            cost(job),
        ]
        return f"{text}: {', '.join(part for part in parts if part)}."
    error = job["error"] or NO_REASON
    summary = _ACTORS_FAILED.match(error)
    if summary:  # the actors' own errors are printed above, in full
        error = f"{summary[0]}."
    text = f"{text}: {shortened(error)}"
    return f"{text.rstrip('.')}. It cost {cost(job)}." if _costs(job)[1] else text


_ACTORS_FAILED = re.compile(r"\d+ of \d+ actors failed(?=: actors? )")
