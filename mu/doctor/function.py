"""Checks of a function: it exists, fits mu, can reach the coordinator's address, and may be invoked."""

from collections.abc import Mapping
from dataclasses import dataclass

from mu.aws.limits import MANAGED_TIMEOUT_S, RUNTIMES, TIMEOUT
from mu.doctor.coordinator import Reach
from mu.findings import FAIL, OK, WARN, Finding
from mu.functions.apis import Clients, FunctionConfiguration, LambdaApi
from mu.functions.aws import AwsError, aws_errors
from mu.functions.deploy import EVENT_AGE_S, HANDLER, RETRIES, failure_of

_STATES = {
    "Pending": "AWS is preparing it",
    "Inactive": "it was idle for weeks, and after the first launch AWS prepares it for 1 to 2 minutes",
}
_PROCESSES = 16
"""How many invocations for each CPU share a Managed Instance's environment by default, with Python:
https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances-python-runtime.html"""


@dataclass(slots=True)
class Subject:
    """A function to check. It is looked up once."""

    clients: Clients
    region: str
    name: str
    found: FunctionConfiguration | None = None
    """None: not looked up yet, or that failed."""

    def __str__(self) -> str:
        return f"{self.name} in {self.region}"

    @property
    def api(self) -> LambdaApi:
        return self.clients.client("lambda", self.region)

    def look_up(self) -> FunctionConfiguration:
        """Raises AwsError."""
        if self.found is None:
            with aws_errors(f"looking up function {self}"):
                self.found = self.api.get_function_configuration(FunctionName=self.name)
        return self.found

    @property
    def managed(self) -> bool:
        """Whether it is known to run on Managed Instances, EC2 instances of this account."""
        return bool((self.found or {}).get("CapacityProviderConfig"))


def check_function(function: Subject, worker_timeout_s: float) -> Finding:
    """Check a function's state, runtime, handler and timeout."""
    check, name = "function", function.name
    try:
        there = function.look_up()
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
        return Finding(
            check,
            FAIL,
            f"{function} does not exist",
            f"mu deploy PROGRAM --name {name} --regions {function.region}",
        )
    if why := failure_of(there):
        return Finding(check, FAIL, f"{function} cannot run: {why}", f"deploy {name} again")
    again = f"mu deploy --name {name} --regions {function.region}"
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
    longest = min(int(worker_timeout_s), MANAGED_TIMEOUT_S if function.managed else TIMEOUT.most)
    if timeout < longest:
        return Finding(
            check,
            WARN,
            f"{function} is killed after {timeout} s, but [jobs] worker_timeout_s allows workers"
            f" {worker_timeout_s:g} s",
            f"{again} --timeout {longest}, unless no worker needs it",
        )
    architecture = there.get("Architectures", ["x86_64"])[0]
    tmp = there.get("EphemeralStorage", {"Size": 512})["Size"]
    return Finding(
        check,
        OK,
        f"{function}: {runtime}, {architecture}, {there['MemorySize']} MB, {timeout} s, /tmp {tmp} MB",
    )


def check_reserve(function: Subject, workers: int, at_once: str) -> Finding:
    """Compare the function's reserved concurrency, if it has one, with the workers needed.

    `at_once` names a pipeline that needs all of them at the same time; empty: they may take turns.
    """
    check = "reserve"
    with aws_errors(f"reading the reserved concurrency of function {function}"):
        reserved = function.api.get_function_concurrency(FunctionName=function.name).get(
            "ReservedConcurrentExecutions"
        )
    if reserved is None:
        return Finding(check, OK, f"{function} shares the account's concurrency")
    has = f"the reserved concurrency of {function} is {reserved}"
    if reserved >= workers:
        return Finding(check, OK, f"{has}; {workers} needed")
    region = function.region
    remove = (
        f"aws lambda delete-function-concurrency --function-name {function.name} --region {region}"
    )
    if not reserved or at_once:
        why = f"pipeline {at_once} needs {workers} workers at once" if reserved else "none can run"
        return Finding(check, FAIL, f"{has}: {why}", remove)
    return Finding(
        check, WARN, f"{has}: {workers} workers take turns, {reserved} at a time", remove
    )


def check_managed(function: Subject) -> Finding:
    """Tell what is different on Managed Instances."""
    config = (function.found or {}).get("CapacityProviderConfig", {})
    instances = config.get("LambdaManagedInstancesCapacityProviderConfig", {})
    most = instances.get("PerExecutionEnvironmentMaxConcurrency")
    provider = instances.get("CapacityProviderArn", "").rpartition(":")[2]
    where = f"{function} runs on Managed Instances" + (f" ({provider})" if provider else "")
    publish = (
        "after each deployment, aws lambda publish-version --publish-to LATEST_PUBLISHED"
        f" --function-name {function.name} --region {function.region}"
    )
    if most == 1:
        return Finding(
            "instances",
            WARN,
            f"{where}: cost_usd does not show what they cost, and only published versions run",
            publish,
        )
    share = f"up to {most}" if most else f"by default {_PROCESSES} for each CPU"
    return Finding(
        "instances",
        WARN,
        f"{where}: workers share the memory and /tmp of one environment, {share}; cost_usd does not"
        " show what they cost, and only published versions run",
        f"set PerExecutionEnvironmentMaxConcurrency to 1; {publish}",
    )


def check_route(function: Subject, places: Mapping[str, Reach], pipeline: str = "") -> Finding:
    """Check that the function's network has a way to the addresses of the ports, by their kind.

    `pipeline` names one that needs the relay; without it, no way to the relay is no failure.
    A function outside a VPC has IPv4 and the internet. One inside has IPv6 only if its subnets are
    dual-stack and Ipv6AllowedForDualStack is set.
    """
    check = "route"
    vpc = function.look_up().get("VpcConfig", {})
    inside = bool(vpc.get("VpcId"))
    for port, place in places.items():
        level = WARN if port == "relay" and not pipeline else FAIL
        if place.only_ipv6 and not vpc.get("Ipv6AllowedForDualStack"):
            return Finding(
                check,
                level,
                f"the {port} port is at {place}, an IPv6 address, and {function} has no IPv6",
                "use an IPv4 address, or a name that has one; IPv6 works only from a VPC's dual-stack"
                " subnets, with Ipv6AllowedForDualStack in the function's VpcConfig",
            )
        if place.only_private and not inside:
            return Finding(
                check,
                level,
                f"the {port} port is at {place}, a private address, and {function} is not in a VPC",
                "use a public address, or put the function into the same VPC",
            )
    if inside:
        return Finding(
            check,
            OK,
            f"{function} is in {vpc['VpcId']}: its security group must allow outbound TCP to these"
            " ports, and to S3 a route (NAT gateway or VPC endpoint)",
        )
    return Finding(check, OK, f"{function} has IPv4 access to the internet")


def check_retries(function: Subject) -> Finding:
    """Check that AWS does not retry failed events by itself."""
    check = "retries"
    tries, age = 2, 21_600  # AWS's defaults
    try:
        with aws_errors(f"reading the retries of function {function}"):
            found = function.api.get_function_event_invoke_config(FunctionName=function.name)
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
            f"mu deploy --name {function.name} --regions {function.region} sets this to {RETRIES}"
            f" times and {EVENT_AGE_S} s",
        )
    return Finding(check, OK, f"AWS leaves failed events of {function} to mu")


def check_invoke(function: Subject) -> Finding:
    """Check that we may invoke the function, without running it."""
    with aws_errors(f"invoking function {function}"):
        function.api.invoke(FunctionName=function.name, InvocationType="DryRun")
    return Finding("invoking", OK, f"these credentials may invoke {function}")
