"""The log that a function itself writes, on AWS or on the local engine."""

import time
from collections.abc import Iterator
from pathlib import Path

from mu.aws.answers import Kind
from mu.aws.function_name import FunctionName
from mu.functions.aws import AwsClients, AwsError, aws_errors

AFTER_S = 60.0
"""How long after its job's end a worker may still write to its log."""


def cloudwatch_log(
    clients: AwsClients, function: str, region: str, begin: float, end: float | None
) -> Iterator[str]:
    """Yield the lines of a function's log on AWS: time, worker, text; oldest first.

    The times are in seconds since the epoch; `end` None: until now. Raises AwsError.
    """
    name = FunctionName.parse(function)
    group = f"/aws/lambda/{name.name}"
    period = {"startTime": int(begin * 1000)}
    if end is not None:
        period["endTime"] = int((end + AFTER_S) * 1000)
    try:
        with aws_errors(f"reading the log of function {function} in {region}"):
            pages = clients.client("logs", region).get_paginator("filter_log_events")
            for page in pages.paginate(logGroupName=group, **period):
                for event in page["events"]:
                    yield _line(event["timestamp"], event["logStreamName"], event["message"])
    except AwsError as error:
        if error.kind is Kind.DENIED:
            arn = f"arn:aws:logs:{region}:*:log-group:{group}:*"
            remedy = f"grant your user or role logs:FilterLogEvents on {arn}"
        elif error.code == "ResourceNotFoundException":
            remedy = (
                f"no worker of {function} has run in {region}, or the function's role may not write"
                " logs, which mu doctor --policy function allows"
            )
        else:
            raise
        raise AwsError(error.sentence, remedy, error.code, error.kind) from None


def _line(ms: int, stream: str, message: str) -> str:
    """Return a line; a stream is of one execution environment, so its end tells workers apart."""
    at = time.strftime("%H:%M:%S", time.gmtime(ms // 1000))
    return f"{at}.{ms % 1000:03} {stream[-8:]} {message.rstrip()}\n"


def local_log(home: Path, function: str, begin: float, end: float | None) -> Iterator[bytes]:
    """Yield the logs of a function's invocations on the local engine, each with a heading.

    Those are chosen that were last written to in this period, in seconds since the epoch.
    """
    found = []
    for path in (home / "local" / "logs" / FunctionName.parse(function).name).glob("*.log"):
        written = path.stat().st_mtime
        if begin <= written and (end is None or written <= end + AFTER_S):
            found.append((written, path))
    for _, path in sorted(found):
        yield b"== invocation %b ==\n%b\n" % (path.stem.encode(), path.read_bytes())
