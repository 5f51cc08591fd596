"""`mu keys`: the CA of a home, shown, made anew, and exported."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mu.cli.options import WHERE, Failure, finds_daemon

if TYPE_CHECKING:
    from mu.cli.address import Home
    from mu.net.certificates import Authority, Facts

SERVER = """\
The worker port's key and certificate are made anew at each start of the daemon,
and are nowhere on disk. To renew them, stop the daemon and start it again.
Running jobs are kept ([mu] on_stop = keep): their workers check the new
certificate against the same CA, and go on."""

CA = """\
The CA in {home} will be made anew.
- A daemon that runs goes on with the old one until it is started again.
- From then on, workers of running jobs cannot come back: they know the old CA
  only. Their actors are tried again with new workers, which counts as one of
  their retries. Workers of the engine external need a new event.
- A relay on another machine needs new files: mu keys export FOLDER --relay HOST
- The old CA stays beside the new one, as ca.pem.old and ca.key.old. If its key
  has leaked, start the daemon again now, and delete ca.key.old."""


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@finds_daemon()
@click.pass_context
def keys(ctx: click.Context, /, as_json: bool) -> None:
    """Show the CA, make keys anew, export them.

    Workers and coordinator know each other by the CA in the daemon's home. Each job gets a
    certificate of its own; the worker port's is made at each start.

    \b
    Examples:
      mu keys
      mu keys renew ca
      mu keys renew server
      mu keys export ./for-workers
      mu keys export ./for-relay --relay relay.example.org
    """
    if ctx.invoked_subcommand is None:
        _show(_home(ctx), as_json)


@keys.command()
@click.argument("what", type=click.Choice(["server", "ca"]))
@click.option("--yes", is_flag=True, help="Do not ask.")
@finds_daemon()
@click.pass_context
def renew(ctx: click.Context, /, what: str, yes: bool) -> None:
    """Make keys anew.

    Says first what that means for jobs that run, and asks.

    \b
    Examples:
      mu keys renew server
      mu keys renew ca
      mu keys renew ca --yes
    """
    from mu.net.certificates import Authority, Facts

    if what == "server":
        click.echo(SERVER)
        return
    home = _home(ctx)
    old = _authority(home)
    click.echo(CA.format(home=home.path))
    click.echo(_running(home))
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("nothing was changed: without a terminal to ask at, say --yes")
        click.confirm("Make a new CA?", abort=True)
    try:
        new = Authority.renew(home.path)
    except OSError as error:
        raise Failure(
            f"{error.filename or home.path} cannot be written: {error.strerror}"
        ) from None
    click.echo(f"Old: {Facts.of(old.pem).fingerprint}\nNew: {Facts.of(new.pem).fingerprint}")


@keys.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--relay",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Also a key and certificate for a relay that workers reach at this name or address.",
)
@finds_daemon()
@click.pass_context
def export(ctx: click.Context, /, folder: Path, hosts: tuple[str, ...]) -> None:
    """Write the CA's certificate to a folder.

    With --relay also a key and certificate for a relay on another machine. All files are readable by you alone. The CA's key is never exported. Who has a relay's key
    can pose as the coordinator: it is made for one machine, and is to be kept there only.

    \b
    Examples:
      mu keys export ./for-workers
      mu keys export ./for-relay --relay relay.example.org --relay 203.0.113.7
    """
    from mu.net.certificates import Facts

    authority = _authority(_home(ctx))
    try:
        if hosts:
            authority.export_relay(folder, *hosts)
        else:
            authority.export(folder)
    except OSError as error:
        raise Failure(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    except ValueError as error:
        raise Failure(
            f"--relay {', '.join(hosts)} cannot stand in a certificate: {error}"
        ) from None
    click.echo(f"{folder / 'ca.pem'}: the CA's certificate")
    if hosts:
        facts = Facts.of((folder / "relay.pem").read_text(encoding="ascii"))
        click.echo(
            f"{folder / 'relay.pem'}: for {', '.join(facts.names)}, until {facts.ends:%Y-%m-%d}"
        )
        click.echo(f"{folder / 'relay.key'}: its private key")


# ---------------------------------------------------------------- inside


def _home(ctx: click.Context) -> Home:
    from mu.cli.address import find_home

    return find_home(ctx.meta.get(WHERE, {}), os.environ)


def _authority(home: Home) -> Authority:
    """Return the CA that is there; none is made."""
    from mu.net.certificates import Authority

    try:
        return Authority.read(home.path)
    except FileNotFoundError:
        raise Failure(
            f"{home.path} has no CA yet: the daemon's first start makes it. Start it with {home.start}"
        ) from None
    except (OSError, ValueError) as error:
        raise Failure(f"the CA in {home.path} cannot be used: {error}") from None


def _show(home: Home, as_json: bool) -> None:
    from mu.net.certificates import SERVER_NAME, Facts

    facts = Facts.of(_authority(home).pem)
    names = [SERVER_NAME, home.config.launch.public_host]
    if as_json:
        told = {"ca": _told(facts), "server_names": names, "home": str(home.path)}
        click.echo(json.dumps(told, indent=2 if sys.stdout.isatty() else None))
        return
    first, second = facts.fingerprint[:47], facts.fingerprint[48:]
    click.echo(
        f"CA           {facts.subject}\n"
        f"files        {home.path}/ca.pem, ca.key\n"
        f"SHA-256      {first}\n"
        f"             {second}\n"
        f"valid        {facts.begins:%Y-%m-%d} to {facts.ends:%Y-%m-%d}\n"
        f"worker port  made at each start, for {' and '.join(names)}\n"
        f"jobs         each has a certificate of its own, as long as it may run"
    )


def _told(facts: Facts) -> dict[str, Any]:
    return {
        "subject": facts.subject,
        "sha256": facts.fingerprint,
        "begins": facts.begins.isoformat(),
        "ends": facts.ends.isoformat(),
    }


def _running(home: Home) -> str:
    """Say how many jobs would feel it."""
    from mu.cli.address import NoAddress, NotRunning, find_address
    from mu.cli.client import Client, Refused

    where = click.get_current_context().meta.get(WHERE, {})
    try:
        jobs = Client(find_address(where, os.environ)).jobs()
    except (NoAddress, NotRunning, Refused):
        return "No daemon runs for it now; jobs that one has kept go on at its next start."
    running = sum(job["finished"] is None for job in jobs)
    return f"Jobs that run now: {running or 'none'}."
