"""The commands that show when a job did what: a table, a picture, a report."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from mu.cli.options import finds_daemon, job_argument, the_client

if TYPE_CHECKING:
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

    timeline = _timeline(job)
    if form == "chrome":
        click.echo(json.dumps(chrome_trace(timeline), separators=(",", ":")))
        return
    for line in csv_lines(timeline):
        sys.stdout.write(line)


def _timeline(job: str) -> TimelineJson:
    """Return a job's timeline with all its commands."""
    client = the_client()
    return client.timeline(client.find_job(job)["id"], detail="commands")
