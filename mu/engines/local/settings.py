"""A function's settings as a request gives them: checked against AWS's limits."""

from dataclasses import replace
from typing import Any

from mu.engines.local.errors import invalid
from mu.engines.local.functions import Function


def changed(function: Function, fields: dict[str, Any]) -> Function:
    """Return `function` with what the request's fields say; refuses what AWS would refuse."""
    return replace(
        function,
        handler=text(fields, "Handler", function.handler),
        runtime=text(fields, "Runtime", function.runtime),
        role=text(fields, "Role", function.role),
        description=text(fields, "Description", function.description),
        timeout=number(fields, "Timeout", function.timeout, 1, 900),
        memory=number(fields, "MemorySize", function.memory, 128, 10_240),
        ephemeral=number(fields.get("EphemeralStorage") or {}, "Size", function.ephemeral)
        if "EphemeralStorage" in fields
        else function.ephemeral,
        environment=_variables(fields, function.environment),
        architectures=tuple(fields.get("Architectures") or function.architectures),
    )


def text(fields: dict[str, Any], name: str, default: str) -> str:
    found = fields.get(name, default)
    if not isinstance(found, str):
        raise invalid(f"{name} must be a string")
    return found


def number(
    fields: dict[str, Any], name: str, default: int, least: int = 512, most: int = 10_240
) -> int:
    found = fields.get(name, default)
    if type(found) is not int or not least <= found <= most:
        raise invalid(f"Value '{found}' at '{name}' must be between {least} and {most}")
    return found


def _variables(fields: dict[str, Any], default: dict[str, str]) -> dict[str, str]:
    if "Environment" not in fields:
        return default
    found = (fields["Environment"] or {}).get("Variables") or {}
    if not all(isinstance(value, str) and "\0" not in value for value in found.values()):
        raise invalid("Environment variables must be strings")
    return dict(found)
