"""`mu rerun` runs again what failed in a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.aws import limits
from mu.cli.completion import complete_engine, complete_function
from mu.cli.jobs import watch_to_end
from mu.cli.launch import place, report
from mu.cli.options import (
    CliError,
    finds_daemon,
    job_argument,
    shows_json,
    the_client,
    the_home,
    where,
)

if TYPE_CHECKING:
    from mu.client.answers import PlanJson


@click.command()
@job_argument
@click.option(
    "-p",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a parameter of the pipeline. Repeatable.",
)
@click.option("--name", metavar="TEXT", help="A name for the new job.")
@click.option(
    "--out",
    "outputs",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Wait for the job's end, then download all outputs to this folder.",
)
@click.option(
    "--memory",
    type=click.IntRange(limits.MEMORY.least),
    metavar="MB",
    help="First give the job's function this much memory, for good, as mu deploy does.",
)
@click.option("--engine", metavar="NAME", shell_complete=complete_engine, help="Where workers run.")
@click.option(
    "--function",
    metavar="NAME",
    shell_complete=complete_function,
    help="Another function, such as one with more memory.",
)
@click.option("--copies", type=int, metavar="N", help="Number of copies of the function.")
@click.option(
    "--region", "--regions", "regions", multiple=True, metavar="NAME,...", help="AWS regions."
)
@click.option("--deadline", type=float, metavar="SECONDS", help="Time limit for the whole job.")
@click.option(
    "--worker-timeout", type=float, metavar="SECONDS", help="Time limit for each attempt."
)
@click.option("--retries", type=int, metavar="N", help="How many times to retry a failed actor.")
@click.option("--tolerate", type=int, metavar="N", help="Number of actors that may fail.")
@click.option("--max-cost", type=float, metavar="USD", help="Stop the job at this cost.")
@click.option("--notify", metavar="URL", help="POST the job to this URL when it has ended.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Repeating the same order with the same key does not start a second job.",
)
@click.option("-w", "--watch", "watched", is_flag=True, help="Wait until the job has ended.")
@shows_json
@finds_daemon()
@click.pass_context
def rerun(
    ctx: click.Context,
    /,
    job: str,
    params: tuple[str, ...],
    outputs: Path | None,
    memory: int | None,
    regions: tuple[str, ...],
    idempotency_key: str | None,
    watched: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Run again what failed in a job.

    Starts a new job with the plan, parameters and options of the old one, except for those given
    here. It runs only the inputs that failed, were lost or were cancelled; its result and manifest
    also have those that were done before. The old job must have ended.

    With --memory, this command changes the functions that the job runs on, if the order is valid. They
    keep it, so later jobs on them have it, too.

    \b
    Examples:
      mu rerun last --watch
      mu rerun last --out thumbs
      mu rerun 6065 --memory 3008
      mu rerun 6065 --function ffmpeg-big
      mu rerun last -p 'command=./thumb --slow {in} {out}' --retries 0
    """
    from mu.cli.arguments import pipeline_named, read_params

    client = the_client()
    old = client.find_job(job)
    order: dict[str, object] = {"rerun": old["id"]}
    same = ("name", "engine", "function", "copies", "retries", "tolerate")
    order |= {name: given[name] for name in same}
    order |= {"deadline_s": given["deadline"], "worker_timeout_s": given["worker_timeout"]}
    order |= {"max_cost_usd": given["max_cost"], "notify_url": given["notify"]}
    order["regions"] = [
        name for word in regions for part in word.split(",") if (name := part.strip())
    ]
    order = {name: value for name, value in order.items() if value not in (None, [])}
    if params:
        pipeline = pipeline_named(client.pipelines(), old["pipeline"])
        order["params"] = read_params(pipeline, params, whole=False)
    if outputs is not None:
        from mu.cli.fetch import store_of_job

        store_of_job(client, old)  # refuses now what could not be downloaded later
    if memory is not None:
        _set_memory(client.plan(order), memory)
    new = place(client, order, idempotency_key)
    watched = watched or outputs is not None
    report(new, None, watched, as_json)
    if watched:
        quiet = "event" in new and not as_json
        watch_to_end(ctx, client, new, as_json, stderr=quiet, out=outputs)


def _set_memory(plan: PlanJson, memory: int) -> None:
    """Give the functions of an order this much memory, and say so on stderr."""
    from mu.cli.deploy import sentence, set_memory

    engine = plan["engine"]
    if engine not in ("lambda", "local"):
        raise CliError(f"--memory is for engines lambda and local, and the job's is {engine}")
    if engine == "local" and "url" in where():
        raise CliError("--memory cannot be used with --url: the local engine is on another machine")
    home = the_home() if engine == "local" else None
    for result in set_memory(home, plan["regions"], plan["functions"], memory):
        click.echo(f"Function {sentence(result)}.", err=True)
