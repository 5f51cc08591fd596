"""`mu keys`: shows the CA of a home, replaces it, and exports it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.cli.localkey import local
from mu.cli.options import CliError, finds_daemon, print_json, shows_json, the_client, the_home

if TYPE_CHECKING:
    from mu.client.address import Home
    from mu.net.certificates import Authority, Facts

SERVER = """\
The key and certificate of the worker port are generated at each start of the
daemon, and are never written to disk. To renew them, stop the daemon and start
it again. Running jobs are kept ([mu] on_stop = keep): their workers check the
new certificate against the same CA, and resume. Behind HAProxy, both are in
haproxy.pem in the home: delete it before the start, and reload HAProxy after."""

CA = """\
The CA in {home} will be replaced.
- A running daemon uses the old CA until it is restarted.
- After the restart, workers of running jobs cannot reconnect, because they
  trust the old CA only. Their actors are retried with new workers; each such
  retry counts. Workers of engine external need a new event.
- HAProxy, if it is in front, has to be reloaded after the restart.
- A relay on another machine needs new files: mu keys export FOLDER --relay HOST
- The old CA is kept beside the new one, as ca.pem.old and ca.key.old. If its
  key has leaked, restart the daemon at once, and delete ca.key.old."""


@click.group(invoke_without_command=True)
@shows_json
@finds_daemon()
@click.pass_context
def keys(ctx: click.Context, /, as_json: bool) -> None:
    """Show, renew and export keys.

    Workers and the coordinator authenticate each other with the CA in the daemon's home. Each job
    has a certificate of its own; the worker port's is generated at each start.

    \b
    Examples:
      mu keys
      mu keys renew ca
      mu keys renew server
      mu keys export ./for-workers
      mu keys export ./for-relay --relay relay.example.org
      eval "$(mu keys local)"
    """
    if ctx.invoked_subcommand is None:
        _show(the_home(), as_json)


keys.add_command(local)


@keys.command()
@click.argument("what", type=click.Choice(["server", "ca"]))
@click.option(
    "--from",
    "own",
    nargs=2,
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="CERT KEY",
    help="Use your own CA: these PEM files, with an EC or RSA key.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@finds_daemon()
def renew(what: str, own: tuple[Path, Path] | None, yes: bool) -> None:
    """Renew the CA, or explain how to renew the worker port's key.

    Explains first what that means for running jobs, and asks for confirmation.

    \b
    Examples:
      mu keys renew server
      mu keys renew ca
      mu keys renew ca --yes
      mu keys renew ca --from my-ca.pem my-ca.key
    """
    from mu.net.certificates import Authority, Facts

    if what == "server":
        if own:
            raise CliError("--from is for the CA: mu keys renew ca --from CERT KEY")
        click.echo(SERVER)
        return
    try:
        given = Authority.load(*own) if own else None
    except (OSError, ValueError) as error:
        raise CliError(f"cannot use this CA: {error}") from None
    home = the_home()
    if any((home.path / name).exists() for name in ("ca.pem", "ca.key")):
        try:
            old = Facts.of(Authority.read(home.path).pem).fingerprint
        except (OSError, ValueError) as error:  # then a renewal is the remedy
            old = f"unusable: {error}"
    else:
        old = Facts.of(_authority(home).pem).fingerprint  # says that there is none
    click.echo(CA.format(home=home.path))
    click.echo(_running())
    if not yes:
        if not sys.stdin.isatty():
            raise CliError("nothing was changed: add --yes, as there is no terminal to confirm on")
        click.confirm("Replace the CA?", abort=True)
    try:
        new = Authority.renew(home.path, given)
    except OSError as error:
        raise _unwritable(error, home.path) from None
    click.echo(f"Old: {old}\nNew: {Facts.of(new.pem).fingerprint}")


@keys.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--relay",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Add a key and certificate for a relay with this name or address. Repeatable.",
)
@finds_daemon()
def export(folder: Path, hosts: tuple[str, ...]) -> None:
    """Write the CA's certificate to a folder.

    With --relay, also writes a key and certificate for a relay on another machine. Only you can
    read the files. The CA's key is never exported. Anyone who has a relay's key can impersonate
    the coordinator, so keep it on the relay's machine only.

    \b
    Examples:
      mu keys export ./for-workers
      mu keys export ./for-relay --relay relay.example.org --relay 203.0.113.7
    """
    from mu.net.certificates import Facts

    authority = _authority(the_home())
    try:
        if hosts:
            authority.export_relay(folder, *hosts)
        else:
            authority.export(folder)
    except OSError as error:
        raise _unwritable(error, folder) from None
    except ValueError as error:
        raise CliError(
            f"--relay {', '.join(hosts)} cannot be put into a certificate: {error}"
        ) from None
    click.echo(f"{folder / 'ca.pem'}: the CA's certificate")
    if hosts:
        facts = Facts.of((folder / "relay.pem").read_text(encoding="ascii"))
        click.echo(
            f"{folder / 'relay.pem'}: for {', '.join(facts.names)}, until {facts.ends:%Y-%m-%d}"
        )
        click.echo(f"{folder / 'relay.key'}: its private key")


# ---------------------------------------------------------------- inside


def _unwritable(error: OSError, path: Path) -> CliError:
    return CliError(f"cannot write {error.filename or path}: {error.strerror}")


def _authority(home: Home) -> Authority:
    """Return the existing CA. Does not create one."""
    from mu.net.certificates import Authority

    try:
        return Authority.read(home.path)
    except FileNotFoundError:
        raise CliError(
            f"{home.path} has no CA yet: the daemon creates it when it first starts. Start it with"
            f" {home.start}"
        ) from None
    except (OSError, ValueError) as error:
        raise CliError(f"cannot use the CA in {home.path}: {error}") from None


def _show(home: Home, as_json: bool) -> None:
    from mu.net.certificates import SERVER_NAME, Facts

    facts = Facts.of(_authority(home).pem)
    names = [SERVER_NAME, home.config.launch.public_host]
    if as_json:
        print_json({"ca": _as_json(facts), "server_names": names, "home": str(home.path)})
        return
    first, second = facts.fingerprint[:47], facts.fingerprint[48:]
    click.echo(
        f"CA           {facts.subject}\n"
        f"files        {home.path}/ca.pem, ca.key\n"
        f"SHA-256      {first}\n"
        f"             {second}\n"
        f"valid        {facts.begins:%Y-%m-%d} to {facts.ends:%Y-%m-%d}\n"
        f"worker port  certificate generated at each start, for {' and '.join(names)}\n"
        f"jobs         one certificate for each job, valid as long as the job may run"
    )


def _as_json(facts: Facts) -> dict[str, str]:
    return {
        "subject": facts.subject,
        "sha256": facts.fingerprint,
        "begins": facts.begins.isoformat(),
        "ends": facts.ends.isoformat(),
    }


def _running() -> str:
    """Return a sentence about how many jobs a renewal affects."""
    from mu.client.errors import NoAddress, NotRunning, RequestRefused

    try:
        jobs = the_client().jobs()
    except (NoAddress, NotRunning, RequestRefused):
        return "The daemon is not running. Jobs that it has kept resume at its next start."
    running = sum(job["finished"] is None for job in jobs)
    return f"Running jobs: {running or 'none'}."
