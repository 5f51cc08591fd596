"""Records calls of AWS as botocore makes them, and says which rights they need.

The rights are those of AWS's Service Authorization Reference, at
https://docs.aws.amazon.com/service-authorization/latest/reference/ in list_lambda.html, list_s3.html,
list_iam.html and list_logs.html, where another source is not named. A call that is not in the
table here is a KeyError: look it up there first.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

from botocore import handlers
from botocore.session import Session

from kit.iam import Request

ACCOUNT = "123456789012"
NO_RESOURCES = {"lambda:GetAccountSettings"}
"""The only actions of mu for which the reference (list_lambda.html) has no type of resource."""


@dataclass(frozen=True)
class Call:
    """A call of AWS: its service and operation, its parameters, and the region it is made in."""

    service: str
    operation: str
    params: Mapping[str, Any]
    region: str

    def rights(self, partition: str = "aws") -> list[Request]:
        """Return the requests that the caller's policies must allow."""
        return list(_RIGHTS[self.service][self.operation](self, f"arn:{partition}"))


@contextmanager
def recorded_calls() -> Iterator[list[Call]]:
    """Record the calls of all clients whose sessions are made in here, presigned ones included."""
    calls: list[Call] = []

    def record(params: Mapping[str, Any], model: Any, context: Mapping[str, Any], **_: Any) -> None:
        region = context.get("client_region") or "us-east-1"  # presigned requests have none
        calls.append(Call(model.service_model.service_name, model.name, dict(params), region))

    handler = ("before-parameter-build", record)
    handlers.BUILTIN_HANDLERS.append(handler)
    try:
        yield calls
    finally:
        handlers.BUILTIN_HANDLERS.remove(handler)


@contextmanager
def failing(event: str) -> Iterator[None]:
    """Have each request fail that botocore would send after such an event."""

    def fail(**_: Any) -> None:
        raise ConnectionError("the network is down")

    handlers.BUILTIN_HANDLERS.append((event, fail))
    try:
        yield
    finally:
        handlers.BUILTIN_HANDLERS.remove((event, fail))


def lambda_call(method: str, path: str, region: str) -> Call:
    """Return the call of Lambda that an HTTP request is, by botocore's model of the API."""
    for name, verb, form in _forms():
        if verb == method and (found := form.fullmatch(path.rstrip("/"))):
            params = {field: unquote(value) for field, value in found.groupdict().items()}
            return Call("lambda", name, params, region)
    raise AssertionError(f"Lambda has no {method} {path}")


@cache
def _forms() -> list[tuple[str, str, re.Pattern[str]]]:
    """Return each operation of Lambda with its method and the form of its path."""
    model = Session().get_service_model("lambda")
    https = {name: model.operation_model(name).http for name in model.operation_names}
    return [
        (
            name,
            http["method"],
            re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", http["requestUri"].rstrip("/"))),
        )
        for name, http in https.items()
    ]


def logging(function: str, region: str = "us-east-1", partition: str = "aws") -> list[Request]:
    """Return what Lambda does with a function's role to write its log.

    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html. AWS's refusals show
    that the right to create a group is checked for the group's name alone, or followed by
    `:log-stream:`.
    """
    group = f"arn:{partition}:logs:{region}:{ACCOUNT}:log-group:/aws/lambda/{function}"
    stream = f"{group}:log-stream:2026/11/27/[$LATEST]0123456789abcdef"
    return [
        Request("logs:CreateLogGroup", group),
        Request("logs:CreateLogGroup", f"{group}:log-stream:"),
        Request("logs:CreateLogStream", f"{group}:log-stream:"),
        Request("logs:CreateLogStream", stream),
        Request("logs:PutLogEvents", stream),
    ]


# ---------------------------------------------------------------- the table

Rights = Callable[[Call, str], Iterator[Request]]


def _nothing(call: Call, arn: str) -> Iterator[Request]:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: no permissions."""
    yield from ()


def _on_account(call: Call, arn: str) -> Iterator[Request]:
    yield Request(f"lambda:{call.operation}")


def _on_function(call: Call, arn: str) -> Iterator[Request]:
    action = {"Invoke": "InvokeFunction"}.get(call.operation, call.operation)
    name = call.params["FunctionName"]
    yield Request(f"lambda:{action}", f"{arn}:lambda:{call.region}:{ACCOUNT}:function:{name}")


def _deployment(call: Call, arn: str) -> Iterator[Request]:
    """The caller passes the role if one is given, and reads the code itself if it is in S3.

    The latter is known from AWS's refusal, "please make sure your request credentials have permission
    to GetObject"; the former also from one of an unchanged role: https://github.com/aws/chalice/issues/479
    """
    yield from _on_function(call, arn)
    if role := call.params.get("Role"):
        context = {"iam:PassedToService": "lambda.amazonaws.com"}
        yield Request("iam:PassRole", role.replace("arn:aws:", f"{arn}:"), context)
    code = call.params.get("Code", call.params)
    if "S3Bucket" in code:
        yield Request("s3:GetObject", f"{arn}:s3:::{code['S3Bucket']}/{code['S3Key']}")


def _bucket(call: Call, arn: str) -> Iterator[Request]:
    yield Request("s3:ListBucket", f"{arn}:s3:::{call.params['Bucket']}")


def _reading(call: Call, arn: str) -> Iterator[Request]:
    """Without s3:ListBucket, a missing object is a 403 instead of the 404 that mu looks for.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    yield Request("s3:GetObject", f"{arn}:s3:::{call.params['Bucket']}/{call.params['Key']}")
    yield from _bucket(call, arn)


def _on_object(action: str) -> Rights:
    def rights(call: Call, arn: str) -> Iterator[Request]:
        yield Request(f"s3:{action}", f"{arn}:s3:::{call.params['Bucket']}/{call.params['Key']}")

    return rights


def _on_role(call: Call, arn: str) -> Iterator[Request]:
    role = (
        call.params.get("PolicySourceArn") or f"{arn}:iam::{ACCOUNT}:role/{call.params['RoleName']}"
    )
    yield Request(f"iam:{call.operation}", role.replace("arn:aws:", f"{arn}:"))


def _on_log_group(call: Call, arn: str) -> Iterator[Request]:
    """As with the right to create a group, AWS's refusals name it alone or with `:log-stream:`."""
    group = f"{arn}:logs:{call.region}:{ACCOUNT}:log-group:{call.params['logGroupName']}"
    yield Request(f"logs:{call.operation}", group)
    yield Request(f"logs:{call.operation}", f"{group}:log-stream:")


_RIGHTS: Mapping[str, Mapping[str, Rights]] = {
    "lambda": {
        "CreateFunction": _deployment,
        "DeleteFunction": _on_function,
        "GetAccountSettings": _on_account,
        "GetFunctionConcurrency": _on_function,
        "GetFunctionConfiguration": _on_function,
        "GetFunctionEventInvokeConfig": _on_function,
        "Invoke": _on_function,
        "PutFunctionEventInvokeConfig": _on_function,
        "UpdateFunctionCode": _deployment,
        "UpdateFunctionConfiguration": _deployment,
        "UpdateFunctionEventInvokeConfig": _on_function,
    },
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
    "s3": {
        "AbortMultipartUpload": _on_object("AbortMultipartUpload"),
        "CompleteMultipartUpload": _on_object("PutObject"),
        "CreateMultipartUpload": _on_object("PutObject"),
        "DeleteObject": _on_object("DeleteObject"),
        "GetObject": _reading,
        "HeadBucket": _bucket,
        "HeadObject": _reading,
        "ListObjectsV2": _bucket,
        "PutObject": _on_object("PutObject"),
        "UploadPart": _on_object("PutObject"),
    },
    "iam": {"GetRole": _on_role, "SimulatePrincipalPolicy": _on_role},
    "logs": {"FilterLogEvents": _on_log_group},
    "sts": {"GetCallerIdentity": _nothing},
}
