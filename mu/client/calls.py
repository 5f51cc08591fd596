"""The calls of the control port, without I/O: the request of each, and how its answer is read."""

import gzip
import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

from mu.client.address import Address
from mu.client.answers import ActorJson, EndJson, JobJson, OverviewJson, PipelineJson, PlaceJson
from mu.client.errors import DaemonUnreachable, RequestRefused
from mu.strict_json import JSON
from mu.timeline.shape import TimelineJson

T = TypeVar("T")
JSON_BODY = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a 2xx status."""

    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and what its answer means. `read` raises ValueError for what is none."""

    method: str
    path: str
    read: Callable[[Answer], T]
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    longer_s: float = 0.0
    """How much longer than others it may take, in seconds."""
    missing: T | None = None
    """What a 404 means; None: an error."""


def answer_to(call: Call[T], address: Address, response: http.client.HTTPResponse) -> T:
    """Read the daemon's response. Raises RequestRefused and DaemonUnreachable."""
    body = response.read()
    if response.getheader("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    if response.status == 404 and call.missing is not None:
        return call.missing
    if not 200 <= response.status < 300:
        raise refusal(address, response.status, body)
    try:
        return call.read(Answer(response.headers, body))
    except ValueError as error:
        raise not_mu(address, str(error)) from None


def refusal(address: Address, status: int, body: bytes) -> Exception:
    """Return what to raise for an answer with another status than 2xx."""
    if status == 401:
        return RequestRefused(address.denied, status)
    try:
        error = json.loads(body)["error"]
        message, named = str(error["message"]), error.get("field")
    except (ValueError, TypeError, KeyError, AttributeError):
        return not_mu(address, f"it answered with HTTP status {status}")
    if status >= 500:
        return DaemonUnreachable(f"the daemon at {address.url} failed: {message}")
    return RequestRefused(message, status, named)


def not_mu(address: Address, why: str) -> DaemonUnreachable:
    return DaemonUnreachable(f"the server at {address.url} is not a mu daemon: {why}")


# ---------------------------------------------------------------- how answers are read


def _json(answer: Answer, kind: type, name: str) -> Any:
    try:
        found = json.loads(answer.body)
    except ValueError:
        raise ValueError("its answer is not JSON") from None
    if not isinstance(found, kind):
        raise ValueError(f"its answer is not a JSON {name}")
    return found


def object_in(answer: Answer) -> Any:
    return _json(answer, dict, "object")


def list_in(answer: Answer) -> Any:
    return _json(answer, list, "list")


def nothing(answer: Answer) -> None:
    return None


def path(*parts: str, **arguments: int | str) -> str:
    """Return the path of a job, or of something of it, with these arguments."""
    below = "/".join(["/jobs", *(quote(part, safe="") for part in parts)])
    return f"{below}?{urlencode(arguments)}" if arguments else below


# ---------------------------------------------------------------- the calls


def order(wanted: Mapping[str, object], key: str = "") -> Call[JobJson]:
    """Start a job, or return the job that was ordered with the same key before."""
    headers = {**JSON_BODY, "Idempotency-Key": key} if key else JSON_BODY
    # The keys are sorted: a repeated order must have the same bytes.
    body = json.dumps(wanted, sort_keys=True).encode("ascii")
    return Call("POST", "/jobs", object_in, body, headers)


def job(job_id: str) -> Call[JobJson]:
    return Call("GET", path(job_id), object_in)


def jobs(**having: int | str) -> Call[list[JobJson]]:
    """Return the jobs with this `name` and `state`, oldest first; `last`: so many."""
    return Call("GET", path(**having), list_in)


def overview(job_id: str) -> Call[OverviewJson]:
    """Return the job and what its actors wait for, all at the same moment."""
    return Call("GET", path(job_id, "overview"), object_in)


def cancel(job_id: str) -> Call[JobJson]:
    return Call("DELETE", path(job_id), object_in)


def actors(job_id: str, **page: int | str) -> Call[list[ActorJson]]:
    """Return the job's actors; `limit`, `after`, `state` and `key` select some of them."""
    return Call("GET", path(job_id, "workers", **page), list_in)


def results(job_id: str, after: int, wait_s: float = 0, limit: int = 256) -> Call[list[EndJson]]:
    """Return how actors ended, from number `after` + 1 on; none: wait so long for the next."""
    asked = path(job_id, "results", after=after, wait=f"{wait_s:.3f}", limit=limit)
    return Call("GET", asked, list_in, longer_s=wait_s)


def timeline(job_id: str, **page: int | str) -> Call[TimelineJson]:
    """Return what the job's actors did; `detail=commands` adds each command."""
    gzipped = {"Accept-Encoding": "gzip"}
    return Call("GET", path(job_id, "timeline", **page), object_in, headers=gzipped)


def failures(job_id: str) -> Call[list[JSON]]:
    """Return which inputs of actors that are done failed, by reason."""
    return Call("GET", path(job_id, "failures"), list_in)


def log(job_id: str, **of: int | str) -> Call[Answer]:
    """Return the output of commands; `actor`, `after` and `key` select a part of it.

    With `names=1`, each line begins with the name of its input.
    """
    return Call("GET", path(job_id, "log", **of), lambda answer: answer)


def pipelines() -> Call[list[PipelineJson]]:
    return Call("GET", "/pipelines", list_in)


def post(where: str, told: Mapping[str, object]) -> Call[Any]:
    """Send JSON; return the JSON object of the answer."""
    return Call("POST", where, object_in, json.dumps(told).encode("ascii"), JSON_BODY)


def s3(bucket: str = "", engine: str = "") -> Call[PlaceJson]:
    """Return where a bucket is; empty: the one for files. `engine` is that of its job."""
    given = {"bucket": bucket, "engine": engine}
    return cast(Call[PlaceJson], post("/s3", {name: one for name, one in given.items() if one}))


def has_blob(digest: str) -> Call[bool]:
    """Return whether the daemon has the blob with this SHA-256, in hex."""
    return Call("HEAD", f"/blobs/{digest}", lambda answer: True, missing=False)


def get_blob(digest: str) -> Call[bytes]:
    return Call("GET", f"/blobs/{digest}", lambda answer: answer.body)


def put_blob(digest: str, content: bytes) -> Call[None]:
    headers = {"Content-Type": "application/octet-stream"}
    return Call("PUT", f"/blobs/{digest}", nothing, content, headers)
