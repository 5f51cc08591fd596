"""What commands share: exit statuses, errors, options, and how they find the daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import IO, TYPE_CHECKING, TypeVar

import click

from mu.cli.completion import WHERE, complete_job, complete_path
from mu.strict_json import dumps

if TYPE_CHECKING:
    from mu.client.address import Home
    from mu.client.control_port import ControlPort

DONE, FAILED, USAGE, CANCELLED, NOT_RUNNING = 0, 1, 2, 3, 4
INTERRUPTED, BROKEN_PIPE = 130, 141
"""The shell's statuses for a program ended by SIGINT or SIGPIPE."""

F = TypeVar("F", bound=Callable[..., object])


class CliError(click.ClickException):
    """Ends a command with a sentence on stderr and status 2."""

    exit_code = USAGE

    def show(self, file: IO[str] | None = None) -> None:
        from mu.cli.terminal import visible

        to_terminal = (file or sys.stderr).isatty()
        message = visible(self.message) if to_terminal else self.message
        click.echo(f"mu: {message}", file=file, err=True)


class NoDaemon(CliError):
    """Ends a command with status 4, because there is no daemon to talk to."""

    exit_code = NOT_RUNNING


# ---------------------------------------------------------------- options


def finds_daemon(hidden: bool = True) -> Callable[[F], F]:
    """Add --home, --config and --url, which may appear before or after the command."""
    options = (
        ("--home", "FOLDER", "The daemon's home folder."),
        ("--config", "FILE", "The daemon's configuration file, which names its home."),
        ("--url", "URL", "The control port of a remote daemon; MU_TOKEN must hold its token."),
    )

    def decorate(command: F) -> F:
        for name, metavar, text in reversed(options):
            command = click.option(
                name,
                metavar=metavar,
                help=text,
                hidden=hidden,
                expose_value=False,
                callback=_note,
                shell_complete=None if name == "--url" else complete_path,
            )(command)
        return command

    return decorate


def _note(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(WHERE, {})[param.name] = value


def chooses_engine(command: F) -> F:
    """Add --engine and --region, for commands that manage functions."""
    command = click.option(
        "--region", "--regions", "regions", multiple=True, metavar="NAME,...", help="AWS regions."
    )(command)
    return click.option(
        "--engine", type=click.Choice(["lambda", "local"]), help="AWS Lambda, or this machine."
    )(command)


def shows_json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


job_argument = click.argument("job", metavar="JOB", shell_complete=complete_job)


# ---------------------------------------------------------------- values


def print_json(value: object) -> None:
    """Print a value as JSON: on one line, or indented on a terminal."""
    click.echo(dumps(value, indent=2 if sys.stdout.isatty() else None))


def where() -> Mapping[str, str]:
    """Return the options of this command line that select a daemon, by name."""
    found: Mapping[str, str] = click.get_current_context().meta.get(WHERE, {})
    return found


def the_client() -> ControlPort:
    """Return a client of the selected daemon."""
    from mu.client.address import find_address
    from mu.client.control_port import ControlPort

    given = where()
    find = lambda: find_address(given, os.environ)  # noqa: E731
    return ControlPort(find(), find=find)


def the_home() -> Home:
    """Return the home folder of the selected daemon."""
    from mu.client.address import find_home

    return find_home(where(), os.environ)


def split_regions(words: Iterable[str], home: Home) -> list[str]:
    """Return the given regions, separated by commas or not, or else the configured one."""
    regions = dict.fromkeys(
        name for word in words for part in word.split(",") if (name := part.strip())
    )
    return list(regions) or [home.config.launch.region]


def chosen_engine(given: str | None, home: Home) -> str:
    """Return `lambda` or `local`: the given engine, or else the configured one."""
    engine = given or home.config.launch.engine
    if engine not in ("lambda", "local"):
        raise CliError(
            f"[launch] engine in {home.source} is {engine}: choose --engine lambda or local"
        )
    return engine


def local_engine_off(home: Home) -> str | None:
    """Return a sentence if the configuration has no local engine."""
    if home.config.local.enabled:
        return None
    return f"the local engine is disabled: [local] enabled = no in {home.source}"
