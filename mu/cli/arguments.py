"""Words of a command line become an order's values, by what the pipelines say of themselves."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mu.parameters import REQUIRED, Parameter

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str, list, dict)}
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}

MOST_ACTORS = 1_000_000
"""More than any daemon takes: what is beyond it is not counted up here."""


class BadArgument(ValueError):
    """A sentence that names the argument, what came and what is expected."""


def pipeline_named(pipelines: Iterable[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Return that pipeline's description. Raises BadArgument."""
    told = list(pipelines)
    known = {pipeline["name"]: pipeline for pipeline in told if "error" not in pipeline}
    for broken in told:
        if broken["name"] == name and name not in known:
            raise BadArgument(f"{name} of {broken['owner']} cannot be used: {broken['error']}")
    if name not in known:
        raise BadArgument(f"there is no pipeline {name!r}{_instead(name, known)}")
    return known[name]


def read_params(pipeline: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the values of words such as `frames=6`. Raises BadArgument."""
    name = pipeline["name"]
    known = {described["name"]: described for described in pipeline["parameters"]}
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise BadArgument(f"-p wants NAME=VALUE; {word!r} came")
        if key not in known:
            raise BadArgument(f"{name} has no parameter {key!r}{_instead(key, known)}")
        if key in values:
            raise BadArgument(f"-p {key} was given twice")
        values[key] = _read_value(known[key], text)
    for described in known.values():
        if described["required"] and described["name"] not in values:
            raise BadArgument(
                f"{name} needs -p {described['name']}=...: {described['help']} ({expected(described)})"
            )
    return values


def read_actors(text: str) -> list[int]:
    """Return the numbers of words such as `0,7,12-15`. Raises BadArgument."""
    numbers: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise BadArgument(f"--actors must be numbers such as 0,7,12-15; {text!r:.200} came")
        ends = int(first), int(last or first)
        if ends[1] - ends[0] > MOST_ACTORS:
            raise BadArgument(f"--actors names over {MOST_ACTORS} actors: {word.strip()} came")
        numbers += range(ends[0], ends[1] + 1)
    return numbers


def read_event(text: str) -> dict[str, Any]:
    """Return a JSON object, given as it is or as @FILE. Raises BadArgument."""
    what = "--event"
    if text.startswith("@"):
        what = f"--event {text}"
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BadArgument(f"{what} cannot be read: {error}") from None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArgument(f"{what} must be a JSON object, or @FILE with one: {error}") from None
    if not isinstance(event, dict):
        raise BadArgument(f"{what} must be a JSON object; {text!r:.60} came")
    return event


def expected(described: Mapping[str, Any]) -> str:
    """Return what a parameter takes, for people: `a whole number, at least 1`."""
    kind = _KINDS.get(described["type"])
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: """a list as JSON, such as '["a", "b"]'""",
        dict: """an object as JSON, such as '{"name": 1}'""",
    }
    bounds = [words[kind] if kind else described["type"]]
    bounds += [f"at least {described['minimum']:g}"] if "minimum" in described else []
    bounds += [f"at most {described['maximum']:g}"] if "maximum" in described else []
    return ", ".join(bounds)


def _read_value(described: Mapping[str, Any], text: str) -> Any:
    kind = _KINDS.get(described["type"])
    if kind is None:
        return text  # of a daemon newer than this client: it will judge
    low, high = described.get("minimum"), described.get("maximum")
    parameter = Parameter(described["name"], kind, described["help"], REQUIRED, low, high)
    try:
        return parameter.read(_converted(kind, text), parameter.name)
    except (ValueError, RecursionError):
        raise BadArgument(
            f"-p {parameter.name} must be {expected(described)}; {text!r:.200} came"
        ) from None


def _converted(kind: type, text: str) -> Any:
    """Return the text as a value of that kind. Raises ValueError."""
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _WORDS:
            raise ValueError(text)
        return _WORDS[text.lower()]
    if kind in (int, float):
        return kind(text)
    return json.loads(text)


def _instead(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ";"
    has = ", ".join(names) if names else "none"
    return f"{meant} There are: {has}" if near else f"{meant} there are: {has}"
