"""Checks of the functions' role: Lambda may assume it, and it lets workers do what they must."""

from collections.abc import Sequence

from mu.findings import FAIL, OK, WARN, Finding
from mu.functions.apis import Clients, TrustPolicy
from mu.functions.aws import AwsError, aws_errors
from mu.functions.iam import LOGS


def check_role(clients: Clients, region: str, arn: str) -> Finding:
    """Check that the role exists and that Lambda may assume it."""
    check, name = "role", arn.rpartition("/")[2]
    try:
        with aws_errors(f"looking up role {name}"):
            role = clients.client("iam", region).get_role(RoleName=name)["Role"]
    except AwsError as error:
        if error.code == "NoSuchEntity":
            return Finding(
                check,
                FAIL,
                f"role {name} does not exist in this account",
                "create it as in docs/aws.md; mu doctor --policy prints its policies",
            )
        raise
    services = _trusted(role["AssumeRolePolicyDocument"])
    if "lambda.amazonaws.com" not in services:
        return Finding(
            check,
            FAIL,
            f"Lambda may not assume role {name}: its trust policy names"
            f" {', '.join(sorted(services)) or 'no service'}",
            "give it the trust policy that mu doctor --policy trust prints",
        )
    return Finding(check, OK, f"Lambda may assume role {name}")


def _trusted(policy: TrustPolicy) -> set[str]:
    """Return the services that may assume a role."""
    statements = policy.get("Statement", [])
    trusted: set[str] = set()
    for statement in [statements] if isinstance(statements, dict) else statements:
        if statement.get("Effect") == "Allow":
            services = dict(statement.get("Principal") or {}).get("Service", [])
            trusted.update([services] if isinstance(services, str) else services)
    return trusted


def check_role_may(clients: Clients, region: str, arn: str, function: str, bucket: str) -> Finding:
    """Ask IAM whether the role lets a worker write logs, and read and write objects."""
    check, name = "role may", arn.rpartition("/")[2]
    _, partition, _, _, account, *_ = arn.split(":")
    asked: list[tuple[Sequence[str], str]] = []
    may = []
    if function:
        group = f"arn:{partition}:logs:{region}:{account}:log-group:/aws/lambda/{function}"
        asked.append((LOGS, f"{group}:log-stream:mu"))
        may.append("write logs")
    if bucket:
        may.append(f"read and write objects of {bucket}")
        data = f"arn:{partition}:s3:::{bucket}"
        asked.append((("s3:GetObject", "s3:PutObject"), f"{data}/*"))
        asked.append((("s3:ListBucket",), data))
    denied = []
    for actions, resource in asked:
        with aws_errors(f"simulating role {name}"):
            answer = clients.client("iam", region).simulate_principal_policy(
                PolicySourceArn=arn, ActionNames=list(actions), ResourceArns=[resource]
            )
        denied += [
            result["EvalActionName"]
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed"
        ]
    if not denied:
        return Finding(check, OK, f"role {name} may {', and '.join(may)}")
    level = FAIL if any(action.startswith("s3:") for action in denied) else WARN
    return Finding(
        check,
        level,
        f"role {name} lacks {', '.join(denied)}",
        "give it the policy that mu doctor --policy function prints",
    )
