"""What a pipeline may be told: typed parameters with defaults, bounds and help."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REQUIRED: Any = object()
"""The default of a parameter that must be given."""


class FieldError(ValueError):
    """A request names something that is not taken; `field` is where, as in `params.frames`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Params(dict[str, Any]):
    """Parameters as a dict, the values of which are attributes too: `job.params.frames`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"there is no parameter {name!r}; there are {', '.join(self)}"
            ) from None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named value of type bool, int, float, str, list or dict."""

    name: str
    kind: type
    help: str
    default: Any = REQUIRED
    minimum: float | None = None
    maximum: float | None = None

    def read(self, given: Any, field: str) -> Any:
        """Return the value that was given, checked. Raises FieldError."""
        value: Any = given
        if self.kind is float and type(given) is int and abs(given) < 10**300:
            value = float(given)
        if not self._fits(value):
            raise FieldError(field, f"{field} must be {_A[self.kind]}; {given!r} came")
        low, high = self.minimum, self.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = [f"at least {low:g}"] if low is not None else []
            bounds += [f"at most {high:g}"] if high is not None else []
            raise FieldError(field, f"{field} must be {' and '.join(bounds)}; {value!r} came")
        return value

    def _fits(self, value: object) -> bool:
        finite = not isinstance(value, float) or math.isfinite(value)
        return type(value) is self.kind and finite

    def describe(self) -> dict[str, Any]:
        """Return what people and forms need to know, as JSON."""
        described = {"name": self.name, "type": self.kind.__name__, "help": self.help}
        optional = {"minimum": self.minimum, "maximum": self.maximum}
        if self.default is not REQUIRED:
            optional["default"] = self.default
        return (
            described
            | {"required": self.default is REQUIRED}
            | {key: value for key, value in optional.items() if value is not None}
        )


_A = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
}


def read_fields(
    fields: Sequence[Parameter], given: Any, where: str = "", known: str = "parameters"
) -> Params:
    """Return `given` (from JSON) checked against `fields`, with defaults. Raises FieldError."""
    prefix = f"{where}." if where else ""
    if not isinstance(given, Mapping):
        raise FieldError(where, f"{where or 'the body'} must be a JSON object; {given!r} came")
    names = {field.name for field in fields}
    for name in given:
        if name not in names:
            raise FieldError(
                f"{prefix}{name}",
                f"{prefix}{name} is not known; the {known} are {', '.join(sorted(names))}",
            )
    values = Params()
    for field in fields:
        if field.name in given:
            values[field.name] = field.read(given[field.name], f"{prefix}{field.name}")
        elif field.default is REQUIRED:
            raise FieldError(f"{prefix}{field.name}", f"{prefix}{field.name} is required")
        else:
            values[field.name] = copy.deepcopy(field.default)
    return values
