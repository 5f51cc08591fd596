"""What a function's workers printed, from CloudWatch Logs. botocore is imported by the first call."""

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from mu.aws.endings import BadEnding, ending_in
from mu.aws.names import plain_name

EVENTS = 500
"""How many log events of a function are looked at."""
EXCERPT = 500
"""How many characters are quoted."""
_PLATFORM = ("START ", "END ", "REPORT ", "INIT_START ", "INIT_REPORT ", "XRAY ")
_TELLING = ("mu worker: ", "[ERROR]", "Task timed out", "Runtime.")
_CONNECT_S, _READ_S, _TRIES = 5, 10, 2


def telling_line(lines: Iterable[str]) -> str:
    """Return the line that says most about why a worker did not connect; empty: there is none.

    That is the last one of the worker, or of the runtime about an error; else the last that a
    program printed.
    """
    last, telling = "", ""
    for line in lines:
        text = line.strip()
        if text.startswith(_PLATFORM) and "Status: " not in text:
            continue
        last = text or last
        if not text.startswith(_PLATFORM) and any(sign in text for sign in _TELLING):
            telling = text
    found = telling or last
    return found if len(found) <= EXCERPT else f"{found[:EXCERPT]}…"


def aws_ending_of(function: str, region: str, request: str, since: float) -> BadEnding | None:
    """Return how an invocation ended badly, from its log; None: not, or unknown. Blocks."""
    try:
        return ending_in(_lines(log_group(function), region, since, request), request)
    except Exception:  # of botocore's many kinds; then it stays unknown
        return None


def aws_log_of(function: str, region: str, since: float) -> str:
    """Return a clause about what a function's log says since a time, or where to look. Blocks."""
    group = log_group(function)
    command = f"aws logs tail {shlex.quote(group)} --since 30m --region {region}"
    try:
        said = telling_line(_lines(group, region, since))
    except Exception as error:  # of botocore's many kinds; the user must look there in any case
        return f"its log cannot be read ({_why(error)}); to read it: {command}"
    return (
        f"its log says: {said}" if said else f"its log says nothing about it; to read it: {command}"
    )


def log_group(function: str) -> str:
    """Return the name of a function's log group."""
    return f"/aws/lambda/{plain_name(function)}"


def log_events(
    client: Any,
    group: str,
    since: float,
    until: float | None = None,
    most: int | None = None,
    having: str = "",
) -> Iterator[dict[str, Any]]:
    """Yield the events of a log group, oldest first; the times are in seconds since the epoch.

    With `having`, only those that contain this word.

    `client` is boto3's for logs; its errors are raised.
    """
    which: dict[str, Any] = {"startTime": int(since * 1000)}
    if until is not None:
        which["endTime"] = int(until * 1000)
    if having:
        which["filterPattern"] = f'"{having}"'
    pages = client.get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=group, PaginationConfig={"MaxItems": most}, **which):
        yield from page["events"]


def _lines(group: str, region: str, since: float, having: str = "") -> Iterator[str]:
    """Yield the lines of a log, or only those of events with a word."""
    from botocore.config import Config

    from mu.aws import sessions

    tries = {"total_max_attempts": _TRIES}
    config = Config(connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries=tries)
    session = sessions.new_session(may_prompt=False)
    client = sessions.make_client(session, "logs", region, config)
    for event in log_events(client, group, since, most=EVENTS, having=having):
        yield from event["message"].splitlines()


def _why(error: Exception) -> str:
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        found = error.response.get("Error", {})
        return f"{found.get('Code')}: {found.get('Message')}"
    return " ".join(str(error).split())
