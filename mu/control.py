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
from mu.orders import read_order
from mu.parameters import FieldError
from mu.registry import Registry


class Starter(Protocol):
    """What carries out orders (a mu.conductor.Conductor)."""

    def start(self, spec: JobSpec) -> tuple[Job, dict[str, Any]]: ...
    def cancel(self, job: Job) -> None: ...


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
        return _answer(
            request,
            [
                {
                    "name": pipeline.name,
                    "description": pipeline.description,
                    "parameters": [parameter.describe() for parameter in pipeline.parameters],
                }
                for _, pipeline in sorted(self._registry.pipelines.items())
            ],
        )

    @app.route("/jobs", methods=["POST"])
    def start(self, request: Request) -> bytes:
        self._authorize(request)
        most = self._config.control.max_body
        assert request.content is not None
        body = request.content.read(most + 1)
        if len(body) > most:
            raise Refusal(413, f"a request may have {most} bytes at most")
        spec = read_order(body, self._config, self._registry.pipelines, self._engines)
        job, event = self._starter.start(spec)
        request.setResponseCode(201)
        request.setHeader("Location", f"/jobs/{job.id}")
        told = job_json(job)
        return _answer(request, told | {"event": event} if spec.engine == EXTERNAL else told)

    @app.route("/jobs", methods=["GET"])
    def jobs(self, request: Request) -> bytes:
        self._authorize(request)
        return _answer(request, [job_json(job) for job in self._book.all()])

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
        return _answer(request, [actor_json(actor) for actor in self._find(job_id).actors])

    @app.route("/jobs/<job_id>/log", methods=["GET"])
    def output(self, request: Request, job_id: str) -> bytes:
        """What commands printed, as plain text: of `actor`, or of all under headings."""
        self._authorize(request)
        actors = self._find(job_id).actors
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        given = request.args.get(b"actor")
        if given is None:
            return b"".join(
                b"== actor %d ==\n%b\n" % (actor.number, bytes(actor.output)) for actor in actors
            )
        number = given[0].decode("utf-8", "replace")
        if not number.isdecimal() or int(number) >= len(actors):
            raise Refusal(404, f"job {job_id} has actors 0 to {len(actors) - 1}, not {number}")
        return bytes(actors[int(number)].output)

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
            what = f"{request.method.decode('ascii', 'replace')} {request.path.decode('ascii', 'replace')}"
            return _error(request, status, f"there is no {what}")
        self.log.failure(
            "control: {method} {path}", failure, method=request.method, path=request.path
        )
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
        "last_reply": _shown(actor.last_reply[:1000]),
        "error": actor.error and _shown(actor.error),
        "result": actor.result,
    }


def _asked(request: Request) -> str:
    return (b"%b %b" % (request.method, request.path)).decode("utf-8", "replace")


def _shown(text: str) -> str:
    """Bytes that are no UTF-8 are for workers and states; people see a mark."""
    return encode(text).decode("utf-8", "replace")


def _answer(request: Request, told: Any) -> bytes:
    request.setHeader("Content-Type", "application/json")
    return json.dumps(told).encode("ascii") + b"\n"


def _error(request: Request, status: int, message: str, field: str | None = None) -> bytes:
    request.setResponseCode(status)
    return _answer(request, {"error": {"message": message, "field": field}})
