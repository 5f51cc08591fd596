"""The engine's HTTP side: which path is which operation, who may ask, and the daemon's own path."""

import json
import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from mu.engines.local.calls import NO_ANSWER, Call, LambdaCalls, Reply
from mu.engines.local.errors import Refused, too_large
from mu.engines.local.faults import BadDays

_SCOPE = re.compile(r"AWS4-HMAC-SHA256 .*Credential=([^,/]+)/\d+/([a-z0-9-]+)/lambda/")
_NAMED = r"/2015-03-31/functions/([^/]+)"
UPLOAD_LIMIT = 70_167_211
Operation = Callable[[Call], Reply | Deferred[Reply]]


def routes(calls: LambdaCalls) -> list[tuple[str, re.Pattern[str], Operation]]:
    every = r"/2015-03-31/functions/?"
    event_config = r"/2019-09-25/functions/([^/]+)/event-invoke-config"
    reserved = r"/2017-10-31/functions/([^/]+)/concurrency"
    table: list[tuple[str, str, Operation]] = [
        ("POST", f"{_NAMED}/invocations", calls.invoke),
        ("GET", f"{_NAMED}/configuration", calls.get_configuration),
        ("GET", _NAMED, calls.get),
        ("POST", every, calls.create),
        ("GET", every, calls.list_all),
        ("PUT", f"{_NAMED}/code", calls.update_code),
        ("PUT", f"{_NAMED}/configuration", calls.update_configuration),
        ("DELETE", _NAMED, calls.delete),
        ("PUT", event_config, calls.put_invoke_config),
        ("POST", event_config, calls.update_invoke_config),
        ("GET", event_config, calls.get_invoke_config),
        ("DELETE", event_config, calls.delete_invoke_config),
        ("PUT", reserved, calls.put_concurrency),
        ("GET", r"/2019-09-30/functions/([^/]+)/concurrency", calls.get_concurrency),
        ("DELETE", reserved, calls.delete_concurrency),
    ]
    return [(method, re.compile(path), operation) for method, path, operation in table]


@implementer(IResource)
class LambdaResource:
    """All paths. `touched` is called for each request; `attached` with each daemon's connection.

    GET /mu/<engine id> answers with the first line of what the engine says of itself, and then
    stays open for as long as the daemon lives.
    """

    isLeaf = True
    server = None
    log = Logger()

    def __init__(
        self,
        calls: LambdaCalls,
        engine: dict[str, Any],
        touched: Callable[[], None],
        attached: Callable[[Deferred[None]], None],
        bad_days: BadDays,
    ) -> None:
        self._routes = routes(calls)
        self._engine, self._touched, self._attached = engine, touched, attached
        self._bad_days = bad_days

    def getChildWithDefault(self, name: bytes, request: Request) -> "LambdaResource":
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        raise NotImplementedError

    def render(self, request: Request) -> int:
        path = request.path.decode("ascii", "replace")
        if path == f"/mu/{self._engine['id']}":
            self._attach(request)
            return NOT_DONE_YET
        self._touched()
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        replying = maybeDeferred(self._dispatch, request, path).addErrback(self._refusal)

        def answer(reply: Reply) -> None:
            if reply is NO_ANSWER:
                request.loseConnection()
            elif not gone:
                send(request, reply)

        def failed(failure: Failure) -> None:
            self.log.failure("cannot answer {path}", failure, path=path)

        replying.addCallback(answer).addErrback(failed)  # type: ignore[call-overload]
        return NOT_DONE_YET

    def _attach(self, request: Request) -> None:
        request.setHeader("Content-Type", "application/json")
        request.write(json.dumps(self._engine).encode() + b"\n")
        self._attached(request.notifyFinish())

    def _dispatch(self, request: Request, path: str) -> Reply | Deferred[Reply]:
        key, region = signer_of(request)
        self._bad_days.admit(key, region)
        if getattr(request, "too_large", False):
            raise too_large(UPLOAD_LIMIT)
        method = request.method.decode()
        for wanted, pattern, operation in self._routes:
            match = pattern.fullmatch(path) if wanted == method else None
            if match is not None:
                name = unquote(match[1]) if pattern.groups else ""
                return operation(_call(request, name, region))
        message = f"This endpoint has no {method} {path}"
        raise Refused(404, "UnknownOperationException", message)

    def _refusal(self, failure: Failure) -> Reply:
        refused = failure.value
        if isinstance(refused, Refused):
            return Reply(refused.status, refused.body, refused.headers)
        self.log.failure("the engine failed", failure)
        fault = Refused(500, "ServiceException", f"The engine failed: {failure.value!r}")
        return Reply(500, fault.body, fault.headers)


def signer_of(request: Request) -> tuple[str, str]:
    """Return the access key and the region of the signature; refuse what no AWS client has signed.

    The signature itself is not checked: the port is open to this machine only. What is to be kept
    out is a web page in the user's browser, which cannot send this header elsewhere unasked, and
    names itself by Origin.
    """
    match = _SCOPE.match(request.getHeader("Authorization") or "")
    if match is None:
        raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    if request.getHeader("Origin") is not None:
        raise Refused(403, "AccessDeniedException", "Web pages may not use this endpoint")
    return match[1], match[2]


def _call(request: Request, name: str, region: str) -> Call:
    def header(wanted: str) -> str:
        return request.getHeader(wanted) or ""

    versions = request.args.get(b"Qualifier", [b""])
    version = versions[0].decode("ascii", "replace")
    content = request.content
    return Call(name, region, content.read() if content else b"", header, version)


def send(request: Request, reply: Reply) -> None:
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": str(uuid.uuid4())}
    for name, value in {**headers, **reply.headers}.items():
        request.setHeader(name, value)
    request.setResponseCode(reply.status)
    if reply.status != 204:
        request.setHeader("Content-Length", str(len(reply.body)))
    if reply.body:
        request.write(reply.body)
    request.finish()


class BoundedRequest(Request):
    """Keeps no more of a body than is allowed; the rest is read, so that the refusal is, too."""

    too_large = False

    def handleContentChunk(self, data: bytes) -> None:
        content: Any = self.content
        if not self.too_large and content.tell() + len(data) > UPLOAD_LIMIT:
            self.too_large = True
            content.truncate(0)
        if not self.too_large:
            super().handleContentChunk(data)


class QuietSite(Site):
    """A site without an access log: it would be a line for each of thousands of launches."""

    noisy = False
    requestFactory = BoundedRequest

    def log(self, request: Any) -> None:
        return
