"""The HTTP control port: a JSON API to order, watch and cancel jobs."""

import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from itertools import islice
from typing import Any, BinaryIO, Protocol, cast

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request

import mu
from mu.access import Access, Rights
from mu.aws.s3 import EMBEDDED_BUCKET, S3Error, S3Place
from mu.blobs import PIECE, BlobError, Blobs
from mu.config import Config
from mu.control_logs import LogRequests, ReadLog, having, inputs_gone
from mu.home import Tokens
from mu.in_thread import InThread
from mu.jobs.body import read_body
from mu.jobs.book import JobBook, PastJob
from mu.jobs.ends import ends_of
from mu.jobs.failed_inputs import actors_with, by_reason
from mu.jobs.job import Job
from mu.jobs.life import SHOWN
from mu.jobs.orders import digest, read_order, refuse_unreachable, rerun_of
from mu.jobs.preview import PlanError
from mu.jobs.rerun import EarlierJob, NoRerun
from mu.jobs.spec import EXTERNAL, JobSpec
from mu.jobs.summary import COUNTED, JSON
from mu.jobs.timelines import NoTimeline, Timelines
from mu.journal.records import Planned
from mu.net.requests import (
    Refusal,
    answer,
    argument,
    bearer_of,
    error_answer,
    idempotency_key,
    one_of,
    page_of,
    route_of,
    seconds,
    takes_gzip,
    whole_number,
)
from mu.net.web import PacedResponse
from mu.page.feed import Feeds
from mu.page.files import PageFile
from mu.parameters import RESTART, FieldError, Parameter, Params, read_fields
from mu.plugins import Pipeline
from mu.registry import Registry

STATES = tuple(dict.fromkeys(SHOWN.values()))
"""The states of jobs as users see them."""


class Starter(Protocol):
    """Carries out orders (a mu.jobs.conductor.Conductor)."""

    async def earlier(self, job_id: str) -> EarlierJob: ...
    async def plan_rerun(self, spec: JobSpec, earlier: EarlierJob) -> Planned: ...
    def start(self, spec: JobSpec, plan: Planned | None = None) -> Deferred[Job]: ...
    def recorded(self, job: Job) -> Deferred[None]: ...
    def event(self, job: Job) -> JSON: ...
    def cancel(self, job: Job) -> Deferred[None]: ...
    def preview(self, spec: JobSpec, plan: Planned | None) -> Coroutine[Any, Any, JSON]: ...

    @property
    def stopping(self) -> bool: ...
    @property
    def timelines(self) -> Timelines: ...


class FindBucket(Protocol):
    """Says where a bucket is, and starts the embedded S3 server for its own. Raises S3Error."""

    def __call__(self, bucket: str) -> Coroutine[Any, Any, S3Place]: ...


"""Makes a call in a thread, and returns its result."""

Examine = Callable[[Mapping[str, object]], Deferred[list[JSON]]]
"""Makes the checks that a request asks for, and returns the findings. Fails with FieldError."""


Scrape = Callable[[str], tuple[bytes, str]]
"""Returns the metrics in the format for an Accept header, and their content type."""


class Control:
    """The routes. All but /health and the page's files require `Authorization: Bearer <token>`."""

    log = Logger()
    app: Any = Klein()

    def __init__(
        self,
        config: Config,
        access: Access,
        book: JobBook,
        registry: Registry,
        starter: Starter,
        read_log: ReadLog,
        in_thread: InThread,
        engines: Collection[str],
        find_bucket: FindBucket,
        examine: Examine,
        scrape: Scrape,
        feeds: Feeds,
        page: Mapping[str, PageFile],
        clock: IReactorTime,
        blobs: Blobs,
    ) -> None:
        self._config = config
        self._access = access
        self._book = book
        self._registry = registry
        self._starter = starter
        self._in_thread = in_thread
        self._logs = LogRequests(read_log, in_thread)
        self._engines = engines
        self._find_bucket = find_bucket
        self._examine = examine
        self._scrape = scrape
        self._feeds = feeds
        self._page = page
        self._clock = clock
        self._blobs = blobs

    def reload(self, config: Config, tokens: Tokens) -> None:
        """Use these for all requests from now on."""
        self._config = config
        if self._access.reload(config.control, tokens):
            self._feeds.drop()  # who comes back has to have a right to

    # ------------------------------------------------ the page

    @app.route("/", methods=["GET"])
    def index(self, request: Request) -> bytes:
        return self._page["index.html"].render(request)

    @app.route("/page/<name>", methods=["GET"])
    def page_file(self, request: Request, name: str) -> bytes:
        if name not in self._page:
            raise Refusal(404, f"the page has no file {name!r:.200}")
        return self._page[name].render(request)

    @app.route("/codes", methods=["POST"])
    def new_code(self, request: Request) -> bytes:
        """Return a code for a browser, which allows what the token of this request does, or less."""
        rights = self._access.of_token(bearer_of(request))
        if rights is None:
            raise self._unknown(request, "a session may not open others; ")
        read_only = self._read_body(
            request, Parameter("read_only", bool, "whether the session may only read", False)
        ).read_only
        code = self._access.new_code(Rights.READ if read_only else rights, rights)
        request.setResponseCode(201)
        return answer(request, {"code": code, "valid_s": self._config.control.code_s})

    @app.route("/sessions", methods=["POST"])
    def new_session(self, request: Request) -> bytes:
        """Exchange a code for a session."""
        asked = self._read_body(request, Parameter("code", str, "the code in the link of mu open"))
        session = self._access.exchange(asked.code)
        if session is None:
            valid_s = self._config.control.code_s
            raise Refusal(
                403,
                f"this link was used already, or is older than {valid_s:g} s: run mu open again",
                "code",
            )
        request.setResponseCode(201)
        told = {"session": session.bearer, "read_only": session.rights is Rights.READ}
        return answer(request, told | {"expires": session.expires})

    def _read_body(self, request: Request, *fields: Parameter) -> Params:
        """Return the fields of a request's body. Raises FieldError."""
        assert request.content is not None
        body = read_body(request.content.read(), self._config.control.max_depth)
        return read_fields(fields, body, known="fields")

    # ------------------------------------------------ the API

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        return answer(request, {"status": "ok", "version": mu.__version__})

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> bytes:
        self._authorize(request)
        told, content_type = self._scrape(request.getHeader("accept") or "")
        request.setHeader("Content-Type", content_type)
        return told

    @app.route("/pipelines", methods=["GET"])
    def pipelines(self, request: Request) -> bytes:
        self._authorize(request)
        known = sorted(self._registry.pipelines.items())
        told = [self._describe(pipeline) for _, pipeline in known]
        broken = [
            {"name": broken.name, "owner": broken.owner, "error": broken.reason}
            for broken in self._registry.broken
        ]
        return answer(request, told + broken)

    @app.route("/pipelines/<name>", methods=["GET"])
    def pipeline(self, request: Request, name: str) -> bytes:
        self._authorize(request)
        if name not in self._registry.pipelines:
            raise Refusal(
                404,
                f"there is no pipeline {name!r:.200}; GET /pipelines lists them; {RESTART}",
            )
        return answer(request, self._describe(self._registry.pipelines[name]))

    def _describe(self, pipeline: Pipeline) -> JSON:
        return pipeline_json(pipeline, self._registry.warnings.get(pipeline.name, []))

    @app.route("/s3", methods=["POST"])
    async def s3(self, request: Request) -> bytes:
        """Say where a bucket is, or the one for files; the embedded server is started for its own."""
        self._authorize(request)
        name = self._config.s3.bucket
        fields = (
            Parameter("bucket", str, "the bucket", EMBEDDED_BUCKET if name == "none" else name),
            Parameter("engine", str, "the workers' engine", self._config.launch.engine),
        )
        asked = self._read_body(request, *fields)
        bucket, engine = asked.bucket, asked.engine
        if not bucket:
            raise Refusal(400, "bucket must be the name of a bucket, got ''", "bucket")
        if engine not in self._engines:
            names = ", ".join(sorted(self._engines))
            said = f"unknown engine {engine!r:.200}; the engines are {names}"
            raise Refusal(400, said, "engine")
        refuse_unreachable(bucket, engine, "bucket")
        try:
            place = await self._find_bucket(bucket)
        except S3Error as error:
            raise Refusal(409, str(error)) from None
        told = {"bucket": bucket, "engine": engine, "embedded": place.embedded}
        told |= {"endpoint": place.endpoint or None, "region": place.region or None}
        told |= {"addressing": place.addressing, "profile": place.profile or None}
        return answer(request, told)

    @app.route("/plan", methods=["POST"])
    async def plan(self, request: Request) -> bytes:
        """Say what an order would start, and start nothing."""
        self._authorize(request)
        assert request.content is not None
        spec, plan = await self._read_order(request.content.read(), "")
        try:
            return answer(request, await self._starter.preview(spec, plan))
        except PlanError as error:
            raise Refusal(409, str(error)) from None

    @app.route("/check", methods=["POST"])
    async def check(self, request: Request) -> bytes:
        """Check an order, and neither plan nor start it."""
        self._authorize(request)
        assert request.content is not None
        await self._read_order(request.content.read(), "")
        request.setResponseCode(204)
        return b""

    @app.route("/jobs", methods=["POST"])
    async def start(self, request: Request) -> bytes:
        self._authorize(request)
        assert request.content is not None
        body = request.content.read()
        key = idempotency_key(request)
        job = self._book.with_key(key) if key else None
        if job is None:
            spec, plan = await self._read_order(body, key)
            job = self._book.with_key(key) if key else None  # if it was ordered meanwhile
        if job is None:
            if self._starter.stopping:
                raise Refusal(503, "the daemon is stopping; try again after its restart")
            job = await self._starter.start(spec, plan)
            request.setResponseCode(201)
        elif job.digest != digest(body):
            raise Refusal(
                409, f"Idempotency-Key {key!r:.200} was used for another order, job {job.id}"
            )
        elif isinstance(job, Job):
            await self._starter.recorded(job)
        request.setHeader("Location", f"/jobs/{job.id}")
        told = job.describe()
        if isinstance(job, Job) and job.spec.engine == EXTERNAL and not job.ended:
            told["event"] = self._starter.event(job)
        return answer(request, told)

    async def _read_order(self, body: bytes, key: str) -> tuple[JobSpec, Planned | None]:
        """Return the order, and the plan of a rerun. Raises FieldError and NoRerun."""
        pipelines, engines = self._registry.pipelines, self._engines
        old = rerun_of(body, self._config)
        if not old:
            spec = read_order(
                body, self._config, pipelines, engines, key, plugged=self._registry.engines
            )
            self._refuse_unsigned(spec)
            return spec, None
        earlier = await self._starter.earlier(old)
        spec = read_order(
            body, self._config, pipelines, engines, key, earlier.order, self._registry.engines
        )
        self._refuse_unsigned(spec)
        return spec, await self._starter.plan_rerun(spec, earlier)

    def _refuse_unsigned(self, spec: JobSpec) -> None:
        """Raise FieldError if the order's notification could not be signed."""
        if spec.notify_url and self._config.notify.secret == "none":
            raise FieldError(
                "notify_url",
                "notify_url needs [notify] secret in mu.conf, which signs the requests",
            )

    @app.route("/jobs", methods=["GET"])
    def jobs(self, request: Request) -> bytes:
        self._authorize(request)
        jobs = [job for job in self._book.all() if job.recorded]
        limit, after = page_of(request)
        name, state = argument(request, "name"), one_of(request, "state", STATES)
        if after:
            ids = [job.id for job in jobs]
            if after not in ids:
                raise Refusal(400, f"after must be the id of a job, got {after!r:.200}", "after")
            jobs = jobs[ids.index(after) + 1 :]
        if name is not None:
            jobs = [job for job in jobs if job.name == name]
        if state is not None:
            jobs = [job for job in jobs if job.state == state]
        last = argument(request, "last")
        if last is not None:
            jobs = jobs[max(0, len(jobs) - whole_number(last, "last")) :]
        return answer(request, [job.describe() for job in jobs[:limit]])

    @app.route("/jobs/<job_id>", methods=["GET"])
    def job(self, request: Request, job_id: str) -> bytes:
        self._authorize(request)
        return answer(request, self._find(job_id).describe())

    @app.route("/jobs/<job_id>", methods=["DELETE"])
    async def cancel(self, request: Request, job_id: str) -> bytes:
        self._authorize(request)
        job = self._find(job_id)
        if isinstance(job, Job):
            await self._starter.cancel(job)
        return answer(request, job.describe())

    @app.route("/jobs/<job_id>/overview", methods=["GET"])
    def overview(self, request: Request, job_id: str) -> bytes:
        """Return the job, and what its actors wait for, all at the same moment."""
        self._authorize(request)
        return answer(request, self._find(job_id).overview())

    @app.route("/jobs/<job_id>/events", methods=["GET"])
    async def events(self, request: Request, job_id: str) -> bytes:
        """Send the job's changes as server-sent events, until it has ended."""
        self._authorize(request)
        job = self._find(job_id)
        config = self._config.control
        most = config.max_viewers
        if len(self._feeds) >= most:
            raise Refusal(503, f"there are {most} viewers, and [control] max_viewers is {most}")
        until = self._access.until(bearer_of(request))
        await self._feeds.watch(job, request, config.slow_viewer_s, until)
        return b""

    @app.route("/jobs/<job_id>/workers", methods=["GET"])
    def workers(self, request: Request, job_id: str) -> bytes:
        self._authorize(request)
        job = self._find(job_id)
        limit, after = page_of(request)
        workers = job.workers_after(whole_number(after, "after") if after else -1)
        key = argument(request, "key")
        if key is not None:
            chosen = {actor.number for actor in having(job, key)[1]}
            workers = (worker for worker in workers if worker["actor"] in chosen)
        state = one_of(request, "state", COUNTED)
        if state is not None:
            workers = (worker for worker in workers if worker["state"] == state)
        return answer(request, list(islice(workers, limit)))

    @app.route("/jobs/<job_id>/results", methods=["GET"])
    async def results(self, request: Request, job_id: str) -> bytes:
        """Return how actors ended, in this order; with `wait`, once there is one, or the job ends."""
        self._authorize(request)
        job = self._find(job_id)
        limit, given = page_of(request)
        after = whole_number(given, "after") if given else 0
        wait_s = seconds(argument(request, "wait") or "0", "wait")
        if not isinstance(job, Job):
            return answer(request, ends_of(job.workers())[after:][:limit])
        found = job.ends.after(after, limit)
        deadline = self._clock.seconds() + min(wait_s, self._config.control.longest_wait_s)
        while not (found or job.ended) and (left := deadline - self._clock.seconds()) > 0:
            with contextlib.suppress(TookTooLong):
                await job.ends.next().addTimeout(left, self._clock)
            found = job.ends.after(after, limit)
        return answer(request, found)

    @app.route("/jobs/<job_id>/failures", methods=["GET"])
    async def failures(self, request: Request, job_id: str) -> bytes:
        """Return which inputs failed of actors that are done, grouped by the reason."""
        self._authorize(request)
        job = self._find(job_id)
        if isinstance(job, Job):
            results = [(one.number, one.result) for one in job.actors if one.state == "done"]
        else:
            results = [(one["actor"], one["result"]) for one in job.workers() if not one["error"]]
        name = job.describe()["pipeline"]
        pipeline = self._registry.pipelines.get(name)
        if pipeline is None:
            return answer(request, [])
        told = [(number, result) for number, result in results if result is not None]
        try:
            found = await self._in_thread(by_reason, told, pipeline.failed_inputs)
        except Exception as error:  # the code of a plugin
            raise Refusal(500, f"failed_inputs of pipeline {name} failed: {error!r:.500}") from None
        return answer(request, found)

    @app.route("/jobs/<job_id>/inputs", methods=["GET"])
    async def inputs(self, request: Request, job_id: str) -> bytes:
        """Return the numbers of the actors that have an input with `part` in its name."""
        self._authorize(request)
        job = self._find(job_id)
        part = argument(request, "part")
        if not part:
            raise Refusal(400, "part must be a part of an input's name, got none", "part")
        if not isinstance(job, Job):
            raise inputs_gone(job)
        given = [(actor.number, actor.input) for actor in job.actors]
        found = await self._in_thread(actors_with, given, job.spec.pipeline.inputs, part)
        return answer(request, found)

    @app.route("/jobs/<job_id>/timeline", methods=["GET"])
    async def timeline(self, request: Request, job_id: str) -> bytes:
        """Return what each actor did, and when; with `detail=commands`, each of its commands."""
        self._authorize(request)
        job = self._find(job_id)
        detail = one_of(request, "detail", ("states", "commands"))
        limit, after = page_of(request)
        last = whole_number(after, "after") if after else None
        packed = takes_gzip(request)
        told = await self._starter.timelines.read(job, last, limit, detail == "commands", packed)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Vary", "Accept-Encoding")
        if packed:
            request.setHeader("Content-Encoding", "gzip")
        return told

    @app.route("/jobs/<job_id>/log", methods=["GET"])
    async def output(self, request: Request, job_id: str) -> bytes:
        """Return what commands printed, as plain text: for one actor, or for all with headings.

        For one actor, `after=N` skips the log's first N bytes; the header Mu-Log-End says where the next
        part begins, and Mu-Log-Begin where this one did. `key`, an input's name or an unambiguous part
        of it, and `attempt` select the output of an input or an attempt; with `names=1`, each line
        begins with the name of its input, and with `times=1`, with its time.
        """
        self._authorize(request)
        return await self._logs.answer(request, self._find(job_id))

    @app.route("/blobs/<digest>", methods=["PUT"])
    async def put_blob(self, request: Request, digest: str) -> bytes:
        """Keep the body under its SHA-256."""
        self._authorize(request)
        try:
            if self._blobs.size(digest) is None:
                body = cast(BinaryIO, request.content)
                await self._in_thread(self._blobs.put, digest, body)
        except BlobError as error:
            raise Refusal(400, str(error), "digest") from None
        request.setResponseCode(204)
        return b""

    @app.route("/blobs/<digest>", methods=["GET"])
    async def blob(self, request: Request, digest: str) -> bytes:
        """Return a blob, or with HEAD whether it is there."""
        self._authorize(request)
        try:
            size = self._blobs.size(digest)
            if size is None:
                raise Refusal(404, f"there is no blob {digest}")
            request.setHeader("Content-Type", "application/octet-stream")
            if request.method == b"HEAD":
                request.setHeader("Content-Length", str(size))
                return b""
            file = self._blobs.open(digest)
        except BlobError as error:
            raise Refusal(400, str(error), "digest") from None
        request.setHeader("Content-Length", str(size))
        paced = PacedResponse(request)
        with file:
            while (piece := file.read(PIECE)) and await paced.write(piece):
                pass
        paced.end()
        return b""

    def most_of_body(self, method: bytes, path: bytes, bearer: bytes) -> int:
        """Return how large a body may be of those who may send blobs; 0: no larger than others."""
        if method != b"PUT" or not path.startswith(b"/blobs/"):
            return 0
        allowed = self._access.of(bearer.removeprefix(b"Bearer ")) not in (None, Rights.READ)
        return self._config.blobs.max_bytes if allowed else 0

    @app.route("/doctor", methods=["POST"])
    async def doctor(self, request: Request) -> bytes:
        """Return the findings of `mu doctor`, made in this process and with its credentials."""
        self._authorize(request)
        assert request.content is not None
        given = read_body(request.content.read(), self._config.control.max_depth)
        return answer(request, await self._examine(given))

    # ------------------------------------------------ errors

    @app.handle_errors(Refusal)
    def refused(self, request: Request, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, Refusal)
        return error_answer(request, error.status, str(error), error.field)

    @app.handle_errors(NoTimeline)
    def no_timeline(self, request: Request, failure: Failure) -> bytes:
        return error_answer(request, 404, failure.getErrorMessage())

    @app.handle_errors(NoRerun)
    def no_rerun(self, request: Request, failure: Failure) -> bytes:
        return error_answer(request, 409, failure.getErrorMessage(), "rerun")

    @app.handle_errors(FieldError)
    def bad_field(self, request: Request, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, FieldError)
        return error_answer(request, 400, str(error), error.field or None)

    @app.handle_errors
    def broken(self, request: Request, failure: Failure) -> bytes:
        status = getattr(failure.value, "code", None)  # set by werkzeug: unknown path or method
        if isinstance(status, int) and 400 <= status < 500:
            return error_answer(request, status, f"there is no {route_of(request):.200}")
        self.log.failure("control: {asked}", failure, asked=route_of(request))
        return error_answer(request, 500, "a fault in mu; see its log for more")

    # ------------------------------------------------ inside

    def _authorize(self, request: Request) -> None:
        """Raise Refusal unless the request has the control token, or only reads, or a session."""
        rights = self._access.of(bearer_of(request))
        if rights is None:
            raise self._unknown(request)
        if rights is Rights.READ and request.method != b"GET":
            home = self._config.home
            raise Refusal(
                403,
                f"the token in {home}/read-token may only read; for {route_of(request):.200} send the"
                f" one in {home}/token",
            )

    def _unknown(self, request: Request, why: str = "") -> Refusal:
        request.setHeader("WWW-Authenticate", "Bearer")
        home = self._config.home
        return Refusal(401, f"{why}send Authorization: Bearer <the content of {home}/token>")

    def _find(self, job_id: str) -> Job | PastJob:
        job = self._book.get(job_id)
        if job is None or not job.recorded:
            raise Refusal(404, f"there is no job {job_id!r:.200}; GET /jobs lists them")
        return job


def pipeline_json(pipeline: Pipeline, warnings: Sequence[str] = ()) -> JSON:
    """Return a pipeline's JSON for users."""
    return {
        "name": pipeline.name,
        "description": pipeline.description,
        "parameters": [parameter.describe() for parameter in pipeline.parameters],
        "warnings": list(warnings),
    }
