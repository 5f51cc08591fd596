"""What the commands share: exit statuses, failures, the options that say which daemon is meant."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

DONE, FAILED, USAGE, CANCELLED, NOT_RUNNING = 0, 1, 2, 3, 4
INTERRUPTED, BROKEN_PIPE = 130, 141
"""As a shell tells of a program that SIGINT or SIGPIPE ended."""

WHERE = "mu.where"
"""In a click context's meta: which daemon is meant."""

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """A sentence on stderr, and an exit status."""

    exit_code = USAGE

    def show(self, file: Any = None) -> None:
        click.echo(f"mu: {self.message}", file=file, err=True)


class Unreached(Failure):
    """The same, where it is the daemon that is not there."""

    exit_code = NOT_RUNNING


def _note(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(WHERE, {})[param.name] = value


def finds_daemon(hidden: bool = True) -> Callable[[F], F]:
    """Add --home, --config and --url. They may stand before a command or behind it."""
    options = (
        ("--home", "FOLDER", "The daemon's home folder."),
        ("--config", "FILE", "The daemon's configuration, which says where its home is."),
        ("--url", "URL", "A control port elsewhere; its token comes from MU_TOKEN."),
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
            )(command)
        return command

    return decorate


def shows_json(command: F) -> F:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print the control port's JSON, for programs."
    )(command)
