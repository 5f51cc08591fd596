"""Looks at a job again and again until it has ended, and shows it."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from mu.cli import console
from mu.cli.address import NotRunning
from mu.cli.client import Client, Refused, Unreachable

POLL_S = 0.25
PLAIN_S = 1.0
"""Where no terminal is, counts that change are told so often at most."""
IDLE = 20
"""The list of a job's actors may be long: it is asked for in a 20th of the time at most."""

Told = dict[str, Any]
Show = Callable[[Told], None]


def watch(client: Client, job: Told, as_json: bool, stderr: bool = False) -> Told:
    """Show the job until it has ended, then how; return it. `stderr`: where stdout is taken."""
    if as_json:
        return _follow(client, job, _json_lines())
    screen = console.console(stderr)
    if screen.file.isatty() and screen.is_terminal and not screen.is_dumb_terminal:
        with _live(client, screen) as show:
            job = _follow(client, job, show)
    else:
        screen.print(console.ordered(job), soft_wrap=True)
        job = _follow(client, job, _lines(client, screen))
    _tell_end(client, screen, job)
    return job


def _follow(client: Client, job: Told, show: Show) -> Told:
    while True:
        show(job)
        if job["finished"]:
            return job
        time.sleep(POLL_S)
        job = _look(client, job["id"])


def _look(client: Client, job_id: str) -> Told:
    """Return the job as it is now. Raises NotRunning, which says what becomes of the job."""
    try:
        return client.job(job_id)
    except NotRunning as error:
        raise NotRunning(
            f"{error}\nJob {job_id} goes on once the daemon is back (unless its mu.conf says"
            f" otherwise). Look again then: mu watch {job_id}"
        ) from None
    except Refused as refused:
        if refused.status != 404:
            raise
        raise Unreachable(
            f"job {job_id} is not known any more: the daemon has forgotten it among newer ones, or"
            " was started again without its journal"
        ) from None


class _Actors:
    """A job's actors, as new as may be without keeping the daemon from its work."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: list[Told] = []
        self._again = 0.0

    def look(self, job: Told) -> tuple[Told, list[Told]]:
        """Return the job and its actors; where those were just asked for, its counts are theirs."""
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

        def show(job: Told) -> None:
            live.update(console.progress(*actors.look(job), time.time()), refresh=True)

        yield show


def _lines(client: Client, screen: Console) -> Show:
    actors = _Actors(client)
    told: tuple[str, int, Any] = "", -1, None
    at = 0.0

    def show(job: Told) -> None:
        nonlocal told, at
        counts = job["counts"]
        now = job["state"], counts["failed"], counts
        soon = now[:2] != told[:2] or time.monotonic() >= at + PLAIN_S
        if not job["finished"] and soon and now != told:
            told, at = now, time.monotonic()
            line = console.progress_line(*actors.look(job), time.time())
            screen.print(line, soft_wrap=True)

    return show


def _json_lines() -> Show:
    last: list[Told] = []

    def show(job: Told) -> None:
        if [job] != last:
            last[:] = [job]
            click.echo(json.dumps(job))

    return show


def _tell_end(client: Client, screen: Console, job: Told) -> None:
    """Say what failed, then how the job ended."""
    if job["state"] != "cancelled" and job["counts"]["failed"]:
        for part in console.failures(client.workers(job["id"]), job):
            screen.print(part)
    screen.print(console.ended(job), style=console.COLOURS.get(job["state"], ""))
    if result := console.result_line(job):
        screen.print(result)
