"""Reads fields of API requests; invalid ones raise LambdaError with AWS's own wording."""

import json
import re
from collections.abc import Mapping

from mu.aws.limits import ENVIRONMENT
from mu.engines.local.errors import invalid, unfit

Fields = Mapping[str, object]
"""A JSON object from a request."""
ENVIRONMENT_LIMIT = ENVIRONMENT.most
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


def text(fields: Fields, name: str, default: str, longest: int, pattern: str = "") -> str:
    value = default if fields.get(name) is None else fields[name]
    if not isinstance(value, str):
        raise unfit(_member(name), value, "be a string")
    if len(value) > longest:
        raise unfit(_member(name), value, f"have length less than or equal to {longest}")
    if pattern and name in fields and not re.fullmatch(pattern, value):
        raise unfit(_member(name), value, f"satisfy regular expression pattern: {pattern}")
    return value


def number(fields: Fields, name: str, default: int, least: int, most: int) -> int:
    value = default if fields.get(name) is None else fields[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise unfit(_member(name), value, "be an integer")
    if value < least:
        raise unfit(_member(name), value, f"have value greater than or equal to {least}")
    if value > most:
        raise unfit(_member(name), value, f"have value less than or equal to {most}")
    return value


def optional_number(
    fields: Fields, name: str, default: int | None, least: int, most: int
) -> int | None:
    return default if fields.get(name) is None else number(fields, name, 0, least, most)


def section(fields: Fields, name: str) -> dict[str, object]:
    """Return a nested object; {} if there is none."""
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise unfit(_member(name), value, "be an object")
    return value


def architectures(fields: Fields, default: tuple[str, ...]) -> tuple[str, ...]:
    value = fields.get("Architectures") or list(default)
    for allowed in ("x86_64", "arm64"):
        if value == [allowed]:
            return (allowed,)
    raise unfit("architectures", value, "satisfy enum value set: [x86_64, arm64]")


def variables(fields: Fields, default: dict[str, str]) -> dict[str, str]:
    """Return the environment variables of a function."""
    if "Environment" not in fields:
        return default
    found: dict[str, str] = {}
    for name, value in section(section(fields, "Environment"), "Variables").items():
        if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]+", name) and name not in _RESERVED:
            pattern = "satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+"
            raise unfit("environment.variables", name, pattern)
        if not isinstance(value, str) or "\0" in value:
            raise unfit("environment.variables", value, "be a string without NUL")
        found[name] = value
    if reserved := sorted(_RESERVED & found.keys()):
        raise invalid(
            f"{_CANNOT_SET}contains reserved keys that are currently not supported for"
            f" modification. Reserved keys used in this request: {', '.join(reserved)}"
        )
    measured = json.dumps(found, separators=(",", ":"))
    if len(measured.encode()) > ENVIRONMENT_LIMIT:
        raise invalid(f"{_CANNOT_SET}exceeded the 4KB limit. String measured: {measured}")
    return found


def _member(name: str) -> str:
    """Return AWS's name of the member: timeout for the field Timeout."""
    return name[:1].lower() + name[1:]
