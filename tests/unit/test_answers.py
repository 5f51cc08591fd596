"""The table of AWS's errors: it has all of botocore's, and each row does what it says."""

import json

import pytest
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker
from botocore.session import Session

from mu.aws.answers import TABLE, ErrorAnswer, Kind
from mu.engines.connections import Response
from mu.engines.lambda_api import _answer_to
from mu.engines.local.errors import LambdaError, clock_skewed
from mu.engines.local.faults import FaultInjector, Faults
from mu.invocations import Invocation, Refused, Throttled

NOW = 1_795_780_800.0
INVOCATION = Invocation("l1", "f", "eu-west-1", b"{}")
TRIED_AGAIN = {Kind.BUSY, Kind.NOT_READY, Kind.AGAIN, Kind.EXPIRED}


def said_by_the_local_engine(faults):
    with pytest.raises(LambdaError) as raised:
        FaultInjector(Faults.parse(faults)).next_invoke()
    headers = {name.lower(): value for name, value in raised.value.headers.items()}
    return Response(raised.value.status, headers, raised.value.body)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_each_row_is_injected_and_does_what_it_says(row):
    response = said_by_the_local_engine(f"answer={row.code}:1")
    assert response.status == row.status
    answer, kind = _answer_to(response, INVOCATION, NOW)
    assert kind is row.kind
    assert isinstance(answer, Throttled if kind in TRIED_AGAIN else Refused)
    assert row.code in answer.reason
    assert "{" not in answer.reason
    assert row.source


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_code_decides_and_not_the_status(row):
    response = said_by_the_local_engine(f"answer={row.code}:1")
    for status in (400, 403, 409, 429, 500, 502, 503):
        response.status = status
        assert _answer_to(response, INVOCATION, NOW)[1] is row.kind, status


def test_the_table_has_every_error_of_invoke_in_botocores_model():
    model = Session().get_service_model("lambda")
    for shape in model.operation_model("Invoke").error_shapes:
        row = TABLE[shape.name]
        assert row.status == shape.metadata["error"]["httpStatusCode"], shape.name
        again = row.kind in TRIED_AGAIN | {Kind.CLOCK}
        assert again or row.kind is Kind.NEVER


def test_what_botocore_retries_is_retried():
    for code in ThrottledRetryableChecker._THROTTLED_ERROR_CODES:
        assert TABLE[code].kind is Kind.BUSY
    for code in TransientRetryableChecker._TRANSIENT_ERROR_CODES:
        assert TABLE[code].kind in TRIED_AGAIN


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Kind.NEVER),
        (301, Kind.NEVER),
        (400, Kind.NEVER),
        (403, Kind.DENIED),
        (404, Kind.NEVER),
        (407, Kind.NEVER),
        (408, Kind.AGAIN),
        (409, Kind.NOT_READY),
        (429, Kind.BUSY),
        (500, Kind.AGAIN),
        (504, Kind.AGAIN),
    ],
)
def test_an_unknown_code_is_judged_by_its_status(status, kind):
    assert _answer_to(Response(status, {}, b"<html></html>"), INVOCATION, NOW)[1] is kind


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"x-amzn-errortype": "ServiceException:http://internal.amazon.com/"}, {}),
        ({}, {"__type": "com.amazonaws.lambda#ServiceException"}),
        ({}, {"code": "ServiceException"}),
        ({}, {"Code": "ServiceException"}),
    ],
)
def test_the_code_is_in_a_header_or_in_the_body(headers, fields):
    error = ErrorAnswer.read(500, headers, json.dumps({**fields, "message": "m"}).encode())
    assert (error.code, error.message) == ("ServiceException", "m")


@pytest.mark.parametrize("ahead", [-601, 900])
def test_a_wrong_clock_is_known_from_the_message(ahead):
    error = clock_skewed(NOW, ahead)
    headers = {"x-amzn-errortype": error.code}
    answer, kind = _answer_to(Response(error.status, headers, error.body), INVOCATION, NOW)
    assert kind is Kind.CLOCK
    way = "behind" if ahead < 0 else "ahead of"
    assert answer.reason.startswith(f"this machine's clock is {abs(ahead)} s {way} AWS's (")


def test_a_wrong_clock_is_known_from_the_date_header():
    headers = {"x-amzn-errortype": "RequestExpired", "date": "Fri, 27 Nov 2026 11:40:00 GMT"}
    answer, kind = _answer_to(Response(400, headers, b"{}"), INVOCATION, NOW)
    assert kind is Kind.CLOCK
    assert "1200 s ahead of AWS's" in answer.reason
    headers["date"] = "Fri, 27 Nov 2026 12:00:00 GMT"
    assert _answer_to(Response(400, headers, b"{}"), INVOCATION, NOW)[1] is Kind.EXPIRED


def test_an_explicit_deny_is_named_as_such():
    said = "User: u is not authorized to perform: lambda:InvokeFunction on resource: r with an explicit deny"
    error = ErrorAnswer(403, "AccessDeniedException", said, {}, {})
    assert error.missing_right() == (
        "a policy denies lambda:InvokeFunction on r explicitly: change that policy"
    )


def test_an_idle_function_is_ready_after_some_seconds():
    injector = FaultInjector(Faults.parse("inactive=40"))
    codes = []
    for now in (100, 110, 139):
        with pytest.raises(LambdaError) as raised:
            injector.wake("f", now)
        codes.append(raised.value.code)
    assert codes == ["CodeArtifactUserPendingException", *["ResourceConflictException"] * 2]
    injector.wake("f", 140)
