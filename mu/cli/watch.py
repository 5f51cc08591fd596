"""Polls a job until it has ended, and shows its progress."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.live import Live

from mu.cli.address import NotRunning
from mu.cli.answers import JobJson, OverviewJson
from mu.cli.client import Client, DaemonUnreachable, RequestRefused
from mu.cli.display.failures import failures
from mu.cli.display.outline import outline
from mu.cli.display.progress import Pace, progress, progress_line
from mu.cli.display.text import COLOURS, console, ended, ordered, took
from mu.cli.display.usage import is_known, usage_line

POLL_S = 0.25
PLAIN_S = 1.0
"""Shortest time between two lines of counts if the output is not a terminal, in seconds."""
PLAIN_PART = 0.05
"""The same, as a part of the time that the job has taken: a long job prints fewer lines."""
IDLE = 20
"""An overview of many actors takes time, so reading it takes at most a 20th of it."""

AGAIN = {"failed": "what failed again", "cancelled": "what was not done"}
"""What a rerun of a job runs, by the job's state."""

Show = Callable[[JobJson], None]


def watch(client: Client, job: JobJson, as_json: bool, stderr: bool = False) -> JobJson:
    """Show the job until it has ended, then how it ended; return it.

    `stderr` shows it on stderr, for commands that use stdout for something else.
    """
    if as_json:
        return _follow(client, job, _json_lines())
    screen = console(stderr)
    if screen.file.isatty() and screen.is_terminal and not screen.is_dumb_terminal:
        with _live(client, screen) as show:
            job = _follow(client, job, show)
    else:
        screen.print(ordered(job), soft_wrap=True)
        job = _follow(client, job, _lines(client, screen))
    _show_end(client, screen, job)
    return job


def _follow(client: Client, job: JobJson, show: Show) -> JobJson:
    while True:
        show(job)
        if job["finished"]:
            return job
        time.sleep(POLL_S)
        with _named(job["id"]):
            job = client.job(job["id"])


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


class _Overviews:
    """The job's overviews, read as often as costs the daemon little.

    Everything that is shown comes from one overview, so that its parts agree.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: OverviewJson | None = None
        self._again = 0.0
        self._pace = Pace()

    def look(self, job: JobJson) -> tuple[OverviewJson, float]:
        """Return the latest overview, and the job's pace in inputs per second."""
        begun = time.monotonic()
        if self._known is None or begun >= self._again:
            with _named(job["id"]):
                self._known = self._client.overview(job["id"])
            self._again = begun + IDLE * (time.monotonic() - begun)
        return self._known, self._pace.note(self._known["job"], time.time())


@contextlib.contextmanager
def _live(client: Client, screen: Console) -> Iterator[Show]:
    overviews = _Overviews(client)
    with Live(console=screen, transient=True, auto_refresh=False) as live:

        def show(job: JobJson) -> None:
            if not job["finished"]:
                overview, pace = overviews.look(job)
                live.update(progress(overview, time.time(), pace), refresh=True)

        yield show


def _lines(client: Client, screen: Console) -> Show:
    overviews = _Overviews(client)
    shown: tuple[object, ...] = ()
    at = 0.0

    def show(job: JobJson) -> None:
        nonlocal shown, at
        if job["finished"]:
            return
        overview, pace = overviews.look(job)
        seen = overview["job"]
        counts = seen["counts"]
        now = seen["state"], bool(counts["failed"]), counts, seen.get("inputs")
        if now[:2] != shown[:2] or (now != shown and time.monotonic() >= at):
            shown = now
            at = time.monotonic() + max(PLAIN_S, PLAIN_PART * took(seen, time.time()))
            screen.print(progress_line(overview, time.time(), pace), soft_wrap=True)

    return show


def _json_lines() -> Show:
    last: list[JobJson] = []

    def show(job: JobJson) -> None:
        if [job] != last:
            last[:] = [job]
            click.echo(json.dumps(job))

    return show


def _show_end(client: Client, screen: Console, job: JobJson) -> None:
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
