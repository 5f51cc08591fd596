"""A function: whether it is there, fit for mu, and may be invoked."""

from mu.doctor.finding import FAIL, OK, WARN, Finding
from mu.functions.aws import AwsError, Clients, told
from mu.functions.deploy import EVENT_AGE_S, HANDLER, RETRIES, RUNTIMES


def check_function(
    clients: Clients, region: str, name: str, worker_timeout_s: float, workers: int
) -> Finding:
    """Look at a function's state, runtime, handler, timeout and reserved concurrency."""
    check = "function"
    client = clients.client("lambda", region)
    try:
        with told(f"{name} in {region}"):
            there = client.get_function_configuration(FunctionName=name)
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
        return Finding(
            check,
            FAIL,
            f"{name} is not there in {region}",
            f"mu deploy PROGRAM --name {name} --regions {region}",
        )
    state, update = there.get("State", "Active"), there.get("LastUpdateStatus", "Successful")
    if state == "Failed" or update == "Failed":
        why = there.get("StateReason") or there.get("LastUpdateStatusReason") or "no reason"
        return Finding(check, FAIL, f"{name} in {region} cannot run: {why}", f"deploy {name} again")
    again = f"mu deploy --name {name} --regions {region}"
    if there.get("Handler") != HANDLER or there.get("PackageType", "Zip") != "Zip":
        return Finding(
            check,
            FAIL,
            f"{name} in {region} is no worker of mu: its handler is"
            f" {there.get('Handler') or 'a container image'}",
            f"give another --function, or replace it: mu deploy PROGRAM --name {name}",
        )
    runtime = there.get("Runtime", "")
    if runtime not in RUNTIMES:
        return Finding(
            check,
            WARN,
            f"{name} in {region} runs on {runtime}; mu's worker is tried on {', '.join(RUNTIMES)}",
            f"{again} --runtime {RUNTIMES[0]}",
        )
    timeout = there["Timeout"]
    if timeout < min(worker_timeout_s, 900):
        return Finding(
            check,
            WARN,
            f"{name} in {region} is killed after {timeout} s, though [jobs] worker_timeout_s lets"
            f" a worker run for {worker_timeout_s:g} s",
            f"{again} --timeout {min(int(worker_timeout_s), 900)}, unless no worker needs that",
        )
    with told(f"get function concurrency, {name} in {region}"):
        reserved = client.get_function_concurrency(FunctionName=name).get(
            "ReservedConcurrentExecutions"
        )
    if reserved is not None and reserved < workers:
        return Finding(
            check,
            FAIL,
            f"{name} in {region} may run {reserved} times at once (its reserved concurrency);"
            f" {workers} are wanted",
            f"aws lambda delete-function-concurrency --function-name {name} --region {region}",
        )
    architecture = there.get("Architectures", ["x86_64"])[0]
    return Finding(
        check,
        OK,
        f"{name} in {region}: {runtime}, {architecture}, {there['MemorySize']} MB, {timeout} s,"
        f" /tmp {there.get('EphemeralStorage', {}).get('Size', 512)} MB",
    )


def check_retries(clients: Clients, region: str, name: str) -> Finding:
    """Look whether AWS would run failed events again by itself."""
    check = "retries"
    try:
        with told(f"{name} in {region}"):
            found = clients.client("lambda", region).get_function_event_invoke_config(
                FunctionName=name
            )
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
        found = {}
    tries = found.get("MaximumRetryAttempts", 2)
    age = found.get("MaximumEventAgeInSeconds", 21_600)
    if tries > RETRIES or age > EVENT_AGE_S:
        return Finding(
            check,
            WARN,
            f"AWS runs failed events of {name} in {region} again {tries} times and keeps them for"
            f" {age} s: workers that nobody waits for, which are paid for",
            f"mu deploy --name {name} --regions {region} sets {RETRIES} and {EVENT_AGE_S} s",
        )
    return Finding(check, OK, f"AWS leaves failed events of {name} in {region} to mu")


def check_invoke(clients: Clients, region: str, name: str) -> Finding:
    """Ask whether we may invoke it, without running it."""
    with told(f"invoking {name} in {region}"):
        clients.client("lambda", region).invoke(FunctionName=name, InvocationType="DryRun")
    return Finding("invoking", OK, f"{name} in {region} may be invoked with these credentials")
