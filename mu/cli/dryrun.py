"""`mu launch --dry-run`: what an order would start, upload and deploy, and what it may cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mu.cli.deploy import sentence
from mu.cli.display.text import cut, many, span
from mu.cli.estimate import Bound, Estimate, bound, estimate, key_lists
from mu.cli.options import print_json

if TYPE_CHECKING:
    from mu.cli.files import LocalFile
    from mu.client.answers import PlanJson, SizeJson
    from mu.client.control_port import ControlPort
    from mu.functions.deploy import DeployResult

NAMED = 5
"""How many inputs are named."""
WIDTH = 100


def show_plan(
    client: ControlPort,
    order: dict[str, object],
    deployed: Sequence[DeployResult],
    files: Sequence[LocalFile],
    place: str,
    as_json: bool,
) -> None:
    """Print what the order would do. `files` would be uploaded to `place`, unless they are there."""
    plan = client.plan(order)
    size = plan["size"] or _new_size(deployed)
    most = bound(plan, size) if size is not None else None
    like = estimate(plan, client.jobs())
    if as_json:
        print_json(
            {
                **plan,
                "files": [file.name for file in files],
                "deploys": [asdict(result) for result in deployed],
                "bound_usd": most and most.usd,
                "estimate": like and asdict(like),
            }
        )
        return
    click.echo("Dry run: nothing is started, deployed or uploaded.")
    rows = [*_function(plan, deployed, files), *_inputs(plan, files, place), *_workers(plan)]
    for title, text in (*rows, *_cost(plan, size, most), *_estimate(plan, like)):
        click.echo(f"{title + ':' if title else '':<10} {text}")


def _new_size(deployed: Sequence[DeployResult]) -> SizeJson | None:
    """Return the size of a function that is still to be created."""
    from mu.functions.deploy import DEFAULTS

    if not deployed or DEFAULTS.memory is None or DEFAULTS.timeout is None:
        return None
    arm = all("arm64" in result.changes for result in deployed)
    architecture = "arm64" if arm else "x86_64"
    return {
        "memory_mb": DEFAULTS.memory,
        "architecture": architecture,
        "timeout_s": DEFAULTS.timeout,
    }


def _function(
    plan: PlanJson, deployed: Sequence[DeployResult], files: Sequence[LocalFile]
) -> Iterator[tuple[str, str]]:
    for result in deployed:
        yield "Function", sentence(result, dry=True)
    if not deployed:
        there = f"{plan['function']} in {', '.join(plan['regions'])}"
        yield "Function", f"{there}{_missing(plan, files)}"


def _missing(plan: PlanJson, files: Sequence[LocalFile]) -> str:
    """Return what is to be said if the function does not exist; empty: it does."""
    if "ResourceNotFoundException" not in (plan["size_unknown"] or ""):
        return ""
    if files and plan["engine"] == "local":
        return " would be created, with the worker alone"
    return f" does not exist: mu deploy --bare --name {plan['function']}, or give --program"


def _inputs(plan: PlanJson, files: Sequence[LocalFile], place: str) -> Iterator[tuple[str, str]]:
    from rich.filesize import decimal

    if files:
        size = decimal(sum(file.size for file in files))
        yield "Upload", f"{many(len(files), 'file')} ({size}) to {place}, unless they are there"
    names: list[object] = [given for given in plan["inputs"] if given]
    if lists := key_lists(plan["inputs"]):
        names = sorted((key for keys in lists for key in keys), key=str)
    yield "Inputs", str(len(names) or "none, besides the parameters")
    for name in names[:NAMED]:
        yield "", cut(str(name), WIDTH)
    if len(names) > NAMED:
        yield "", f"... and {len(names) - NAMED} more"


def _workers(plan: PlanJson) -> Iterator[tuple[str, str]]:
    spares = f", and {many(plan['spares'], 'spare')}" if plan["spares"] else ""
    each = ""
    if lists := key_lists(plan["inputs"]):
        each = f", up to {many(max(map(len, lists)), 'input')} each"
    stages = ", ".join(f"{count} {name}" for name, count in plan.get("stages", {}).items() if count)
    parts = f" ({stages})" if stages else ""
    yield "Workers", f"{plan['actors']}{parts}{spares} on engine {plan['engine']}{each}"


def _cost(plan: PlanJson, size: SizeJson | None, most: Bound | None) -> Iterator[tuple[str, str]]:
    if size is None or most is None:
        yield "Cost", "unknown, as is the function's size"
        return
    limit = " (--max-cost)" if most.usd == plan["max_cost_usd"] else ""
    free = "; engine local costs nothing, this is AWS's price" if plan["engine"] == "local" else ""
    yield "Cost", f"at most ${_money(most.usd)}{limit}{free}"
    yield (
        "",
        f"{many(most.attempts, 'attempt')} of up to {span(most.attempt_s)}, with"
        f" {size['memory_mb']} MB ({size['architecture']})",
    )


def _estimate(plan: PlanJson, like: Estimate | None) -> Iterator[tuple[str, str]]:
    what = f"{plan['pipeline']} on function {plan['function']}"
    if like is None:
        yield "Estimate", f"none: no job of {what} is done yet"
        return
    yield (
        "Estimate",
        f"about ${_money(like.usd)} and {span(like.seconds)}, if it is like the last"
        f" {many(like.jobs, 'job')} of {what}",
    )


def _money(usd: float) -> str:
    return f"{usd:.2f}" if usd >= 0.1 else f"{usd:.4f}"
