"""The control port of a daemon: each method is one HTTP request."""

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import urlsplit

from mu.client import calls
from mu.client.address import Address
from mu.client.answers import (
    ActorJson,
    FindingJson,
    JobJson,
    OverviewJson,
    PipelineJson,
    PlaceJson,
    PlanJson,
)
from mu.client.calls import JSON_BODY, Answer, Call
from mu.client.errors import DaemonUnreachable, NotRunning, RequestRefused
from mu.strict_json import JSON
from mu.timeline.shape import TimelineJson

TIMEOUT_S = 30.0
T = TypeVar("T")


class NoEvents(Exception):
    """The daemon sends no events: it is of an earlier version, or has too many viewers."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A server-sent event of a job: `snapshot` or `changes`, as docs/control.md describes them."""

    id: str
    kind: str
    told: JSON


class ControlPort:
    """Talks to one daemon, with a new connection for each request.

    It does not follow redirects and ignores proxy settings, since either would reveal the token.
    """

    def __init__(
        self,
        address: Address,
        timeout_s: float = TIMEOUT_S,
        find: Callable[[], Address] | None = None,
    ) -> None:
        self._address = address
        self._find = find
        self._timeout_s = timeout_s

    @property
    def url(self) -> str:
        """That of the control port."""
        return self._address.url

    def find_again(self) -> None:
        """Find the daemon's address anew: a restart may change it. Raises NoAddress and NotRunning."""
        if self._find is not None:
            self._address = self._find()

    def jobs(self, last: int | None = None, **having: str) -> list[JobJson]:
        """Return the jobs with this `name` and `state`, oldest first: all, or the `last` ones."""
        found = self.send(calls.jobs(**having, last=last) if last else calls.jobs(**having))
        return found[-last:] if last else found  # an older daemon returns all

    def overview(self, job_id: str) -> OverviewJson:
        return self.send(calls.overview(job_id))

    def job(self, job_id: str) -> JobJson:
        return self.send(calls.job(job_id))

    def order(self, order: Mapping[str, object], key: str = "") -> JobJson:
        return self.send(calls.order(order, key))

    def s3(self, bucket: str = "", engine: str = "") -> PlaceJson:
        return self.send(calls.s3(bucket, engine))

    def plan(self, order: Mapping[str, object]) -> PlanJson:
        """Return what an order would start."""
        return cast(PlanJson, self.send(calls.post("/plan", order)))

    def check(self, order: Mapping[str, object]) -> None:
        """Raise RequestRefused if the daemon would refuse this order. Earlier daemons do not tell."""
        body = json.dumps(order).encode("ascii")
        try:
            self.send(Call("POST", "/check", calls.nothing, body, JSON_BODY))
        except RequestRefused as refused:
            if refused.status != 404:
                raise

    def cancel(self, job_id: str) -> JobJson:
        return self.send(calls.cancel(job_id))

    def workers(self, job_id: str, **page: int | str) -> list[ActorJson]:
        return self.send(calls.actors(job_id, **page))

    def timeline(self, job_id: str, **page: int | str) -> TimelineJson:
        return self.send(calls.timeline(job_id, **page))

    def failures(self, job_id: str) -> list[JSON]:
        """Return which inputs of actors that are done failed, by reason; earlier daemons do not tell."""
        try:
            return self.send(calls.failures(job_id))
        except RequestRefused as refused:
            if refused.status != 404:
                raise
            return []

    def log(self, job_id: str, **of: int | str) -> Answer:
        return self.send(calls.log(job_id, **of))

    def pipelines(self) -> list[PipelineJson]:
        return self.send(calls.pipelines())

    def new_code(self, read_only: bool) -> str:
        """Return a one-time code with which a browser gets a session."""
        return str(self.send(calls.post("/codes", {"read_only": read_only}))["code"])

    def doctor(self, case: Mapping[str, object]) -> list[FindingJson]:
        """Have the daemon make the checks of `mu doctor`."""
        body = json.dumps(case).encode("ascii")
        return cast(list[FindingJson], self.send(Call("POST", "/doctor", calls.list_in, body)))

    def find_job(self, name: str) -> JobJson:
        """Return the job with this id or id prefix, the latest with this name, or the `last` one.

        Raises RequestRefused.
        """
        if name != "last":
            try:
                return self.job(name)
            except RequestRefused as refused:
                if refused.status != 404:
                    raise
        if name == "last":
            jobs = self.jobs(last=1)
            if not jobs:
                raise RequestRefused("there is no last job: no job has been started yet", 404)
            return jobs[-1]
        jobs = self.jobs()
        found = [job for job in jobs if name and job["id"].startswith(name)]
        found = found or [job for job in jobs if name and job.get("name") == name][-1:]
        if not found:
            raise RequestRefused(f"there is no job {name!r}; `mu jobs` lists all jobs", 404)
        if len(found) > 1:
            ids = ", ".join(job["id"] for job in found[-5:])
            some = " including" if len(found) > 5 else ""
            raise RequestRefused(f"{name!r} matches {len(found)} jobs,{some} {ids}", 404)
        return found[0]

    def send(self, call: Call[T]) -> T:
        """Return the answer. Raises RequestRefused, and NotRunning if there is no daemon."""
        address = self._address
        with self._exchange(call) as response:
            return calls.answer_to(call, address, response)

    def events(self, job_id: str, last_id: str = "") -> Iterator[JobEvent]:
        """Yield the job's events after the one with this id, until it has ended.

        Raises what `send` does, NoEvents, and DaemonUnreachable when the connection is lost.
        """
        headers = {"Last-Event-ID": last_id} if last_id else {}
        call = Call("GET", calls.path(job_id, "events"), calls.nothing, headers=headers)
        with self._exchange(call) as response:
            if response.status in (404, 503):
                raise NoEvents
            if response.status != 200:
                raise calls.refusal(self._address, response.status, response.read())
            fields: dict[str, str] = {}
            while line := response.readline().decode("utf-8", "replace"):
                name, _, value = line.rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                    continue
                if fields.get("event") in ("snapshot", "changes"):
                    told = json.loads(fields.get("data", ""))
                    yield JobEvent(fields.get("id", ""), fields["event"], told)
                fields.clear()

    @contextlib.contextmanager
    def _exchange(self, call: Call[T]) -> Iterator[http.client.HTTPResponse]:
        """Send a request; the answer can be read inside the with statement."""
        address = self._address
        parts = urlsplit(address.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        timeout_s = self._timeout_s + call.longer_s
        connection = kind(str(parts.hostname), parts.port, timeout=timeout_s)
        try:
            self._connect(connection)
            headers = {**call.headers, "Authorization": f"Bearer {address.token}"}
            with contextlib.suppress(BrokenPipeError):  # not all was read: the answer says why
                connection.request(call.method, parts.path + call.path, call.body, headers)
            yield connection.getresponse()
        except TimeoutError:
            raise too_late(address, timeout_s) from None
        except (OSError, http.client.HTTPException) as error:
            raise lost(address, error) from None
        finally:
            connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except TimeoutError:
            raise
        except (OSError, UnicodeError) as error:
            raise unreachable(self._address, error) from None


# ---------------------------------------------------------------- what can go wrong


def unreachable(address: Address, error: Exception) -> NotRunning:
    """Return what to raise if there is no connection."""
    if isinstance(error, ConnectionRefusedError):
        return NotRunning(address.refused)
    return DaemonUnreachable(f"cannot reach {address.url}: {_why(error)}")


def too_late(address: Address, seconds: float) -> DaemonUnreachable:
    return DaemonUnreachable(f"the daemon at {address.url} did not answer within {seconds:g} s")


def lost(address: Address, error: Exception) -> DaemonUnreachable:
    return DaemonUnreachable(
        f"the connection to the daemon at {address.url} was lost before its answer was"
        f" complete ({_why(error)})"
    )


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
