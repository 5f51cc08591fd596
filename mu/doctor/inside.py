"""Checks from inside a function: it is run once, tells what it has, and connects to our ports."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.aws.limits import BOTO3
from mu.doctor.coordinator import Reach
from mu.doctor.function import Subject
from mu.findings import FAIL, OK, UNKNOWN, WARN, Finding
from mu.functions.aws import aws_errors
from mu.functions.deploy import DESCRIPTION
from mu.net.certificates import SERVER_NAME

_PROBE = 3
"""The mode of a worker's event in which it only looks around."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a function found."""

    python: str
    boto3: str
    """Empty: there is none."""
    lacks: Sequence[str]
    """The programs that it does not have."""
    ports: Mapping[str, str]
    """Why it could not connect, by port; empty: it could."""

    @classmethod
    def read(cls, told: dict[str, Any]) -> "Surroundings":
        """Raises LookupError, TypeError or AttributeError for another answer than a worker's."""
        return cls(
            str(told["python"]),
            str(told["boto3"]),
            [str(program) for program in told["lacks"]],
            {str(port): str(failure) for port, failure in told["ports"].items()},
        )


def may_run(function: Subject) -> bool:
    """Whether it is a mu worker for certain: another function might do anything."""
    return (function.found or {}).get("Description") == DESCRIPTION


def not_run(function: Subject) -> Finding:
    return Finding(
        "inside",
        UNKNOWN,
        f"{function} was not run to connect from there: it does not say that it is a worker of mu",
        "if it is one, run it with --run",
    )


def check_inside(
    function: Subject,
    places: Mapping[str, Reach],
    home: Path,
    tell: Callable[[Surroundings], None],
) -> Finding:
    """Run the function; `tell` takes what it found.

    The event has no key and no certificate of a job: a port of ours completes the TLS handshake
    without them, and then closes.
    """
    check = "inside"
    event = {
        "mode": _PROBE,
        "cacert": (home / "ca.pem").read_text(encoding="ascii"),
        "server_name": SERVER_NAME,
        "probe": {name: [place.host, place.port] for name, place in places.items()},
    }
    with aws_errors(f"running function {function}"):
        answer = function.api.invoke(
            FunctionName=function.name,
            InvocationType="RequestResponse",
            Payload=json.dumps(event).encode("ascii"),
        )
        payload = answer["Payload"].read()
    try:
        told = json.loads(payload)
        if "FunctionError" in answer:
            return _untold(function, str(told["errorMessage"]))
        found = Surroundings.read(told)
    except (ValueError, LookupError, TypeError, AttributeError):
        shown = payload[:200].decode("utf-8", "replace")
        return _untold(function, f"it answered {shown}")
    tell(found)
    lacks = f"lacks {', '.join(found.lacks)}" if found.lacks else "lacks no common program"
    return Finding(check, OK, f"{function} ran with Python {found.python}; it {lacks}")


def _untold(function: Subject, why: str) -> Finding:
    check, again = "inside", f"deploy {function.name} again"
    if "event key mode" in why:
        older = f"the worker in {function} is older than this doctor, and cannot tell what it has"
        return Finding(check, UNKNOWN, older, again)
    return Finding(check, FAIL, f"{function} ran, but did not tell what it has: {why}", again)


def check_port_inside(
    function: Subject, name: str, place: Reach, found: Surroundings, pipeline: str
) -> Finding:
    """Judge whether the function could connect to a port. `pipeline` names one that needs the relay."""
    check, failure = f"{name} inside", found.ports.get(name, "it did not try")
    if not failure:
        return Finding(check, OK, f"{function} reaches the {name} port at {place}")
    needed = name != "relay" or bool(pipeline)
    return Finding(
        check,
        FAIL if needed else WARN,
        f"{function} does not reach the {name} port: {failure}"
        + ("" if needed else "; only some pipelines need it"),
        f"allow inbound TCP port {place.port} at {place.host} (security group, firewall, forwarded"
        " port), and outbound in the function's security group if it is in a VPC",
    )


def check_boto3(function: Subject, found: Surroundings) -> Finding:
    """Compare the function's boto3 with the oldest that the worker can use."""
    check, version, oldest = "boto3", found.boto3, ".".join(map(str, BOTO3))
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if numbers >= BOTO3:
        return Finding(check, OK, f"{function} has boto3 {version}; {oldest} is needed")
    return Finding(
        check,
        FAIL,
        f"{function} has {f'boto3 {version}' if version else 'no boto3'}, but retrieve: and upload:"
        f" need {oldest} or newer",
        "let AWS update its runtime: aws lambda put-runtime-management-config --update-runtime-on"
        f" Auto --function-name {function.name} --region {function.region}",
    )
