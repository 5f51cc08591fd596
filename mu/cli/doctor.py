"""`mu doctor`: finds what would keep a job from running, and how to fix it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

import click

from mu.cli.functions import function_errors
from mu.cli.options import (
    FAILED,
    CliError,
    chooses_engine,
    chosen_engine,
    finds_daemon,
    local_clients,
    local_engine_off,
    print_json,
    shows_json,
    split_regions,
    the_home,
)

if TYPE_CHECKING:
    from mu.cli.address import Home
    from mu.doctor.finding import Finding
    from mu.functions.apis import Clients

POLICIES = ("all", "daemon", "deploy", "function", "trust")
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@chooses_engine
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="NAME",
    help="Also check this function. Repeatable.",
)
@click.option(
    "--copies",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="The functions are NAME-0 to NAME-(N-1).",
)
@click.option(
    "-n",
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="How many workers the job will have.  [default: 1]",
)
@click.option(
    "--role",
    default="",
    metavar="ARN",
    envvar="AWS_ROLE",
    help="The functions' role.  [default: AWS_ROLE, or the function's]",
)
@click.option("--bucket", default="", metavar="NAME", help="Also check this data bucket.")
@click.option("--write", is_flag=True, help="Write, read and delete a test object in the bucket.")
@click.option(
    "--policy",
    is_flag=False,
    flag_value="all",
    type=click.Choice(POLICIES),
    help="Print the minimal IAM policies as JSON, all or one, and check nothing.",
)
@click.option(
    "--journal", is_flag=True, help="Check only the daemon's journal: the file, and all records."
)
@click.option(
    "--repair", is_flag=True, help="With --journal: save what can be read of a damaged journal."
)
@shows_json
@finds_daemon()
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    engine: str | None,
    functions: Sequence[str],
    copies: int | None,
    regions: Sequence[str],
    workers: int,
    role: str,
    bucket: str,
    write: bool,
    policy: str | None,
    journal: bool,
    repair: bool,
    as_json: bool,
) -> None:
    """Check that a job can run.

    Checks the CA, the worker port, and the address that workers connect to; on AWS also the
    credentials, the clock, the concurrency quota, the function, its role and the bucket. Changes
    nothing. The exit status is 1 if a check fails.

    The policies are for: "daemon", the user or role that runs the daemon; "deploy", the user who
    runs mu deploy and mu doctor; "function" and "trust", the functions' role.

    \b
    Examples:
      mu doctor
      mu doctor --engine lambda --function png2y4m -n 2000 --bucket films --write
      mu doctor --engine local --function hello
      mu doctor --policy
      mu doctor --policy function --bucket films > function.json
      mu doctor --journal --repair
    """
    if repair and not journal:
        raise CliError("--repair needs --journal: it repairs the journal")
    if journal:
        _check_journal(ctx, repair, as_json)
    if policy is not None:
        region = split_regions(regions, the_home())[0]
        _print_policies(policy, functions[0] if functions else "", bucket, role, region)
        return
    from mu.doctor import Case, examine
    from mu.functions.deploy import names_of

    home = the_home()
    engine = chosen_engine(engine, home)
    clients, known = _clients(engine, home)
    with function_errors():
        names = [name for function in functions for name in names_of(function, copies or 0)]
    case = Case(
        home.config,
        home.source,
        engine,
        clients,
        split_regions(regions, home),
        names,
        workers,
        role,
        bucket,
        write,
        known,
    )
    findings = list(_shown(examine(case), as_json))
    if not as_json:
        click.echo(f"\n{_summary(findings)}")
    _exit(ctx, findings, as_json)


def _check_journal(ctx: click.Context, repair: bool, as_json: bool) -> None:
    from mu.doctor.journal import examine_journal

    path = the_home().path / "journal.db"
    _exit(ctx, list(_shown(examine_journal(path, repair), as_json)), as_json)


def _exit(ctx: click.Context, findings: Sequence[Finding], as_json: bool) -> NoReturn:
    if as_json:
        print_json([asdict(finding) for finding in findings])
    ctx.exit(FAILED if any(finding.level == "fail" for finding in findings) else 0)


def _clients(engine: str, home: Home) -> tuple[Clients | None, list[Finding]]:
    """Return the clients, or a finding that says why there are none."""
    from mu.cli.address import NoAddress, NotRunning
    from mu.doctor.finding import FAIL, OK, Finding
    from mu.functions.aws import AwsClients

    if engine == "lambda":
        return AwsClients(), []
    check = "local engine"
    if off := local_engine_off(home):
        return None, [Finding(check, FAIL, off, "set it to yes, or choose --engine lambda")]
    try:
        clients = local_clients(home)
    except (NoAddress, NotRunning) as error:
        return None, [Finding(check, FAIL, str(error))]
    return clients, [Finding(check, OK, f"listening on port {clients.port}")]


def _shown(findings: Iterable[Finding], quiet: bool) -> Iterator[Finding]:
    """Yield the findings, and print each one when it is made."""
    from rich.table import Table
    from rich.text import Text

    from mu.cli.display.text import console

    screen, waiting = console(), console(stderr=True)
    with waiting.status("Checking ..."):
        for finding in findings:
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
    failed, warnings = levels.count("fail"), levels.count("warn")
    if failed:
        return f"{failed} {'checks' if failed > 1 else 'check'} failed: a job cannot run yet."
    if warnings:
        return f"No check failed, with {warnings} {'warnings' if warnings > 1 else 'warning'}."
    return "All checks passed."


def _print_policies(which: str, function: str, bucket: str, role: str, region: str) -> None:
    from mu.aws.sessions import partition_of
    from mu.functions.iam import in_partition, policies

    partition = partition_of(region)
    found = {
        name: in_partition(policy, partition)
        for name, policy in policies(function, bucket, role).items()
    }
    click.echo(json.dumps(found if which == "all" else found[which], indent=2))
