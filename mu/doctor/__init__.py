"""Checks that a job can run. Each check is a small function that returns a finding and a remedy.

A check takes the clients and values it needs as arguments, so that it can be tested alone. An
exception in a check becomes a finding, and the next check runs.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial

from mu.aws.answers import Kind
from mu.aws.s3 import EMBEDDED_BUCKET
from mu.doctor.account import (
    GROWTH,
    check_clock,
    check_credentials,
    check_growth,
    check_local_concurrency,
    check_memory,
    check_quota,
)
from mu.doctor.bucket import check_bucket, check_bucket_write
from mu.doctor.case import Case
from mu.doctor.coordinator import (
    Reach,
    check_ca,
    check_public_host,
    check_relay,
    check_worker_port,
    find_places,
    finders_of,
)
from mu.doctor.function import (
    Subject,
    check_function,
    check_invoke,
    check_managed,
    check_reserve,
    check_retries,
    check_route,
)
from mu.doctor.inside import (
    Surroundings,
    check_boto3,
    check_inside,
    check_port_inside,
    may_run,
    not_run,
)
from mu.doctor.role import check_role, check_role_may
from mu.findings import FAIL, UNKNOWN, WARN, Finding
from mu.functions.apis import Clients
from mu.functions.aws import CREDENTIALS, AwsError

Checks = Generator[tuple[str, Callable[[], Finding]], Finding, None]
"""Yields checks by name, and receives the finding of each."""

_NEEDED = ("invoking", "inside", "writing")
"""The checks whose calls are those of a job. For the others, a missing right is no failure."""
_REACHED = (*_NEEDED, "function", "bucket")
"""The checks that fail if AWS cannot be reached. Jobs do not need STS and IAM, or the account's settings."""


def examine(case: Case) -> Iterator[Finding]:
    """Run all checks, and yield each finding when it is made."""
    yield from case.known
    checks = _checks(case)
    with suppress(StopIteration):
        check = next(checks)
        while True:
            finding = _run(*check)
            yield finding
            check = checks.send(finding)
    if case.plugged is not None:
        try:
            yield from case.plugged()
        except Exception as error:  # of a plugin's author, or an option that is wrong
            yield Finding(case.engine, FAIL, f"it could not be checked: {error}")


def _run(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except AwsError as error:
        match error.kind:
            case Kind.DENIED if name not in _NEEDED:
                remedy = f"jobs do not need this right; to have it checked: {error.remedy}"
                return Finding(name, UNKNOWN, error.sentence, remedy)
            case Kind.BUSY | Kind.NOT_READY:
                return Finding(name, UNKNOWN, error.sentence, "jobs wait; check again later")
            case Kind.AGAIN if name not in _REACHED:
                return Finding(name, UNKNOWN, error.sentence, error.remedy)
        return Finding(name, FAIL, error.sentence, error.remedy)
    except Exception as error:  # a broken check must not hide the findings of the others
        return Finding(name, FAIL, f"the check itself failed: {type(error).__name__}: {error}")


def _checks(case: Case) -> Checks:
    """Yield the checks one by one; later ones depend on earlier findings."""
    config, aws, home = case.config, case.engine == "lambda", case.config.home
    places = find_places(home, config)
    yield "CA", partial(check_ca, home)
    yield "worker port", partial(check_worker_port, home, config, aws)
    if case.may_use_relay:
        yield "relay port", partial(check_relay, home, config, aws, case.relay_user)
    else:
        places.pop("relay", None)
    finders = finders_of(config) if aws else ()
    own = [place.port for place in places.values() if place.host == config.launch.public_host]
    ports = own or [port for port in (config.worker.port, config.relay.port) if port]
    if case.plugged is None:  # else the engine knows from where its workers connect
        yield "public_host", partial(check_public_host, config, case.source, finders, aws, ports)
    if aws and case.clients is not None:
        whose = partial(check_credentials, case.clients, case.regions[0], case.whose)
        found = yield "credentials", whose
        if found.remedy == CREDENTIALS:
            rest = "the other checks of AWS were skipped, because there are no credentials"
            yield "AWS", lambda: Finding("AWS", WARN, rest)
            return
        yield from _of_account(case, case.clients)
    elif case.engine == "local":
        yield "concurrency", partial(check_local_concurrency, config, case.workers, case.at_once)
    if case.clients is not None:
        subjects = [
            Subject(case.clients, region, name)
            for region in case.regions
            for name in case.functions
        ]
        for subject in subjects:
            yield from _of_function(case, subject, places)
        if aws and (case.role or subjects):
            yield from _of_role(case, case.clients, subjects)
    if case.bucket:
        bucket = partial(check_bucket, case.storage, case.regions, case.bucket, case.endpoint)
        found = yield "bucket", bucket
        if case.write and found.level != FAIL and case.bucket != EMBEDDED_BUCKET:
            yield "writing", partial(check_bucket_write, case.storage, case.regions[0], case.bucket)


def _of_account(case: Case, clients: Clients) -> Checks:
    yield "clock", partial(check_clock, clients, case.regions[0], time.time)
    for region in case.regions:
        yield "concurrency", partial(check_quota, clients, region, case.share, case.at_once)
        yield "memory", partial(check_memory, clients, region, case.memory)
    if case.share > GROWTH:
        yield "growth", partial(check_growth, case.share, len(case.functions))


def _of_function(case: Case, function: Subject, places: dict[str, Reach]) -> Checks:
    aws, each = case.engine == "lambda", -(-case.share // max(1, len(case.functions)))
    limit_s = case.config.jobs.worker_timeout_s
    found = yield "function", partial(check_function, function, limit_s)
    if found.level == FAIL:
        return
    yield "reserve", partial(check_reserve, function, each, case.at_once)
    if function.managed:
        yield "instances", partial(check_managed, function)
    if aws and places:
        yield "route", partial(check_route, function, places, case.relay_user)
    yield "retries", partial(check_retries, function)
    found = yield "invoking", partial(check_invoke, function)
    if found.level == FAIL or not places:  # without a daemon there is nothing to connect to
        return
    if not (case.run or may_run(function)):
        yield "inside", partial(not_run, function)
        return
    told: list[Surroundings] = []
    yield "inside", partial(check_inside, function, places, case.config.home, told.append)
    for around in told:
        for name, place in places.items():
            check = partial(check_port_inside, function, name, place, around, case.relay_user)
            yield f"{name} inside", check
        yield "boto3", partial(check_boto3, function, around)


def _of_role(case: Case, clients: Clients, functions: list[Subject]) -> Checks:
    region = case.regions[0]

    def role() -> str:
        return case.role or functions[0].look_up()["Role"]

    found = yield "role", lambda: check_role(clients, region, role())
    function = case.functions[0] if case.functions else ""
    bucket = "" if case.endpoint else case.bucket  # of other servers, IAM knows nothing
    if found.level != FAIL and (function or bucket):
        yield "role", lambda: check_role_may(clients, region, role(), function, bucket)
