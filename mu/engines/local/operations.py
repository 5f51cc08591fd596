"""The operations of the Lambda API: each takes a ApiCall and returns an ApiResponse, maybe later.

Names, limits, statuses and messages are AWS's, from its API reference and from real responses.
One store serves all regions; an ARN names the region of the request.
"""

import base64
import json
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThreadPool

from mu.aws.limits import EVENT, PAYLOAD
from mu.engines.local.errors import LambdaError, conflict, invalid, no_json, no_such, unfit
from mu.engines.local.faults import FaultInjector
from mu.engines.local.fields import Fields, architectures, number, section, text
from mu.engines.local.functions import Function, arn_of, changed, with_invoke_config
from mu.engines.local.pool import InvocationResult, SandboxPool
from mu.engines.local.queue import InvocationQueue
from mu.engines.local.store import FunctionStore
from mu.engines.reactors import ILocalReactor

LIMITS = {"Event": EVENT.most, "RequestResponse": PAYLOAD.most, "DryRun": PAYLOAD.most}
TAIL_BYTES = 4096
_NAME = re.compile(
    r"(?:arn:aws:lambda:(?P<region>[a-z0-9-]+):)?(?:\d{12}:)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_-]+)(?::(?P<version>[$a-zA-Z0-9_-]+))?"
)


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request; `name` is the function's name or ARN in the path, percent-decoded."""

    name: str
    region: str
    body: bytes
    headers: Callable[[str], str]
    version: str = ""

    def target(self) -> tuple[str, str]:
        """Return the name and region of the function."""
        match = _NAME.fullmatch(self.name)
        if match is None:
            raise unfit("functionName", self.name, f"satisfy pattern: {_NAME.pattern}")
        if len(match["name"]) > 64:
            raise unfit("functionName", self.name, "have length less than or equal to 64")
        region = match["region"] or self.region
        if (match["version"] or self.version or "$LATEST") != "$LATEST":
            raise no_such(f"{arn_of(match['name'], region)}:{match['version'] or self.version}")
        return match["name"], region

    def fields(self) -> Fields:
        """Return the body's JSON object."""
        try:
            fields = json.loads(self.body or b"{}")
        except (ValueError, RecursionError) as error:
            raise no_json(error) from error
        if not isinstance(fields, dict):
            raise no_json("an object is expected")
        return fields


@dataclass(frozen=True, slots=True)
class ApiResponse:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, fields: Fields) -> "ApiResponse":
        return cls(status, json.dumps(fields).encode())


NO_ANSWER = ApiResponse(0)
"""Close the connection without a response."""


class LambdaOperations:
    """All operations on functions and their invocations."""

    def __init__(
        self,
        reactor: ILocalReactor,
        store: FunctionStore,
        pool: SandboxPool,
        invocations: InvocationQueue,
        faults: FaultInjector,
    ) -> None:
        self._reactor, self._store, self._pool = reactor, store, pool
        if store.functions:
            pool.warm_up()
        self._invocations, self._faults = invocations, faults
        self._busy: set[str] = set()
        pool.on_code_unused = self._remove_old_code

    def create(self, call: ApiCall) -> Deferred[ApiResponse]:
        fields = call.fields()
        name, region = replace(call, name=text(fields, "FunctionName", "", 140)).target()
        if name in self._store.functions:
            raise conflict(f"Function already exist: {name}")
        if not fields.get("Handler") or not fields.get("Runtime"):
            raise invalid(
                "Runtime and Handler are mandatory parameters for functions created with deployment"
                " packages."
            )
        function = changed(Function(name), fields)
        zipped = _zip_of(section(fields, "Code"))
        self._pool.warm_up()
        return self._install(function, zipped, 201, region)

    def get(self, call: ApiCall) -> ApiResponse:
        function, region = self._find(call)
        location = (self._store.folder / function.name / "code.zip").as_uri()
        response: dict[str, object] = {
            "Configuration": function.configuration(region),
            "Code": {"RepositoryType": "S3", "Location": location},
        }
        if function.reserved is not None:
            response["Concurrency"] = _concurrency(function)
        return ApiResponse.of(200, response)

    def get_configuration(self, call: ApiCall) -> ApiResponse:
        function, region = self._find(call)
        return ApiResponse.of(200, function.configuration(region))

    def list_all(self, call: ApiCall) -> ApiResponse:
        functions = self._store.functions.values()
        return ApiResponse.of(
            200, {"Functions": [each.configuration(call.region) for each in functions]}
        )

    def update_configuration(self, call: ApiCall) -> ApiResponse:
        function, region = self._find(call)
        self._refuse_busy(function.name)
        function = changed(function, call.fields()).touched()
        self._store.save(function)
        return ApiResponse.of(200, function.configuration(region))

    def update_code(self, call: ApiCall) -> Deferred[ApiResponse] | ApiResponse:
        function, region = self._find(call)
        fields = call.fields()
        zipped = _zip_of(fields)
        kinds = architectures(fields, function.architectures)
        function = replace(function, architectures=kinds)
        return self._install(function, zipped, 200, region)

    def delete(self, call: ApiCall) -> ApiResponse:
        function, _ = self._find(call)
        self._refuse_busy(function.name)
        self._invocations.forget(function.name)
        self._store.remove(function.name)
        self._remove_old_code(function.name)
        return ApiResponse(204)

    def put_invoke_config(self, call: ApiCall) -> ApiResponse:
        """Replace the asynchronous settings; those not in the request get AWS's defaults."""
        function, region = self._find(call)
        return self._set_invoke_config(replace(function, invoke_config=None), call, region)

    def update_invoke_config(self, call: ApiCall) -> ApiResponse:
        """Change the asynchronous settings that are in the request."""
        function, region = self._find(call)
        function.event_invoke_config(region)
        return self._set_invoke_config(function, call, region)

    def _set_invoke_config(self, function: Function, call: ApiCall, region: str) -> ApiResponse:
        self._refuse_busy(function.name)
        function = with_invoke_config(function, call.fields(), self._reactor.seconds())
        self._store.save(function)
        return ApiResponse.of(200, function.event_invoke_config(region))

    def get_invoke_config(self, call: ApiCall) -> ApiResponse:
        function, region = self._find(call)
        return ApiResponse.of(200, function.event_invoke_config(region))

    def delete_invoke_config(self, call: ApiCall) -> ApiResponse:
        function, region = self._find(call)
        function.event_invoke_config(region)
        self._refuse_busy(function.name)
        self._store.save(replace(function, invoke_config=None))
        return ApiResponse(204)

    def put_concurrency(self, call: ApiCall) -> ApiResponse:
        function, _ = self._find(call)
        self._refuse_busy(function.name)
        fields, field_name = call.fields(), "ReservedConcurrentExecutions"
        if fields.get(field_name) is None:
            raise unfit("reservedConcurrentExecutions", None, "not be null")
        reserved = number(fields, field_name, 0, 0, 2**31 - 1)
        if reserved > self._invocations.unreserved + (function.reserved or 0):
            raise invalid(
                f"Specified {field_name} for function decreases account's"
                " UnreservedConcurrentExecution below its minimum value of [0]."
            )
        function = replace(function, reserved=reserved)
        self._store.save(function)
        return ApiResponse.of(200, _concurrency(function))

    def get_account_settings(self, call: ApiCall) -> ApiResponse:
        functions = list(self._store.functions.values())
        unreserved = self._invocations.unreserved
        limit = {
            "TotalCodeSize": 300 * 2**30,
            "CodeSizeUnzipped": 250 * 2**20,
            "CodeSizeZipped": 50 * 2**20,
            "ConcurrentExecutions": unreserved + sum(one.reserved or 0 for one in functions),
            "UnreservedConcurrentExecutions": unreserved,
        }
        usage = {
            "TotalCodeSize": sum(one.code_size for one in functions),
            "FunctionCount": len(functions),
        }
        return ApiResponse.of(200, {"AccountLimit": limit, "AccountUsage": usage})

    def get_concurrency(self, call: ApiCall) -> ApiResponse:
        function, _ = self._find(call)
        return ApiResponse.of(200, _concurrency(function))

    def delete_concurrency(self, call: ApiCall) -> ApiResponse:
        function, _ = self._find(call)
        self._refuse_busy(function.name)
        self._store.save(replace(function, reserved=None))
        return ApiResponse(204)

    def invoke(self, call: ApiCall) -> ApiResponse | Deferred[ApiResponse]:
        injected = self._faults.next_invoke()
        self._invocations.admit()
        function, region = self._find(call)
        self._faults.wake(function.name, self._reactor.seconds())
        kind = call.headers("X-Amz-Invocation-Type") or "RequestResponse"
        if kind not in LIMITS:
            raise unfit("invocationType", kind, f"satisfy enum value set: {[*LIMITS]}")
        event = _event_of(call.body, kind)
        if kind == "DryRun":
            return ApiResponse(204)
        if kind == "Event":
            request = str(uuid4())
            for _ in range(injected.copies):
                request = self._invocations.accept(function, region, event, injected.late_s)
            accepted = ApiResponse(202, b"", {"x-amzn-RequestId": request})
            return NO_ANSWER if injected.cut else accepted
        request, done = self._invocations.run_now(function, region, event)
        if injected.cut:
            return NO_ANSWER
        tail = call.headers("X-Amz-Log-Type") == "Tail"
        return done.addCallback(_response, {"x-amzn-RequestId": request}, tail)

    def _find(self, call: ApiCall) -> tuple[Function, str]:
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
    ) -> Generator[Deferred[Function], Function, ApiResponse]:
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
        return ApiResponse.of(status, function.configuration(region))

    def _remove_old_code(self, name: str) -> None:
        if name not in self._busy:
            self._store.remove_old_code(name, self._pool.codes_in_use)


def _concurrency(function: Function) -> dict[str, int]:
    reserved = function.reserved
    return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}


def _zip_of(code: Fields) -> bytes:
    zipped = code.get("ZipFile")
    if not isinstance(zipped, str):
        raise invalid("Please provide a source for code: this endpoint takes ZipFile only")
    try:
        return base64.b64decode(zipped, validate=True)
    except ValueError as error:
        raise invalid(f"ZipFile is not base64: {error}") from error


def _event_of(body: bytes, kind: str) -> str:
    if len(body) > LIMITS[kind]:
        message = f"{len(body)} byte payload is too large for the {kind} invocation type"
        message += f" (limit {LIMITS[kind]} bytes)"
        raise LambdaError(413, "RequestTooLargeException", message)
    try:
        event = body.decode() or "{}"
        json.loads(event)
    except (ValueError, RecursionError) as error:
        raise no_json(error) from error
    return event


def _response(result: InvocationResult, headers: dict[str, str], tail: bool) -> ApiResponse:
    headers = {**headers, "X-Amz-Executed-Version": "$LATEST"}
    if result.failed:
        headers["X-Amz-Function-Error"] = "Unhandled"
    if tail:
        headers["X-Amz-Log-Result"] = base64.b64encode(_end_of(result.log)).decode()
    return ApiResponse(200, result.payload, headers)


def _end_of(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES)
    except OSError:
        return b""
