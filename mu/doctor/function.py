"""Checks of a function: it exists, fits mu, and may be invoked."""

from mu.aws.limits import RUNTIMES, TIMEOUT
from mu.doctor.finding import FAIL, OK, WARN, Finding
from mu.functions.apis import Clients
from mu.functions.aws import AwsError, aws_errors
from mu.functions.deploy import EVENT_AGE_S, HANDLER, RETRIES, failure_of

LONGEST_S = TIMEOUT.most
"""The longest timeout of a function."""
_STATES = {
    "Pending": "AWS is preparing it",
    "Inactive": "it was idle for weeks, and after the first launch AWS prepares it for 1 to 2 minutes",
}


def check_function(
    clients: Clients, region: str, name: str, worker_timeout_s: float, workers: int
) -> Finding:
    """Check a function's state, runtime, handler, timeout and reserved concurrency."""
    check, function = "function", f"{name} in {region}"
    client = clients.client("lambda", region)
    try:
        with aws_errors(f"looking up function {function}"):
            there = client.get_function_configuration(FunctionName=name)
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
        return Finding(
            check,
            FAIL,
            f"{function} does not exist",
            f"mu deploy PROGRAM --name {name} --regions {region}",
        )
    if why := failure_of(there):
        return Finding(check, FAIL, f"{function} cannot run: {why}", f"deploy {name} again")
    again = f"mu deploy --name {name} --regions {region}"
    if there.get("Handler") != HANDLER or there.get("PackageType", "Zip") != "Zip":
        return Finding(
            check,
            FAIL,
            f"{function} is not a mu worker: its handler is"
            f" {there.get('Handler') or 'a container image'}",
            f"choose another --function, or replace it: mu deploy PROGRAM --name {name}",
        )
    runtime = there.get("Runtime", "")
    if runtime not in RUNTIMES:
        return Finding(
            check,
            WARN,
            f"{function} runs on {runtime}; mu's worker is tested on {', '.join(RUNTIMES)}",
            f"{again} --runtime {RUNTIMES[0]}",
        )
    state = there.get("State", "Active")
    if state != "Active":
        return Finding(
            check,
            WARN,
            f"{function} is {state}: {_STATES.get(state, 'it cannot be invoked now')}",
            "jobs wait for it, up to [launch] accept_timeout_s",
        )
    timeout = there["Timeout"]
    if timeout < min(worker_timeout_s, LONGEST_S):
        return Finding(
            check,
            WARN,
            f"{function} is killed after {timeout} s, but [jobs] worker_timeout_s allows workers"
            f" {worker_timeout_s:g} s",
            f"{again} --timeout {min(int(worker_timeout_s), LONGEST_S)}, unless no worker needs it",
        )
    with aws_errors(f"reading the reserved concurrency of function {function}"):
        concurrency = client.get_function_concurrency(FunctionName=name)
    reserved = concurrency.get("ReservedConcurrentExecutions")
    if reserved is not None and reserved < workers:
        return Finding(
            check,
            FAIL,
            f"the reserved concurrency of {function} is {reserved}, but {workers} workers are needed",
            f"aws lambda delete-function-concurrency --function-name {name} --region {region}",
        )
    architecture = there.get("Architectures", ["x86_64"])[0]
    tmp = there.get("EphemeralStorage", {"Size": 512})["Size"]
    return Finding(
        check,
        OK,
        f"{function}: {runtime}, {architecture}, {there['MemorySize']} MB, {timeout} s, /tmp {tmp} MB",
    )


def check_retries(clients: Clients, region: str, name: str) -> Finding:
    """Check that AWS does not retry failed events by itself."""
    check, function = "retries", f"{name} in {region}"
    tries, age = 2, 21_600  # AWS's defaults
    try:
        with aws_errors(f"reading the retries of function {function}"):
            found = clients.client("lambda", region).get_function_event_invoke_config(
                FunctionName=name
            )
        tries = found.get("MaximumRetryAttempts", tries)
        age = found.get("MaximumEventAgeInSeconds", age)
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
    if tries > RETRIES or age > EVENT_AGE_S:
        return Finding(
            check,
            WARN,
            f"AWS retries failed events of {function} {tries} times and keeps them for {age} s: you"
            " pay for workers that no job needs",
            f"mu deploy --name {name} --regions {region} sets this to {RETRIES} times and"
            f" {EVENT_AGE_S} s",
        )
    return Finding(check, OK, f"AWS leaves failed events of {function} to mu")


def check_invoke(clients: Clients, region: str, name: str) -> Finding:
    """Check that we may invoke the function, without running it."""
    with aws_errors(f"invoking function {name} in {region}"):
        clients.client("lambda", region).invoke(FunctionName=name, InvocationType="DryRun")
    return Finding("invoking", OK, f"these credentials may invoke {name} in {region}")
