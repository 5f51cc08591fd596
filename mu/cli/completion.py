"""Shell completion: what a word of a command line may become.

Names and ids come from the running daemon, with one request. If there is none, or it does not answer
quickly, nothing is offered and nothing printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

if TYPE_CHECKING:
    from mu.client.control_port import ControlPort

ANSWER_S = 1.0
"""How long the daemon may take."""
JOBS = 50
"""How many jobs to offer, the latest ones."""
WHERE = "mu.where"
"""The key in a click context's meta for the options that select a daemon."""

T = TypeVar("T")


class SpacelessBash(BashComplete):
    """Completion for bash that adds no space after `NAME=`, since its value follows."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)",
        "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace",
    )


add_completion_class(SpacelessBash)


def complete_pipeline(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    found = _ask(ctx, lambda client: client.pipelines())
    usable = [pipeline for pipeline in found if "error" not in pipeline]
    return _offer(incomplete, ((one["name"], one.get("description", "")) for one in usable))


def complete_job(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the latest jobs, the newest first, and `last`."""
    jobs = _ask(ctx, lambda client: client.jobs(last=JOBS))[::-1]
    told = [
        (job["id"], " ".join(filter(None, (job.get("name"), job["pipeline"], job["state"]))))
        for job in jobs
    ]
    return _offer(incomplete, [("last", "the latest job"), *told] if told else [])


def complete_param(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer `NAME=` for each parameter of the pipeline that is not given yet."""
    # An option that still lacks its value ends click's parsing: arguments are then left in ctx.args.
    name = ctx.params.get("pipeline") or next(iter(ctx.args), None)
    given = {word.partition("=")[0] for word in ctx.params.get("params") or ()}
    offered = [
        (f"{described['name']}=", described["help"])
        for pipeline in _ask(ctx, lambda client: client.pipelines())
        if pipeline["name"] == name
        for described in pipeline.get("parameters", ())
        if described["name"] not in given
    ]
    return _offer(incomplete, offered)


def complete_function(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the functions of the local engine, and those of the latest jobs."""
    from mu.client.address import find_home
    from mu.client.errors import NoAddress

    jobs = _ask(ctx, lambda client: client.jobs(last=JOBS))
    names = {function for job in jobs if (function := job.get("function"))}
    try:
        functions = find_home(ctx.meta.get(WHERE, {}), os.environ).path / "local" / "functions"
        names.update(folder.parent.name for folder in functions.glob("*/config.json"))
    except (NoAddress, OSError):
        pass
    return _offer(incomplete, ((name, "") for name in sorted(names)))


def complete_engine(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer mu's engines, and those of the packages that are installed here."""
    from importlib.metadata import entry_points

    names = {"external", "lambda", "local", *entry_points(group="mu.engines").names}
    return _offer(incomplete, ((name, "") for name in sorted(names)))


def complete_path(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Have the shell offer files and folders."""
    return [CompletionItem(incomplete, type="file")]


def _ask(ctx: click.Context, question: Callable[[ControlPort], list[T]]) -> list[T]:
    """Return the daemon's answer; empty: there is none."""
    from mu.client.address import find_address
    from mu.client.control_port import ControlPort
    from mu.client.errors import NoAddress, NotRunning, RequestRefused

    try:
        return question(ControlPort(find_address(ctx.meta.get(WHERE, {}), os.environ), ANSWER_S))
    except (NoAddress, NotRunning, RequestRefused):
        return []


def _offer(incomplete: str, words: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    return [CompletionItem(word, help=told) for word, told in words if word.startswith(incomplete)]
