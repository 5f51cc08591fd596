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
from uuid import uuid4

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThreadPool

from mu.engines.local.errors import Refused, conflict, invalid, no_json, no_such, unfit
from mu.engines.local.faults import BadDays
from mu.engines.local.functions import (
    Function,
    architectures,
    arn_of,
    changed,
    number,
    section,
    text,
    with_invoke_config,
)
from mu.engines.local.pool import Outcome, SandboxPool
from mu.engines.local.queue import Invocations
from mu.engines.local.store import FunctionStore

LIMITS = {"Event": 2**20, "RequestResponse": 6 * 2**20, "DryRun": 6 * 2**20}
TAIL_BYTES = 4096
_NAME = re.compile(
    r"(?:arn:aws:lambda:(?P<region>[a-z0-9-]+):)?(?:\d{12}:)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_-]+)(?::(?P<version>[$a-zA-Z0-9_-]+))?"
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
            raise unfit("functionName", self.name, f"satisfy pattern: {_NAME.pattern}")
        if len(match["name"]) > 64:
            raise unfit("functionName", self.name, "have length less than or equal to 64")
        region = match["region"] or self.region
        if (match["version"] or self.version or "$LATEST") != "$LATEST":
            raise no_such(f"{arn_of(match['name'], region)}:{match['version'] or self.version}")
        return match["name"], region

    def fields(self) -> dict[str, Any]:
        try:
            found = json.loads(self.body or b"{}")
        except (ValueError, RecursionError) as error:
            raise no_json(error) from error
        if not isinstance(found, dict):
            raise no_json("an object is expected")
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, told: dict[str, Any]) -> "Reply":
        return cls(status, json.dumps(told).encode())


NO_ANSWER = Reply(0)
"""The call was taken; its connection is to be closed without an answer."""


class LambdaCalls:
    """The functions and their invocations."""

    def __init__(
        self,
        reactor: Any,
        store: FunctionStore,
        pool: SandboxPool,
        invocations: Invocations,
        bad_days: BadDays,
    ) -> None:
        self._reactor, self._store, self._pool = reactor, store, pool
        self._invocations, self._bad_days = invocations, bad_days
        self._busy: set[str] = set()
        pool.on_code_unused = self._remove_old_code

    def create(self, call: Call) -> Deferred[Reply]:
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
        return self._install(function, zipped, 201, region)

    def get(self, call: Call) -> Reply:
        function, region = self._find(call)
        location = (self._store.folder / function.name / "code.zip").as_uri()
        told = {
            "Configuration": function.configuration(region),
            "Code": {"RepositoryType": "S3", "Location": location},
        }
        if function.reserved is not None:
            told["Concurrency"] = _told_concurrency(function)
        return Reply.of(200, told)

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
        zipped = _zip_of(fields)
        kinds = architectures(fields, function.architectures)
        function = replace(function, architectures=kinds)
        return self._install(function, zipped, 200, region)

    def delete(self, call: Call) -> Reply:
        function, _ = self._find(call)
        self._refuse_busy(function.name)
        self._invocations.forget(function.name)
        self._store.remove(function.name)
        self._remove_old_code(function.name)
        return Reply(204)

    def put_invoke_config(self, call: Call) -> Reply:
        """Set the asynchronous settings; those that are not named get AWS's defaults."""
        function, region = self._find(call)
        return self._set_invoke_config(replace(function, invoke_config=None), call, region)

    def update_invoke_config(self, call: Call) -> Reply:
        """Set the asynchronous settings that are named."""
        function, region = self._find(call)
        function.told_invoke_config(region)
        return self._set_invoke_config(function, call, region)

    def _set_invoke_config(self, function: Function, call: Call, region: str) -> Reply:
        self._refuse_busy(function.name)
        function = with_invoke_config(function, call.fields(), self._reactor.seconds())
        self._store.save(function)
        return Reply.of(200, function.told_invoke_config(region))

    def get_invoke_config(self, call: Call) -> Reply:
        function, region = self._find(call)
        return Reply.of(200, function.told_invoke_config(region))

    def delete_invoke_config(self, call: Call) -> Reply:
        function, region = self._find(call)
        function.told_invoke_config(region)
        self._refuse_busy(function.name)
        self._store.save(replace(function, invoke_config=None))
        return Reply(204)

    def put_concurrency(self, call: Call) -> Reply:
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
        return Reply.of(200, _told_concurrency(function))

    def get_concurrency(self, call: Call) -> Reply:
        function, _ = self._find(call)
        return Reply.of(200, _told_concurrency(function))

    def delete_concurrency(self, call: Call) -> Reply:
        function, _ = self._find(call)
        self._refuse_busy(function.name)
        self._store.save(replace(function, reserved=None))
        return Reply(204)

    def invoke(self, call: Call) -> Reply | Deferred[Reply]:
        fate = self._bad_days.next_fate()
        self._invocations.admit()
        function, region = self._find(call)
        kind = call.headers("X-Amz-Invocation-Type") or "RequestResponse"
        if kind not in LIMITS:
            raise unfit("invocationType", kind, f"satisfy enum value set: {[*LIMITS]}")
        event = _event_of(call.body, kind)
        if kind == "DryRun":
            return Reply(204)
        if kind == "Event":
            request = str(uuid4())
            for _ in range(fate.copies):
                request = self._invocations.accept(function, region, event, fate.late_s)
            accepted = Reply(202, b"", {"x-amzn-RequestId": request})
            return NO_ANSWER if fate.cut else accepted
        request, done = self._invocations.answer(function, region, event)
        if fate.cut:
            return NO_ANSWER
        tail = call.headers("X-Amz-Log-Type") == "Tail"
        return done.addCallback(_answer, {"x-amzn-RequestId": request}, tail)

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


def _told_concurrency(function: Function) -> dict[str, Any]:
    reserved = function.reserved
    return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}


def _zip_of(code: dict[str, Any]) -> bytes:
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
    except (ValueError, RecursionError) as error:
        raise no_json(error) from error
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
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES)
    except OSError:
        return b""
