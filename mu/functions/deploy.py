"""Creates, changes and deletes Lambda functions.

It reads a function first and changes only what differs, so commands can be repeated. AWS and the
local engine get the same calls.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

from mu.functions.apis import Clients, FunctionConfiguration
from mu.functions.aws import AwsError, aws_errors
from mu.functions.bundle import sized
from mu.functions.shipment import Code, DeployError, Report, Shipment

HANDLER, DESCRIPTION = "lambda_function.lambda_handler", "A worker of mu"
RETRIES, EVENT_AGE_S = 0, 60
"""AWS must not retry a failed worker, because mu does. It drops an event that could not run within
a minute: by then, mu has launched another worker for the actor."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
POLL_S, READY_S, ROLE_S = 1.0, 300.0, 60.0
"""The polling interval, and the longest waits for a function and for a new role, in seconds."""
_GONE = "ResourceNotFoundException"
_BUSY = "ResourceConflictException"
_BUSY_TRIES = 5

Value = str | int
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a function. Memory and /tmp are in MB, the timeout is in seconds.

    None keeps the function's value, or means the one in DEFAULTS for a new function.
    """

    role: str | None = None
    runtime: str | None = None
    memory: int | None = None
    timeout: int | None = None
    tmp: int | None = None


DEFAULTS = Settings(runtime="python3.12", memory=1769, timeout=900, tmp=512)
"""With 1,769 MB, Lambda provides a whole CPU. The coordinator has its own time limits."""


@dataclass(frozen=True, slots=True)
class DeployResult:
    """The changes that were made to one function, or in a dry run would be made."""

    name: str
    region: str
    did: str
    """created, updated, unchanged, deleted or absent."""
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that differs, /tmp as a plain number of MB; `old` is None for a new function."""

    field: str
    old: Value | None
    new: Value

    def __str__(self) -> str:
        """Return words such as `memory 512 MB (was 128)`."""
        return _WORDS[self.field].format(self.new) + (
            "" if self.old is None else f" (was {self.old})"
        )


_WORDS = {
    "Runtime": "{}",
    "Handler": "handler {}",
    "Role": "role {}",
    "MemorySize": "memory {} MB",
    "Timeout": "timeout {} s",
    "EphemeralStorage": "/tmp {} MB",
    "MaximumRetryAttempts": "retries by AWS {}",
    "MaximumEventAgeInSeconds": "events dropped after {} s",
}


def names_of(name: str, copies: int = 0, suffix: bool = False) -> list[str]:
    """Return the functions' names: NAME, or NAME-0 and so on for copies; `suffix` adds random hex.

    Raises DeployError.
    """
    base = f"{name}_{secrets.token_hex(4)}" if suffix else name
    names = [f"{base}-{number}" for number in range(copies)] or [base]
    for one in names:
        if not NAME.fullmatch(one):
            raise DeployError(
                f"a function's name must be 1 to 64 letters, digits, - and _, got {one!r}"
            )
    return names


class Deployment:
    """Deploys functions to one region. `dry` only reads, and returns what would be done."""

    def __init__(
        self,
        clients: Clients,
        region: str,
        report: Report,
        dry: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.region = region
        self._report, self._dry, self._sleep = report, dry, sleep
        self._lambda = clients.client("lambda", region)

    def deploy(
        self, name: str, settings: Settings, code: Code | None, shipment: Shipment | None = None
    ) -> DeployResult:
        """Create the function, or change what differs; without code, only its settings.

        Raises DeployError and AwsError.
        """
        self._report(f"Looking up {name} in {self.region}")
        there = self._find(name)
        if there is None:
            if code is None or shipment is None:
                raise DeployError(
                    f"function {name} does not exist in {self.region}: to create it, give a"
                    " program, --zip FILE, or --bare for the worker alone"
                )
            return self._create(name, code, settings, shipment)
        if there.get("PackageType", "Zip") != "Zip":
            raise DeployError(
                f"function {name} in {self.region} is a container image and cannot be updated from"
                " a zip: choose another --name, or delete it first with --delete"
            )
        code_changes = _code_changes(there, code) if code else []
        changed = _changed(there, settings)
        changes = code_changes + [str(change) for change in changed]
        if self._dry:
            changes += map(str, self._invoke_changes(name)[1])
            return self._result(name, "updated" if changes else "unchanged", changes)
        if code_changes or changed:
            self._wait_until_ready(name, there)
        if code and shipment and code_changes:
            self._update_code(name, code, shipment)
        if changed:
            self._report(f"Changing the settings of {name} in {self.region}")
            request = _request({change.field: change.new for change in changed})
            self._call(
                "changing the settings of",
                name,
                lambda: self._lambda.update_function_configuration(FunctionName=name, **request),
            )
            self._wait_until_ready(name)
        changes += self._set_invoke_config(name)
        return self._result(name, "updated" if changes else "unchanged", changes)

    def delete(self, name: str) -> DeployResult:
        """Delete the function, if it exists."""
        if self._find(name) is None:
            return self._result(name, "absent")
        if not self._dry:
            self._report(f"Deleting {name} in {self.region}")
            self._call("deleting", name, lambda: self._lambda.delete_function(FunctionName=name))
        return self._result(name, "deleted")

    # ------------------------------------------------ steps

    def _create(
        self, name: str, code: Code, settings: Settings, shipment: Shipment
    ) -> DeployResult:
        if not settings.role:
            raise DeployError(
                f"function {name} does not exist in {self.region}, and a new function needs a"
                " role: give --role ARN, or set AWS_ROLE. docs/aws.md shows how to create a role;"
                " mu doctor --policy function and --policy trust print its policies"
            )
        fields = {field: value for field, value in _wanted(settings, DEFAULTS).items() if value}
        architecture = code.architecture or "x86_64"
        changes = [f"code {sized(code.size)}", architecture]
        changes += [
            str(Change(field, None, new)) for field, new in fields.items() if field != "Role"
        ]
        if not self._dry:
            self._report(f"Creating {name} in {self.region} ({sized(code.size)})")
            request = {
                **_request(fields),
                "Handler": HANDLER,
                "Architectures": [architecture],
                "Code": shipment.source(),
                "Description": DESCRIPTION,
            }
            self._create_with_new_role(name, request)
            self._wait_until_ready(name)
            self._set_invoke_config(name)
        return self._result(name, "created", changes)

    def _create_with_new_role(self, name: str, request: dict[str, object]) -> None:
        """Create the function. Lambda cannot assume a new role for the first few seconds."""
        waited = 0.0
        while True:
            try:
                with aws_errors(f"creating function {name} in {self.region}"):
                    self._lambda.create_function(FunctionName=name, **request)
                return
            except AwsError as error:
                role_is_new = error.code == "InvalidParameterValueException" and (
                    "cannot be assumed" in str(error)
                )
                if not role_is_new or waited >= ROLE_S:
                    raise
            self._report(f"Waiting until Lambda can assume the role of {name}")
            self._sleep(3 * POLL_S)
            waited += 3 * POLL_S

    def _update_code(self, name: str, code: Code, shipment: Shipment) -> None:
        self._report(f"Updating the code of {name} in {self.region} ({sized(code.size)})")
        request: dict[str, object] = {"FunctionName": name, **shipment.source()}
        if code.architecture:
            request["Architectures"] = [code.architecture]
        self._call(
            "updating the code of", name, lambda: self._lambda.update_function_code(**request)
        )
        self._wait_until_ready(name)

    def _wait_until_ready(self, name: str, there: FunctionConfiguration | None = None) -> None:
        waited = 0.0
        while True:
            there = there or self._find(name)
            if there is None:
                raise DeployError(f"function {name} in {self.region} was deleted in the meantime")
            state, update = (
                there.get("State", "Active"),
                there.get("LastUpdateStatus", "Successful"),
            )
            if why := failure_of(there):
                raise DeployError(f"function {name} in {self.region} failed to start: {why}")
            if state in ("Active", "Inactive") and update == "Successful":
                return
            if waited >= READY_S:
                raise DeployError(
                    f"function {name} in {self.region} is not ready after {READY_S:g} s: its state"
                    f" is {state}, its update {update}. Run the same command again later"
                )
            self._report(
                f"Waiting until {name} in {self.region} is ready: it is {state}, its update {update}"
            )
            self._sleep(POLL_S)
            waited += POLL_S
            there = None

    def _set_invoke_config(self, name: str) -> list[str]:
        """Turn off AWS's retries of failed events. Return what was changed."""
        exists, changes = self._invoke_changes(name)
        if changes:
            request: dict[str, object] = {change.field: change.new for change in changes}
            change = (  # put would drop the destinations
                self._lambda.update_function_event_invoke_config
                if exists
                else self._lambda.put_function_event_invoke_config
            )
            self._call("setting the retries of", name, lambda: change(FunctionName=name, **request))
        return [str(change) for change in changes]

    def _invoke_changes(self, name: str) -> tuple[bool, list[Change]]:
        """Return whether the function has an EventInvokeConfig, and what differs in it."""
        try:
            found = self._call(
                "reading the retries of",
                name,
                lambda: self._lambda.get_function_event_invoke_config(FunctionName=name),
            )
        except AwsError as error:
            if error.code != _GONE:
                raise
            found = None
        known = found or {}
        changes = [
            Change("MaximumRetryAttempts", known.get("MaximumRetryAttempts", 2), RETRIES),
            Change(
                "MaximumEventAgeInSeconds",
                known.get("MaximumEventAgeInSeconds", 21600),
                EVENT_AGE_S,
            ),
        ]
        return found is not None, [change for change in changes if change.old != change.new]

    def exists(self, name: str) -> bool:
        """Return whether there is such a function. Raises AwsError."""
        return self._find(name) is not None

    def has(self, name: str, digest: str) -> bool:
        """Return whether there is such a function, and its zip has this digest. Raises AwsError."""
        there = self._find(name)
        return there is not None and there.get("CodeSha256") == digest

    def python(self, name: str) -> tuple[str, str] | None:
        """Return an existing function's runtime and architecture. Raises AwsError."""
        there = self._find(name)
        if there is None or "Runtime" not in there:
            return None
        return there["Runtime"], there.get("Architectures", ["x86_64"])[0]

    def _find(self, name: str) -> FunctionConfiguration | None:
        try:
            return self._call(
                "looking up",
                name,
                lambda: self._lambda.get_function_configuration(FunctionName=name),
            )
        except AwsError as error:
            if error.code == _GONE:
                return None
            raise

    def _call(self, doing: str, name: str, call: Callable[[], T]) -> T:
        """Call Lambda; repeat the call while another update of the function is in progress."""
        for _ in range(_BUSY_TRIES):
            try:
                with aws_errors(f"{doing} function {name} in {self.region}"):
                    return call()
            except AwsError as error:
                if error.code != _BUSY:
                    raise
            self._report(f"Waiting for another update of {name} in {self.region}")
            self._sleep(2 * POLL_S)
        raise DeployError(
            f"function {name} in {self.region} is being updated by someone else: run the command"
            " again later"
        )

    def _result(self, name: str, did: str, changes: Iterable[str] = ()) -> DeployResult:
        return DeployResult(name, self.region, did, tuple(changes))


def failure_of(there: FunctionConfiguration) -> str | None:
    """Return Lambda's reason why a function cannot run, or None if it can."""
    if "Failed" in (there.get("State"), there.get("LastUpdateStatus")):
        return there.get("StateReason") or there.get("LastUpdateStatusReason") or "no reason given"
    return None


def _code_changes(there: FunctionConfiguration, code: Code) -> list[str]:
    changes = []
    architecture = there.get("Architectures", ["x86_64"])[0]
    if there.get("CodeSha256") != code.sha256:
        changes.append(f"code {sized(code.size)}")
    if code.architecture not in (None, architecture):
        changes.append(f"{code.architecture} (was {architecture})")
    return changes


def _wanted(settings: Settings, defaults: Settings = DEFAULTS) -> dict[str, Value | None]:
    """Return the settings by Lambda's names, /tmp as a plain number."""
    return {
        "Role": settings.role or defaults.role,
        "Runtime": settings.runtime or defaults.runtime,
        "MemorySize": settings.memory or defaults.memory,
        "Timeout": settings.timeout or defaults.timeout,
        "EphemeralStorage": settings.tmp or defaults.tmp,
    }


def _changed(there: FunctionConfiguration, settings: Settings) -> list[Change]:
    """Return the requested settings that differ."""
    tmp = there.get("EphemeralStorage", {"Size": 512})["Size"]
    known = cast(dict[str, Value], {**there, "EphemeralStorage": tmp})
    wanted = _wanted(settings, Settings()) | {"Handler": HANDLER}
    return [
        Change(field, known.get(field), value)
        for field, value in wanted.items()
        if value and known.get(field) != value
    ]


def _request(fields: dict[str, Value]) -> dict[str, object]:
    """Return the fields in the form of Lambda's requests."""
    nested: dict[str, object] = dict(fields)
    if "EphemeralStorage" in fields:
        nested["EphemeralStorage"] = {"Size": fields["EphemeralStorage"]}
    return nested
