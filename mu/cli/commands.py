"""The command line `mu`: orders jobs at a daemon's control port, and shows them.

What is only needed to show or to ask is imported where that happens: `mu --help` is quick.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import mu
from mu.cli import functions
from mu.cli.doctor import doctor
from mu.cli.keys import keys
from mu.cli.options import (
    BROKEN_PIPE,
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    WHERE,
    Failure,
    Unreached,
    finds_daemon,
    shows_json,
)

if TYPE_CHECKING:
    from mu.cli.client import Client

STATUS = {"done": DONE, "failed": FAILED, "cancelled": CANCELLED}
FOLLOW_S = 0.3


class Commands(click.Group):
    """A group in which whatever goes wrong is a sentence and a status of those documented."""

    def invoke(self, ctx: click.Context) -> Any:
        from mu.cli.address import NoAddress, NotRunning
        from mu.cli.arguments import BadArgument
        from mu.cli.client import Refused
        from mu.cli.scaffold import InTheWay

        try:
            return super().invoke(ctx)
        except (NoAddress, BadArgument, InTheWay, Refused) as error:
            raise Failure(str(error)) from None
        except NotRunning as error:
            raise Unreached(str(error)) from None
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
        if near and name not in self.commands and not name.startswith("-"):
            raise click.UsageError(f"No such command {name!r}. Did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)


def main() -> None:
    """Run the command line; what the program `mu` is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    cli(prog_name="mu")


job_argument = click.argument("job", metavar="JOB")


def the_client() -> Client:
    """Return a client of the daemon that is meant."""
    from mu.cli.address import find_address
    from mu.cli.client import Client

    given = click.get_current_context().meta.get(WHERE, {})
    return Client(find_address(given, os.environ))


# ---------------------------------------------------------------- commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@finds_daemon(hidden=False)
@click.version_option(mu.__version__, prog_name="mu", message="%(prog)s %(version)s")
def cli() -> None:
    """Start thousands of cloud-function workers, and see what they do.

    A daemon does the work (twistd -n mu); these commands order jobs there and show them. JOB is
    a job's id, the beginning of one, or the word "last".

    \b
    The first steps:
      mu init                            write mu.conf and a systemd unit
      twistd -n mu --config mu.conf      start the daemon (another terminal)
      mu pipelines                       which kinds of jobs there are
      mu launch hello -n 5 --watch       start one, and wait for it
      mu workers last                    who did what
      mu log last -a 0                   what the commands of actor 0 printed

    \b
    The daemon is found by the first of these that is there:
      --home FOLDER, --config FILE or --url URL (before or behind a command)
      MU_HOME, ./etc/mu.conf, /etc/mu.conf, ~/.mu

    \b
    Exit status:
      0  all went well; of a job that was watched: it is done
      1  the job failed; what is replayed diverges
      2  the command line is wrong, or the daemon refuses the order
      3  the job was cancelled
      4  the daemon is not running, cannot be reached, or went away
      130  Ctrl-C
    """


@cli.command()
@click.argument("pipeline")
@click.option("-n", "--workers", type=int, metavar="N", help="How many workers.  [default: 1]")
@click.option("--actors", metavar="0,7,12-15", help="Run these actors only.  [default: all]")
@click.option(
    "-p",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the pipeline (mu pipelines NAME tells which); as often as needed.",
)
@click.option("--engine", metavar="NAME", help="Where workers run: local, lambda or external.")
@click.option(
    "--function", metavar="NAME", help="The Lambda function.  [default: the pipeline's name]"
)
@click.option(
    "--copies", type=int, metavar="N", help="Use NAME-0 to NAME-(N-1) in turn; see mu deploy."
)
@click.option(
    "--region",
    "--regions",
    "regions",
    multiple=True,
    metavar="NAME,...",
    help="AWS regions, used in turn.",
)
@click.option("--deadline", type=float, metavar="SECONDS", help="Fail the job after that time.")
@click.option(
    "--worker-timeout", type=float, metavar="SECONDS", help="Fail an actor that takes longer."
)
@click.option(
    "--retries", type=int, metavar="N", help="Try a failed actor again, up to so many times."
)
@click.option(
    "--spares", type=int, metavar="N", help="Launch so many more workers, to take over at once."
)
@click.option(
    "--stragglers",
    type=float,
    metavar="FACTOR",
    help="Start an actor that takes so many times the median again, on a spare; 0: never.",
)
@click.option("--tolerate", type=int, metavar="N", help="So many actors may fail.  [default: 0]")
@click.option(
    "--on-failure",
    type=click.Choice(["finish", "stop"]),
    help="Once too many have failed: finish the others, or stop.  [default: finish]",
)
@click.option(
    "--max-cost",
    type=float,
    metavar="USD",
    help="Fail the job when it has cost so much.  [default: whatever it costs]",
)
@click.option("--event", metavar="JSON|@FILE", help="More for the workers' event, such as env.")
@click.option(
    "--event-out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Engine external: write the event there, readable by you alone, not to stdout.",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="The same order with the same key is taken once: it can be repeated safely.",
)
@click.option("-w", "--watch", "watched", is_flag=True, help="Stay until the job has ended.")
@shows_json
@finds_daemon()
@click.pass_context
def launch(
    ctx: click.Context,
    /,
    pipeline: str,
    params: tuple[str, ...],
    actors: str | None,
    regions: tuple[str, ...],
    event: str | None,
    event_out: Path | None,
    idempotency_key: str | None,
    watched: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Order a job.

    Prints the job's id on stdout; with --watch, what becomes of the job, and the exit status is
    how it ended: 0 done, 1 failed, 3 cancelled.

    \b
    Examples:
      mu launch hello -n 100 --watch
      mu launch png2y4m -n 22 -p video=bbb -p bucket=demo -p frames=6
      mu launch png2y4m -n 22 --actors 3,8-9 -p video=bbb -p bucket=demo
      mu launch hello --engine lambda --region us-east-1,us-west-2 -n 2000
      mu launch hello --engine lambda -n 2000 --copies 2 --max-cost 0.50
      mu launch hello -n 2000 --spares 50 --retries 3 --tolerate 10
      mu launch hello --event '{"env": {"NAME": "value"}}'
      mu launch hello --idempotency-key nightly-2024-05-01 --json

    With the engine external nothing is started: the event with which you start workers by hand
    is printed instead of the id. It holds the job's private key.

    \b
      mu launch hello --engine external --event-out event.json
    """
    from mu.cli.arguments import pipeline_named, read_actors, read_event, read_params

    order: dict[str, Any] = {"pipeline": pipeline, "workers": given["workers"]}
    order |= {"engine": given["engine"], "function": given["function"]}
    order |= {"deadline_s": given["deadline"], "worker_timeout_s": given["worker_timeout"]}
    same = ("retries", "spares", "stragglers", "tolerate", "on_failure", "copies")
    order |= {name: given[name] for name in same} | {"max_cost_usd": given["max_cost"]}
    order["regions"] = [name for word in regions for name in word.split(",") if name] or None
    order["actors"] = None if actors is None else read_actors(actors)
    order["event"] = None if event is None else read_event(event)
    order = {name: value for name, value in order.items() if value is not None}
    if event_out is not None and order.get("engine", "external") != "external":
        raise Failure("--event-out is for the engine external: others start the workers themselves")
    client = the_client()
    order["params"] = read_params(pipeline_named(client.pipelines(), pipeline), params)
    with _private_file(event_out) as keep_event:
        job = _ordered(client, order, idempotency_key)
        if event_out is not None and "event" in job:
            keep_event(json.dumps(job.pop("event")))
    _tell_order(job, event_out, watched, as_json)
    if watched:
        _watch(ctx, client, job, as_json, stderr="event" in job and not as_json)


@cli.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@shows_json
@finds_daemon()
def jobs(limit: int, as_json: bool) -> None:
    """List the latest jobs.

    The newest stands last; above the list is told what failed.

    \b
    Examples:
      mu jobs
      mu jobs --limit 3
      mu jobs --json | jq -r '.[] | select(.state == "failed") | .id'
    """
    found = the_client().jobs()[-limit:]
    if as_json:
        _print_json(found)
        return
    if not found:
        click.echo("No job has been ordered yet. Try: mu launch hello -n 5 --watch")
        return
    from mu.cli.console import console, jobs_table

    console().print(jobs_table(found, time.time()))


@cli.command()
@job_argument
@shows_json
@finds_daemon()
@click.pass_context
def watch(ctx: click.Context, job: str, as_json: bool) -> None:
    """Show a job's progress until it ends.

    The exit status says how it ended: 0 done, 1 failed, 3 cancelled. Ctrl-C stops watching; the
    job goes on. With --json, a line for each change; the last one is the job as it ended.

    \b
    Examples:
      mu watch last
      mu watch 6065 && echo done
      mu watch last --json | tail -1 | jq .result
    """
    client = the_client()
    _watch(ctx, client, client.find_job(job), as_json)


@cli.command()
@job_argument
@click.option(
    "--state",
    type=click.Choice(["waiting", "running", "done", "failed"]),
    help="Only those; with failed, every different error is told.",
)
@shows_json
@finds_daemon()
def workers(job: str, state: str | None, as_json: bool) -> None:
    """List a job's actors.

    Says what each one's worker is at and answered last. Failures stand first.

    \b
    Examples:
      mu workers last
      mu workers 6065 --state failed
      mu workers last --json | jq -r '.[] | select(.state == "failed") | .error'
    """
    client = the_client()
    told_job = client.find_job(job)
    job = told_job["id"]
    actors = client.workers(job)
    found = [actor for actor in actors if state in (None, actor["state"])]
    if as_json:
        _print_json(found)
        return
    if not found:
        what = f"No actor of job {job} is {state}." if actors else f"Job {job} has no actors yet."
        click.echo(what)
        return
    from mu.cli import console

    screen = console.console()
    told = console.failures(found, told_job, every=state == "failed")
    told += console.tried_again(found)
    for part in told:
        screen.print(part)
    if told:
        screen.print()
    screen.print(console.workers_table(found, time.time()))


@cli.command()
@job_argument
@click.option("-a", "--actor", type=click.IntRange(min=0), metavar="N", help="Only of this actor.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the actor has ended.")
@finds_daemon()
def log(job: str, actor: int | None, follow: bool) -> None:
    """Print what a job's commands printed.

    The end of each actor's output is kept, as long as log_bytes in mu.conf says.

    \b
    Examples:
      mu log last
      mu log 6065 -a 3
      mu log last -a 0 -f
    """
    client = the_client()
    found = client.find_job(job)
    if actor is None and follow:
        actor = _only_actor(client, found)
    if actor is None:
        _print_bytes(client.log(found["id"]).body)
    else:
        _print_log(client, found, actor, follow)


@cli.command()
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
        _print_json(after)
    elif before["finished"]:
        click.echo(f"Job {before['id']} had ended before that: {before['state']}.")
    else:
        click.echo(f"Job {before['id']} is {after['state']}.")


@cli.command()
@job_argument
@click.option("-a", "--actor", type=click.IntRange(min=0), metavar="N", help="Each event of one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@finds_daemon()
@click.pass_context
def replay(ctx: click.Context, job: str, actor: int | None, as_json: bool) -> None:
    """Play a job's recorded course again.

    Gives a new machine of each attempt all that happened to the first one, and says whether it
    does the same. If not, the pipeline is another one now, or it uses the clock or chance, and
    the exit status is 1. With -a, every event is shown, and below it what the machine did.

    Reads the journal of the daemon's home on this machine, whether it runs or not.

    \b
    Examples:
      mu replay last
      mu replay 6065 -a 3
      mu replay last --json | jq '.attempts[] | select(.diverged)'
    """
    from mu.cli.address import find_config
    from mu.jobs.history import NoCourse, tell

    try:
        told = tell(find_config(ctx.meta.get(WHERE, {}), os.environ), job, actor)
    except NoCourse as error:
        raise Failure(str(error)) from None
    if as_json:
        _print_json(told)
    else:
        _tell_courses(told, whole=actor is not None)
    ctx.exit(FAILED if any(one["diverged"] for one in told["attempts"]) else DONE)


@cli.command()
@click.argument("name", required=False)
@shows_json
@finds_daemon()
def pipelines(name: str | None, as_json: bool) -> None:
    """List the kinds of jobs; of one, the parameters.

    \b
    Examples:
      mu pipelines
      mu pipelines png2y4m
    """
    from mu.cli.arguments import pipeline_named

    known = the_client().pipelines()
    chosen = pipeline_named(known, name) if name else None
    if as_json:
        _print_json(known if chosen is None else chosen)
        return
    from mu.cli.console import console, pipeline_page, pipelines_table

    console().print(pipelines_table(known) if chosen is None else pipeline_page(chosen))


@cli.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def init(folder: Path, force: bool) -> None:
    """Write a mu.conf to edit and a systemd unit.

    mu.conf has every option at its default, each with a sentence; mu.service starts the daemon.
    Files that are there stay as they are, unless --force is given.

    \b
    Examples:
      mu init
      mu init /etc
    """
    from mu.cli.scaffold import start_command, user, write_files

    config, unit = write_files(folder, force)
    root = " Name another user than root there." if user() == "root" else ""
    start = " ".join(map(shlex.quote, start_command(config)))
    click.echo(
        f"Wrote {config} and {unit}.\n\n"
        "Next:\n"
        "  1. Read mu.conf. Workers on AWS need public_host there: this machine's address.\n"
        "  2. Start the daemon:\n"
        f"       {start}\n"
        f"     or have systemd do it: the first lines of {unit.name} say how.{root}\n"
        "  3. Deploy a function (README.md, Run a job), then:\n"
        f"       mu --config {shlex.quote(str(config))} launch hello -n 5 --watch"
    )


for command in (functions.bundle, functions.deploy, doctor, keys):
    cli.add_command(command)


# ---------------------------------------------------------------- inside


def _ordered(client: Client, order: dict[str, Any], key: str | None) -> dict[str, Any]:
    from mu.cli.client import Refused, Unreachable

    if key is not None and not (key.strip() and key.isprintable()):
        raise Failure(f"--idempotency-key must be a word or a line; {key!r} came")
    try:
        return client.order(order, key or "")
    except Refused as refused:
        raise Failure(f"the order was refused: {refused}") from None
    except Unreachable as error:
        safe = "; with the same --idempotency-key it can be repeated safely" if key else ""
        raise Unreached(
            f"{error}. Whether the order was taken is not known: `mu jobs` tells{safe}"
        ) from None


def _tell_order(job: dict[str, Any], event_out: Path | None, watched: bool, as_json: bool) -> None:
    """On stdout what programs want: the id, the event, or the JSON. To people, on stderr."""
    from mu.cli.console import ordered

    if as_json:
        if not watched or "event" in job:
            _print_json(job)
    elif "event" in job:
        click.echo(json.dumps(job["event"]))
    elif not watched:
        click.echo(job["id"])
    if event_out is not None and job["engine"] == "external":
        people = f"{ordered(job)}. Start the workers with the event in {event_out}."
    elif event_out is not None:
        people = f"{ordered(job)}, which starts the workers itself: no event in {event_out}."
    else:
        people = f"{ordered(job)}."
    if event_out is not None or not (as_json or watched):
        click.echo(people, err=True)
    if not (as_json or watched):
        click.echo(f"See it go: mu watch {job['id']}", err=True)


def _watch(
    ctx: click.Context, client: Client, job: dict[str, Any], as_json: bool, stderr: bool = False
) -> NoReturn:
    """Show the job until it ends, and exit with its status."""
    from mu.cli.watch import watch as watch_job

    try:
        job = watch_job(client, job, as_json, stderr)
    except KeyboardInterrupt:
        click.echo(
            f"Stopped watching; job {job['id']} goes on.\n"
            f"Look again: mu watch {job['id']}. End it: mu cancel {job['id']}.",
            err=True,
        )
        ctx.exit(INTERRUPTED)
    ctx.exit(STATUS.get(job["state"], FAILED))


def _tell_courses(told: dict[str, Any], whole: bool) -> None:
    from mu.cli.console import console
    from mu.cli.replay import attempts_table, course

    screen = console()
    if not whole or not told["attempts"]:
        screen.print(attempts_table(told, time.time()))
        return
    for attempt in told["attempts"]:
        screen.print(course(attempt, told["created"]))


def _print_log(client: Client, job: dict[str, Any], actor: int, follow: bool) -> None:
    """Print an actor's output from its beginning, as far as it is kept."""
    from mu.cli.client import Refused

    job_id, at = job["id"], 0
    while True:
        # Asked before the log: what was printed before the end is in what comes then.
        ended = not follow or _ended(client, job_id, actor)
        try:
            answer = client.log(job_id, actor=actor, after=at)
        except Refused:
            if ended or client.workers(job_id, limit=1):
                raise
            time.sleep(FOLLOW_S)  # its plan is being made
            continue
        end = int(answer.headers.get("Mu-Log-End", at + len(answer.body)))
        lost = end - len(answer.body) - at
        if lost > 0:
            click.echo(
                f"mu: {lost} bytes before this are not kept (log_bytes in mu.conf)", err=True
            )
        _print_bytes(answer.body)
        at = end
        if ended:
            return
        if not answer.body:
            time.sleep(FOLLOW_S)


def _only_actor(client: Client, job: dict[str, Any]) -> int:
    """Return the actor of a job that has one; it may still be planned."""
    while not (actors := client.workers(job["id"], limit=2)):
        if client.job(job["id"])["finished"]:
            raise Failure(f"job {job['id']} has no actors, and has ended")
        time.sleep(FOLLOW_S)
    first = int(actors[0]["actor"])
    if len(actors) > 1:
        raise Failure(
            f"-f follows one actor; job {job['id']} has {job['workers']}: say which, as in"
            f" mu log {job['id']} -a {first} -f"
        )
    return first


def _ended(client: Client, job_id: str, actor: int) -> bool:
    page = {"after": actor - 1} if actor else {}
    told = client.workers(job_id, limit=1, **page)
    if told and told[0]["actor"] == actor and told[0]["state"] in ("done", "failed"):
        return True
    return bool(client.job(job_id)["finished"])


def _print_bytes(printed: bytes) -> None:
    sys.stdout.buffer.write(printed)
    sys.stdout.buffer.flush()


def _print_json(told: Any) -> None:
    click.echo(json.dumps(told, indent=2 if sys.stdout.isatty() else None))


@contextlib.contextmanager
def _private_file(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield what writes `path`, with mode 0600, all at once; it fails before anything is ordered."""
    if path is None:
        yield lambda text: None
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    except OSError as error:
        raise Failure(f"--event-out {path} cannot be written: {error.strerror}") from None
    with open(handle, "w", encoding="ascii") as partial:

        def keep(text: str) -> None:
            partial.write(text + "\n")
            partial.flush()
            os.replace(name, path)

        try:
            yield keep
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
