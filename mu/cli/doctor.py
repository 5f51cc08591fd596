"""`mu doctor`: finds what would keep a job from running, and how to fix it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from mu.cli.completion import complete_engine, complete_function, complete_pipeline
from mu.cli.functions import function_errors
from mu.cli.options import (
    FAILED,
    CliError,
    chosen_engine,
    finds_daemon,
    local_engine_off,
    print_json,
    shows_json,
    split_regions,
    the_home,
    where,
)

if TYPE_CHECKING:
    from mu.client.address import Home
    from mu.client.answers import FindingJson
    from mu.findings import Finding
    from mu.functions.aws import LocalClients

POLICIES = ("all", "daemon", "deploy", "function", "trust")
ANSWER_S = 600.0
"""How long the daemon may take for all checks."""
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "cyan"}
_WITH_SHELL = (
    "These checks use the credentials of this shell, which may be others than the daemon's"
)


@click.command()
@click.option(
    "--region", "--regions", "regions", multiple=True, metavar="NAME,...", help="AWS regions."
)
@click.option(
    "--engine",
    metavar="NAME",
    shell_complete=complete_engine,
    help="AWS Lambda (lambda), this machine (local), or an engine of a plugin.",
)
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_function,
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
    "--pipeline",
    default="",
    metavar="NAME",
    shell_complete=complete_pipeline,
    help="The job's pipeline: whether it needs the relay, or all workers at once.",
)
@click.option(
    "--memory",
    type=click.IntRange(min=1),
    metavar="MB",
    help="How much memory its function is to have.  [default: that of mu deploy]",
)
@click.option(
    "--role",
    default="",
    metavar="ARN",
    envvar="AWS_ROLE",
    help="The functions' role.  [default: AWS_ROLE, or the function's]",
)
@click.option(
    "--bucket",
    default="",
    metavar="NAME",
    help="Also check this data bucket.  [default: that of [s3] in mu.conf]",
)
@click.option("--write", is_flag=True, help="Write, read and delete a test object in the bucket.")
@click.option("--run", is_flag=True, help="Also run functions that were not made by mu deploy.")
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
    pipeline: str,
    memory: int | None,
    role: str,
    bucket: str,
    write: bool,
    run: bool,
    policy: str | None,
    journal: bool,
    repair: bool,
    as_json: bool,
) -> None:
    """Check that a job can run.

    Checks the CA, the worker port, the relay's port, and the address that workers connect to; on
    AWS also the credentials, the clock, the quotas, the function, its role and the bucket. Runs
    the function once, which then connects to both ports and tells what it has. Changes nothing.
    The exit status is 1 if a check fails.

    The running daemon makes the checks, with its own credentials. Without one, they are made here,
    with those of this shell. A right that jobs do not need is no failure if it is missing: what it
    would show is "unknown".

    The policies are for: "daemon", the user or role that runs the daemon; "deploy", the user who
    runs mu deploy and mu doctor; "function" and "trust", the functions' role. They name the
    functions with their copies and suffixes, the bucket and the role, so give these as to mu deploy,
    and print them again when one of them changes. What is not given becomes a *.

    \b
    Examples:
      mu doctor
      mu doctor --engine lambda --function png2y4m -n 2000 --bucket films --write
      mu doctor --engine local --function hello
      mu doctor --function encode --pipeline chain -n 20
      mu doctor --policy
      mu doctor --policy deploy --function png2y4m --bucket films > deploy.json
      mu doctor --journal --repair
    """
    if repair and not journal:
        raise CliError("--repair needs --journal: it repairs the journal")
    if journal:
        _check_journal(ctx, repair, as_json)
    if policy is not None:
        _print_policies(policy, functions, bucket, role, split_regions(regions, the_home()))
        return
    from mu.functions.deploy import names_of

    with function_errors():
        names = [name for function in functions for name in names_of(function, copies or 0)]
    named = [name for word in regions for name in word.replace(",", " ").split()]
    asked = {
        "engine": engine,
        "functions": names,
        "regions": list(dict.fromkeys(named)),
        "workers": workers,
        "pipeline": pipeline,
        "memory": memory,
        "role": role,
        "bucket": bucket,
        "write": write,
        "run": run,
    }
    given = {key: value for key, value in asked.items() if value}
    findings = list(_shown(_findings(given), as_json))
    if not as_json:
        click.echo(f"\n{_summary(findings)}")
    _exit(ctx, findings, as_json)


def _check_journal(ctx: click.Context, repair: bool, as_json: bool) -> None:
    from mu.doctor.journal import examine_journal

    path = the_home().path / "journal.db"
    found = map(_json, examine_journal(path, repair))
    _exit(ctx, list(_shown(found, as_json)), as_json)


def _exit(ctx: click.Context, findings: Sequence[FindingJson], as_json: bool) -> NoReturn:
    if as_json:
        print_json(findings)
    ctx.exit(FAILED if any(finding["level"] == "fail" for finding in findings) else 0)


def _findings(asked: Mapping[str, object]) -> Iterator[FindingJson]:
    """Yield the findings of the running daemon, or else those made here."""
    from mu.client.address import find_address
    from mu.client.control_port import ControlPort
    from mu.client.errors import NoAddress, NotRunning, RequestRefused
    from mu.findings import OK, WARN, Finding

    try:
        found = ControlPort(find_address(where(), os.environ), ANSWER_S).doctor(asked)
        said = "it is running, and made these checks with its own credentials and configuration"
        yield _json(Finding("daemon", OK, said))
        yield from found
        return
    except (NoAddress, NotRunning) as error:
        if "url" in where():
            raise
        why, remedy = str(error), ""
    except RequestRefused as error:
        if error.status not in (401, 404) or "url" in where():
            raise
        why, remedy = str(error), "restart the daemon"
        if error.status == 404:
            why = "the running daemon is of an earlier version, and cannot make these checks"
    home = the_home()
    yield _json(Finding("daemon", WARN, f"{why}. {_WITH_SHELL}", remedy))
    yield from map(_json, _made_here(asked, home))


def _made_here(asked: Mapping[str, object], home: Home) -> Iterator[Finding]:
    """Make the checks in this process, without a daemon."""
    from mu.client.errors import NoAddress, NotRunning
    from mu.doctor import examine
    from mu.doctor.case import no_local_engine, read_case
    from mu.functions.aws import AwsClients
    from mu.parameters import FieldError
    from mu.registry import Registry, examiners_of

    engine = str(asked.get("engine") or home.config.launch.engine)
    plugged = examiners_of(Registry.installed(), home.config)
    if engine not in plugged:
        chosen_engine(engine, home)
    local: LocalClients | Finding
    if off := local_engine_off(home):
        local = no_local_engine(off, "set it to yes, or choose --engine lambda")
    else:
        try:
            from mu.client.local import local_clients

            local = local_clients(home)
        except (NoAddress, NotRunning) as error:
            local = no_local_engine(str(error))
    try:
        aws = AwsClients(s3=home.config.s3.place)
        case = read_case(asked, home.config, home.source, aws, local, None, "this shell's", plugged)
    except FieldError as error:
        raise CliError(str(error)) from None
    yield from examine(case)


def _json(finding: Finding) -> FindingJson:
    return {
        "check": finding.check,
        "level": finding.level,
        "sentence": finding.sentence,
        "remedy": finding.remedy,
    }


def _shown(findings: Iterable[FindingJson], quiet: bool) -> Iterator[FindingJson]:
    """Yield the findings, and print each one when it is made."""
    from rich.table import Table
    from rich.text import Text

    from mu.cli.display.text import beside, console

    screen = console()
    with beside(screen).status("Checking ..."):
        for finding in findings:
            if not quiet:
                row = Table.grid(padding=(0, 1, 0, 0))
                row.add_column(min_width=7)
                row.add_column(min_width=13, no_wrap=True)
                row.add_column()
                level = Text(finding["level"], style=_STYLES.get(finding["level"], ""))
                row.add_row(level, Text(finding["check"]), Text(finding["sentence"]))
                if finding["remedy"]:
                    row.add_row("", "", Text(f"-> {finding['remedy']}"))
                screen.print(row)
            yield finding


def _summary(findings: Sequence[FindingJson]) -> str:
    levels = [finding["level"] for finding in findings]
    failed, warnings, unknown = map(levels.count, ("fail", "warn", "unknown"))
    if failed:
        return f"{_counted(failed, 'check')} failed: a job cannot run yet."
    if warnings or unknown:
        others = [_counted(warnings, "warning")] if warnings else []
        others += [f"{_counted(unknown, 'check')} not made"] if unknown else []
        return f"No check failed, with {' and '.join(others)}."
    return "All checks passed."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _print_policies(
    which: str, functions: Sequence[str], bucket: str, role: str, regions: Sequence[str]
) -> None:
    from mu.aws.sessions import partition_of
    from mu.functions.iam import policies

    partitions = {partition_of(region) for region in regions}
    if len(partitions) > 1:
        raise CliError(
            f"--regions must be in one partition of AWS, got {', '.join(sorted(partitions))}"
        )
    buckets = dict.fromkeys(bucket.replace("{region}", region) for region in regions if bucket)
    try:
        found = policies(functions, [*buckets], role, *partitions)
    except ValueError as error:
        raise CliError(str(error)) from None
    click.echo(json.dumps(found if which == "all" else found[which], indent=2))
