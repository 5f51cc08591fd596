"""The account: whose the credentials are, the clock, the quota."""

import email.utils
from collections.abc import Callable

from botocore.exceptions import ClientError

from mu.config import Config
from mu.doctor.finding import FAIL, OK, WARN, Finding
from mu.functions.aws import Clients, told

GROWTH = 1000
"""So many workers more a function may have every 10 s."""
QUOTA_CODE = "L-B99A9384"
"""Service Quotas' name for Lambda's concurrent executions."""
USUAL = 1000
"""The concurrent executions of an account that is not new."""
SKEW_WARN_S, SKEW_FAIL_S = 30, 300
"""Requests are signed with the time, which may differ from AWS's by 5 minutes; certificates are
dated back by 10."""


def check_credentials(clients: Clients, region: str) -> Finding:
    """Ask STS whose the credentials are."""
    with told("credentials"):
        caller = clients.client("sts", region).get_caller_identity()
    who = caller["Arn"]
    if who.endswith(":root"):
        return Finding(
            "credentials",
            WARN,
            f"they are the root user's of account {caller['Account']}, which may do everything",
            "make a user or role with the policies of mu doctor --policy, and use that",
        )
    return Finding("credentials", OK, who)


def check_clock(clients: Clients, region: str, clock: Callable[[], float]) -> Finding:
    """Compare this clock with the Date of an answer."""
    check = "clock"
    with told("the time"):
        try:
            answer = clients.client("sts", region).get_caller_identity()
        except ClientError as error:  # a refusal tells the time, too, and may be for it
            answer = error.response
    now = clock()
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
    try:
        there = email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return Finding(check, WARN, f"the answer had no date to compare with; {date!r} came")
    ahead = now - there
    if abs(ahead) <= SKEW_WARN_S:
        return Finding(check, OK, f"within {max(1, round(abs(ahead)))} s of AWS's")
    return Finding(
        check,
        FAIL if abs(ahead) >= SKEW_FAIL_S else WARN,
        f"this clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS's; requests"
        f" are refused at {SKEW_FAIL_S} s",
        "let the clock be set by NTP: timedatectl set-ntp true",
    )


def check_quota(clients: Clients, region: str, workers: int) -> Finding:
    """Compare the account's concurrent executions in a region with what a job wants there."""
    check = "concurrency"
    with told(f"get account settings in {region}"):
        limit = clients.client("lambda", region).get_account_settings()["AccountLimit"]
    most, free = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    reserved = f", {most - free} of them reserved for certain functions" if free < most else ""
    says = f"the account lets {most} functions run at once in {region}{reserved}"
    if workers > free:
        return Finding(
            check,
            FAIL,
            f"{workers} workers are wanted there, but {says}",
            "ask for more (aws service-quotas request-service-quota-increase --service-code lambda"
            f" --quota-code {QUOTA_CODE} --desired-value {_round_up(workers)} --region {region}),"
            " spread the job over more regions, or order fewer workers",
        )
    if most < USUAL:
        return Finding(
            check,
            WARN,
            f"{says}, which is a new account's limit: {workers} wanted",
            "enough for that; for more, ask at Service Quotas as early as you can",
        )
    return Finding(check, OK, f"{says}; {workers} wanted")


def check_local_concurrency(config: Config, workers: int) -> Finding:
    """Compare the local engine's own limit with what a job wants."""
    most = config.local.concurrency
    if workers > most:
        return Finding(
            "concurrency",
            WARN,
            f"{workers} workers are wanted; the local engine runs {most} at once, the others after",
            "set [local] concurrency, if this machine can bear that",
        )
    return Finding("concurrency", OK, f"the local engine runs {most} at once; {workers} wanted")


def check_growth(workers: int, functions: int) -> Finding:
    """Say how long Lambda takes to start so many workers of so many functions in a region."""
    functions = functions or 1
    seconds = 10 * (-(-workers // (GROWTH * functions)) - 1)
    if not seconds:
        return Finding("growth", OK, f"{functions} functions take {workers} workers at once")
    return Finding(
        "growth",
        WARN,
        f"a function grows by {GROWTH} workers in 10 s: {workers} of them take {seconds} s longer",
        f"--copies {-(-workers // GROWTH)}, with mu deploy and with mu launch",
    )


def _round_up(workers: int) -> int:
    return -(-workers // 500) * 500
