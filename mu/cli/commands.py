"""The program `mu`, which consists of all commands.

A command imports what it needs to talk to a daemon or to print only when it runs, so that
`mu --help` is fast.
"""

from __future__ import annotations

import io
import os
import sys

import click

import mu
from mu.cli import jobs, launch
from mu.cli.deploy import deploy
from mu.cli.doctor import doctor
from mu.cli.fetch import fetch
from mu.cli.functions import bundle
from mu.cli.invoke import invoke
from mu.cli.keys import keys
from mu.cli.open import open_page
from mu.cli.options import BROKEN_PIPE, INTERRUPTED, CliError, NoDaemon, finds_daemon
from mu.cli.replay import replay
from mu.cli.rerun import rerun
from mu.cli.scaffold import init
from mu.cli.timeline import plot, report, trace


class CommandLine(click.Group):
    """A group of commands that turns errors into one sentence and a documented exit status."""

    def invoke(self, ctx: click.Context) -> object:
        from mu.aws.s3 import S3Error
        from mu.cli.arguments import BadArgument
        from mu.client.errors import NoAddress, NotRunning, RequestRefused

        try:
            return super().invoke(ctx)
        except (NoAddress, BadArgument, RequestRefused, S3Error) as error:
            raise CliError(str(error)) from None
        except NotRunning as error:
            raise NoDaemon(str(error)) from None
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:  # such as `mu jobs | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        name = args[0]
        near = get_close_matches(name, self.commands, 1)
        if (
            near
            and name not in self.commands
            and not (name.startswith("-") or ctx.resilient_parsing)
        ):
            raise click.UsageError(f"No such command {name!r}. Did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@finds_daemon(hidden=False)
@click.version_option(mu.__version__, prog_name="mu", message="%(prog)s %(version)s")
def cli() -> None:
    """Start thousands of cloud-function workers, and follow their progress.

    A daemon does the work (twistd -n mu); these commands talk to it. JOB is a job's id, the
    start of one, its name, or the word "last".

    \b
    First steps:
      mu init                          write mu.conf and a systemd unit
      twistd -n mu --config mu.conf    start the daemon, in another terminal
      mu deploy --bare --name hello    create a function with nothing but the worker
      mu pipelines                     list the kinds of jobs
      mu launch hello -n 5 --watch     start a job and wait for it
      mu workers last                  show what each worker did
      mu log last -a 0                 show the output of actor 0's commands
      mu open                          see all of this in a browser

    \b
    mu finds the daemon by the first of these that is set or exists:
      --home FOLDER, --config FILE or --url URL (before or after a command)
      MU_HOME, ./etc/mu.conf, /etc/mu.conf, ~/.mu

    \b
    Completion of names, ids and parameters by Tab, for the file that your shell starts with:
      ~/.bashrc                   eval "$(_MU_COMPLETE=bash_source mu)"
      ~/.zshrc                    eval "$(_MU_COMPLETE=zsh_source mu)"
      ~/.config/fish/config.fish  _MU_COMPLETE=fish_source mu | source

    \b
    Exit status:
      0  success; for a job that was watched: it is done
      1  the job failed; a replayed attempt diverged; mu doctor found an error
      2  the command line is invalid, or the request was refused
      3  the job was cancelled
      4  the daemon is not running, cannot be reached, or has stopped
      130  interrupted with Ctrl-C
    """


for command in (
    *(launch.launch, launch.pipelines),
    *(jobs.jobs, jobs.watch, jobs.workers, jobs.log, jobs.cancel),
    *(bundle, deploy, doctor, fetch, init, invoke, keys, open_page, replay, rerun),
    *(plot, report, trace),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line. This is the program `mu`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    cli(prog_name="mu")
