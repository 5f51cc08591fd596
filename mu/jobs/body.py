"""Parses the body of an order: bytes to JSON values, or an error that names the invalid key."""

import json
import math

from mu.parameters import FieldError


def read_body(body: bytes, max_depth: int) -> dict[str, object]:
    """Return the JSON object in a request's body. Raises FieldError.

    Python reads more than other programs can: NaN, infinite numbers, a key that is given twice, and
    nesting that nothing can write again. All of that is refused.
    """
    try:
        given = json.loads(body, object_pairs_hook=_object)
    except RecursionError:
        raise FieldError("", _too_deep("the body", max_depth)) from None
    except FieldError:
        raise
    except ValueError as error:  # also for invalid UTF-8
        raise FieldError("", f"the body must be a JSON object: {error}") from None
    if not isinstance(given, dict):
        raise FieldError("", f"the body must be a JSON object, got {body!r:.200}")
    _check(given, max_depth)
    return given


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object, whose keys must be different."""
    read = dict(pairs)
    if len(read) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in read if names.count(name) > 1)
        raise FieldError(f"{twice:.200}", f"{twice:.200} is given more than once")
    return read


def _check(given: object, max_depth: int) -> None:
    """Raise FieldError for numbers that JSON does not have, and for deep nesting."""
    waiting = [("", given, 1)]
    while waiting:
        where, value, depth = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise FieldError(where, f"{where or 'the body'} must be a finite number, got {value}")
        if not isinstance(value, dict | list):
            continue
        if depth > max_depth:
            field = where[:200]
            raise FieldError(field, _too_deep(field or "the body", max_depth))
        if isinstance(value, dict):
            inside = [(f"{where}.{name}" if where else name, one) for name, one in value.items()]
        else:
            inside = [(f"{where}[{number}]", one) for number, one in enumerate(value)]
        waiting += [(path, one, depth + 1) for path, one in inside]


def _too_deep(what: str, max_depth: int) -> str:
    return (
        f"{what} is nested too deeply: an order may have at most {max_depth} lists and objects"
        " inside one another (max_depth in mu.conf)"
    )
