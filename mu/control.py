"""The HTTP control port: jobs are ordered, watched and cancelled here, as JSON."""

import hmac
import json
from collections.abc import Collection
from typing import Any, Protocol

from klein import Klein
from twisted.logger import Logger
from twisted.web.server import Request

import mu
from mu.config import Config
from mu.jobs import EXTERNAL, Actor, Job, JobBook, JobSpec
from mu.messages import encode
from mu.orders import digest, read_order
from mu.parameters import FieldError
from mu.registry import Registry


class Starter(Protocol):
    """What carries out orders (a mu.conductor.Conductor)."""

    def start(self, spec: JobSpec) -> Job: ...
    def event(self, job: Job) -> dict[str, Any]: ...
    def cancel(self, job: Job) -> None: ...

    stopping: bool


class Refusal(Exception):
    """An answer other than 2xx, with a sentence."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class Control:
    """The routes. All but /health want `Authorization: Bearer <token>`."""

    log = Logger()
    app: Any = Klein()

    def __init__(
        self,
        config: Config,
        token: str,
        book: JobBook,
        registry: Registry,
        starter: Starter,
        engines: Collection[str],
    ) -> None:
        self._config = config
        self._token = token.encode("ascii")
        self._book = book
        self._registry = registry
        self._starter = starter
        self._engines = engines

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        return _answer(request, {"status": "ok", "version": mu.__version__})

    @app.route("/pipelines", methods=["GET"])
    def pipelines(self, request: Request) -> bytes:
        self._authorize(request)
        known = sorted(self._registry.pipelines.items())
        told = [pipeline_json(pipeline) for _, pipeline in known]
        broken = [
            {"name": broken.name, "owner": broken.owner, "error": broken.reason}
            for broken in self._registry.broken
        ]
        return _answer(request, told + broken)

    @app.route("/pipelines/<name>", methods=["GET"])
    def pipeline(self, request: Request, name: str) -> bytes:
        self._authorize(request)
        if name not in self._registry.pipelines:
            raise Refusal(404, f"there is no pipeline {name!r}; GET /pipelines lists them")
        return _answer(request, pipeline_json(self._registry.pipelines[name]))

    @app.route("/jobs", methods=["POST"])
    def start(self, request: Request) -> bytes:
        self._authorize(request)
        assert request.content is not None
        body = request.content.read()
        key = (request.getHeader(b"idempotency-key") or b"").decode("utf-8", "replace")
        job = self._book.with_key(key) if key else None
        if job is None:
            if self._starter.stopping:
                raise Refusal(503, "the daemon is stopping: order again when it is back")
            pipelines, engines = self._registry.pipelines, self._engines
            job = self._starter.start(read_order(body, self._config, pipelines, engines, key))
            request.setResponseCode(201)
        elif job.spec.digest != digest(body):
            raise Refusal(409, f"Idempotency-Key {key!r} was used for another order, job {job.id}")
        request.setHeader("Location", f"/jobs/{job.id}")
        told = job_json(job)
        if job.spec.engine == EXTERNAL:
            told["event"] = self._starter.event(job)
        return _answer(request, told)

    @app.route("/jobs", methods=["GET"])
    def jobs(self, request: Request) -> bytes:
        self._authorize(request)
        jobs = self._book.all()
        limit, after = _page(request)
        if after:
            ids = [job.id for job in jobs]
            if after not in ids:
                raise Refusal(400, f"after must be the id of a job; {after!r} came", "after")
            jobs = jobs[ids.index(after) + 1 :]
        return _answer(request, [job_json(job) for job in jobs[:limit]])

    @app.route("/jobs/<job_id>", methods=["GET"])
    def job(self, request: Request, job_id: str) -> bytes:
        self._authorize(request)
        return _answer(request, job_json(self._find(job_id)))

    @app.route("/jobs/<job_id>", methods=["DELETE"])
    def cancel(self, request: Request, job_id: str) -> bytes:
        self._authorize(request)
        job = self._find(job_id)
        self._starter.cancel(job)
        return _answer(request, job_json(job))

    @app.route("/jobs/<job_id>/workers", methods=["GET"])
    def workers(self, request: Request, job_id: str) -> bytes:
        self._authorize(request)
        actors = self._find(job_id).actors
        limit, after = _page(request)
        if after:
            last = _number(after, "after")
            actors = [actor for actor in actors if actor.number > last]
        return _answer(request, [actor_json(actor) for actor in actors[:limit]])

    @app.route("/jobs/<job_id>/log", methods=["GET"])
    def output(self, request: Request, job_id: str) -> bytes:
        """What commands printed, as plain text: of `actor`, or of all under headings.

        For one actor, `after=N` leaves out what came before its byte N; the header Mu-Log-End
        says where the next part will begin.
        """
        self._authorize(request)
        job = self._find(job_id)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        number = _argument(request, "actor")
        if number is None:
            return b"".join(
                b"== actor %d ==\n%b\n" % (actor.number, bytes(actor.output))
                for actor in job.actors
            )
        actor = job.actor(_number(number, "actor"))
        if actor is None:
            raise Refusal(404, f"job {job_id} has no actor {number}", "actor")
        output = actor.output
        request.setHeader("Mu-Log-End", str(output.end))
        return output.since(_number(_argument(request, "after") or "0", "after"))

    # ------------------------------------------------ errors

    @app.handle_errors(Refusal)
    def refused(self, request: Request, failure: Any) -> bytes:
        error: Refusal = failure.value
        return _error(request, error.status, str(error), error.field)

    @app.handle_errors(FieldError)
    def bad_field(self, request: Request, failure: Any) -> bytes:
        return _error(request, 400, str(failure.value), failure.value.field or None)

    @app.handle_errors
    def broken(self, request: Request, failure: Any) -> bytes:
        status = getattr(failure.value, "code", None)  # werkzeug's: no such path or method
        if isinstance(status, int) and 400 <= status < 500:
            return _error(request, status, f"there is no {_asked(request)}")
        self.log.failure("control: {asked}", failure, asked=_asked(request))
        return _error(request, 500, "a fault in mu; its log says more")

    # ------------------------------------------------ inside

    def _authorize(self, request: Request) -> None:
        given = request.getHeader(b"authorization") or b""
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            request.setHeader("WWW-Authenticate", "Bearer")
            home = self._config.home
            raise Refusal(401, f"send Authorization: Bearer <the content of {home}/token>")

    def _find(self, job_id: str) -> Job:
        job = self._book.get(job_id)
        if job is None:
            raise Refusal(404, f"there is no job {job_id!r}; GET /jobs lists them")
        return job


def pipeline_json(pipeline: Any) -> dict[str, Any]:
    """Return what is told of a pipeline."""
    return {
        "name": pipeline.name,
        "description": pipeline.description,
        "parameters": [parameter.describe() for parameter in pipeline.parameters],
    }


def job_json(job: Job) -> dict[str, Any]:
    """Return what is told of a job; times are seconds since the epoch."""
    spec = job.spec
    counts = {state: job.counts[state] for state in ("waiting", "running", "done", "failed")}
    return {
        "id": job.id,
        "pipeline": spec.pipeline.name,
        "workers": len(job.actors) or spec.workers,
        "state": job.state,
        "counts": counts,
        "created": job.created,
        "launched": job.launched,
        "first_hello": job.first_hello,
        "last_hello": job.last_hello,
        "finished": job.finished,
        "params": {name: value for name, value in spec.params.items() if name != "workers"},
        "engine": spec.engine,
        "function": spec.function,
        "launches": dict(job.launch_counts),
        "dismissed": job.dismissed,
        "error": job.error and _shown(job.error),
        "cost_usd": None,
        "result": job.result,
    }


def actor_json(actor: Actor) -> dict[str, Any]:
    """Return what is told of an actor; `since` is when it last heard anything."""
    return {
        "actor": actor.number,
        "state": actor.state,
        "label": actor.label,
        "attempt": actor.attempt,
        "since": actor.since,
        "last_reply": _shown(actor.last_reply),
        "error": actor.error and _shown(actor.error),
        "result": actor.result,
    }


def _asked(request: Request) -> str:
    return (b"%b %b" % (request.method, request.path)).decode("utf-8", "replace")


def _argument(request: Request, name: str) -> str | None:
    given = request.args.get(name.encode("ascii"))
    return given[-1].decode("utf-8", "replace") if given else None


def _number(text: str, field: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Refusal(400, f"{field} must be a whole number; {text!r} came", field)
    return int(text)


def _page(request: Request) -> tuple[int | None, str]:
    """Return how many rows a list may have (None: all), and after which one it begins."""
    limit = _argument(request, "limit")
    return None if limit is None else _number(limit, "limit"), _argument(request, "after") or ""


def _shown(text: str) -> str:
    """Bytes that are no UTF-8 are for workers and states; people see a mark."""
    return encode(text).decode("utf-8", "replace")


def _answer(request: Request, told: Any) -> bytes:
    request.setHeader("Content-Type", "application/json")
    return json.dumps(told).encode("ascii") + b"\n"


def _error(request: Request, status: int, message: str, field: str | None = None) -> bytes:
    request.setResponseCode(status)
    return _answer(request, {"error": {"message": message, "field": field}})
