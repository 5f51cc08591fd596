"""`mu rerun` runs again what failed in a job."""

from __future__ import annotations

import click

from mu.cli.completion import complete_engine, complete_function
from mu.cli.jobs import watch_to_end
from mu.cli.launch import place, report
from mu.cli.options import finds_daemon, job_argument, shows_json, the_client


@click.command()
@job_argument
@click.option(
    "-p",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a parameter of the pipeline. Repeatable.",
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

    \b
    Examples:
      mu rerun last --watch
      mu rerun 6065 --function ffmpeg-big
      mu rerun last -p 'command=./thumb --slow {in} {out}' --retries 0
    """
    from mu.cli.arguments import pipeline_named, read_params

    client = the_client()
    old = client.find_job(job)
    order: dict[str, object] = {"rerun": old["id"]}
    same = ("engine", "function", "copies", "retries", "tolerate")
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
    new = place(client, order, idempotency_key)
    report(new, None, watched, as_json)
    if watched and "event" not in new:
        watch_to_end(ctx, client, new, as_json)
