"""The least that IAM must allow: to the daemon, to who deploys and looks, and to the functions."""

from collections.abc import Sequence
from typing import Any

DATA = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
"""What pipelines do with objects; s3:ListBucket besides, without which a missing one is forbidden."""
LAUNCH = ("lambda:InvokeFunction", "lambda:GetFunctionConfiguration")
"""The latter tells the memory, by which a job's cost is counted."""
LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")


def policies(function: str = "", bucket: str = "", role: str = "") -> dict[str, dict[str, Any]]:
    """Return the policy documents by name: daemon, deploy, function, trust.

    What is not known (the function, the bucket of the data, the role's ARN) is left open with *.
    """
    functions = [f"arn:aws:lambda:*:*:function:{name}" for name in _copies(function)]
    data = bucket or "*"
    roles = role or "arn:aws:iam::*:role/*"
    on_data = [
        _allow("Data", DATA, f"arn:aws:s3:::{data}/*"),
        _allow("DataList", ["s3:ListBucket"], f"arn:aws:s3:::{data}"),
    ]
    return {
        "daemon": _document(_allow("Launch", LAUNCH, functions), *on_data),
        "deploy": _document(
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
            _allow("PassRole", ["iam:PassRole"], roles)
            | {"Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}},
            _allow("Code", DATA, f"arn:aws:s3:::{data}/mu/*"),
            _allow("CodeList", ["s3:ListBucket"], f"arn:aws:s3:::{data}"),
        ),
        "function": _document(_allow("Logs", LOGS, "arn:aws:logs:*:*:*"), *on_data),
        "trust": _document(
            {
                "Sid": "Lambda",
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ),
    }


def _copies(function: str) -> list[str]:
    """Return how the function is named, its copies included: NAME and NAME-0 on."""
    return [function, f"{function}-*"] if function else ["*"]


def _allow(sid: str, actions: Sequence[str], resource: str | list[str]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}
