"""`mu log --function`: the log of a job's function, as AWS or the local engine keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mu.cli.options import CliError, the_home, where

if TYPE_CHECKING:
    from mu.client.answers import JobJson


AFTER_S = 60.0
"""How long after its job's end a worker may still write to its log."""


def print_function_log(job: JobJson, show: Callable[[bytes], None]) -> None:
    """Print what the job's functions wrote to their logs while it ran."""
    from mu.engines.local.logs import invocation_logs
    from mu.functions.aws import AwsClients, AwsError
    from mu.functions.logs import cloudwatch_log

    engine, since, finished = job.get("engine"), job["created"], job["finished"]
    until = None if finished is None else finished + AFTER_S
    functions, empty = job.get("functions", []), True
    if engine == "local":
        if "url" in where():
            raise CliError(
                "the local engine's logs are on the daemon's machine, in <home>/local/logs: run this"
                " command there, without --url"
            )
        home = the_home().path
        for function in functions:
            for path in invocation_logs(home / "local" / "logs", function, since, until):
                show(b"== invocation %b ==\n%b\n" % (path.stem.encode(), path.read_bytes()))
                empty = False
        place = f"in {home}/local/logs"
    elif engine == "lambda":
        clients, regions = AwsClients(), job.get("regions", [])
        try:
            for region in regions:
                for function in functions:
                    for line in cloudwatch_log(clients, function, region, since, until):
                        show(line.encode())
                        empty = False
        except AwsError as error:
            raise CliError(str(error)) from None
        place = f"in {', '.join(regions)}"
    else:
        raise CliError(
            f"mu cannot read the log of functions on engine {engine}: it is where the workers ran"
        )
    if empty:
        named = ", ".join(functions) or "its function"
        raise CliError(
            f"the log of {named} {place} has nothing from the time of job {job['id']}: the oldest is"
            " dropped, and new lines may take a minute to appear"
        )
