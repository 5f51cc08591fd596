"""Checks that a job can run. Each check is a small function that returns a finding and a remedy.

A check takes the clients and values it needs as arguments, so that it can be tested alone. An
exception in a check becomes a finding, and the next check runs.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from mu.config import Config
from mu.doctor.account import (
    GROWTH,
    check_clock,
    check_credentials,
    check_growth,
    check_local_concurrency,
    check_quota,
)
from mu.doctor.bucket import check_bucket, check_bucket_write
from mu.doctor.coordinator import FINDERS, check_ca, check_public_host, check_worker_port
from mu.doctor.finding import FAIL, WARN, Finding
from mu.doctor.function import check_function, check_invoke, check_retries
from mu.doctor.role import check_role, check_role_may, role_of
from mu.functions.apis import Clients
from mu.functions.aws import CREDENTIALS, AwsClients, AwsError

Checks = Generator[tuple[str, Callable[[], Finding]], Finding, None]
"""Yields checks by name, and receives the finding of each."""


@dataclass(frozen=True, slots=True)
class Case:
    """What to check."""

    config: Config
    source: str
    """The source of the configuration: a file's path, or `the defaults`."""
    engine: str
    clients: Clients | None
    """None: no engine can be asked, and a finding in `known` says why."""
    regions: Sequence[str]
    functions: Sequence[str] = ()
    workers: int = 1
    role: str = ""
    bucket: str = ""
    write: bool = False
    known: Sequence[Finding] = ()
    """Findings made before the checks."""


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


def _run(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except AwsError as error:
        return Finding(name, FAIL, error.sentence, error.remedy)
    except Exception as error:  # a broken check must not hide the findings of the others
        return Finding(name, FAIL, f"the check itself failed: {type(error).__name__}: {error}")


def _checks(case: Case) -> Checks:
    """Yield the checks one by one; later ones depend on earlier findings."""
    config, aws = case.config, case.engine == "lambda"
    yield "CA", partial(check_ca, config.home)
    yield "worker port", partial(check_worker_port, config.home, config, aws)
    finders = FINDERS if aws else ()
    yield "public_host", partial(check_public_host, config, case.source, finders, aws)
    if aws and case.clients is not None:
        found = yield "credentials", partial(check_credentials, case.clients, case.regions[0])
        if found.remedy == CREDENTIALS:
            rest = "the other checks of AWS were skipped, because there are no credentials"
            yield "AWS", lambda: Finding("AWS", WARN, rest)
            return
        yield from _of_account(case, case.clients)
    elif not aws:
        yield "concurrency", partial(check_local_concurrency, config, case.workers)
    if case.clients is not None:
        yield from _of_functions(case, case.clients)
    if aws and case.clients is not None and (case.role or case.functions):
        yield from _of_role(case, case.clients)
    if case.bucket:
        s3 = case.clients if aws and case.clients is not None else AwsClients()
        found = yield "bucket", partial(check_bucket, s3, case.regions, case.bucket)
        if case.write and found.level != FAIL:
            yield "writing", partial(check_bucket_write, s3, case.regions[0], case.bucket)


def _of_account(case: Case, clients: Clients) -> Checks:
    yield "clock", partial(check_clock, clients, case.regions[0], time.time)
    share = _share(case)
    for region in case.regions:
        yield "concurrency", partial(check_quota, clients, region, share)
    if share > GROWTH:
        yield "growth", partial(check_growth, share, len(case.functions))


def _of_functions(case: Case, clients: Clients) -> Checks:
    limit_s = case.config.jobs.worker_timeout_s
    each = -(-_share(case) // max(1, len(case.functions)))
    for region in case.regions:
        for name in case.functions:
            found = yield "function", partial(check_function, clients, region, name, limit_s, each)
            if found.level != FAIL:
                yield "retries", partial(check_retries, clients, region, name)
                yield "invoking", partial(check_invoke, clients, region, name)


def _of_role(case: Case, clients: Clients) -> Checks:
    region = case.regions[0]

    def role() -> str:
        return case.role or role_of(clients, region, case.functions[0])

    found = yield "role", lambda: check_role(clients, region, role())
    function = case.functions[0] if case.functions else ""
    if found.level != FAIL and (function or case.bucket):
        yield "role", lambda: check_role_may(clients, region, role(), function, case.bucket)


def _share(case: Case) -> int:
    """Return the number of workers in each region."""
    return -(-case.workers // len(case.regions))
