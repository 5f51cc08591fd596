"""`mu replay`: replays a recorded job."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, cast

import click

from mu.cli.options import (
    DONE,
    FAILED,
    CliError,
    finds_daemon,
    job_argument,
    print_json,
    shows_json,
    where,
)

if TYPE_CHECKING:
    from mu.client.answers import HistoryJson


@click.command()
@job_argument
@click.option(
    "-a", "--actor", type=click.IntRange(min=0), metavar="N", help="Show this actor's events."
)
@shows_json
@finds_daemon()
@click.pass_context
def replay(ctx: click.Context, job: str, actor: int | None, as_json: bool) -> None:
    """Replay a recorded job.

    Gives the recorded events of each attempt to a new state machine, and compares what it does
    with what was recorded. If they differ (exit status 1), the pipeline has changed since, or
    depends on the clock or random numbers. With -a, shows each event and what the machine did.

    Reads the journal in the daemon's home on this machine. The daemon need not be running.

    \b
    Examples:
      mu replay last
      mu replay 6065 -a 3
      mu replay last --json | jq '.attempts[] | select(.diverged)'
    """
    from mu.client.address import find_config
    from mu.jobs.history import NoHistory, replay_job

    try:
        history = cast("HistoryJson", replay_job(find_config(where(), os.environ), job, actor))
    except NoHistory as error:
        raise CliError(str(error)) from None
    if as_json:
        print_json(history)
    else:
        _show(history, with_events=actor is not None)
    ctx.exit(FAILED if any(one["diverged"] for one in history["attempts"]) else DONE)


def _show(history: HistoryJson, with_events: bool) -> None:
    from mu.cli.display.attempts import attempts_table, events_page
    from mu.cli.display.text import console

    screen = console()
    if not with_events or not history["attempts"]:
        screen.print(attempts_table(history, time.time()))
        return
    for attempt in history["attempts"]:
        screen.print(events_page(attempt, history["created"]))
