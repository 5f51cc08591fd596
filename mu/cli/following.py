"""Follows a job by its events, over a restart of the daemon, or by polling where it sends none."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import cast

from mu.client.answers import JobJson, OverviewJson
from mu.client.control_port import ControlPort, JobEvent, NoEvents
from mu.client.errors import DaemonUnreachable, NoAddress, NotRunning, RequestRefused
from mu.jobs.overview import Glance, overview
from mu.strict_json import JSON

TICK_S = 1.0
"""The longest time between two looks at a job: how long things take changes by itself."""
POLL_S = 0.25
RETRY_S = 0.5
MOST_EVENTS = 8
"""How many events may wait to be shown; the daemon then waits, too, and skips some."""


class FollowedJob:
    """A job as the last event or overview describes it."""

    def __init__(self, job: JobJson) -> None:
        self.job = job
        self.lost: str | None = None
        """Why nothing is known of it now; None: what is known is up to date."""
        self.seen = False
        """Whether the daemon has told anything of it since."""
        self.last_id = ""
        self._awaited: str | None = None
        self._columns: list[str] = []
        self._actors: dict[int, Glance] = {}
        self._overview: OverviewJson | None = None

    def overview(self) -> OverviewJson:
        """Return the job and what its actors wait for; it takes time if there are many."""
        if self._overview is None:
            told = overview(cast(JSON, self.job), self._actors.values(), self._awaited)
            self._overview = cast(OverviewJson, told)
        return self._overview

    def take(self, event: JobEvent) -> None:
        """Apply an event; it has what changed, or everything."""
        told, fields = event.told, dict(event.told["job"])
        self._awaited = fields.pop("awaited", self._awaited)
        fields.pop("gates", None)
        if event.kind == "snapshot":
            self._columns = told["columns"]
            self._actors.clear()
        else:
            fields = {**self.job, **fields}
        self.job = cast(JobJson, fields)
        for row in told["actors"]:
            known = dict(zip(self._columns, row, strict=False))
            names = ("actor", "state", "label", "waits_for", "since", "error", "retried")
            self._actors[row[0]] = Glance(*map(known.get, names))  # type: ignore[arg-type]
        self.last_id = event.id
        self._know(None)

    def replace(self, told: OverviewJson) -> None:
        """Apply a whole overview."""
        self.job = told["job"]
        self._know(told)

    def _know(self, told: OverviewJson | None) -> None:
        self._overview, self.lost, self.seen = told, None, True


def follow(client: ControlPort, job: JobJson, patience_s: float) -> Iterator[FollowedJob]:
    """Yield a job whenever it has changed, and each TICK_S, until it has ended.

    If the daemon goes away, it is waited for. Raises NotRunning after `patience_s`, or if it was not
    there to begin with, and RequestRefused if it no longer knows the job.
    """
    followed = FollowedJob(job)
    yield followed
    source, gone_since = _events, 0.0
    while not followed.job["finished"]:
        try:
            for _ in source(client, followed):
                gone_since = 0.0
                yield followed
        except NoEvents:
            source = _polls
        except NotRunning as error:
            now = time.monotonic()
            gone_since = gone_since or now
            if not followed.seen or now >= gone_since + patience_s:
                raise
            followed.lost = str(error)
            yield followed
            time.sleep(RETRY_S)
            with contextlib.suppress(NoAddress, NotRunning):
                client.find_again()


def _events(client: ControlPort, followed: FollowedJob) -> Iterator[None]:
    """Yield whenever an event has come, and each TICK_S; return when the job has ended."""
    told: queue.Queue[JobEvent | Exception] = queue.Queue(MOST_EVENTS)
    args = client, followed.job["id"], followed.last_id, told
    threading.Thread(target=_read, args=args, daemon=True).start()
    while not followed.job["finished"]:
        try:
            event = told.get(timeout=TICK_S)
        except queue.Empty:
            yield
            continue
        if isinstance(event, Exception):
            raise event
        followed.take(event)
        yield


def _read(
    client: ControlPort, job_id: str, last_id: str, told: "queue.Queue[JobEvent | Exception]"
) -> None:
    """Put the events of one connection into a queue, and then why there are no more."""
    try:
        for event in client.events(job_id, last_id):
            told.put(event)
        told.put(DaemonUnreachable("the daemon closed the connection"))
    except (NotRunning, RequestRefused, NoEvents) as error:
        told.put(error)


def _polls(client: ControlPort, followed: FollowedJob) -> Iterator[None]:
    """Yield after each overview, which costs the daemon more than events do."""
    while not followed.job["finished"]:
        followed.replace(client.overview(followed.job["id"]))
        yield
        time.sleep(POLL_S)
