"""The operations of the Lambda API: each takes a Call and returns a Reply, or a Deferred of one.

Names, limits, statuses and the wording of refusals are AWS's (its API reference, and answers seen).
One store serves every region: an ARN names the region that was asked.
"""

import base64
import json
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThreadPool

from mu.engines.local.errors import Refused, conflict, invalid, no_such, too_many
from mu.engines.local.functions import Function, FunctionStore, arn_of
from mu.engines.local.pool import Outcome, SandboxPool
from mu.engines.local.settings import changed, number, text

UPLOAD_LIMIT = 70_167_211
LIMITS = {"Event": 2**20, "RequestResponse": 6 * 2**20, "DryRun": 6 * 2**20}
TAIL_BYTES = 4096
_NAME = re.compile(
    r"(?:arn:aws:lambda:(?P<region>[a-z0-9-]+):)?(?:\d{12}:)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_-]{1,64})(?::(?P<version>[$a-zA-Z0-9_-]+))?"
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request; `name` is what stands for the function in its path, unquoted."""

    name: str
    region: str
    body: bytes
    headers: Callable[[str], str]
    version: str = ""

    def target(self) -> tuple[str, str]:
        """Return the name and region of the function that is meant."""
        match = _NAME.fullmatch(self.name)
        if match is None:
            raise Refused(400, "ValidationException", f"'{self.name}' names no function")
        region = match["region"] or self.region
        if (match["version"] or self.version or "$LATEST") != "$LATEST":
            raise no_such(f"{arn_of(match['name'], region)}:{match['version'] or self.version}")
        return match["name"], region

    def fields(self) -> dict[str, Any]:
        try:
            found = json.loads(self.body or b"{}")
        except ValueError as error:
            message = f"Could not parse request body into json: {error}"
            raise Refused(400, "InvalidRequestContentException", message) from error
        if not isinstance(found, dict):
            message = "Could not parse request body into json: an object is expected"
            raise Refused(400, "InvalidRequestContentException", message)
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, told: dict[str, Any]) -> "Reply":
        return cls(status, json.dumps(told).encode())


class LambdaCalls:
    """The functions and their invocations; at most `concurrency` run at a time."""

    def __init__(
        self, reactor: Any, store: FunctionStore, pool: SandboxPool, concurrency: int
    ) -> None:
        self._reactor, self._store, self._pool = reactor, store, pool
        self._concurrency = concurrency
        self._busy: set[str] = set()
        pool.on_code_unused = self._remove_old_code

    def create(self, call: Call) -> Deferred[Reply]:
        fields = call.fields()
        name, region = replace(call, name=text(fields, "FunctionName", "")).target()
        if name in self._store.functions:
            raise conflict(f"Function already exist: {name}")
        if not fields.get("Handler"):
            raise invalid("Handler must not be empty")
        function = changed(Function(name, ""), fields)
        zipped = _zip_of(call, fields.get("Code") or {})
        return self._install(function, zipped, 201, region)

    def get(self, call: Call) -> Reply:
        function, region = self._find(call)
        location = (self._store.folder / function.name / "code.zip").as_uri()
        return Reply.of(
            200,
            {
                "Configuration": function.configuration(region),
                "Code": {"RepositoryType": "S3", "Location": location},
                "Tags": {},
                "Concurrency": {},
            },
        )

    def get_configuration(self, call: Call) -> Reply:
        function, region = self._find(call)
        return Reply.of(200, function.configuration(region))

    def list_all(self, call: Call) -> Reply:
        functions = self._store.functions.values()
        return Reply.of(200, {"Functions": [each.configuration(call.region) for each in functions]})

    def update_configuration(self, call: Call) -> Reply:
        function, region = self._find(call)
        self._refuse_busy(function.name)
        function = changed(function, call.fields()).touched()
        self._store.save(function)
        return Reply.of(200, function.configuration(region))

    def update_code(self, call: Call) -> Deferred[Reply] | Reply:
        function, region = self._find(call)
        fields = call.fields()
        zipped = _zip_of(call, fields)
        if fields.get("Architectures"):
            function = replace(function, architectures=tuple(fields["Architectures"]))
        return self._install(function, zipped, 200, region)

    def delete(self, call: Call) -> Reply:
        function, _ = self._find(call)
        self._refuse_busy(function.name)
        self._store.remove(function.name)
        self._remove_old_code(function.name)
        return Reply(204)

    def put_invoke_config(self, call: Call) -> Reply:
        """Kept and told, no more: this engine never runs an event a second time."""
        function, region = self._find(call)
        fields = call.fields()
        if "MaximumRetryAttempts" in fields:
            number(fields, "MaximumRetryAttempts", 2, 0, 2)
        if "MaximumEventAgeInSeconds" in fields:
            number(fields, "MaximumEventAgeInSeconds", 21_600, 60, 21_600)
        function = replace(function, invoke_config=fields).touched()
        self._store.save(function)
        return self._told_invoke_config(function, region)

    def get_invoke_config(self, call: Call) -> Reply:
        function, region = self._find(call)
        if function.invoke_config is None:
            arn = f"{arn_of(function.name, region)}:$LATEST"
            message = f"The function {arn} doesn't have an EventInvokeConfig"
            raise Refused(404, "ResourceNotFoundException", message)
        return self._told_invoke_config(function, region)

    def _told_invoke_config(self, function: Function, region: str) -> Reply:
        arn = f"{arn_of(function.name, region)}:$LATEST"
        told = {"DestinationConfig": {"OnSuccess": {}, "OnFailure": {}}, "FunctionArn": arn}
        config = function.invoke_config or {}
        return Reply.of(200, {**told, **config, "LastModified": self._reactor.seconds()})

    def invoke(self, call: Call) -> Reply | Deferred[Reply]:
        function, region = self._find(call)
        kind = call.headers("X-Amz-Invocation-Type") or "RequestResponse"
        if kind not in LIMITS:
            raise invalid(f"Invocation type '{kind}' is not Event, RequestResponse or DryRun")
        event = _event_of(call.body, kind)
        if kind == "DryRun":
            return Reply(204)
        if self._pool.active >= self._concurrency:
            raise too_many()
        code = self._store.code_of(function)
        request, done = self._pool.invoke(function, code, region, event)
        headers = {"x-amzn-RequestId": request}
        if kind == "Event":
            return Reply(202, b"", headers)
        tail = call.headers("X-Amz-Log-Type") == "Tail"
        return done.addCallback(_answer, headers, tail)

    def _find(self, call: Call) -> tuple[Function, str]:
        name, region = call.target()
        function = self._store.functions.get(name)
        if function is None:
            raise no_such(arn_of(name, region))
        return function, region

    def _refuse_busy(self, name: str) -> None:
        if name in self._busy:
            raise conflict(
                "The operation cannot be performed at this time. An update is in progress for "
                f"resource: {name}"
            )

    @inlineCallbacks
    def _install(
        self, function: Function, zipped: bytes, status: int, region: str
    ) -> Generator[Deferred[Any], Any, Reply]:
        name = function.name
        self._refuse_busy(name)
        self._busy.add(name)
        try:
            threads = self._reactor.getThreadPool()
            unpack = self._store.unpack
            function = yield deferToThreadPool(self._reactor, threads, unpack, function, zipped)
            function = function.touched()
            self._store.save(function)
        finally:
            self._busy.discard(name)
        self._remove_old_code(name)
        return Reply.of(status, function.configuration(region))

    def _remove_old_code(self, name: str) -> None:
        if name not in self._busy:
            self._store.remove_old_code(name, self._pool.codes_in_use)


def _zip_of(call: Call, code: dict[str, Any]) -> bytes:
    if len(call.body) > UPLOAD_LIMIT:
        message = f"Request must be smaller than {UPLOAD_LIMIT} bytes"
        raise Refused(413, "RequestEntityTooLargeException", message)
    if not isinstance(code.get("ZipFile"), str):
        raise invalid("Please provide a source for code: this endpoint takes ZipFile only")
    try:
        return base64.b64decode(code["ZipFile"], validate=True)
    except ValueError as error:
        raise invalid(f"ZipFile is not base64: {error}") from error


def _event_of(body: bytes, kind: str) -> str:
    if len(body) > LIMITS[kind]:
        message = f"{len(body)} byte payload is too large for the {kind} invocation type"
        message += f" (limit {LIMITS[kind]} bytes)"
        raise Refused(413, "RequestTooLargeException", message)
    try:
        event = body.decode() or "{}"
        json.loads(event)
    except ValueError as error:
        message = f"Could not parse request body into json: {error}"
        raise Refused(400, "InvalidRequestContentException", message) from error
    return event


def _answer(outcome: Outcome, headers: dict[str, str], tail: bool) -> Reply:
    headers = {**headers, "X-Amz-Executed-Version": "$LATEST"}
    if outcome.failed:
        headers["X-Amz-Function-Error"] = "Unhandled"
    if tail:
        headers["X-Amz-Log-Result"] = base64.b64encode(_end_of(outcome.log)).decode()
    return Reply(200, outcome.payload, headers)


def _end_of(log: Path) -> bytes:
    try:
        return log.read_bytes()[-TAIL_BYTES:]
    except OSError:
        return b""
