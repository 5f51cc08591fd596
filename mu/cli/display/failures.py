"""Shows why actors failed or were retried: each different error once, with its actors."""

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from mu.cli.display.text import GROUPS, IN_A_LIST, NO_REASON, many, shortened
from mu.client.answers import ActorJson, FailureJson, JobJson

STOPPED = "stopped when the job ended"
COULD_NOT_BEGIN = "it could not begin: "
"""How the error of an actor begins that waited for others which failed."""

_ADDRESS = re.compile(r" at (?:\d+(?:\.\d+){3}|\[?[0-9a-f]*:[0-9a-f:]+\]?):\d+\b")
"""A worker's address, which differs between errors that are otherwise the same."""
_NUMBER = re.compile(r"[0-9a-f]*\d[0-9a-f]*")
"""Ports, names of temporary folders and so on, which differ in the same way."""


def failures(
    actors: Sequence[ActorJson], job: JobJson, every: bool = False
) -> list[RenderableType]:
    """Return each different error of failed actors, the most frequent first, with its details.

    Actors that failed without an attempt, because others had, come after those; actors that failed
    only because the job was stopped come last.
    """
    failed = [actor for actor in actors if actor["state"] == "failed"]
    ways = _alike((_why(actor, job), actor) for actor in failed)
    ways.sort(key=lambda way: (way[0].endswith(STOPPED), way[0].startswith(COULD_NOT_BEGIN)))
    if not ways:
        return []
    shown = ways if every else ways[:GROUPS]
    parts: list[RenderableType] = []
    for error, group in shown:
        parts.append(Text(f"{_who(group)} failed:", style="bold red"))
        parts += [_indented(line) for line in (error, *_details(group[0], len(group) > 1))]
    left = sum(len(group) for _, group in ways[len(shown) :])
    if left:
        more = f"{many(left, 'more actor')} failed: mu workers {job['id']} --state failed"
        parts.append(Text(more))
    one = shown[0][1][0]["actor"]
    parts.append(Text(f"Output of actor {one}: mu log {job['id']} -a {one}", style="dim"))
    return parts


def retried(actors: Sequence[ActorJson]) -> list[RenderableType]:
    """Return why actors that have not failed needed more than one attempt."""
    ways = _alike(
        (before[-1]["error"], actor)
        for actor in actors
        if actor["state"] != "failed" and (before := _before(actor))
    )
    parts: list[RenderableType] = []
    for error, group in ways[:GROUPS]:
        were = "was" if len(group) == 1 else "were"
        parts += [Text(f"{_who(group)} {were} retried:", style="yellow"), _indented(error)]
    left = sum(len(group) for _, group in ways[GROUPS:])
    were = "was" if left == 1 else "were"
    return [*parts, *([Text(f"{many(left, 'more actor')} {were} retried.")] if left else [])]


def _before(actor: ActorJson) -> list[FailureJson]:
    """Return the failures after which the actor was retried."""
    failures = actor.get("failures", [])
    ended = actor["state"] == "cancelled" and failures and failures[-1]["error"] == actor["error"]
    return failures[:-1] if ended else failures


def ranges(numbers: Sequence[int], most: int = 8) -> str:
    """Return `0-4, 7, 9-11` for sorted numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:most]]
    return ", ".join(words) + (", …" if len(runs) > most else "")


def _why(actor: ActorJson, job: JobJson) -> str | None:
    error, reason = actor["error"], job["error"]
    if reason and error and error.endswith(reason):
        return f"{error.removesuffix(reason)}{STOPPED}"
    return error


def _alike(named: Iterable[tuple[str | None, ActorJson]]) -> list[tuple[str, list[ActorJson]]]:
    """Group actors by their error, the most frequent first; addresses are ignored."""
    ways: dict[str, list[tuple[str, ActorJson]]] = {}
    for error, actor in named:
        error = error or NO_REASON
        ways.setdefault(_ADDRESS.sub("", error), []).append((error, actor))
    order = sorted(ways.items(), key=lambda way: -len(way[1]))
    return [
        (group[0][0] if len({error for error, _ in group}) == 1 else common, [a for _, a in group])
        for common, group in order
    ]


def _who(group: Sequence[ActorJson]) -> str:
    numbers = [actor["actor"] for actor in group]
    return (
        f"Actor {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} actors ({ranges(numbers)})"
    )


def _details(actor: ActorJson, of_many: bool) -> Iterator[str]:
    """Yield more about an actor's failure: its last reply, and errors of earlier attempts."""
    reply, error = actor["last_reply"], actor["error"] or ""
    whose = f" of actor {actor['actor']}" if of_many else ""
    if reply and repr(reply)[1:60] not in error:
        yield f"Last reply{whose}: {shortened(repr(reply), IN_A_LIST)}"
    for failure in actor.get("failures", [])[:-1]:
        if not _NUMBER.sub("", error).startswith(_NUMBER.sub("", failure["error"])):
            number = failure["attempt"]
            what = f"Attempt {number}{whose} failed" if number else "Before the first attempt"
            yield f"{what}: {shortened(failure['error'], IN_A_LIST)}"


def _indented(text: str) -> RenderableType:
    return Padding(Text(shortened(text)), (0, 0, 0, 2), expand=False)
