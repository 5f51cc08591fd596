"""Shows the progress of a job until it has ended."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console, Group
from rich.live import Live

from mu.cli.display.failures import failures
from mu.cli.display.outline import outline
from mu.cli.display.progress import Pace, progress, progress_line
from mu.cli.display.text import COLOURS, console, ended, one_line, ordered, took
from mu.cli.display.usage import is_known, usage_line
from mu.cli.following import FollowedJob, follow
from mu.client.answers import JobJson
from mu.client.control_port import ControlPort
from mu.client.errors import DaemonUnreachable, NotRunning, RequestRefused

PLAIN_S = 1.0
"""Shortest time between two lines of counts if the output is not a terminal, in seconds."""
PLAIN_PART = 0.05
"""The same, as a part of the time that the job has taken: a long job prints fewer lines."""
WAITING = "Waiting for the daemon"
AGAIN = {"failed": "what failed again", "cancelled": "what was not done"}
"""What a rerun of a job runs, by the job's state."""

Show = Callable[[FollowedJob], None]


def watch(
    client: ControlPort,
    job: JobJson,
    as_json: bool,
    stderr: bool,
    patience_s: float,
) -> JobJson:
    """Show the job until it has ended, then how it ended; return it.

    `stderr` shows it on stderr, for commands that use stdout for something else. A daemon that goes
    away is waited for, for `patience_s`.
    """
    if as_json:
        return _follow(client, job, _json_lines(), patience_s)
    screen = console(stderr)
    if screen.file.isatty() and screen.is_terminal and not screen.is_dumb_terminal:
        with _live(screen) as show:
            job = _follow(client, job, show, patience_s)
    else:
        screen.print(ordered(job), soft_wrap=True)
        job = _follow(client, job, _lines(screen), patience_s)
    _show_end(client, screen, job)
    return job


def _follow(client: ControlPort, job: JobJson, show: Show, patience_s: float) -> JobJson:
    with _named(job["id"]):
        for followed in follow(client, job, patience_s):
            show(followed)
            job = followed.job
    return job


@contextlib.contextmanager
def _named(job_id: str) -> Iterator[None]:
    """Say what became of the job if the daemon is gone, or no longer knows it."""
    try:
        yield
    except NotRunning as error:
        raise NotRunning(
            f"{error}\nJob {job_id} resumes once the daemon is back (unless its mu.conf says"
            f" otherwise). To watch it then: mu watch {job_id}"
        ) from None
    except RequestRefused as refused:
        if refused.status != 404:
            raise
        raise DaemonUnreachable(
            f"job {job_id} is no longer known: the daemon dropped it to make space for newer jobs,"
            " or was restarted without its journal"
        ) from None


@contextlib.contextmanager
def _live(screen: Console) -> Iterator[Show]:
    pace = Pace()
    with Live(console=screen, transient=True, auto_refresh=False) as live:

        def show(followed: FollowedJob) -> None:
            if followed.job["finished"] or not followed.seen:
                return
            now = time.time()
            parts = [progress(followed.overview(), now, pace.note(followed.job, now))]
            if followed.lost is not None:
                parts.append(one_line(f"{WAITING}: {followed.lost}", "yellow"))
            live.update(Group(*parts), refresh=True)

        yield show


def _lines(screen: Console) -> Show:
    pace = Pace()
    shown: tuple[object, ...] = ()
    at = 0.0
    lost = False

    def show(followed: FollowedJob) -> None:
        nonlocal shown, at, lost
        if followed.lost is not None and not lost:
            screen.print(f"{WAITING}: {followed.lost}", soft_wrap=True, style="yellow")
        lost = followed.lost is not None
        seen = followed.job
        if seen["finished"] or not followed.seen or lost:
            return
        counts, speed = seen["counts"], pace.note(seen, time.time())
        now = seen["state"], bool(counts["failed"]), counts, seen.get("inputs")
        if now[:2] != shown[:2] or (now != shown and time.monotonic() >= at):
            shown = now
            at = time.monotonic() + max(PLAIN_S, PLAIN_PART * took(seen, time.time()))
            screen.print(progress_line(followed.overview(), time.time(), speed), soft_wrap=True)

    return show


def _json_lines() -> Show:
    last: list[JobJson] = []

    def show(followed: FollowedJob) -> None:
        if [followed.job] != last:
            last[:] = [followed.job]
            click.echo(json.dumps(followed.job))

    return show


def _show_end(client: ControlPort, screen: Console, job: JobJson) -> None:
    """Show what failed and the result, then how the job ended."""
    if job["state"] != "cancelled" and job["counts"]["failed"]:
        for part in failures(client.workers(job["id"]), job):
            screen.print(part)
    if job["result"] is not None:
        screen.print("Result:")
        for line in outline(job["result"], "  "):
            screen.print(line, soft_wrap=True)
    if is_known(job.get("used")):
        screen.print(usage_line(job))
    if job["state"] in AGAIN and any(job["counts"].values()):
        screen.print(f"To run {AGAIN[job['state']]}: mu rerun {job['id']}", style="dim")
    screen.print(ended(job), style=COLOURS.get(job["state"], ""))
