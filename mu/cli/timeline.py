"""The commands that show when a job did what: a table, a picture, a report."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from mu.cli.options import CliError, finds_daemon, job_argument, the_client
from mu.cli.terminal import visible

if TYPE_CHECKING:
    from mu.client.answers import JobJson
    from mu.timeline.shape import TimelineJson


@click.command()
@job_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "chrome"]),
    default="csv",
    show_default=True,
    help="A table, or events for https://ui.perfetto.dev and chrome://tracing.",
)
@finds_daemon()
def trace(job: str, form: str) -> None:
    """Print what each actor of a job did, and when.

    The table has a row for each worker's start, attempt, state, command and lost connection, with
    times in seconds since the job's order. It is drawn from the journal, also long after the end.

    \b
    Examples:
      mu trace last > job.csv
      mu trace 6065 | grep ,command,run,
      mu trace last --format chrome > job.json
    """
    from mu.timeline.trace import chrome_trace, csv_lines

    _, timeline = _found(job)
    if form == "chrome":
        click.echo(json.dumps(chrome_trace(timeline), separators=(",", ":")))
        return
    to_terminal = sys.stdout.isatty()
    for line in csv_lines(timeline):
        sys.stdout.write(visible(line) if to_terminal else line)


@click.command()
@job_argument
@click.option(
    "-o", "--out", type=click.Path(), required=True, metavar="FILE", help="A .svg or .png file."
)
@finds_daemon()
def plot(job: str, out: str) -> None:
    """Draw when each actor of a job did what.

    Shows how many actors were waiting, starting, working and done at each time, a row for each actor,
    and how long cold starts and runs took. The drawing is SVG, which browsers show; a PNG needs
    pip install 'mu[png]'.

    \b
    Examples:
      mu plot last -o job.svg
      mu plot nightly -o nightly.png
    """
    from mu.timeline.figures import in_seconds
    from mu.timeline.plot import plot as draw

    found, timeline = _found(job)
    name = f"{found['name']} ({found['id']})" if found.get("name") else found["id"]
    after = in_seconds(timeline["seconds"])
    drawing = draw(timeline, f"Job {name}: {found['pipeline']}, {found['state']} after {after}")
    _write(out, drawing.encode() if Path(out).suffix.lower() != ".png" else _png(drawing))


@click.command()
@job_argument
@click.option(
    "-o", "--out", type=click.Path(), required=True, metavar="FILE", help="The HTML file."
)
@finds_daemon()
def report(job: str, out: str) -> None:
    """Write a report of a job: one HTML file that needs nothing else.

    It is the page of the job, with its timeline, failures by reason and the course of each actor, and
    works without a network. Its summary needs no scripts: facts and cost, what workers used and whether
    less memory would do, the drawing of mu plot, how long commands took, and the slowest actors. It can be sent to others. Of a job with more than 10,000
    actors, it has those that failed first.

    \b
    Examples:
      mu report last -o job.html
      mu report nightly -o nightly.html
    """
    from mu.cli.display.usage import advice, usage_line
    from mu.page.bundle import script, style
    from mu.timeline.report import ReportPage
    from mu.timeline.report import report as write

    found, timeline = _found(job)
    actors = cast("list[dict[str, object]]", the_client().workers(found["id"]))
    failures = the_client().failures(found["id"])
    used = [usage_line(found), advice(found)]
    page = ReportPage(script(), style(), actors, failures, used)
    _write(out, write(found, timeline, page).encode())


def _found(job: str) -> tuple[JobJson, TimelineJson]:
    """Return a job and its timeline with all its commands."""
    client = the_client()
    found = client.find_job(job)
    return found, client.timeline(found["id"], detail="commands")


def _png(drawing: str) -> bytes:
    """Return a drawing as PNG. Raises CliError without the library for it, or that one's library."""
    try:
        cairosvg = import_module("cairosvg")
    except (ImportError, OSError) as error:
        raise CliError(
            f"a PNG needs pip install 'mu[png]', and the library cairo: {error}"
        ) from None
    png: bytes = cairosvg.svg2png(drawing.encode(), background_color="#fff")
    return png


def _write(out: str, content: bytes) -> None:
    try:
        Path(out).write_bytes(content)
    except OSError as error:
        raise CliError(f"cannot write {out}: {error.strerror}") from None
