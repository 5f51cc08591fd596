"""`mu launch` starts a job; `mu pipelines` lists the kinds of jobs."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.cli.completion import (
    complete_engine,
    complete_function,
    complete_param,
    complete_path,
    complete_pipeline,
)
from mu.cli.functions import requirements_option
from mu.cli.jobs import watch_to_end
from mu.cli.options import (
    CliError,
    NoDaemon,
    finds_daemon,
    print_json,
    shows_json,
    the_client,
)

if TYPE_CHECKING:
    from mu.client.answers import JobJson
    from mu.client.control_port import ControlPort
    from mu.client.errors import RequestRefused


@click.command()
@click.argument("name", required=False, shell_complete=complete_pipeline)
@shows_json
@finds_daemon()
def pipelines(name: str | None, as_json: bool) -> None:
    """List the kinds of jobs, or one kind's parameters.

    \b
    Examples:
      mu pipelines
      mu pipelines png2y4m
    """
    from mu.cli.arguments import pipeline_named

    known = the_client().pipelines()
    chosen = pipeline_named(known, name) if name else None
    if as_json:
        print_json(known if chosen is None else chosen)
        return
    from mu.cli.display.tables import pipeline_page, pipelines_table
    from mu.cli.display.text import console

    console().print(pipelines_table(known) if chosen is None else pipeline_page(chosen))


@click.command()
@click.argument("pipeline", shell_complete=complete_pipeline)
@click.option(
    "--name", "job_name", metavar="TEXT", help="A name to find the job by: mu jobs --name."
)
@click.option("-n", "--workers", type=int, metavar="N", help="Number of workers.  [default: 1]")
@click.option("--actors", metavar="0,7,12-15", help="Run only these actors.  [default: all]")
@click.option(
    "-p",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    shell_complete=complete_param,
    help="Set a parameter of the pipeline; mu pipelines NAME lists them. Repeatable.",
)
@click.option(
    "--program",
    metavar="PATH",
    shell_complete=complete_path,
    help="Create the function from this program or Python script, or update it if the program has changed. [name: the program's]",
)
@requirements_option
@click.option(
    "--with",
    "extra",
    multiple=True,
    metavar="PATH",
    shell_complete=complete_path,
    help="Add a file or folder to --program, as in mu deploy. Repeatable.",
)
@click.option(
    "--pre", default="", metavar="TEXT", help="Words before --program in its packaged command."
)
@click.option("--post", default="", metavar="TEXT", help="Words after it: its arguments.")
@click.option(
    "--role",
    metavar="ARN",
    envvar="AWS_ROLE",
    help="The IAM role of a new function on AWS.  [default: AWS_ROLE]",
)
@click.option(
    "--in",
    "inputs",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="Upload this folder or file as the job's inputs. Unchanged files are skipped.",
)
@click.option(
    "--out",
    "outputs",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Wait for the job to end, then download its outputs to this folder, or its single result to this file.",
)
@click.option(
    "--engine",
    metavar="NAME",
    shell_complete=complete_engine,
    help="Where workers run: local, lambda or external.  [default: from mu.conf]",
)
@click.option(
    "--engine-option",
    "engine_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an option of a plugin's engine for this job, such as partition=long. Repeatable.",
)
@click.option(
    "--function",
    metavar="NAME",
    shell_complete=complete_function,
    help="The Lambda function.  [default: the pipeline's name]",
)
@click.option(
    "--copies",
    type=int,
    metavar="N",
    help="Spread the job over the functions NAME-0 to NAME-(N-1); see mu deploy.",
)
@click.option(
    "--region",
    "--regions",
    "regions",
    multiple=True,
    metavar="NAME,...",
    help="AWS regions, used in turn.",
)
@click.option("--deadline", type=float, metavar="SECONDS", help="Time limit for the whole job.")
@click.option(
    "--worker-timeout", type=float, metavar="SECONDS", help="Time limit for each attempt."
)
@click.option("--retries", type=int, metavar="N", help="How many times to retry a failed actor.")
@click.option(
    "--spares", type=int, metavar="N", help="Launch N extra workers, as immediate replacements."
)
@click.option(
    "--stragglers",
    type=float,
    metavar="FACTOR",
    help="Also run an actor on a spare once it takes FACTOR times the median; 0: never.",
)
@click.option(
    "--tolerate", type=int, metavar="N", help="Number of actors that may fail.  [default: 0]"
)
@click.option(
    "--on-failure",
    type=click.Choice(["finish", "stop"]),
    help="When too many actors have failed: finish the others, or stop.  [default: finish]",
)
@click.option(
    "--max-cost",
    type=float,
    metavar="USD",
    help="Stop the job, as failed, at this cost.  [default: no limit]",
)
@click.option(
    "--event-format",
    type=click.Choice(["mu", "original"]),
    help="The form of the event's key and certificates; original: for a worker of the original mu.",
)
@click.option(
    "--notify", metavar="URL", help="POST the job to this URL when it has ended (docs/control.md)."
)
@click.option(
    "--event", metavar="JSON|@FILE", help="Extra fields for the event of the workers, such as env."
)
@click.option(
    "--event-out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With engine external: write the event to FILE (mode 0600), not to stdout.",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Repeating the same order with the same key does not start a second job.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what would be done and what it may cost; do nothing."
)
@click.option(
    "--skip-existing", is_flag=True, help="With map: skip inputs whose output is up to date."
)
@click.option("-w", "--watch", "watched", is_flag=True, help="Wait until the job has ended.")
@shows_json
@finds_daemon()
@click.pass_context
def launch(
    ctx: click.Context,
    /,
    pipeline: str,
    params: tuple[str, ...],
    program: str | None,
    requirements: Path | None,
    extra: tuple[str, ...],
    pre: str,
    post: str,
    role: str | None,
    inputs: Path | None,
    outputs: Path | None,
    engine: str | None,
    engine_options: tuple[str, ...],
    function: str | None,
    copies: int | None,
    actors: str | None,
    regions: tuple[str, ...],
    event: str | None,
    event_out: Path | None,
    idempotency_key: str | None,
    dry_run: bool,
    skip_existing: bool,
    watched: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Start a job.

    Prints the job's id on stdout. With --watch, shows the job's progress, and the exit status
    says how it ended: 0 done, 1 failed, 3 cancelled.

    \b
    Examples:
      mu launch hello -n 100 --watch
      mu launch png2y4m -n 22 -p video=bbb -p bucket=demo -p frames=6
      mu launch png2y4m -n 22 --actors 3,8-9 -p video=bbb -p bucket=demo
      mu launch map --in photos --out thumbs -p command='sum {in} > {out}'
      mu launch map --program ./thumb.py --in photos --out thumbs -n 20
      mu launch film --in holiday.mp4 --out small.mp4 -p codec=av1
      mu launch hello --engine lambda --region us-east-1,us-west-2 -n 2000
      mu launch hello --engine lambda -n 2000 --copies 2 --max-cost 0.50
      mu launch hello -n 2000 --spares 50 --retries 3 --tolerate 10
      mu launch hello --event '{"env": {"NAME": "value"}}'
      mu launch hello --idempotency-key nightly-2024-05-01 --json

    With --program, this command makes the job's function as mu deploy does, and updates it if the
    program or what belongs to it has changed. map then runs the program with {in} and {out}, unless
    -p command says otherwise.

    With --in and --out, this command copies files to and from the bucket of the job: the one of -p
    bucket=NAME, or of [s3] in the daemon's mu.conf, or else that of the embedded S3 server, which
    starts when it is needed. docs/data.md says more.

    Engine external starts no workers. Instead of the job's id, mu prints the event with which you
    start them yourself. The event contains the job's private key.

    \b
      mu launch hello --engine external --event-out event.json
    """
    from mu.cli.arguments import (
        pipeline_named,
        read_actors,
        read_event,
        read_pairs,
        read_params,
    )

    order: dict[str, object] = {"pipeline": pipeline, "workers": given["workers"]}
    order |= {"name": given["job_name"], "engine": engine, "function": function}
    order |= {"copies": copies, "engine_options": read_pairs(engine_options) or None}
    order |= {"deadline_s": given["deadline"], "worker_timeout_s": given["worker_timeout"]}
    same = ("retries", "spares", "stragglers", "tolerate", "on_failure")
    order |= {name: given[name] for name in same} | {"max_cost_usd": given["max_cost"]}
    order |= {"notify_url": given["notify"], "event_format": given["event_format"]}
    chosen = [name for word in regions for part in word.split(",") if (name := part.strip())]
    order["regions"] = chosen or None
    order["actors"] = None if actors is None else read_actors(actors)
    order["event"] = None if event is None else read_event(event)
    order = {name: value for name, value in order.items() if value is not None}
    if event_out is not None and order.get("engine", "external") != "external":
        raise CliError("--event-out is for engine external; others start the workers themselves")
    if skip_existing:
        params = (*params, "skip_existing=yes")
    client = the_client()
    described = pipeline_named(client.pipelines(), pipeline)
    made = None
    if program is not None:
        from mu.cli.functions import Ingredients
        from mu.cli.program import LaunchedProgram

        parts = Ingredients([program], pre, post, extra, (), None)
        made = LaunchedProgram(
            parts, requirements, role, engine, function or "", copies or 0, chosen
        )
        order["function"], params = made.name, made.with_command(described, params)
    elif requirements or extra or pre or post:
        raise CliError("--requirements, --with, --pre and --post need --program")
    staged = None
    if inputs is not None or outputs is not None:
        from mu.cli.stage import Stage

        staged = Stage(client, described, params, inputs, outputs, engine or "")
        params = staged.words
    order["params"] = values = read_params(described, params)
    if made is not None or staged is not None:
        check(client, order)  # before anything is deployed or uploaded
    deployed = made.deploy(dry_run) if made is not None else []
    if dry_run:
        from mu.cli.dryrun import show_plan

        files = staged.files() if staged is not None else []
        if staged is not None and files:
            order["params"] = staged.planned(values, files)
        show_plan(client, order, deployed, files, staged.url if staged else "", as_json)
        return
    if staged is not None:
        staged.upload(order)
    with _private_file(event_out) as keep_event:
        job = place(client, order, idempotency_key)
        if event_out is not None and "event" in job:
            keep_event(json.dumps(job.pop("event")))
    watched = watched or outputs is not None
    report(job, event_out, watched, as_json)
    if watched:
        quiet = "event" in job and not as_json
        alone = staged is not None and staged.alone
        watch_to_end(ctx, client, job, as_json, stderr=quiet, out=outputs, alone=alone)


def check(client: ControlPort, order: dict[str, object]) -> None:
    """Raise CliError if the daemon would refuse the order."""
    from mu.client.errors import RequestRefused

    try:
        client.check(order)
    except RequestRefused as refused:
        raise _refused(refused) from None


def _refused(refused: RequestRefused) -> CliError:
    return CliError(f"the order was refused: {refused}")


def place(client: ControlPort, order: dict[str, object], key: str | None) -> JobJson:
    """Place the order, and return the job."""
    from mu.client.errors import DaemonUnreachable, RequestRefused

    if key is not None and not (key.strip() and key.isprintable()):
        raise CliError(f"--idempotency-key must be printable text on one line, got {key!r}")
    try:
        return client.order(order, key or "")
    except RequestRefused as refused:
        raise _refused(refused) from None
    except DaemonUnreachable as error:
        safe = ", or repeat the command with the same --idempotency-key" if key else ""
        raise NoDaemon(
            f"{error}. The job may have been started anyway: check with `mu jobs`{safe}"
        ) from None


def report(job: JobJson, event_out: Path | None, watched: bool, as_json: bool) -> None:
    """Print the id, the event or the JSON on stdout for programs, and a sentence on stderr."""
    from mu.cli.display.text import ordered

    if as_json:
        if not watched or "event" in job:
            print_json(job)
    elif "event" in job:
        click.echo(json.dumps(job["event"]))
    elif not watched:
        click.echo(job["id"])
    sentence = f"{ordered(job)}."
    if event_out is not None and job.get("engine") == "external":
        sentence += f" Start the workers with the event in {event_out}."
    elif event_out is not None:
        sentence += f" This engine starts the workers itself: {event_out} was not written."
    if event_out is not None or not (as_json or watched):
        click.echo(sentence, err=True)
    if not (as_json or watched):
        click.echo(f"To follow it: mu watch {job['id']}", err=True)


@contextlib.contextmanager
def _private_file(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes `path` at once, with mode 0600.

    Fails before a job is started if the file cannot be written.
    """
    if path is None:
        yield lambda text: None
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    except OSError as error:
        raise CliError(f"cannot write --event-out {path}: {error.strerror}") from None
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
