"""An HTTP client of the control port, and what may go wrong there."""

import contextlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from mu.cli.address import Address, NotRunning

TIMEOUT_S = 30.0


class Unreachable(NotRunning):
    """The daemon was there and is no more, or what is there is no daemon."""


class Refused(Exception):
    """The daemon does not do it: its sentence, its status, the field that it names."""

    def __init__(self, message: str, status: int, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


@dataclass(frozen=True, slots=True)
class Answer:
    """What came with a status of 2xx."""

    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """Asks one daemon, each time over a connection of its own.

    Redirects are not followed and proxies not asked: either would be shown the token.
    """

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs, oldest first."""
        return _listed(self._json("GET", "/jobs"))

    def job(self, job_id: str) -> dict[str, Any]:
        return self._object("GET", _path(job_id))

    def order(self, order: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Start a job, or return the one that was ordered with the same key before."""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        # Sorted: a repeated order must be the same bytes.
        body = json.dumps(order, sort_keys=True).encode("ascii")
        return self._object("POST", "/jobs", body, headers)

    def cancel(self, job_id: str) -> dict[str, Any]:
        return self._object("DELETE", _path(job_id))

    def workers(self, job_id: str, **page: int) -> list[dict[str, Any]]:
        """Return the job's actors; `limit` and `after` return some of them."""
        return _listed(self._json("GET", _path(job_id, "workers", **page)))

    def log(self, job_id: str, **of: int) -> Answer:
        """Return what commands printed; `actor` and `after` say of which and from where on."""
        return self.ask("GET", _path(job_id, "log", **of))

    def pipelines(self) -> list[dict[str, Any]]:
        return _listed(self._json("GET", "/pipelines"))

    def find_job(self, name: str) -> dict[str, Any]:
        """Return the job with that id, or a prefix of it, or the `last` one. Raises Refused."""
        if name != "last":
            try:
                return self.job(name)
            except Refused as refused:
                if refused.status != 404:
                    raise
        jobs = self.jobs()
        if name == "last":
            if not jobs:
                raise Refused("there is no last job: none has been ordered yet", 404)
            return jobs[-1]
        found = [job for job in jobs if name and job["id"].startswith(name)]
        if not found:
            raise Refused(f"there is no job {name!r}: `mu jobs` lists them", 404)
        if len(found) > 1:
            ids = ", ".join(job["id"] for job in found[-5:])
            which = "among them " if len(found) > 5 else ""
            raise Refused(f"{name!r} begins the ids of {len(found)} jobs, {which}{ids}", 404)
        return found[0]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer. Raises Refused, and NotRunning where there is no daemon."""
        answer, status = self._exchange(method, path, body, headers or {})
        if 200 <= status < 300:
            return answer
        if status == 401:
            raise Refused(self._address.denied, status)
        try:
            error = json.loads(answer.body)["error"]
            message, field = str(error["message"]), error.get("field")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._stranger(f"HTTP status {status}") from None
        if status >= 500:
            raise Unreachable(f"the daemon at {self._address.url} cannot answer: {message}")
        raise Refused(message, status, field)

    def _json(self, *asked: Any) -> Any:
        answer = self.ask(*asked)
        try:
            return json.loads(answer.body)
        except ValueError:
            raise self._stranger("no JSON") from None

    def _object(self, *asked: Any) -> dict[str, Any]:
        told = self._json(*asked)
        if not isinstance(told, dict):
            raise self._stranger("no JSON object")
        return told

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[Answer, int]:
        address = self._address
        parts = urlsplit(address.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        line = kind(str(parts.hostname), parts.port, timeout=self._timeout_s)
        try:
            self._connect(line)
            headers = {**headers, "Authorization": f"Bearer {address.token}"}
            with contextlib.suppress(BrokenPipeError):  # it would not read all: the answer says why
                line.request(method, parts.path + path, body, headers)
            answer = line.getresponse()
            return Answer(answer.headers, answer.read()), answer.status
        except TimeoutError:
            raise Unreachable(
                f"the daemon at {address.url} has not answered within {self._timeout_s:g} s"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"the daemon at {address.url} went away in the middle of an answer ({_why(error)})"
            ) from None
        finally:
            line.close()

    def _connect(self, line: http.client.HTTPConnection) -> None:
        try:
            line.connect()
        except ConnectionRefusedError:
            raise NotRunning(self._address.refused) from None
        except TimeoutError:
            raise
        except (OSError, UnicodeError) as error:
            why = _why(error)
            raise Unreachable(f"{self._address.url} cannot be reached: {why}") from None

    def _stranger(self, came: str) -> Unreachable:
        return Unreachable(
            f"what answers at {self._address.url} is no control port of mu: {came} came"
        )


def _path(job_id: str, *more: str, **arguments: int) -> str:
    path = "/".join(["/jobs", quote(job_id, safe=""), *more])
    return f"{path}?{urlencode(arguments)}" if arguments else path


def _listed(told: Any) -> list[dict[str, Any]]:
    if not isinstance(told, list):
        raise Unreachable("what answers there is no control port of mu: no JSON list came")
    return told


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
