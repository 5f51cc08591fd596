"""The log that a function itself writes on AWS."""

import time
from collections.abc import Iterator

from mu.aws.answers import Kind
from mu.aws.logs import log_events, log_group
from mu.functions.aws import AwsClients, AwsError, aws_errors


def cloudwatch_log(
    clients: AwsClients, function: str, region: str, since: float, until: float | None
) -> Iterator[str]:
    """Yield the lines of a function's log on AWS: time, worker, text; oldest first.

    The times are in seconds since the epoch; `until` None: until now. Raises AwsError.
    """
    group = log_group(function)
    try:
        with aws_errors(f"reading the log of function {function} in {region}"):
            for event in log_events(clients.client("logs", region), group, since, until):
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
