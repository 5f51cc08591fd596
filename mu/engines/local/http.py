"""The engine's HTTP server: routes, access control, and the path on which daemons attach."""

import hmac
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import IO
from urllib.parse import unquote

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from mu.engines.local.endings import Endings
from mu.engines.local.errors import LambdaError, too_large
from mu.engines.local.faults import FaultInjector
from mu.engines.local.operations import NO_ANSWER, ApiCall, ApiResponse, LambdaOperations
from mu.engines.local.signatures import Verifier, read_signature
from mu.net.host_headers import AllowedHosts

_NAMED = r"/2015-03-31/functions/([^/]+)"
UPLOAD_LIMIT = 70_167_211
Operation = Callable[[ApiCall], ApiResponse | Deferred[ApiResponse]]


def routes(calls: LambdaOperations) -> list[tuple[str, re.Pattern[str], Operation]]:
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
        ("GET", r"/2016-08-19/account-settings/?", calls.get_account_settings),
    ]
    return [(method, re.compile(path), operation) for method, path, operation in table]


@implementer(IResource)
class LambdaResource:
    """Serves all paths.

    A daemon attaches with GET /mu/<engine id>: the response starts with one line, `engine` in
    JSON, and stays open as long as the daemon lives, with a line for each launch that ends. `attached` is called with a Deferred that
    fires when the daemon's connection is lost; `touched` is called for every other request that is
    signed with the key of this home. GET /mu/<engine id>/s3 starts the embedded S3 server with
    `start_s3`, and returns its port.
    """

    isLeaf = True
    server = None
    log = Logger()

    def __init__(
        self,
        calls: LambdaOperations,
        engine: Mapping[str, object],
        touched: Callable[[], None],
        attached: Callable[[Deferred[None]], None],
        start_s3: Callable[[], Deferred[int]],
        faults: FaultInjector,
        verifier: Verifier,
        hosts: AllowedHosts,
        endings: Endings,
    ) -> None:
        self._endings = endings
        self._routes = routes(calls)
        self._engine, self._touched, self._attached = engine, touched, attached
        self._start_s3 = start_s3
        self._faults, self._verifier, self._hosts = faults, verifier, hosts

    def getChildWithDefault(self, name: bytes, request: Request) -> "LambdaResource":
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        raise NotImplementedError

    def render(self, request: Request) -> int:
        path = request.path.decode("ascii", "replace")
        if hmac.compare_digest(request.path, f"/mu/{self._engine['id']}".encode()):
            self._attach(request)
            return NOT_DONE_YET
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        responding = maybeDeferred(self._dispatch, request, path).addErrback(self._error)

        def respond(response: ApiResponse) -> None:
            if response is NO_ANSWER:
                request.loseConnection()
            elif not gone:
                send(request, response)

        def failed(failure: Failure) -> None:
            self.log.failure("cannot respond to {path}", failure, path=path)

        responding.addCallback(respond).addErrback(failed)  # type: ignore[call-overload]
        return NOT_DONE_YET

    def _attach(self, request: Request) -> None:
        request.setHeader("Content-Type", "application/json")
        request.write(json.dumps(self._engine).encode() + b"\n")
        self._endings.attach(request)
        gone = request.notifyFinish()
        gone.addBoth(lambda _: self._endings.detach(request))
        self._attached(gone)

    def _dispatch(self, request: Request, path: str) -> ApiResponse | Deferred[ApiResponse]:
        if hmac.compare_digest(request.path, f"/mu/{self._engine['id']}/s3".encode()):
            return self._start_s3().addCallbacks(_port, _no_port)
        for host in _values(request, "host"):
            if host not in self._hosts:
                why = f"Host must be an IP address, localhost or an allowed host, got {host!r:.200}"
                raise LambdaError(403, "AccessDeniedException", why)
        if _values(request, "origin"):
            raise LambdaError(403, "AccessDeniedException", "Web pages may not use this endpoint")
        signature = read_signature(",".join(_values(request, "authorization")))
        if getattr(request, "too_large", False):
            raise too_large(UPLOAD_LIMIT)
        method, region = request.method.decode("ascii", "replace"), signature.region
        body = request.content.read() if request.content else b""
        names = [
            name.decode("latin-1").lower() for name, _ in request.requestHeaders.getAllRawHeaders()
        ]
        uri = request.uri.decode("utf-8", "surrogateescape")

        def header(name: str) -> list[str]:
            return _values(request, name)

        self._verifier.verify(signature, method, uri, names, header, body)
        self._touched()
        # Several temporary credentials share an access key, and have a token each.
        key = "/".join((signature.access_key, *_values(request, "x-amz-security-token")))
        self._faults.admit(key, region, time.time())
        for wanted, pattern, operation in self._routes:
            match = pattern.fullmatch(path) if wanted == method else None
            if match is not None:
                name = unquote(match[1]) if pattern.groups else ""
                return operation(_call(request, name, region, body))
        message = f"This endpoint has no {method} {path}"
        raise LambdaError(404, "UnknownOperationException", message)

    def _error(self, failure: Failure) -> ApiResponse:
        error = failure.value
        if not isinstance(error, LambdaError):
            self.log.failure("the engine failed", failure)
            error = LambdaError(500, "ServiceException", f"The engine failed: {error!r}")
        return ApiResponse(error.status, error.body, error.headers)


def _port(port: int) -> ApiResponse:
    return ApiResponse(200, json.dumps({"port": port}).encode())


def _no_port(failure: Failure) -> ApiResponse:
    return ApiResponse(503, json.dumps({"error": failure.getErrorMessage()}).encode())


def _values(request: Request, header: str) -> list[str]:
    """Return the values of a header, whatever bytes they have."""
    values = request.requestHeaders.getRawHeaders(header.encode("latin-1"), [])
    return [value.decode("utf-8", "surrogateescape") for value in values]


def _call(request: Request, name: str, region: str, body: bytes) -> ApiCall:
    def header(wanted: str) -> str:
        return request.getHeader(wanted) or ""

    versions = request.args.get(b"Qualifier", [b""])
    version = versions[0].decode("ascii", "replace")
    return ApiCall(name, region, body, header, version)


def send(request: Request, response: ApiResponse) -> None:
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": str(uuid.uuid4())}
    for name, value in {**headers, **response.headers}.items():
        request.setHeader(name, value)
    request.setResponseCode(response.status)
    if response.status != 204:
        request.setHeader("Content-Length", str(len(response.body)))
    if response.body:
        request.write(response.body)
    request.finish()


class DrainingRequest(Request):
    """Reads a body that is too large to its end and drops it, so that the client sees the error."""

    content: IO[bytes]
    too_large = False

    def handleContentChunk(self, data: bytes) -> None:
        if not self.too_large and self.content.tell() + len(data) > UPLOAD_LIMIT:
            self.too_large = True
            self.content.truncate(0)
        if not self.too_large:
            super().handleContentChunk(data)


class QuietSite(Site):
    """A site without an access log, which would get a line for each of thousands of launches."""

    noisy = False
    requestFactory = DrainingRequest

    def log(self, request: object) -> None:
        pass
