"""The evaluator of policies decides as AWS's documentation says; each case names its page."""

import pytest
from kit.iam import (
    ALLOWED,
    EXPLICIT_DENY,
    IMPLICIT_DENY,
    BadPolicy,
    Request,
    decide,
    may_assume,
)

IAM = "https://docs.aws.amazon.com/IAM/latest/UserGuide/"
LOGIC = IAM + "reference_policies_evaluation-logic_policy-eval-denyallow.html"
INTERPLAY = IAM + "reference_policies_evaluation-logic_AccessPolicyLanguage_Interplay.html"
ACTION = IAM + "reference_policies_elements_action.html"
NOT_ACTION = IAM + "reference_policies_elements_notaction.html"
RESOURCE = IAM + "reference_policies_elements_resource.html"
NOT_RESOURCE = IAM + "reference_policies_elements_notresource.html"
VERSION = IAM + "reference_policies_elements_version.html"
VARIABLES = IAM + "reference_policies_variables.html"
CONDITION = IAM + "reference_policies_elements_condition.html"
OPERATORS = IAM + "reference_policies_elements_condition_operators.html"
SEVERAL = IAM + "reference_policies_condition-logic-multiple-context-keys-or-values.html"
PASS_ROLE = IAM + "id_roles_use_passrole.html"
LAMBDA = "https://docs.aws.amazon.com/lambda/latest/dg/permissions-user-function.html"

READ = "s3:GetObject"
OBJECT = "arn:aws:s3:::films/1"


def policy(*statements, version="2012-10-17"):
    return {"Version": version, "Statement": list(statements)}


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action, resource="*", **more):
    return {**allow(action, resource, **more), "Effect": "Deny"}


def without(statement, element):
    return {name: value for name, value in statement.items() if name != element}


def under(operator, key, values):
    """A policy that allows everything under a condition."""
    return policy(allow("*", Condition={operator: {key: values}}))


def asked(**context):
    return Request(READ, OBJECT, {key.replace("_", ":", 1): one for key, one in context.items()})


REPORTS = policy(allow(["iam:Get*", "iam:List*"]), deny("iam:*Report"))
NO_DELETE = policy(
    {"Effect": "Allow", "NotAction": "s3:DeleteBucket", "Resource": "arn:aws:s3:::*"}
)
NO_IAM = policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})
WITH_MFA = policy(
    {
        "Effect": "Deny",
        "NotAction": "iam:*",
        "Resource": "*",
        "Condition": {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}},
    }
)
PAYROLL = ["arn:aws:s3:::HRBucket/Payroll", "arn:aws:s3:::HRBucket/Payroll/*"]
ONLY_PAYROLL = policy({"Effect": "Deny", "Action": "s3:*", "NotResource": PAYROLL})
HOME = "arn:aws:s3:::home/${aws:username}/*"
TEAM = "arn:aws:s3:::home/${aws:PrincipalTag/team, 'company-wide'}/*"
XYZ = policy(
    allow(["iam:GetRole", "iam:PassRole"], "arn:aws:iam::111122223333:role/EC2-roles-for-XYZ-*")
)
TO_EC2 = policy(
    allow(
        "iam:PassRole",
        "arn:aws:iam::111122223333:role/Example",
        Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    )
)
INTERNS = policy(
    {
        "Effect": "Allow",
        "NotAction": ["lambda:AddPermission", "lambda:PutFunctionConcurrency"],
        "Resource": "arn:aws:lambda:*:*:function:intern-*",
    },
    allow("iam:PassRole", "arn:aws:iam::*:role/intern-lambda-execution-role"),
)
ALL = policy(allow("*"))


def to(name, service):
    return Request(
        "iam:PassRole",
        f"arn:aws:iam::111122223333:role/{name}",
        {"iam:PassedToService": service},
    )


def function(action, name):
    return Request(f"lambda:{action}", f"arn:aws:lambda:us-east-1:111122223333:function:{name}")


CASES = [
    # The logic: deny by default, an allow overrides that, an explicit deny overrides the allow.
    (LOGIC, [], Request(READ, OBJECT), IMPLICIT_DENY),
    (LOGIC, [policy(allow(READ))], Request(READ, OBJECT), ALLOWED),
    (LOGIC, [policy(allow(READ), deny(READ))], Request(READ, OBJECT), EXPLICIT_DENY),
    (LOGIC, [policy(deny(READ), allow(READ))], Request(READ, OBJECT), EXPLICIT_DENY),
    (LOGIC, [policy(allow(READ)), policy(deny("s3:*"))], Request(READ, OBJECT), EXPLICIT_DENY),
    (LOGIC, [policy(deny("s3:PutObject"))], Request(READ, OBJECT), IMPLICIT_DENY),
    (INTERPLAY, [REPORTS], Request("iam:GetUser"), ALLOWED),
    (INTERPLAY, [REPORTS], Request("iam:CreatePolicy"), IMPLICIT_DENY),
    (INTERPLAY, [REPORTS], Request("iam:GetOrganizationsAccessReport"), EXPLICIT_DENY),
    (
        INTERPLAY,
        [REPORTS, policy(allow("iam:GenerateCredentialReport"))],
        Request("iam:GenerateCredentialReport"),
        EXPLICIT_DENY,
    ),
    # Actions: any case, wildcards, lists.
    (ACTION, [policy(allow("IAM:listaccesskeys"))], Request("iam:ListAccessKeys"), ALLOWED),
    (ACTION, [policy(allow("iam:*AccessKey*"))], Request("iam:UpdateAccessKey"), ALLOWED),
    (ACTION, [policy(allow("iam:*AccessKey*"))], Request("iam:ListAccessKeys"), ALLOWED),
    (ACTION, [policy(allow("iam:*AccessKey*"))], Request("iam:ListUsers"), IMPLICIT_DENY),
    (ACTION, [policy(allow("s3:*"))], Request("sqs:SendMessage"), IMPLICIT_DENY),
    (ACTION, [policy(allow("s3:?etObject"))], Request(READ, OBJECT), ALLOWED),
    (ACTION, [policy(allow("s3:GetObject?"))], Request(READ, OBJECT), IMPLICIT_DENY),
    (ACTION, [policy(allow(["sqs:SendMessage", READ]))], Request(READ, OBJECT), ALLOWED),
    (ACTION, [policy(allow("s3:Get"))], Request(READ, OBJECT), IMPLICIT_DENY),
    # NotAction: all other actions that the resources have; a Deny of it allows nothing.
    (NOT_ACTION, [NO_DELETE], Request(READ, OBJECT), ALLOWED),
    (NOT_ACTION, [NO_DELETE], Request("s3:DeleteBucket", "arn:aws:s3:::films"), IMPLICIT_DENY),
    (NOT_ACTION, [NO_DELETE], Request("s3:ListAllMyBuckets"), IMPLICIT_DENY),
    (NOT_ACTION, [NO_DELETE], function("GetFunction", "f"), IMPLICIT_DENY),
    (NOT_ACTION, [NO_IAM], function("GetFunction", "f"), ALLOWED),
    (NOT_ACTION, [NO_IAM], Request("iam:GetUser"), IMPLICIT_DENY),
    (NOT_ACTION, [WITH_MFA], asked(aws_MultiFactorAuthPresent="true"), IMPLICIT_DENY),
    (NOT_ACTION, [ALL, WITH_MFA], asked(aws_MultiFactorAuthPresent="true"), ALLOWED),
    (NOT_ACTION, [ALL, WITH_MFA], asked(aws_MultiFactorAuthPresent="false"), EXPLICIT_DENY),
    (NOT_ACTION, [ALL, WITH_MFA], asked(), EXPLICIT_DENY),
    (NOT_ACTION, [ALL, WITH_MFA], Request("iam:GetUser"), ALLOWED),
    # Resources: case matters; wildcards; a `*` at the end of a segment passes colons.
    (RESOURCE, [policy(allow(READ, OBJECT))], Request(READ, OBJECT), ALLOWED),
    (RESOURCE, [policy(allow(READ, OBJECT))], Request(READ, OBJECT + "0"), IMPLICIT_DENY),
    (
        RESOURCE,
        [policy(allow("iam:GetUser", "arn:aws:iam::111122223333:user/Bob"))],
        Request("iam:GetUser", "arn:aws:iam::111122223333:user/bob"),
        IMPLICIT_DENY,
    ),
    (
        RESOURCE,
        [policy(allow("iam:GetUser", "arn:aws:iam::111122223333:user/accounting/*"))],
        Request("iam:GetUser", "arn:aws:iam::111122223333:user/accounting/Bob"),
        ALLOWED,
    ),
    *(
        (
            RESOURCE,
            [policy(allow(READ, "arn:aws:s3:::films/*/test/*"))],
            Request(READ, f"arn:aws:s3:::films/{key}"),
            decision,
        )
        for key, decision in [
            ("1/test/object.jpg", ALLOWED),
            ("1/2/test/object.jpg", ALLOWED),
            ("1/2/test/3/object.jpg", ALLOWED),
            ("1/2/3/test/4/object.jpg", ALLOWED),
            ("1-test-object.jpg", IMPLICIT_DENY),
            ("test/object.jpg", IMPLICIT_DENY),
            ("1/2/test.jpg", IMPLICIT_DENY),
        ]
    ),
    (RESOURCE, [policy(allow(READ, "arn:aws:s3:::film?/1"))], Request(READ, OBJECT), ALLOWED),
    (RESOURCE, [policy(allow(READ, "arn:aws:s3:::film?1"))], Request(READ, OBJECT), IMPLICIT_DENY),
    (
        RESOURCE,
        [policy(allow("*", "arn:aws:lambda:us-east-1:*"))],
        function("InvokeFunction", "f"),
        ALLOWED,
    ),
    (
        RESOURCE,
        [policy(allow("*", "arn:aws:lambda:us-*t-1:111122223333:function:f"))],
        function("InvokeFunction", "f"),
        ALLOWED,
    ),
    (
        RESOURCE,
        [policy(allow("*", "arn:aws:lambda:us*f"))],
        function("InvokeFunction", "f"),
        IMPLICIT_DENY,
    ),
    (RESOURCE, [policy(allow("lambda:*", "*"))], Request("lambda:GetAccountSettings"), ALLOWED),
    (
        RESOURCE,
        [policy(allow("lambda:*", "arn:aws:lambda:*:*:*"))],
        Request("lambda:GetAccountSettings"),
        IMPLICIT_DENY,
    ),
    # NotResource: all but these; it allows nothing by itself.
    (NOT_RESOURCE, [ONLY_PAYROLL], Request(READ, f"{PAYROLL[0]}/1"), IMPLICIT_DENY),
    (NOT_RESOURCE, [ALL, ONLY_PAYROLL], Request(READ, f"{PAYROLL[0]}/1"), ALLOWED),
    (NOT_RESOURCE, [ALL, ONLY_PAYROLL], Request(READ, PAYROLL[0]), ALLOWED),
    (NOT_RESOURCE, [ALL, ONLY_PAYROLL], Request(READ, OBJECT), EXPLICIT_DENY),
    (NOT_RESOURCE, [ALL, ONLY_PAYROLL], Request("iam:GetUser"), ALLOWED),
    # Versions: a policy without one is of 2008, where variables are plain text.
    (VERSION, [without(policy(allow(READ)), "Version")], Request(READ, OBJECT), ALLOWED),
    (
        VERSION,
        [without(policy(allow(READ, HOME)), "Version")],
        Request(READ, "arn:aws:s3:::home/me/1", {"aws:username": "me"}),
        IMPLICIT_DENY,
    ),
    (
        VERSION,
        [policy(allow(READ, HOME), version="2008-10-17")],
        Request(READ, "arn:aws:s3:::home/${aws:username}/1", {"aws:username": "me"}),
        ALLOWED,
    ),
    # Variables: their value is plain text; without one the statement does not apply.
    (
        VARIABLES,
        [policy(allow(READ, HOME))],
        Request(READ, "arn:aws:s3:::home/me/1", {"aws:username": "me"}),
        ALLOWED,
    ),
    (
        VARIABLES,
        [policy(allow(READ, HOME))],
        Request(READ, "arn:aws:s3:::home/you/1", {"aws:username": "me"}),
        IMPLICIT_DENY,
    ),
    (VARIABLES, [policy(allow(READ, HOME))], Request(READ, "arn:aws:s3:::home//1"), IMPLICIT_DENY),
    (
        VARIABLES,
        [policy(allow(READ, TEAM))],
        Request(READ, "arn:aws:s3:::home/company-wide/1"),
        ALLOWED,
    ),
    (
        VARIABLES,
        [policy(allow(READ, TEAM))],
        Request(READ, "arn:aws:s3:::home/yellow/1", {"aws:PrincipalTag/team": "yellow"}),
        ALLOWED,
    ),
    (
        VARIABLES,
        [policy(allow(READ, "arn:aws:s3:::films/${*}"))],
        Request(READ, "arn:aws:s3:::films/*"),
        ALLOWED,
    ),
    (
        VARIABLES,
        [policy(allow(READ, "arn:aws:s3:::films/${*}"))],
        Request(READ, OBJECT),
        IMPLICIT_DENY,
    ),
    # Conditions: the names of keys in any case; values as the operator says.
    (
        CONDITION,
        [under("StringEquals", "AWS:UserName", "john")],
        asked(aws_username="john"),
        ALLOWED,
    ),
    (
        CONDITION,
        [under("StringEquals", "aws:username", "john")],
        asked(aws_username="John"),
        IMPLICIT_DENY,
    ),
    (
        CONDITION,
        [under("StringEqualsIgnoreCase", "aws:username", "johndoe")],
        asked(aws_username="JohnDoe"),
        ALLOWED,
    ),
    (OPERATORS, [under("StringEquals", "aws:username", "me")], asked(), IMPLICIT_DENY),
    (OPERATORS, [under("StringNotEquals", "aws:username", "me")], asked(), ALLOWED),
    (OPERATORS, [under("StringNotLike", "aws:username", "m*")], asked(), ALLOWED),
    (OPERATORS, [under("StringEqualsIfExists", "aws:username", "me")], asked(), ALLOWED),
    (
        OPERATORS,
        [under("StringEqualsIfExists", "aws:username", "me")],
        asked(aws_username="you"),
        IMPLICIT_DENY,
    ),
    (OPERATORS, [under("StringLike", "aws:username", "m*")], asked(aws_username="me"), ALLOWED),
    (
        OPERATORS,
        [under("StringEquals", "aws:username", "m*")],
        asked(aws_username="me"),
        IMPLICIT_DENY,
    ),
    (OPERATORS, [under("Null", "aws:TokenIssueTime", "true")], asked(), ALLOWED),
    (
        OPERATORS,
        [under("Null", "aws:TokenIssueTime", "true")],
        asked(aws_TokenIssueTime="2026-11-27T00:00:00Z"),
        IMPLICIT_DENY,
    ),
    *(
        (
            OPERATORS,
            [under(operator, "aws:SourceArn", "arn:aws:sns:*:111122223333:t*")],
            asked(aws_SourceArn=arn),
            decision,
        )
        for operator in ("ArnLike", "ArnEquals")
        for arn, decision in [
            ("arn:aws:sns:us-east-1:111122223333:topic", ALLOWED),
            ("arn:aws:sns:us-east-1:111122223333:other", IMPLICIT_DENY),
            ("arn:aws:sns:us-east-1:1:111122223333:t", IMPLICIT_DENY),
        ]
    ),
    (
        SEVERAL,
        [under("StringEquals", "aws:username", ["a", "b"])],
        asked(aws_username="b"),
        ALLOWED,
    ),
    (
        SEVERAL,
        [under("StringNotEquals", "aws:username", ["a", "b"])],
        asked(aws_username="b"),
        IMPLICIT_DENY,
    ),
    (
        SEVERAL,
        [under("StringNotEquals", "aws:username", ["a", "b"])],
        asked(aws_username="c"),
        ALLOWED,
    ),
    *(
        (
            SEVERAL,
            [policy(allow("*", Condition=condition))],
            asked(aws_username="a", aws_userid=userid),
            decision,
        )
        for condition in (
            {"StringEquals": {"aws:username": "a", "aws:userid": "1"}},
            {"StringEquals": {"aws:username": "a"}, "StringLike": {"aws:userid": "1"}},
        )
        for userid, decision in (("1", ALLOWED), ("2", IMPLICIT_DENY))
    ),
    # Passing roles
    (PASS_ROLE, [XYZ], to("EC2-roles-for-XYZ-1", "ec2.amazonaws.com"), ALLOWED),
    (PASS_ROLE, [XYZ], to("EC2-roles-for-ABC-1", "ec2.amazonaws.com"), IMPLICIT_DENY),
    (PASS_ROLE, [TO_EC2], to("Example", "ec2.amazonaws.com"), ALLOWED),
    (PASS_ROLE, [TO_EC2], to("Example", "lambda.amazonaws.com"), IMPLICIT_DENY),
    (PASS_ROLE, [TO_EC2], to("Other", "ec2.amazonaws.com"), IMPLICIT_DENY),
    # Lambda's own example: functions whose names begin with intern-
    (LAMBDA, [INTERNS], function("CreateFunction", "intern-1"), ALLOWED),
    (LAMBDA, [INTERNS], function("CreateFunction", "other"), IMPLICIT_DENY),
    (LAMBDA, [INTERNS], function("AddPermission", "intern-1"), IMPLICIT_DENY),
    (LAMBDA, [INTERNS], to("intern-lambda-execution-role", "lambda.amazonaws.com"), ALLOWED),
    (LAMBDA, [INTERNS], to("admin", "lambda.amazonaws.com"), IMPLICIT_DENY),
]


@pytest.mark.parametrize(
    ("page", "policies", "request_", "decision"),
    CASES,
    ids=[f"{number}-{page.rpartition('/')[2]}" for number, (page, *_) in enumerate(CASES)],
)
def test_a_request_is_decided_as_the_documentation_says(page, policies, request_, decision):
    assert decide(policies, request_) == decision, page


TRUST = {
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"Service": ["lambda.amazonaws.com", "ec2.amazonaws.com"]},
}


def test_a_role_is_assumed_by_the_services_that_it_trusts():
    assert may_assume(policy(TRUST), "lambda.amazonaws.com")
    assert not may_assume(policy(TRUST), "sns.amazonaws.com")
    assert not may_assume(policy(TRUST, {**TRUST, "Effect": "Deny"}), "lambda.amazonaws.com")
    assert not may_assume(policy({**TRUST, "Action": "sts:TagSession"}), "lambda.amazonaws.com")


@pytest.mark.parametrize(
    "bad",
    [
        {**allow(READ), "effect": "Deny"},
        {**allow(READ), "Effect": "allow"},
        {**allow(READ), "NotAction": "s3:*"},
        {**allow(READ), "NotResource": "*"},
        {**allow(READ), "Principal": "*"},
        {"Effect": "Allow", "Action": READ},
        {"Effect": "Allow", "Resource": "*"},
        allow("GetObject"),
        allow(READ, "films/*"),
        allow(READ, "arn:aws:*:::films/*"),
        allow(READ, Sid="a b"),
        allow(READ, Condition={"StringMatches": {"aws:username": "a"}}),
        allow(READ, Condition={"ForAnyValue:StringEquals": {"aws:TagKeys": "a"}}),
    ],
)
def test_what_is_not_valid_or_not_known_is_no_decision(bad):
    with pytest.raises(BadPolicy):
        decide([policy(bad)], asked(aws_username="a"))


def test_a_document_must_be_whole():
    with pytest.raises(BadPolicy):
        decide([policy(allow(READ), version="2012-10-18")], asked())
    with pytest.raises(BadPolicy):
        decide([{**policy(allow(READ)), "Statements": []}], asked())
    with pytest.raises(BadPolicy):
        decide([policy(allow(READ, Sid="A"), deny(READ, Sid="A"))], asked())
