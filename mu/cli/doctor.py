"""`mu doctor`: what stands between here and a job that runs, and what to do about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mu.cli.options import FAILED, WHERE, Failure, finds_daemon

if TYPE_CHECKING:
    from mu.cli.address import Home
    from mu.doctor import Case
    from mu.doctor.finding import Finding
    from mu.functions.aws import Clients

POLICIES = ("all", "daemon", "deploy", "function", "trust")
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@click.option("--engine", type=click.Choice(["lambda", "local"]), help="AWS, or this machine.")
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="NAME",
    help="Look at this function, too. As often as needed.",
)
@click.option("--copies", type=click.IntRange(1, 1000), metavar="N", help="It is NAME-0 and so on.")
@click.option(
    "--region", "--regions", "regions", multiple=True, metavar="NAME,...", help="AWS regions."
)
@click.option(
    "-n",
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="How many a job is to have.",
)
@click.option(
    "--role",
    default="",
    metavar="ARN",
    envvar="AWS_ROLE",
    help="The functions' role.  [default: AWS_ROLE, or the function's]",
)
@click.option("--bucket", default="", metavar="NAME", help="Look at this bucket of the data, too.")
@click.option(
    "--write", is_flag=True, help="Put an object into the bucket, get it and delete it again."
)
@click.option(
    "--policy",
    is_flag=False,
    flag_value="all",
    type=click.Choice(POLICIES),
    help="Print the least IAM policies as JSON, all or one, and look at nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@finds_daemon()
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    engine: str | None,
    functions: Sequence[str],
    copies: int | None,
    regions: Sequence[str],
    policy: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say what is missing before a job runs.

    Looks at the CA, the worker port, and the address that workers are told; on AWS also at the
    credentials, the clock, the concurrency that the account has, the function, its role and the
    bucket. Nothing is changed. The exit status is 1 if something fails.

    Policies: "daemon" is for the user or role with which the daemon runs, "deploy" for who runs
    mu deploy and mu doctor, "function" and "trust" for the functions' role.

    \b
    Examples:
      mu doctor
      mu doctor --engine lambda --function png2y4m -n 2000 --bucket films --write
      mu doctor --engine local --function hello
      mu doctor --policy
      mu doctor --policy function --bucket films > function.json
    """
    from mu.cli.address import find_home

    if policy is not None:
        _print_policies(policy, functions, given["bucket"], given["role"])
        return
    home = find_home(ctx.meta.get(WHERE, {}), os.environ)
    engine = engine or home.config.launch.engine
    if engine not in ("lambda", "local"):
        raise Failure(f"[launch] engine in {home.source} is {engine}: say --engine lambda or local")
    regions = list(dict.fromkeys(word for each in regions for word in each.split(",") if word))
    case = _case(home, engine, functions, copies, regions, **given)
    findings = list(_shown(case, as_json))
    failed = any(finding.level == "fail" for finding in findings)
    if as_json:
        told = [asdict(finding) for finding in findings]
        click.echo(json.dumps(told, indent=2 if sys.stdout.isatty() else None))
    else:
        click.echo(f"\n{_summary(findings)}")
    ctx.exit(FAILED if failed else 0)


def _case(
    home: Home,
    engine: str,
    functions: Sequence[str],
    copies: int | None,
    regions: Sequence[str],
    **given: Any,
) -> Case:
    from mu.doctor import Case
    from mu.functions.deploy import names_of

    clients, known = _clients(engine, home)
    return Case(
        home.config,
        home.source,
        engine,
        clients,
        regions or [home.config.launch.region],
        [name for function in functions for name in names_of(function, copies or 0)],
        known=known,
        **given,
    )


def _clients(engine: str, home: Home) -> tuple[Clients | None, list[Finding]]:
    """Return the clients, or a finding that says why there are none."""
    from mu.cli.address import NoAddress, NotRunning, find_port
    from mu.doctor.finding import FAIL, OK, Finding
    from mu.functions.aws import Aws, LocalEngine

    if engine == "lambda":
        return Aws(), []
    if not home.config.local.enabled:
        off = f"[local] enabled = no in {home.source}: there is no local engine"
        return None, [Finding("local engine", FAIL, off, "set it to yes, or say --engine lambda")]
    try:
        port = find_port(home, "local")
    except (NoAddress, NotRunning) as error:
        return None, [Finding("local engine", FAIL, str(error))]
    return LocalEngine(port), [Finding("local engine", OK, f"it is on port {port}")]


def _shown(case: Case, quiet: bool) -> Iterator[Finding]:
    """Yield the findings, each shown as it comes."""
    from rich.table import Table
    from rich.text import Text

    from mu.cli.console import console
    from mu.doctor import examine

    screen, waiting = console(), console(stderr=True)
    with waiting.status("Looking ..."):
        for finding in examine(case):
            if not quiet:
                row = Table.grid(padding=(0, 1, 0, 0))
                row.add_column(min_width=4)
                row.add_column(min_width=12, no_wrap=True)
                row.add_column()
                level = Text(finding.level, style=_STYLES[finding.level])
                row.add_row(level, finding.check, finding.sentence)
                if finding.remedy:
                    row.add_row("", "", Text(f"-> {finding.remedy}"))
                screen.print(row)
            yield finding


def _summary(findings: Sequence[Finding]) -> str:
    levels = [finding.level for finding in findings]
    if "fail" in levels:
        failed = levels.count("fail")
        return f"{failed} thing{'s' if failed > 1 else ''} must be put right before a job runs."
    return "Nothing stands in the way of a job." + (
        " The warnings may matter." if "warn" in levels else ""
    )


def _print_policies(which: str, functions: Sequence[str], bucket: str, role: str) -> None:
    from mu.functions.iam import policies

    found = policies(functions[0] if functions else "", bucket, role)
    click.echo(json.dumps(found if which == "all" else found[which], indent=2))
