"""A function's settings: how the API shows them, and how a request changes them."""

import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from mu.aws.limits import MEMORY, TIMEOUT, TMP
from mu.engines.local.errors import LambdaError, invalid
from mu.engines.local.fields import (
    Fields,
    architectures,
    number,
    optional_number,
    section,
    text,
    variables,
)

ACCOUNT = "000000000000"
RETRIES, EVENT_AGE_S = 2, 21_600


def arn_of(name: str, region: str) -> str:
    return f"arn:aws:lambda:{region}:{ACCOUNT}:function:{name}"


@dataclass(frozen=True, slots=True)
class InvokeConfig:
    """The settings for asynchronous invocations; None means AWS's default."""

    modified: float
    retries: int | None = None
    event_age_s: int | None = None
    destinations: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """One function. Times are in seconds, memory and /tmp in MB, the code size in bytes.

    `reserved` is the reserved concurrency; None: it uses the unreserved concurrency.
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
        """Parse json.dumps(asdict(function)). Raises ValueError or TypeError."""
        fields = json.loads(text)
        config = fields.pop("invoke_config", None)
        fields["architectures"] = tuple(fields["architectures"])
        return cls(**fields, invoke_config=InvokeConfig(**config) if config else None)

    @property
    def retries(self) -> int:
        """How many times an event is retried after a function error."""
        config = self.invoke_config
        return RETRIES if config is None or config.retries is None else config.retries

    @property
    def event_age_s(self) -> int:
        """The maximum age of an event, in seconds; older ones are dropped."""
        config = self.invoke_config
        return EVENT_AGE_S if config is None or config.event_age_s is None else config.event_age_s

    def touched(self) -> "Function":
        """Return the function as modified now, with a new revision id."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        return replace(self, modified=now, revision=str(uuid.uuid4()))

    def configuration(self, region: str) -> dict[str, object]:
        """Return the API's FunctionConfiguration."""
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

    def event_invoke_config(self, region: str) -> dict[str, object]:
        """Return the API's FunctionEventInvokeConfig. Raises LambdaError if there is none."""
        arn = f"{arn_of(self.name, region)}:$LATEST"
        config = self.invoke_config
        if config is None:
            message = f"The function {arn} doesn't have an EventInvokeConfig"
            raise LambdaError(404, "ResourceNotFoundException", message)
        shown: dict[str, object] = {"FunctionArn": arn, "LastModified": config.modified}
        if config.retries is not None:
            shown["MaximumRetryAttempts"] = config.retries
        if config.event_age_s is not None:
            shown["MaximumEventAgeInSeconds"] = config.event_age_s
        return {
            **shown,
            "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}, **config.destinations},
        }


def changed(function: Function, fields: Fields) -> Function:
    """Return `function` with the request's settings. Raises LambdaError as AWS does."""
    ephemeral = section(fields, "EphemeralStorage")
    return replace(
        function,
        handler=text(fields, "Handler", function.handler, 128, r"\S+"),
        runtime=text(fields, "Runtime", function.runtime, 40, r"python3\.\d+"),
        role=text(fields, "Role", function.role, 10_000),
        description=text(fields, "Description", function.description, 256),
        timeout=number(fields, "Timeout", function.timeout, TIMEOUT.least, TIMEOUT.most),
        memory=number(fields, "MemorySize", function.memory, MEMORY.least, MEMORY.most),
        ephemeral=number(ephemeral, "Size", function.ephemeral, TMP.least, TMP.most),
        environment=variables(fields, function.environment),
        architectures=architectures(fields, function.architectures),
    )


def with_invoke_config(function: Function, fields: Fields, now: float) -> Function:
    """Return `function` with the request's asynchronous settings, and its others unchanged."""
    old = function.invoke_config or InvokeConfig(now)
    if not {"MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig"} & {*fields}:
        raise invalid("You must specify at least one of error handling or destination setting.")
    config = InvokeConfig(
        now,
        optional_number(fields, "MaximumRetryAttempts", old.retries, 0, 2),
        optional_number(fields, "MaximumEventAgeInSeconds", old.event_age_s, 60, 21_600),
        section(fields, "DestinationConfig") or old.destinations,
    )
    return replace(function, invoke_config=config).touched()
