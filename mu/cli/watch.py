"""Polls a job until it has ended, and shows its progress."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.live import Live

from mu.cli.address import NotRunning
from mu.cli.answers import ActorJson, JobJson
from mu.cli.client import Client, DaemonUnreachable, RequestRefused
from mu.cli.display.failures import failures
from mu.cli.display.outline import outline
from mu.cli.display.progress import progress, progress_line
from mu.cli.display.text import COLOURS, console, ended, ordered

POLL_S = 0.25
PLAIN_S = 1.0
"""Shortest time between two lines of counts if the output is not a terminal, in seconds."""
IDLE = 20
"""The list of actors may be long, so reading it takes at most a 20th of the time."""

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
        job = _look(client, job["id"])


def _look(client: Client, job_id: str) -> JobJson:
    """Return the current job. Raises NotRunning, whose text says what happens to the job."""
    try:
        return client.job(job_id)
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


class _Actors:
    """A job's actors, read as often as costs the daemon little."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: list[ActorJson] = []
        self._again = 0.0

    def look(self, job: JobJson) -> tuple[JobJson, list[ActorJson]]:
        """Return the job and its actors. If they were just read, the job's counts match them."""
        begun = time.monotonic()
        if begun < self._again or job["finished"]:
            return job, self._known
        some = job["counts"]["running"] or job["counts"]["failed"]
        self._known = self._client.workers(job["id"]) if some else []
        self._again = begun + IDLE * (time.monotonic() - begun)
        if self._known:
            counts = Counter(actor["state"] for actor in self._known)
            job = {**job, "counts": {name: counts[name] for name in job["counts"]}}
        return job, self._known


@contextlib.contextmanager
def _live(client: Client, screen: Console) -> Iterator[Show]:
    actors = _Actors(client)
    with Live(console=screen, transient=True, auto_refresh=False) as live:

        def show(job: JobJson) -> None:
            live.update(progress(*actors.look(job), time.time()), refresh=True)

        yield show


def _lines(client: Client, screen: Console) -> Show:
    actors = _Actors(client)
    shown: tuple[str, int, dict[str, int]] = "", -1, {}
    at = 0.0

    def show(job: JobJson) -> None:
        nonlocal shown, at
        counts = job["counts"]
        now = job["state"], counts["failed"], counts
        soon = now[:2] != shown[:2] or time.monotonic() >= at + PLAIN_S
        if not job["finished"] and soon and now != shown:
            shown, at = now, time.monotonic()
            line = progress_line(*actors.look(job), time.time())
            screen.print(line, soft_wrap=True)

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
    if job["state"] == "failed" and any(job["counts"].values()):
        screen.print(f"To run what failed again: mu rerun {job['id']}", style="dim")
    screen.print(ended(job), style=COLOURS.get(job["state"], ""))
