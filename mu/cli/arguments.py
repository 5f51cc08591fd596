"""Turns the arguments of a command line into the values of an order."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mu.client.answers import ParameterJson, PipelineJson
from mu.parameters import REQUIRED, RESTART, Parameter

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str, list, dict)}
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}

_RANGE = re.compile(r"([0-9]{1,15})(?:-([0-9]{1,15}))?")

MOST_ACTORS = 1_000_000
"""More than any daemon accepts; a longer range is refused here, before it is expanded."""


class BadArgument(ValueError):
    """A bad argument; the text names it, what was expected, and what was given."""


def pipeline_named(pipelines: Iterable[PipelineJson], name: str) -> PipelineJson:
    """Return the description of the pipeline. Raises BadArgument."""
    listed = list(pipelines)
    known = {pipeline["name"]: pipeline for pipeline in listed if "error" not in pipeline}
    for broken in listed:
        if broken["name"] == name and name not in known:
            raise BadArgument(
                f"pipeline {name} of {broken['owner']} cannot be used: {broken['error']}"
            )
    if name not in known:
        instead = _instead(name, "pipelines", known)
        raise BadArgument(_not_loaded(name) or f"unknown pipeline {name!r}{instead}; {RESTART}")
    return known[name]


def read_params(
    pipeline: PipelineJson, words: Sequence[str], whole: bool = True
) -> dict[str, object]:
    """Return the values in arguments such as `frames=6`. Raises BadArgument.

    `whole`: all required parameters must be there.
    """
    known = {described["name"]: described for described in pipeline["parameters"]}
    values: dict[str, object] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise BadArgument(f"-p must be NAME=VALUE, got {word!r}")
        if key not in known:
            of = f"unknown parameter {key!r} of {pipeline['name']}"
            raise BadArgument(f"{of}{_instead(key, 'parameters', known)}")
        if key in values:
            raise BadArgument(f"-p {key} is given twice")
        values[key] = _read_value(known[key], text)
    for described in known.values():
        if whole and described["required"] and described["name"] not in values:
            raise BadArgument(
                f"{pipeline['name']} requires -p {described['name']}=...: {described['help']}"
                f" ({expected(described)})"
            )
    return values


def read_actors(text: str) -> list[int]:
    """Return the numbers in a text such as `0,7,12-15`. Raises BadArgument."""
    numbers: list[int] = []
    for word in text.split(","):
        form = _RANGE.fullmatch(word.strip())
        if form is None:
            raise BadArgument(f"--actors must be numbers such as 0,7,12-15, got {text!r:.200}")
        first, last = int(form[1]), int(form[2] or form[1])
        if last < first:
            raise BadArgument(
                f"--actors: a range must begin with its smaller number, as in {last}-{first}, got"
                f" {word.strip()}"
            )
        if last - first + len(numbers) >= MOST_ACTORS:
            raise BadArgument(f"--actors may name {MOST_ACTORS} actors, got {text!r:.200}")
        numbers += range(first, last + 1)
    return numbers


def read_pairs(words: Sequence[str]) -> dict[str, str]:
    """Return the texts in arguments such as `partition=long`. Raises BadArgument."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise BadArgument(f"--engine-option must be NAME=VALUE, got {word!r}")
        if name in pairs:
            raise BadArgument(f"--engine-option {name} is given twice")
        pairs[name] = text
    return pairs


def read_event(text: str) -> dict[str, object]:
    """Return a JSON object, given as text or as @FILE. Raises BadArgument."""
    what = "--event"
    if text.startswith("@"):
        what = f"--event {text}"
        try:
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise BadArgument(f"cannot read {what}: {error}") from None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArgument(f"{what} must be a JSON object, or @FILE with one: {error}") from None
    if not isinstance(event, dict):
        raise BadArgument(f"{what} must be a JSON object, got {text!r:.60}")
    return event


def expected(described: ParameterJson) -> str:
    """Return what a parameter accepts, such as `a whole number between 1 and 9`."""
    kind = _KINDS.get(described["type"])
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a string",
        list: """a JSON list such as '["a", "b"]'""",
        dict: """a JSON object such as '{"name": 1}'""",
    }
    accepts = words[kind] if kind else described["type"]
    low, high = described.get("minimum"), described.get("maximum")
    if low is not None and high is not None:
        return f"{accepts} between {low:.15g} and {high:.15g}"
    if low is not None:
        return f"{accepts} of at least {low:.15g}"
    return accepts if high is None else f"{accepts} of at most {high:.15g}"


def _not_loaded(name: str) -> str:
    """Return a sentence if this environment has such a pipeline, which the daemon does not know."""
    import sys
    from importlib.metadata import entry_points

    for entry in entry_points(group="mu.pipelines", name=name):
        package = entry.dist.name if entry.dist else "an unknown package"
        return (
            f"pipeline {name!r} is installed ({entry.value} of {package}, in {sys.prefix}), but not"
            " yet loaded by the running daemon: restart it, if it runs in this environment, too."
            " Running jobs resume, unless [mu] on_stop is cancel"
        )
    return ""


def _read_value(described: ParameterJson, text: str) -> object:
    kind = _KINDS.get(described["type"])
    if kind is None:
        return text  # the daemon is newer than this client, and checks it
    low, high = described.get("minimum"), described.get("maximum")
    parameter = Parameter(described["name"], kind, described["help"], REQUIRED, low, high)
    try:
        value: object = parameter.read(_converted(kind, text), parameter.name)
        return value
    except (ValueError, RecursionError) as error:
        if kind is str:
            raise BadArgument(f"-p {error}") from None
        raise BadArgument(
            f"-p {parameter.name} must be {expected(described)}, got {text!r:.200}"
        ) from None


def _converted(kind: type, text: str) -> object:
    """Parse the text as a value of that kind. Raises ValueError."""
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _WORDS:
            raise ValueError(text)
        return _WORDS[text.lower()]
    if kind in (int, float):
        number: object = kind(text)
        return number
    value: object = json.loads(text)
    return value


def _instead(name: str, what: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: a similar one, and all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    there_are = f"the {what} are {', '.join(names)}" if names else f"there are no {what}"
    return f"; did you mean {near[0]!r}? T{there_are[1:]}" if near else f"; {there_are}"
