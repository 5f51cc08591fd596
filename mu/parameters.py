"""The parameters of a pipeline: typed values with defaults, bounds and help.

>>> fields = [Parameter("frames", int, "frames per chunk", 6, minimum=1), Parameter("keys", list, "")]
>>> params = read_fields(fields, {"keys": ["a", "b"]}, "params")
>>> params.frames, params.keys, params == {"frames": 6, "keys": ["a", "b"]}
(6, ['a', 'b'], True)
>>> read_fields(fields, {"frames": 0, "keys": []}, "params")
Traceback (most recent call last):
mu.parameters.FieldError: params.frames must be at least 1, got 0
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["REQUIRED", "FieldError", "Parameter", "Params", "Value", "read_fields"]

Value = Any
"""A parameter's value, of the type that the parameter declares."""

REQUIRED: object = object()
"""The default of a parameter that must be given."""


RESTART = "a newly installed one needs a restart of the daemon"
"""The end of an error about an unknown plugin: the daemon loads plugins when it starts."""


class FieldError(ValueError):
    """A field of a request is invalid; `field` names it, such as `params.frames`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Params(dict[str, Value]):
    """Parameters as a dict whose values are also attributes: `job.params.frames`.

    A parameter hides a method of dict with the same name: `params.keys` is the parameter `keys` if
    it exists. `params["keys"]`, `"keys" in params`, iteration and `dict(params)` always work.
    """

    copy: Value
    get: Value
    items: Value
    keys: Value
    pop: Value
    update: Value
    values: Value

    def __getattribute__(self, name: str) -> Value:
        try:
            return self[name]
        except KeyError:
            return super().__getattribute__(name)

    def __reduce__(self) -> tuple[type["Params"], tuple[dict[str, Value]]]:
        return Params, (dict(self),)

    def __getattr__(self, name: str) -> Value:
        known = ", ".join(self)
        raise AttributeError(f"unknown parameter {name!r}; the parameters are {known}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named value of type bool, int, float, str, list or dict."""

    name: str
    kind: type
    help: str
    default: object = REQUIRED
    minimum: float | None = None
    maximum: float | None = None

    def read(self, given: object, field: str) -> object:
        """Check a value and return it. Raises FieldError."""
        value = given
        if self.kind is float and type(given) is int and abs(given) < 10**300:
            value = float(given)
        if not self._has_kind(value):
            raise FieldError(field, f"{field} must be {_A[self.kind]}, got {given!r:.200}")
        _refuse_bad_text(value, field)
        if not self._within_bounds(value):
            low, high = self.minimum, self.maximum
            if low is not None and high is not None:
                bounds = f"between {low:.15g} and {high:.15g}"
            else:
                bounds = f"at most {high:.15g}" if low is None else f"at least {low:.15g}"
            raise FieldError(field, f"{field} must be {bounds}, got {given!r:.200}")
        return value

    def _has_kind(self, value: object) -> bool:
        finite = not isinstance(value, float) or math.isfinite(value)
        return type(value) is self.kind and finite

    def _within_bounds(self, value: object) -> bool:
        if not isinstance(value, int | float):
            return True
        low, high = self.minimum, self.maximum
        return (low is None or value >= low) and (high is None or value <= high)

    def describe(self) -> dict[str, object]:
        """Return everything that users and forms need to know, as JSON."""
        required = self.default is REQUIRED
        optional = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "default": None if required else self.default,
        }
        return {
            "name": self.name,
            "type": self.kind.__name__,
            "help": self.help,
            "required": required,
            **{key: value for key, value in optional.items() if value is not None},
        }


def _refuse_bad_text(given: object, where: str) -> None:
    """Raise FieldError for a text, or one inside a list or an object, that no program can take."""
    waiting = [(where, given)]
    while waiting:
        field, value = waiting.pop()
        if isinstance(value, str):
            _refuse_bad_string(field, field, value)
        elif isinstance(value, list):
            waiting += [(f"{field}[{number}]", one) for number, one in enumerate(value)]
        elif isinstance(value, dict):
            for name in value:
                _refuse_bad_string(field, f"a name in {field}", name)
            waiting += [(f"{field}.{name}", one) for name, one in value.items()]


def _refuse_bad_string(field: str, what: str, text: str) -> None:
    if "\0" in text:
        raise FieldError(field, f"{what} must not contain a NUL, got {text!r:.200}")
    if not _is_unicode(text):
        raise FieldError(field, f"{what} must be valid Unicode, got {text!r:.200}")


def _is_unicode(text: str) -> bool:
    """Return whether a text has no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_A = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
}


def read_fields(
    fields: Sequence[Parameter], given: object, where: str = "", known: str = "parameters"
) -> Params:
    """Return `given` (from JSON) checked against `fields`, with defaults filled in.

    `where` is the path of `given` in the request, `known` what to call the fields in an error.
    Raises FieldError.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(given, Mapping):
        raise FieldError(where, f"{where or 'the body'} must be a JSON object, got {given!r:.200}")
    names = {field.name for field in fields}
    for name in given:
        if name not in names:
            raise FieldError(
                f"{prefix}{name:.200}",
                f"{prefix}{name:.200} is unknown; the {known} are {', '.join(sorted(names))}",
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
