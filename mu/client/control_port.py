"""An HTTP client of the daemon's control port."""

import contextlib
import gzip
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from mu.client.address import Address, NotRunning
from mu.client.answers import (
    ActorJson,
    FindingJson,
    JobJson,
    OverviewJson,
    PipelineJson,
    PlaceJson,
    PlanJson,
)
from mu.timeline.shape import TimelineJson

TIMEOUT_S = 30.0


class DaemonUnreachable(NotRunning):
    """The daemon does not answer, its answer is incomplete, or the server is not a mu daemon."""


class RequestRefused(Exception):
    """The daemon refused a request: its error message, HTTP status, and the field it names."""

    def __init__(self, message: str, status: int, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class NoEvents(Exception):
    """The daemon sends no events: it is of an earlier version, or has too many viewers."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A server-sent event of a job: `snapshot` or `changes`, as docs/control.md describes them."""

    id: str
    kind: str
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a 2xx status."""

    headers: http.client.HTTPMessage
    body: bytes


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
        of = {**having, "last": last} if last else having
        found = cast(list[JobJson], self._list(_path(**of)))
        return found[-last:] if last else found  # an older daemon returns all

    def overview(self, job_id: str) -> OverviewJson:
        """Return the job and what its actors wait for, all at the same moment."""
        return cast(OverviewJson, self._object("GET", _path(job_id, "overview")))

    def job(self, job_id: str) -> JobJson:
        return self._job("GET", _path(job_id))

    def order(self, order: Mapping[str, object], key: str = "") -> JobJson:
        """Start a job, or return the job that was ordered with the same key before."""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        # The keys are sorted: a repeated order must have the same bytes.
        body = json.dumps(order, sort_keys=True).encode("ascii")
        return self._job("POST", "/jobs", body, headers)

    def s3(self, bucket: str = "", engine: str = "") -> PlaceJson:
        """Return where a bucket is; empty: the one for files. `engine` is that of its job."""
        given = {"bucket": bucket, "engine": engine}
        body = json.dumps({name: value for name, value in given.items() if value}).encode("ascii")
        headers = {"Content-Type": "application/json"}
        return cast(PlaceJson, self._object("POST", "/s3", body, headers))

    def plan(self, order: Mapping[str, object]) -> PlanJson:
        """Return what an order would start."""
        headers = {"Content-Type": "application/json"}
        return cast(PlanJson, self._object("POST", "/plan", json.dumps(order).encode(), headers))

    def check(self, order: Mapping[str, object]) -> None:
        """Raise RequestRefused if the daemon would refuse this order. Earlier daemons do not tell."""
        headers = {"Content-Type": "application/json"}
        try:
            self.ask("POST", "/check", json.dumps(order).encode("ascii"), headers)
        except RequestRefused as refused:
            if refused.status != 404:
                raise

    def cancel(self, job_id: str) -> JobJson:
        return self._job("DELETE", _path(job_id))

    def workers(self, job_id: str, **page: int | str) -> list[ActorJson]:
        """Return the job's actors; `limit`, `after`, `state` and `key` select some of them."""
        return cast(list[ActorJson], self._list(_path(job_id, "workers", **page)))

    def timeline(self, job_id: str, **page: int | str) -> TimelineJson:
        """Return what the job's actors did; `detail=commands` adds each command."""
        path, headers = _path(job_id, "timeline", **page), {"Accept-Encoding": "gzip"}
        return cast(TimelineJson, self._object("GET", path, headers=headers))

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        """Return which inputs of actors that are done failed, by reason; earlier daemons do not tell."""
        try:
            return cast(list[dict[str, Any]], self._list(_path(job_id, "failures")))
        except RequestRefused as refused:
            if refused.status != 404:
                raise
            return []

    def log(self, job_id: str, **of: int | str) -> Answer:
        """Return the output of commands; `actor`, `after` and `key` select a part of it.

        With `names=1`, each line begins with the name of its input.
        """
        return self.ask("GET", _path(job_id, "log", **of))

    def pipelines(self) -> list[PipelineJson]:
        return cast(list[PipelineJson], self._list("/pipelines"))

    def new_code(self, read_only: bool) -> str:
        """Return a one-time code with which a browser gets a session."""
        body = json.dumps({"read_only": read_only}).encode("ascii")
        headers = {"Content-Type": "application/json"}
        return str(cast(dict[str, object], self._object("POST", "/codes", body, headers))["code"])

    def doctor(self, case: Mapping[str, object]) -> list[FindingJson]:
        """Have the daemon make the checks of `mu doctor`."""
        body = json.dumps(case).encode("ascii")
        found = self._list("/doctor", "POST", body)
        return cast(list[FindingJson], found)

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

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer. Raises RequestRefused, and NotRunning if there is no daemon."""
        with self._exchange(method, path, body, headers or {}) as response:
            answer, status = Answer(response.headers, _unpacked(response)), response.status
        if 200 <= status < 300:
            return answer
        raise self._refusal(status, answer.body)

    def events(self, job_id: str, last_id: str = "") -> Iterator[JobEvent]:
        """Yield the job's events after the one with this id, until it has ended.

        Raises what `ask` does, NoEvents, and DaemonUnreachable when the connection is lost.
        """
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with self._exchange("GET", _path(job_id, "events"), None, headers) as response:
            if response.status in (404, 503):
                raise NoEvents
            if response.status != 200:
                raise self._refusal(response.status, response.read())
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

    def _refusal(self, status: int, body: bytes) -> Exception:
        """Return what to raise for an answer with another status than 2xx."""
        if status == 401:
            return RequestRefused(self._address.denied, status)
        try:
            error = json.loads(body)["error"]
            message, field = str(error["message"]), error.get("field")
        except (ValueError, TypeError, KeyError, AttributeError):
            return self._not_mu(f"it answered with HTTP status {status}")
        if status >= 500:
            return DaemonUnreachable(f"the daemon at {self._address.url} failed: {message}")
        return RequestRefused(message, status, field)

    def _list(self, path: str, method: str = "GET", body: bytes | None = None) -> list[object]:
        found = self._json(self.ask(method, path, body))
        if not isinstance(found, list):
            raise self._not_mu("its answer is not a JSON list")
        return found

    def _job(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JobJson:
        return cast(JobJson, self._object(method, path, body, headers))

    def _object(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> object:
        found = self._json(self.ask(method, path, body, headers))
        if not isinstance(found, dict):
            raise self._not_mu("its answer is not a JSON object")
        return found

    def _json(self, answer: Answer) -> object:
        try:
            return cast(object, json.loads(answer.body))
        except ValueError:
            raise self._not_mu("its answer is not JSON") from None

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; the answer can be read inside the with statement."""
        address = self._address
        parts = urlsplit(address.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(str(parts.hostname), parts.port, timeout=self._timeout_s)
        try:
            self._connect(connection)
            headers = {**headers, "Authorization": f"Bearer {address.token}"}
            with contextlib.suppress(BrokenPipeError):  # not all was read: the answer says why
                connection.request(method, parts.path + path, body, headers)
            yield connection.getresponse()
        except TimeoutError:
            raise DaemonUnreachable(
                f"the daemon at {address.url} did not answer within {self._timeout_s:g} s"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise DaemonUnreachable(
                f"the connection to the daemon at {address.url} was lost before its answer was"
                f" complete ({_why(error)})"
            ) from None
        finally:
            connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except ConnectionRefusedError:
            raise NotRunning(self._address.refused) from None
        except TimeoutError:
            raise
        except (OSError, UnicodeError) as error:
            raise DaemonUnreachable(f"cannot reach {self._address.url}: {_why(error)}") from None

    def _not_mu(self, why: str) -> DaemonUnreachable:
        return DaemonUnreachable(f"the server at {self._address.url} is not a mu daemon: {why}")


def _unpacked(response: http.client.HTTPResponse) -> bytes:
    """Return the body of a response, which may be compressed."""
    body = response.read()
    return gzip.decompress(body) if response.getheader("Content-Encoding") == "gzip" else body


def _path(*parts: str, **arguments: int | str) -> str:
    path = "/".join(["/jobs", *(quote(part, safe="") for part in parts)])
    return f"{path}?{urlencode(arguments)}" if arguments else path


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
