"""The events of jobs: what has changed, as server-sent events to any number of viewers.

Nothing is kept for a viewer but the version that it has seen. A viewer gets what has changed since
then, at most once per TICK_S, and only once it has read what it got before: a slow one skips versions.
"""

import math
import secrets
from collections.abc import Iterable, Iterator
from itertools import islice
from socket import SO_SNDBUF, SOL_SOCKET
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime, ISystemHandle, ITCPTransport
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

from mu.jobs.actors import Actor
from mu.jobs.book import PastJob
from mu.jobs.job import Job
from mu.jobs.summary import readable
from mu.strict_json import JSON, pack

TICK_S = 0.25
"""The shortest time between two events to a viewer."""
IDLE = 20
"""A look at a job takes time, so the looks take at most a 20th of it."""
QUIET_S = 15.0
"""After this much silence a comment is sent, so that a connection that is gone is noticed."""
MOST_MESSAGES = 64
"""How many messages of one version are kept: a client may say that it has seen any."""
MOST_GATES = 100
"""Of how many stages viewers see how many actors are still to go."""
SHOWN_ERROR = 500
"""Characters of an error in a row; GET /jobs/ID/workers has all of it."""
UNREAD_BYTES = 2**17
"""How much the system may hold for a viewer: it takes up to megabytes, and none seems slow until then."""
COLUMNS = (
    *("actor", "state", "does", "label", "attempt", "began", "since", "waits_for"),
    *("total", "done", "failed", "error", "retried"),
)
"""What a row has of an actor, in this order."""

Row = list[object]


def row_of(actor: Actor) -> Row:
    """Return the row of a live actor; `waits_for` is null if it is what its job awaits."""
    gate = actor.gate
    if gate is not None:  # how many are still to go changes too often: the job's `gates` tell
        waits_for: str | None = gate.title
    else:
        waits_for = None if actor.awaits_worker else actor.waits_for()
    error = actor.error and readable(actor.error[:SHOWN_ERROR])
    does = actor.attempts[-1].does() if actor.state == "running" and actor.attempts else None
    shown = [actor.number, actor.state, does, actor.label, actor.tried, actor.began, actor.since()]
    return [*shown, waits_for, *actor.tally(), error, actor.retried]


def row_in(told: JSON) -> Row:
    """Return the row in the JSON of an actor."""
    known = {**told, **told["inputs"], "error": (told["error"] or "")[:SHOWN_ERROR] or None}
    known["retried"] = bool(told.get("failures")) and told["state"] != "failed"
    return [known.get(name) for name in COLUMNS]


def _gates(job: Job) -> Iterator[tuple[str, str]]:
    """Yield what actors wait for, as in their rows, and with how many are still to go."""
    return ((gate.title, str(gate)) for gate in job.stages.closed_gates() if len(gate.before) > 1)


class Feed:
    """One job, as its viewers see it."""

    def __init__(self, job: Job | PastJob, epoch: str, clock: IReactorTime) -> None:
        self.job = job
        self._epoch = epoch
        self._clock = clock
        self._told: JSON = {}
        self._changed: dict[str, int] = {}  # by field of the job: the version of its last change
        self._cost_s, self._looked = 0.0, 0.0
        self._messages: dict[int | None, bytes] = {}  # of this version, by what was seen before
        self._messages_of = -1
        self.look()

    @property
    def version(self) -> int:
        return self.job.changes.version if isinstance(self.job, Job) else 1

    def look(self) -> None:
        """Note which fields of the job have changed, unless the last look was costly and is recent."""
        began = self._clock.seconds()
        if not isinstance(self.job, Job):
            self._told = self._told or self.job.describe() | {"awaited": None}
            return
        if not self.job.ended and began < self._looked + IDLE * self._cost_s:
            return
        told = self.job.describe()
        told["awaited"] = None if self.job.ended else self.job.worker_awaited
        told["gates"] = dict(islice(_gates(self.job), MOST_GATES))
        changed = [name for name in told if told[name] != self._told.get(name, ...)]
        if changed:
            version = self.job.changes.advance()
            self._changed |= dict.fromkeys(changed, version)
        self._told = told
        self._looked = began
        self._cost_s = self._clock.seconds() - began

    def seen(self, event_id: str) -> int | None:
        """Return the version in the id of an event; None: it is not of this daemon's run."""
        epoch, _, version = event_id.partition(".")
        if epoch != self._epoch or not (version.isdecimal() and len(version) < 18):
            return None
        return min(int(version), self.version)

    def message(self, seen: int | None) -> bytes:
        """Return an event with everything that has changed after `seen`; None: a snapshot."""
        if self._messages_of != self.version or len(self._messages) >= MOST_MESSAGES:
            self._messages_of = self.version
            self._messages.clear()
        if seen not in self._messages:
            self._messages[seen] = self._encode(seen)
        return self._messages[seen]

    def end(self) -> bytes:
        """Return the last event of a job that has ended."""
        return event("end", f"{self._epoch}.{self.version}", b"{}")

    def _encode(self, seen: int | None) -> bytes:
        event_id = f"{self._epoch}.{self.version}"
        if seen is None:
            told: JSON = {"at": self._clock.seconds(), "job": self._told, "columns": COLUMNS}
            return event("snapshot", event_id, pack(told | {"actors": list(self._rows())}))
        job = {name: self._told[name] for name, last in self._changed.items() if last > seen}
        changes = {"at": self._clock.seconds(), "job": job, "actors": list(self._rows(seen))}
        return event("changes", event_id, pack(changes))

    def _rows(self, seen: int | None = None) -> Iterable[Row]:
        if not isinstance(self.job, Job):
            return map(row_in, self.job.workers() if seen is None else [])
        if seen is None:
            return map(row_of, self.job.actors)
        return map(row_of, filter(None, map(self.job.actor, self.job.changes.since(seen))))


def event(kind: str, event_id: str, told: bytes) -> bytes:
    """Return a server-sent event; `told` is one line."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), kind.encode(), told)


@implementer(IPushProducer)
class Viewer:
    """A client that follows the events of a job, at its own speed."""

    def __init__(self, request: Request, feed: Feed, seen: int | None, slow_s: float) -> None:
        self.feed = feed
        self.over: Deferred[None] = Deferred()
        """Fires once nothing more is sent: the job has ended, and that was sent."""
        self._request = request
        self._seen = seen
        self._paused = False
        self._quiet_s = self._stuck_s = 0.0
        self._slow_s = slow_s
        request.registerProducer(self, True)

    def show(self) -> None:
        """Send what has changed, unless the client has not yet read what it got before."""
        if self.over.called:
            return
        if self._paused:
            self._stuck_s += TICK_S
            if self._stuck_s >= self._slow_s:
                cast(ITCPTransport, self._request.transport).abortConnection()
            return
        if self._seen is None or self._seen < self.feed.version:
            # `_seen` comes first: the connection may say during the write that it is full.
            message, self._seen = self.feed.message(self._seen), self.feed.version
            self._write(message)
        else:
            self._quiet_s += TICK_S
            if self._quiet_s >= QUIET_S:
                self._write(b":\n\n")
        if self.feed.job.ended and not self._paused:
            self._write(self.feed.end())
            self.leave()

    def leave(self) -> None:
        """Send nothing more."""
        if not self.over.called:
            self._request.unregisterProducer()
            self.over.callback(None)

    def _write(self, message: bytes) -> None:
        self._quiet_s = 0.0
        self._request.write(message)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._stuck_s = 0.0

    def stopProducing(self) -> None:
        self._paused = True


class Feeds:
    """All viewers of all jobs."""

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._epoch = secrets.token_hex(4)
        self._feeds: dict[str, Feed] = {}
        self._viewers: dict[Viewer, float] = {}  # and until when it may see them
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = clock

    def __len__(self) -> int:
        """How many viewers there are."""
        return len(self._viewers)

    def watch(
        self,
        job: Job | PastJob,
        request: Request,
        slow_s: float = 60.0,
        until: float = math.inf,
    ) -> Deferred[None]:
        """Send the job's events to this client; fires once the job has ended, or at the time `until`.

        A client that reads nothing for `slow_s` loses its connection. Cancel it once the client is gone.
        """
        feed = self._feeds.get(job.id)
        if feed is None:
            feed = self._feeds[job.id] = Feed(job, self._epoch, self._clock)
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Accel-Buffering", "no")  # of nginx, which would hold events back
        last = (request.getHeader("last-event-id") or "").strip()
        if ISystemHandle.providedBy(request.transport):
            request.transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, UNREAD_BYTES)
        viewer = Viewer(request, feed, feed.seen(last), slow_s)
        self._viewers[viewer] = until
        viewer.over.addBoth(self._leave, viewer)
        request.write(b"retry: 1000\n\n")
        viewer.show()
        if self._viewers and not self._ticks.running:
            self._ticks.start(TICK_S, now=False)
        return viewer.over

    def drop(self) -> None:
        """End the events to all viewers: who may still see them comes back."""
        for viewer in list(self._viewers):
            viewer.leave()

    def _tick(self) -> None:
        now = self._clock.seconds()
        for viewer in [one for one, until in self._viewers.items() if until <= now]:
            viewer.leave()
        for feed in list(self._feeds.values()):
            viewers = [viewer for viewer in self._viewers if viewer.feed is feed]
            try:
                feed.look()
                for viewer in viewers:
                    viewer.show()
            except Exception:  # the events of other jobs go on
                self.log.failure("a fault in mu: the events of job {job} stop", job=feed.job.id)
                for viewer in viewers:
                    viewer.leave()

    def _leave(self, result: object, viewer: Viewer) -> object:
        self._viewers.pop(viewer, None)
        watched = {one.feed.job.id for one in self._viewers}
        for job_id in self._feeds.keys() - watched:
            del self._feeds[job_id]
        if not self._viewers and self._ticks.running:
            self._ticks.stop()
        return result
