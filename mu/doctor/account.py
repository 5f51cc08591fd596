"""Checks of the account: its credentials, the clock, the concurrency quota."""

import email.utils
from collections.abc import Callable, Mapping

from botocore.exceptions import ClientError

from mu.aws.limits import MEMORY, NEW_ACCOUNT_MEMORY
from mu.config import Config
from mu.findings import FAIL, OK, WARN, Finding
from mu.functions.apis import Clients
from mu.functions.aws import aws_errors

GROWTH = 1000
"""Lambda adds at most this many workers of a function in 10 s."""
QUOTA_CODE = "L-B99A9384"
"""The code of Lambda's concurrent executions in Service Quotas."""
USUAL = 1000
"""The default quota of an established account; a new account has less."""
SKEW_WARN_S, SKEW_FAIL_S = 30, 300
"""AWS refuses requests whose time is 5 minutes off. mu's certificates are backdated by 10 minutes."""


def check_credentials(clients: Clients, region: str, whose: str = "these") -> Finding:
    """Ask STS who has these credentials; `whose` is such as `the daemon's`."""
    check = "credentials"
    with aws_errors(f"checking {whose} credentials"):
        caller = clients.client("sts", region).get_caller_identity()
    who = caller["Arn"]
    if who.endswith(":root"):
        return Finding(
            check,
            WARN,
            f"{whose} credentials belong to the root user of account {caller['Account']}, who may do"
            " anything",
            "create a user or role with the policies of mu doctor --policy, and use that instead",
        )
    return Finding(check, OK, f"{whose} credentials are those of {who}")


def check_clock(clients: Clients, region: str, clock: Callable[[], float]) -> Finding:
    """Compare this machine's clock with the Date header of an answer."""
    check = "clock"
    headers: Mapping[str, str]
    with aws_errors("reading the time"):
        try:
            answer = clients.client("sts", region).get_caller_identity()
            headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
        except ClientError as error:  # it also has the time, which may be the reason
            headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    now = clock()
    date = headers.get("date", "")
    try:
        there = email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return Finding(
            check, WARN, f"the answer has no valid Date header to compare with: {date!r}"
        )
    ahead = now - there
    if abs(ahead) <= SKEW_WARN_S:
        return Finding(check, OK, f"within {max(1, round(abs(ahead)))} s of AWS's clock")
    return Finding(
        check,
        FAIL if abs(ahead) >= SKEW_FAIL_S else WARN,
        f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS's clock; AWS refuses"
        f" requests at {SKEW_FAIL_S} s",
        "synchronize the clock with NTP: timedatectl set-ntp true",
    )


def check_quota(clients: Clients, region: str, workers: int, at_once: str = "") -> Finding:
    """Compare the account's concurrent executions in a region with the workers needed there.

    `at_once` names a pipeline that needs all of them at the same time; empty: they may take turns.
    """
    check = "concurrency"
    most, free = _concurrency(clients, region)
    reserved = f" ({most - free} reserved for certain functions)" if free < most else ""
    quota = f"the quota in {region} is {most} concurrent executions{reserved}"
    if workers > free:
        needs = f"pipeline {at_once} needs {workers} workers at once"
        return Finding(
            check,
            FAIL if at_once or not free else WARN,
            f"{quota}: {needs if at_once else f'{workers} workers take turns'}",
            "for more at a time, request an increase (aws service-quotas"
            " request-service-quota-increase --service-code lambda --quota-code"
            f" {QUOTA_CODE} --desired-value {_round_up(workers)} --region {region}), or use more"
            " regions",
        )
    if most < USUAL:
        return Finding(
            check,
            WARN,
            f"{quota}, as in a new account; {workers} needed",
            "that is enough for now; if you will need more, request an increase at Service Quotas"
            " early",
        )
    return Finding(check, OK, f"{quota}; {workers} needed")


def check_memory(clients: Clients, region: str, memory: int) -> Finding:
    """Judge whether the account allows functions this much memory, in MB.

    No call returns that quota, but AWS reduces both quotas of a new account.
    """
    check, asked = "memory", f"{memory:,} MB for each worker"
    if warning := MEMORY.exceeded(memory):
        return Finding(check, WARN, warning, "use less: mu deploy --memory")
    if memory <= NEW_ACCOUNT_MEMORY:
        return Finding(check, OK, f"{asked}: also allowed in new accounts")
    most, _ = _concurrency(clients, region)
    if most < USUAL:
        return Finding(
            check,
            WARN,
            f"{asked}: this account's quotas are reduced, and such accounts often allow at most"
            f" {NEW_ACCOUNT_MEMORY:,} MB",
            f"use mu deploy --memory {NEW_ACCOUNT_MEMORY}, or ask AWS Support for more",
        )
    return Finding(check, OK, f"{asked}: this account's quotas are not reduced")


def _concurrency(clients: Clients, region: str) -> tuple[int, int]:
    """Return how many executions the account may have at a time, and how many are not reserved."""
    with aws_errors(f"reading the account's settings in {region}"):
        limit = clients.client("lambda", region).get_account_settings()["AccountLimit"]
    return limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]


def check_local_concurrency(config: Config, workers: int, at_once: str = "") -> Finding:
    """Compare the local engine's limit with the workers needed; `at_once` as for check_quota."""
    check, most = "concurrency", config.local.concurrency
    runs = f"the local engine runs {most} workers at a time"
    if workers <= most:
        return Finding(check, OK, f"{runs}; {workers} needed")
    needs = f"pipeline {at_once} needs {workers} workers at once"
    return Finding(
        check,
        FAIL if at_once else WARN,
        f"{runs}: {needs if at_once else f'{workers} workers take turns'}",
        "increase [local] concurrency, if this machine can run that many",
    )


def check_growth(workers: int, functions: int) -> Finding:
    """Compute how long Lambda takes to start that many workers in a region."""
    check, functions = "growth", functions or 1
    seconds = 10 * (-(-workers // (GROWTH * functions)) - 1)
    if not seconds:
        return Finding(check, OK, f"{functions} functions can start {workers} workers at once")
    return Finding(
        check,
        WARN,
        f"a function grows by {GROWTH} workers in 10 s, so starting {workers} takes {seconds} s",
        f"use --copies {-(-workers // GROWTH)} with mu deploy and mu launch",
    )


def _round_up(workers: int) -> int:
    return -(-workers // 500) * 500
