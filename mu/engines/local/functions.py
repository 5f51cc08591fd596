"""What a function is, what the API tells of it, and what a request may make of it."""

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mu.engines.local.errors import Refused, invalid, unfit

ACCOUNT = "000000000000"
ENVIRONMENT_LIMIT = 4096
RETRIES, EVENT_AGE_S = 2, 21_600
_RESERVED = {
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
}
_CANNOT_SET = (
    "Lambda was unable to configure your environment variables because the environment variables"
    " you have provided "
)


def arn_of(name: str, region: str) -> str:
    return f"arn:aws:lambda:{region}:{ACCOUNT}:function:{name}"


@dataclass(frozen=True, slots=True)
class InvokeConfig:
    """What PutFunctionEventInvokeConfig said; None where it left AWS's default."""

    modified: float
    retries: int | None = None
    event_age_s: int | None = None
    destinations: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """One function. Times in seconds, sizes of memory and /tmp in MB, of the code in bytes.

    `reserved` is how many of it may run at once; None: it shares what nobody has reserved.
    """

    name: str
    handler: str = ""
    runtime: str = "python3.12"
    role: str = ""
    timeout: int = 3
    memory: int = 128
    ephemeral: int = 512
    description: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    architectures: tuple[str, ...] = ("x86_64",)
    code_sha256: str = ""
    code_size: int = 0
    modified: str = ""
    revision: str = ""
    reserved: int | None = None
    invoke_config: InvokeConfig | None = None

    @classmethod
    def from_json(cls, text: str) -> "Function":
        """Raises ValueError or TypeError if it is not what asdict made."""
        fields = json.loads(text)
        config = fields.pop("invoke_config", None)
        fields["architectures"] = tuple(fields["architectures"])
        return cls(**fields, invoke_config=InvokeConfig(**config) if config else None)

    @property
    def retries(self) -> int:
        """How often an event is run again after an error of the function."""
        config = self.invoke_config
        return RETRIES if config is None or config.retries is None else config.retries

    @property
    def event_age_s(self) -> int:
        """How old an event may become before it is dropped."""
        config = self.invoke_config
        return EVENT_AGE_S if config is None or config.event_age_s is None else config.event_age_s

    def touched(self) -> "Function":
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        return replace(self, modified=now, revision=str(uuid.uuid4()))

    def configuration(self, region: str) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {
            "FunctionName": self.name,
            "FunctionArn": arn_of(self.name, region),
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "CodeSize": self.code_size,
            "Description": self.description,
            "Timeout": self.timeout,
            "MemorySize": self.memory,
            "LastModified": self.modified,
            "CodeSha256": self.code_sha256,
            "Version": "$LATEST",
            "Environment": {"Variables": self.environment},
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": self.revision,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": list(self.architectures),
            "EphemeralStorage": {"Size": self.ephemeral},
        }

    def told_invoke_config(self, region: str) -> dict[str, Any]:
        """Return its asynchronous settings as the API tells them. Raises Refused without any."""
        arn = f"{arn_of(self.name, region)}:$LATEST"
        config = self.invoke_config
        if config is None:
            message = f"The function {arn} doesn't have an EventInvokeConfig"
            raise Refused(404, "ResourceNotFoundException", message)
        told: dict[str, Any] = {"FunctionArn": arn, "LastModified": config.modified}
        if config.retries is not None:
            told["MaximumRetryAttempts"] = config.retries
        if config.event_age_s is not None:
            told["MaximumEventAgeInSeconds"] = config.event_age_s
        return {
            **told,
            "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}, **config.destinations},
        }


def changed(function: Function, fields: dict[str, Any]) -> Function:
    """Return `function` with what the request's fields say; refuses what AWS would refuse."""
    ephemeral = section(fields, "EphemeralStorage")
    return replace(
        function,
        handler=text(fields, "Handler", function.handler, 128, r"\S+"),
        runtime=text(fields, "Runtime", function.runtime, 40, r"python3\.\d+"),
        role=text(fields, "Role", function.role, 10_000),
        description=text(fields, "Description", function.description, 256),
        timeout=number(fields, "Timeout", function.timeout, 1, 900),
        memory=number(fields, "MemorySize", function.memory, 128, 10_240),
        ephemeral=number(ephemeral, "Size", function.ephemeral, 512, 10_240),
        environment=_variables(fields, function.environment),
        architectures=architectures(fields, function.architectures),
    )


def with_invoke_config(function: Function, fields: dict[str, Any], now: float) -> Function:
    """Return `function` with these asynchronous settings besides those that it has."""
    old = function.invoke_config or InvokeConfig(now)
    if not {"MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig"} & {*fields}:
        raise invalid("You must specify at least one of error handling or destination setting.")
    config = InvokeConfig(
        now,
        optional(number, fields, "MaximumRetryAttempts", old.retries, 0, 2),
        optional(number, fields, "MaximumEventAgeInSeconds", old.event_age_s, 60, 21_600),
        section(fields, "DestinationConfig") or old.destinations,
    )
    return replace(function, invoke_config=config).touched()


def optional(
    read: Callable[..., int], fields: dict[str, Any], name: str, default: int | None, *bounds: int
) -> int | None:
    return default if fields.get(name) is None else read(fields, name, 0, *bounds)


def text(fields: dict[str, Any], name: str, default: str, longest: int, pattern: str = "") -> str:
    found = default if fields.get(name) is None else fields[name]
    if not isinstance(found, str):
        raise unfit(_own(name), found, "be a string")
    if len(found) > longest:
        raise unfit(_own(name), found, f"have length less than or equal to {longest}")
    if pattern and name in fields and not re.fullmatch(pattern, found):
        raise unfit(_own(name), found, f"satisfy regular expression pattern: {pattern}")
    return found


def number(fields: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    found = default if fields.get(name) is None else fields[name]
    if type(found) is not int:
        raise unfit(_own(name), found, "be an integer")
    if found < least:
        raise unfit(_own(name), found, f"have value greater than or equal to {least}")
    if found > most:
        raise unfit(_own(name), found, f"have value less than or equal to {most}")
    return found


def section(fields: dict[str, Any], name: str) -> dict[str, Any]:
    found = fields.get(name) or {}
    if not isinstance(found, dict):
        raise unfit(_own(name), found, "be an object")
    return found


def architectures(fields: dict[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    found = fields.get("Architectures") or list(default)
    if found not in (["x86_64"], ["arm64"]):
        raise unfit("architectures", found, "satisfy enum value set: [x86_64, arm64]")
    return tuple(found)


def _variables(fields: dict[str, Any], default: dict[str, str]) -> dict[str, str]:
    if "Environment" not in fields:
        return default
    found = section(section(fields, "Environment"), "Variables")
    for name, value in found.items():
        if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]+", name) and name not in _RESERVED:
            pattern = "satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+"
            raise unfit("environment.variables", name, pattern)
        if not isinstance(value, str) or "\0" in value:
            raise unfit("environment.variables", value, "be a string without NUL")
    if refused := sorted(_RESERVED & found.keys()):
        raise invalid(
            f"{_CANNOT_SET}contains reserved keys that are currently not supported for"
            f" modification. Reserved keys used in this request: {', '.join(refused)}"
        )
    measured = json.dumps(found, separators=(",", ":"))
    if len(measured.encode()) > ENVIRONMENT_LIMIT:
        raise invalid(f"{_CANNOT_SET}exceeded the 4KB limit. String measured: {measured}")
    return dict(found)


def _own(name: str) -> str:
    """AWS says timeout where the field is Timeout."""
    return name[:1].lower() + name[1:]
