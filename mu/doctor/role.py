"""The role of functions: whether Lambda may assume it, and what workers may do then."""

from collections.abc import Sequence
from typing import Any

from mu.doctor.finding import FAIL, OK, WARN, Finding
from mu.functions.aws import AwsError, Clients, told
from mu.functions.iam import LOGS


def role_of(clients: Clients, region: str, name: str) -> str:
    """Return the ARN of a function's role. Raises AwsError."""
    with told(f"{name} in {region}"):
        return str(
            clients.client("lambda", region).get_function_configuration(FunctionName=name)["Role"]
        )


def check_role(clients: Clients, region: str, arn: str) -> Finding:
    """Look whether the role is there and lets Lambda assume it."""
    check, name = "role", arn.rpartition("/")[2]
    try:
        with told(f"the role {name}"):
            role = clients.client("iam", region).get_role(RoleName=name)["Role"]
    except AwsError as error:
        if error.code == "NoSuchEntity":
            return Finding(
                check,
                FAIL,
                f"there is no role {name} in this account",
                "make it as docs/aws.md says; mu doctor --policy prints what it needs",
            )
        if "AccessDenied" in error.code:
            return Finding(check, WARN, f"{name} cannot be looked at: these credentials may not")
        raise
    statements = role["AssumeRolePolicyDocument"].get("Statement", [])
    services = {
        service
        for statement in ([statements] if isinstance(statements, dict) else statements)
        if statement.get("Effect") == "Allow"
        for service in _listed(dict(statement.get("Principal") or {}).get("Service", []))
    }
    if "lambda.amazonaws.com" not in services:
        return Finding(
            check,
            FAIL,
            f"Lambda may not assume {name}: its trust policy names"
            f" {', '.join(sorted(services)) or 'no service'}",
            "give it the trust policy that mu doctor --policy trust prints",
        )
    return Finding(check, OK, f"Lambda may assume {name}")


def check_role_may(clients: Clients, region: str, arn: str, bucket: str) -> Finding:
    """Ask IAM whether the role lets a worker write logs, and get and put objects."""
    check, name = "role may", arn.rpartition("/")[2]
    asked: list[tuple[Sequence[str], str]] = [(LOGS, "*")]
    if bucket:
        asked.append((("s3:GetObject", "s3:PutObject"), f"arn:aws:s3:::{bucket}/*"))
        asked.append((("s3:ListBucket",), f"arn:aws:s3:::{bucket}"))
    denied = []
    try:
        for actions, resource in asked:
            with told(f"simulating the role {name}"):
                answer = clients.client("iam", region).simulate_principal_policy(
                    PolicySourceArn=arn, ActionNames=list(actions), ResourceArns=[resource]
                )
            denied += [
                result["EvalActionName"]
                for result in answer["EvaluationResults"]
                if result["EvalDecision"] != "allowed"
            ]
    except AwsError as error:
        if "AccessDenied" not in error.code:
            raise
        return Finding(
            check, WARN, f"what {name} may do cannot be asked: these credentials may not"
        )
    if not denied:
        data = f", and get and put objects of {bucket}" if bucket else ""
        return Finding(check, OK, f"{name} may write logs{data}")
    level = FAIL if any(action.startswith("s3:") for action in denied) else WARN
    return Finding(
        check,
        level,
        f"{name} may not {', '.join(denied)}",
        "give it the policy that mu doctor --policy function prints",
    )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
