"""The minimal IAM policies of the daemon, of those who deploy, and of the functions."""

import re
from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict

LAUNCH = (
    "lambda:GetFunctionConcurrency",
    "lambda:GetFunctionConfiguration",
    "lambda:InvokeFunction",
)
"""The configuration has the memory size, which determines a job's cost."""
QUOTA = ("lambda:GetAccountSettings",)
"""For all of an account: AWS knows no resource for it."""
DEPLOY = (
    "lambda:CreateFunction",
    "lambda:DeleteFunction",
    "lambda:GetFunctionConcurrency",
    "lambda:GetFunctionConfiguration",
    "lambda:GetFunctionEventInvokeConfig",
    "lambda:InvokeFunction",
    "lambda:PutFunctionEventInvokeConfig",
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
    "lambda:UpdateFunctionEventInvokeConfig",
)
LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
PLAN = ("s3:GetObject", "s3:PutObject")
WORK = (*PLAN, "s3:AbortMultipartUpload")
"""A large upload that fails is aborted, since its parts would cost money."""
SHIP = (*WORK, "s3:DeleteObject")
"""mu deletes only what it has written itself, below mu/: zips, and the object of a check."""

_FUNCTION = re.compile(r"([A-Za-z0-9_-]{1,64})(:(?:\$LATEST|[A-Za-z0-9_-]{1,128}))?")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}", re.ASCII)


class Statement(TypedDict):
    Sid: str
    Effect: str
    Action: str | list[str]
    Resource: NotRequired[str | list[str]]
    Principal: NotRequired[dict[str, str]]
    Condition: NotRequired[dict[str, dict[str, str]]]


class Policy(TypedDict):
    """An IAM policy document."""

    Version: str
    Statement: list[Statement]


def policies(
    functions: Sequence[str] = (),
    buckets: Sequence[str] = (),
    role: str = "",
    partition: str = "aws",
) -> dict[str, Policy]:
    """Return the policies by name: daemon, deploy, function, trust.

    A function is NAME, or NAME:ALIAS as in an order; its copies and those with a suffix are
    included. Without functions, buckets or the ARN of a role, the policies are for all of them.
    Raises ValueError if a name is not valid.
    """
    _check("--function", _FUNCTION, "a function's name, or NAME:ALIAS", functions)
    _check("--bucket", _BUCKET, "letters, digits, '.', '-' and '_'", buckets)
    _check("--role", _ROLE, "the ARN of a role", [role] if role else [])
    arn = f"arn:{partition}"
    if role and not role.startswith(f"{arn}:"):
        raise ValueError(f"--role must be in the partition {partition} of the region, got {role}")
    names = [one.partition(":")[0] for one in functions]
    launched = [f"{arn}:lambda:*:*:function:{name}" for name in _patterns(functions)]
    deployed = [f"{arn}:lambda:*:*:function:{name}" for name in _patterns(names)]
    logs = [f"{arn}:logs:*:*:log-group:/aws/lambda/{name}" for name in _log_groups(names)]
    found = [f"{arn}:s3:::{bucket}" for bucket in buckets or ["*"]]
    objects = [f"{bucket}/*" for bucket in found]
    roles = [role or f"{arn}:iam::*:role/*"]
    list_data = _allow("ListData", ["s3:ListBucket"], found)
    pass_role = _allow("PassRole", ["iam:PassRole"], roles)
    pass_role["Condition"] = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    return {
        "daemon": _policy(
            _allow("Launch", LAUNCH, launched),
            _allow("Quota", QUOTA, ["*"]),
            _allow("Data", PLAN, objects),
            list_data,
            _allow("Log", ["logs:FilterLogEvents"], logs),
        ),
        "deploy": _policy(
            _allow("Functions", DEPLOY, deployed),
            _allow("Quota", QUOTA, ["*"]),
            _allow("Role", ["iam:GetRole", "iam:SimulatePrincipalPolicy"], roles),
            pass_role,
            _allow("Code", SHIP, [f"{bucket}/mu/*" for bucket in found]),
            list_data,
        ),
        "function": _policy(
            _allow("Logs", LOGS, logs),
            _allow("Data", WORK, objects),
            list_data,  # without it, S3 calls a missing object forbidden
        ),
        "trust": _policy(
            {
                "Sid": "Lambda",
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ),
    }


def _check(option: str, form: re.Pattern[str], allowed: str, given: Sequence[str]) -> None:
    for one in given:
        if not form.fullmatch(one):
            raise ValueError(f"{option} must be {allowed} for a policy, got {one!r:.200}")


def _patterns(functions: Sequence[str]) -> Iterator[str]:
    """Yield patterns for functions, their copies (NAME-0) and those with a suffix (NAME_1a2b3c4d).

    A `*` at the end also matches versions and aliases.
    """
    for function in functions:
        name, _, qualifier = function.partition(":")
        yield name
        if qualifier:
            yield function
        yield from (f"{name}-*", f"{name}_????????*")
    if not functions:
        yield "*"


def _log_groups(names: Sequence[str]) -> Iterator[str]:
    """Yield patterns for the log groups of functions.

    AWS checks them with the log stream, and the creation of a group in some regions without.
    """
    for pattern in _patterns(names):
        yield pattern
        if not pattern.endswith("*"):
            yield f"{pattern}:*"


def _allow(sid: str, actions: Sequence[str], resources: list[str]) -> Statement:
    resource = resources[0] if len(resources) == 1 else resources
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _policy(*statements: Statement) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}
