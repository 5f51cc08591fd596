"""The minimal IAM policies of the daemon, of those who deploy, and of the functions."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

DATA = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
"""What pipelines do with objects. Without s3:ListBucket, S3 calls a missing object forbidden."""
LAUNCH = ("lambda:InvokeFunction", "lambda:GetFunctionConfiguration")
"""GetFunctionConfiguration returns the memory size, from which a job's cost is computed."""
LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")


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


def policies(function: str = "", bucket: str = "", role: str = "") -> dict[str, Policy]:
    """Return the policies by name: daemon, deploy, function, trust.

    An unknown function, data bucket or role ARN becomes a `*`.
    """
    functions = [f"arn:aws:lambda:*:*:function:{name}" for name in _copies(function)]
    logs = [f"arn:aws:logs:*:*:log-group:/aws/lambda/{name}:*" for name in _copies(function)]
    data = bucket or "*"
    roles = role or "arn:aws:iam::*:role/*"
    on_data = [
        _allow("Data", DATA, f"arn:aws:s3:::{data}/*"),
        _allow("DataList", ["s3:ListBucket"], f"arn:aws:s3:::{data}"),
    ]
    pass_role = _allow("PassRole", ["iam:PassRole"], roles)
    pass_role["Condition"] = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    return {
        "daemon": _policy(
            _allow("Launch", LAUNCH, functions),
            *on_data,
            _allow("Log", ["logs:FilterLogEvents"], logs),
        ),
        "deploy": _policy(
            _allow(
                "Functions",
                [
                    "lambda:CreateFunction",
                    "lambda:DeleteFunction",
                    "lambda:GetFunctionConfiguration",
                    "lambda:GetFunctionConcurrency",
                    "lambda:GetFunctionEventInvokeConfig",
                    "lambda:InvokeFunction",
                    "lambda:PutFunctionEventInvokeConfig",
                    "lambda:UpdateFunctionCode",
                    "lambda:UpdateFunctionConfiguration",
                    "lambda:UpdateFunctionEventInvokeConfig",
                ],
                functions,
            ),
            _allow("Quota", ["lambda:GetAccountSettings"], "*"),
            _allow("Role", ["iam:GetRole", "iam:SimulatePrincipalPolicy"], roles),
            pass_role,
            _allow("Code", DATA, f"arn:aws:s3:::{data}/mu/*"),
            _allow("CodeList", ["s3:ListBucket"], f"arn:aws:s3:::{data}"),
        ),
        "function": _policy(_allow("Logs", LOGS, "arn:aws:logs:*:*:*"), *on_data),
        "trust": _policy(
            {
                "Sid": "Lambda",
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ),
    }


def _copies(function: str) -> list[str]:
    """Return patterns for the names of the function and its copies, NAME-0 and so on."""
    return [function, f"{function}-*"] if function else ["*"]


def _allow(sid: str, actions: Sequence[str], resource: str | list[str]) -> Statement:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _policy(*statements: Statement) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def in_partition(policy: Policy, partition: str) -> Policy:
    """Return the policy with the ARNs of another partition, such as aws-cn."""

    def moved(resource: str) -> str:
        return resource.replace("arn:aws:", f"arn:{partition}:", 1)

    statements: list[Statement] = []
    for one in policy["Statement"]:
        statement = one.copy()
        if "Resource" in one:
            named = one["Resource"]
            statement["Resource"] = moved(named) if isinstance(named, str) else [*map(moved, named)]
        statements.append(statement)
    return {**policy, "Statement": statements}
