"""The commands for existing jobs: list them, watch, show workers and output, cancel."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from mu.cli.options import (
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    CliError,
    finds_daemon,
    job_argument,
    print_json,
    shows_json,
    the_client,
)

if TYPE_CHECKING:
    from mu.client.answers import JobJson
    from mu.client.control_port import ControlPort

STATUS = {"done": DONE, "failed": FAILED, "cancelled": CANCELLED}
PATIENCE_S = 60.0
"""How long to wait for a daemon that goes away, in seconds: longer than a restart takes."""
FOLLOW_S = 0.3
"""How often to read a log that is followed, in seconds."""


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many jobs to list.",
)
@click.option("--name", metavar="TEXT", help="List only jobs with this name.")
@click.option(
    "--state",
    type=click.Choice(["launching", "running", "done", "failed", "cancelled"]),
    help="List only jobs in this state.",
)
@shows_json
@finds_daemon()
def jobs(limit: int, name: str | None, state: str | None, as_json: bool) -> None:
    """List the latest jobs.

    The newest job comes last. Errors of failed jobs are shown above the list.

    \b
    Examples:
      mu jobs
      mu jobs --limit 3
      mu jobs --name nightly
      mu jobs --state failed --json | jq -r '.[].id'
    """
    having = {"name": name, "state": state}
    given = {key: value for key, value in having.items() if value is not None}
    found = the_client().jobs(last=limit, **given)
    if as_json:
        print_json(found)
        return
    if not found:
        if name is None and state is None:
            click.echo(
                "There are no jobs yet. Try: mu deploy --bare --name hello, then mu launch hello -n 5"
                " --watch"
            )
        else:
            named = "" if name is None else f" named {name!r}"
            click.echo(f"There is no {f'{state} ' if state else ''}job{named}.")
        return
    from mu.cli.display.tables import jobs_table
    from mu.cli.display.text import console

    console().print(jobs_table(found, time.time()))


@click.command()
@job_argument
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a daemon that goes away.",
)
@shows_json
@finds_daemon()
@click.pass_context
def watch(ctx: click.Context, job: str, patience: float, as_json: bool) -> None:
    """Show a job's progress until it ends.

    The exit status says how it ended: 0 done, 1 failed, 3 cancelled; or 4 if the daemon went away and did
    not come back. Ctrl-C stops watching, not the job. With --json, prints one line for each change; the
    last one is the final state.

    \b
    Examples:
      mu watch last
      mu watch 6065 && echo done
      mu watch last --json | tail -1 | jq .result
    """
    client = the_client()
    watch_to_end(ctx, client, client.find_job(job), as_json, patience_s=patience)


@click.command()
@job_argument
@click.option(
    "--state",
    type=click.Choice(["waiting", "running", "done", "failed", "cancelled"]),
    help="List only actors in this state; with failed, show every different error.",
)
@shows_json
@finds_daemon()
def workers(job: str, state: str | None, as_json: bool) -> None:
    """List a job's actors.

    Shows each actor's state and its worker's last reply. Failed actors come first.

    \b
    Examples:
      mu workers last
      mu workers 6065 --state failed
      mu workers last --json | jq -r '.[] | select(.state == "failed") | .error'
    """
    client = the_client()
    found_job = client.find_job(job)
    job = found_job["id"]
    actors = client.workers(job)
    found = [actor for actor in actors if state in (None, actor["state"])]
    if as_json:
        print_json(found)
        return
    if not found:
        yet = "" if found_job["finished"] else " yet"
        none = f"No actor of job {job} is {state}." if actors else f"Job {job} has no actors{yet}."
        click.echo(none)
        return
    from mu.cli.display.failures import failures, retried
    from mu.cli.display.tables import workers_table
    from mu.cli.display.text import console
    from mu.cli.display.usage import advice, usage_line

    screen = console()
    parts = failures(found, found_job, every=state == "failed") + retried(found)
    for part in parts:
        screen.print(part)
    if parts:
        screen.print()
    screen.print(workers_table(found, time.time()))
    screen.print()
    for line in filter(None, (usage_line(found_job), advice(found_job))):
        screen.print(line)


@click.command()
@job_argument
@click.option("-a", "--actor", type=click.IntRange(min=0), metavar="N", help="Only this actor.")
@click.option(
    "--key",
    metavar="NAME",
    help="Only the output of this input, such as an S3 key. A part of the name is enough if it is unique.",
)
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only this attempt.")
@click.option(
    "-f", "--follow", is_flag=True, help="Keep printing new output until the actor has ended."
)
@click.option(
    "-t", "--times", is_flag=True, help="Begin lines with the time of their arrival (UTC)."
)
@click.option("--raw", is_flag=True, help="Do not begin lines with the names of their inputs.")
@click.option(
    "--function",
    "of_function",
    is_flag=True,
    help="The function's own log, from AWS or this machine.",
)
@finds_daemon()
def log(
    job: str,
    actor: int | None,
    key: str | None,
    attempt: int | None,
    follow: bool,
    times: bool,
    raw: bool,
    of_function: bool,
) -> None:
    """Print the output of a job's commands.

    If an actor has several inputs, each line begins with the name of its input. Lines such as
    [... 4096 bytes cut ...] say what is missing. Apart from these, a pipe or file gets the output
    unaltered. On a terminal, escape sequences and control characters are not shown.

    The daemon keeps the logs on disk, also after the job's end: the beginning and the end of each
    actor's, as many bytes as [logs] in mu.conf says.

    \b
    Examples:
      mu log last
      mu log 6065 -a 3
      mu log last -a 0 -f
      mu log last --key a.jpg
      mu log last -a 0 --times
      mu log last --function

    --function prints what the function itself wrote while the job ran, also for other jobs at that
    time: starts, ends, crashes and lost connections. On AWS it needs logs:FilterLogEvents.
    """
    selects = actor is not None or key is not None or attempt is not None
    if of_function and (selects or follow or times or raw):
        raise CliError(
            "--function cannot be combined with --actor, --key, --attempt, --follow, --times or --raw"
        )
    client = the_client()
    found = client.find_job(job)
    if of_function:
        from mu.cli.function_log import print_function_log

        with _printer() as show:
            print_function_log(found, show)
        return
    part: dict[str, int | str] = {"names": 0 if raw else 1} if key is None else {"key": key}
    if attempt is not None:
        part["attempt"] = attempt
    if times:
        part["times"] = 1
    if actor is None and follow:
        actor = _only_actor(client, found, key)
    with _printer() as show:
        if actor is None:
            show(client.log(found["id"], **part).body)
        else:
            _print_log(client, found["id"], actor, follow, show, part)


@click.command()
@job_argument
@shows_json
@finds_daemon()
def cancel(job: str, as_json: bool) -> None:
    """Cancel a job.

    Its workers are told to quit, and no more are started.

    \b
    Examples:
      mu cancel last
      mu cancel 6065
    """
    client = the_client()
    before = client.find_job(job)
    after = client.cancel(before["id"])
    if as_json:
        print_json(after)
    elif before["finished"]:
        click.echo(f"Job {before['id']} had already ended: {before['state']}.")
    else:
        click.echo(f"Job {before['id']} is {after['state']}.")


# ---------------------------------------------------------------- watching


def watch_to_end(
    ctx: click.Context,
    client: ControlPort,
    job: JobJson,
    as_json: bool,
    stderr: bool = False,
    out: Path | None = None,
    patience_s: float = PATIENCE_S,
    alone: bool = False,
) -> NoReturn:
    """Show the job until it ends, bring its files to the folder `out`, and exit with its status.

    `alone`: `out` is the file for the job's one result.
    """
    from mu.cli.fetch import bring
    from mu.cli.watch import watch as watch_job
    from mu.client.errors import DaemonUnreachable, NotRunning

    folder = out.parent if out is not None and alone else out
    later = f"mu fetch {job['id']} --to {shlex.quote(str(folder))}"
    try:
        job = watch_job(client, job, as_json, stderr, patience_s)
    except NotRunning as error:
        if out is None or isinstance(error, DaemonUnreachable):  # it may not know the job any more
            raise
        raise NotRunning(f"{error}. For its files, once it has ended: {later}") from None
    except KeyboardInterrupt:
        click.echo(
            f"Stopped watching; job {job['id']} continues.\n"
            f"To watch it again: mu watch {job['id']}. To cancel it: mu cancel {job['id']}.",
            err=True,
        )
        if out is not None:
            click.echo(f"For its files: {later}", err=True)
        ctx.exit(INTERRUPTED)
    if out is not None:
        try:
            bring(client, job, out, alone)
        except CliError as error:
            if job["state"] == "done":
                raise
            click.echo(f"Nothing was downloaded: {error.message}", err=True)
    ctx.exit(STATUS.get(job["state"], FAILED))


# ---------------------------------------------------------------- the log


def _print_log(
    client: ControlPort,
    job_id: str,
    actor: int,
    follow: bool,
    show: Callable[[bytes], None],
    part: Mapping[str, int | str],
) -> None:
    """Print this part of an actor's output from the first byte that the daemon still has."""
    from mu.client.errors import RequestRefused

    at = 0
    while True:
        # Checked before the log is read, so that the last read has all output up to the end.
        ended = not follow or _ended(client, job_id, actor)
        try:
            answer = client.log(job_id, actor=actor, after=at, **part)
        except RequestRefused:
            if ended or client.workers(job_id, limit=1):
                raise
            time.sleep(FOLLOW_S)  # the job is still being planned
            continue
        end = int(answer.headers.get("Mu-Log-End", at + len(answer.body)))
        begin = int(answer.headers.get("Mu-Log-Begin", end - len(answer.body)))
        lost = begin - at
        if lost > 0:
            click.echo(
                f"mu: {lost} earlier bytes were cut (see [logs] actor_bytes in mu.conf)", err=True
            )
        show(answer.body)
        at = end
        if ended:
            return
        if not answer.body:
            time.sleep(FOLLOW_S)


def _only_actor(client: ControlPort, job: JobJson, key: str | None) -> int:
    """Return the actor with an input, or that of a job with one actor.

    Waits while the job is being planned.
    """
    while not (actors := client.workers(job["id"], limit=2)):
        if client.job(job["id"])["finished"]:
            raise CliError(f"job {job['id']} ended without any actors")
        time.sleep(FOLLOW_S)
    if key is not None:
        return client.workers(job["id"], key=key)[0]["actor"]
    first = actors[0]["actor"]
    if len(actors) > 1:
        raise CliError(
            f"-f follows one actor, but job {job['id']} has {job['workers']}: choose one, for example"
            f" mu log {job['id']} -a {first} -f"
        )
    return first


def _ended(client: ControlPort, job_id: str, actor: int) -> bool:
    page = {"after": actor - 1} if actor else {}
    found = client.workers(job_id, limit=1, **page)
    if found and found[0]["actor"] == actor and found[0]["state"] not in ("waiting", "running"):
        return True
    return bool(client.job(job_id)["finished"])


@contextlib.contextmanager
def _printer() -> Iterator[Callable[[bytes], None]]:
    """Yield a function that prints output: unaltered, but without escape sequences on a terminal."""
    if not sys.stdout.isatty():
        yield _print_bytes
        return
    from mu.cli.terminal import TerminalText

    text = TerminalText()
    try:
        yield lambda printed: _print_bytes(text.feed(printed).encode())
    finally:
        _print_bytes(text.end().encode())


def _print_bytes(printed: bytes) -> None:
    sys.stdout.buffer.write(printed)
    sys.stdout.buffer.flush()
