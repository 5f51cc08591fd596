"""The local engine accepts requests that are signed with the key of its home, and no others."""

import stat
from dataclasses import replace

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from mu.engines.local.errors import LambdaError
from mu.engines.local.key import PREFIX, KeyFileError, key_file, make_key, read_key
from mu.engines.local.signatures import SKEW_S, Verifier, read_signature
from mu.engines.signing import Credentials, Signer

KEY = Credentials("MULOCALABCDEFGHIJKLM", "a secret")
NOW = 1_800_000_000.0
URI = "/2015-03-31/functions/a%20b/invocations?Qualifier=%24LATEST&a=1"
BODY = b'{"n": 1}'
HEADERS = {"X-Amz-Invocation-Type": "Event", "Content-Type": "application/json"}


class Request:
    """A request that botocore signs, and what of it is then changed."""

    def __init__(self, key=KEY, uri=URI, at=NOW, **more):
        made = AWSRequest("POST", f"http://127.0.0.1:13590{uri}", {**HEADERS, **more}, BODY)
        auth = SigV4Auth(key, "lambda", "eu-west-1")
        with pytest.MonkeyPatch.context() as patch:
            import datetime

            import botocore.auth

            day = datetime.datetime.fromtimestamp(at, datetime.UTC)
            patch.setattr(botocore.auth, "get_current_datetime", lambda: day)
            auth.add_auth(made)
        self.method, self.uri, self.body = "POST", uri, BODY
        self.headers = {name.lower(): [value] for name, value in made.headers.items()}
        self.headers["host"] = ["127.0.0.1:13590"]

    def verify(self, key=KEY, now=NOW):
        signature = read_signature("".join(self.headers.get("authorization", [])))
        Verifier(lambda: key, lambda: now).verify(
            signature,
            self.method,
            self.uri,
            [*self.headers],
            lambda name: self.headers.get(name, []),
            self.body,
        )

    def refused(self, **how):
        with pytest.raises(LambdaError) as refused:
            self.verify(**how)
        assert refused.value.status == 403
        return refused.value.code, str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        "/",
        "/2015-03-31/functions?b=2&a=1&a=0&c",
        "/x/y%2Fz?q=%C3%A4%20~",
        "/2015-03-31/functions/",
    ],
)
def test_what_botocore_signs_is_accepted(uri):
    Request(uri=uri).verify()
    Request(uri=uri, **{"X-Amz-Security-Token": "t"}).verify()


def test_what_the_daemon_signs_is_accepted():
    signer = Signer(KEY, "lambda", "eu-west-1", "127.0.0.1:13590", HEADERS)
    path = "/2015-03-31/functions/a%20b/invocations"
    _, *lines = signer.head(path, BODY, NOW).decode().split("\r\n")
    request = Request()
    request.uri = path
    request.headers = {
        name: [value] for name, _, value in (line.partition(": ") for line in lines if line)
    }
    request.verify()


def change_header(name, value):
    return lambda request: request.headers.update({name: [value]})


@pytest.mark.parametrize(
    "change",
    [
        lambda request: setattr(request, "method", "PUT"),
        lambda request: setattr(request, "uri", URI.replace("a%20b", "other")),
        lambda request: setattr(request, "uri", URI + "&b=1"),
        lambda request: setattr(request, "body", BODY + b" "),
        change_header("x-amz-invocation-type", "RequestResponse"),
        change_header("host", "evil.example:13590"),
        change_header("content-type", "text/plain"),
        lambda request: request.headers["x-amz-invocation-type"].append("Event"),
    ],
)
def test_a_request_that_was_changed_is_refused(change):
    request = Request()
    change(request)
    code, message = request.refused()
    assert code == "InvalidSignatureException"
    assert message.startswith("The request signature we calculated does not match")


def test_another_secret_and_another_key_are_refused():
    code, _ = Request(replace(KEY, secret_key="another")).refused()
    assert code == "InvalidSignatureException"
    code, message = Request(replace(KEY, access_key="AKIAEXAMPLE")).refused()
    assert code == "UnrecognizedClientException"
    assert "mu keys local" in message
    code, _ = Request().refused(key=None)
    assert code == "UnrecognizedClientException"


@pytest.mark.parametrize("off", [-SKEW_S, SKEW_S])
def test_a_date_15_minutes_off_is_accepted_and_one_further_off_is_not(off):
    Request(at=NOW + off).verify()
    code, message = Request(at=NOW + off + off / SKEW_S).refused()
    assert code == "InvalidSignatureException"
    assert message.startswith(("Signature expired: 2027", "Signature not yet current: 2027"))


@pytest.mark.parametrize("date", ["", "20270115T080000", "2027-01-15", "20271315T080000Z"])
def test_a_date_that_is_none_is_refused(date):
    request = Request()
    request.headers["x-amz-date"] = [date]
    assert request.refused()[0] == "InvalidSignatureException"


def test_a_header_of_amazons_that_is_not_signed_is_refused():
    request = Request()
    request.headers["x-amz-log-type"] = ["Tail"]
    assert request.refused() == (
        "InvalidSignatureException",
        "'x-amz-log-type' must be a signed header",
    )


@pytest.mark.parametrize("name", ["host", "x-amz-date"])
def test_host_and_date_must_be_signed(name):
    request = Request()
    (given,) = request.headers["authorization"]
    request.headers["authorization"] = [given.replace(f"{name};", "")]
    assert "must be a" in request.refused()[1]


def test_a_body_that_is_not_hashed_is_refused():
    request = Request(**{"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert "SHA-256 of the body" in request.refused()[1]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "MissingAuthenticationTokenException"),
        ("Bearer x", "IncompleteSignatureException"),
        (
            "AWS4-HMAC-SHA256 Credential=a/20270115/r/s3/aws4_request",
            "IncompleteSignatureException",
        ),
    ],
)
def test_a_header_that_is_no_signature_is_refused(header, code):
    request = Request()
    request.headers["authorization"] = [header]
    assert request.refused()[0] == code


def test_the_key_is_read_again_if_a_request_names_another():
    keys = [replace(KEY, access_key="OLD"), KEY]
    verifier = Verifier(lambda: keys.pop(0), lambda: NOW)
    request = Request()
    (given,) = request.headers["authorization"]
    for _ in range(2):
        verifier.verify(
            read_signature(given), "POST", URI, [], lambda name: request.headers.get(name, []), BODY
        )
    assert keys == []


def test_a_home_has_one_key_for_its_owner_only(tmp_path):
    made = make_key(tmp_path)
    assert make_key(tmp_path) == read_key(tmp_path) == made
    assert made.access_key.startswith(PREFIX)
    assert len(made.access_key) == 20
    assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "local").iterdir()] == ["key"]
    assert make_key(tmp_path / "another") != made


def test_wider_rights_on_a_key_are_taken_away(tmp_path):
    make_key(tmp_path)
    key_file(tmp_path).chmod(0o644)
    read_key(tmp_path)
    assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"access_key": "", "secret_key": "x"}']
)
def test_a_key_file_that_is_none_is_named_and_not_replaced(tmp_path, content):
    make_key(tmp_path)
    key_file(tmp_path).write_text(content)
    with pytest.raises(KeyFileError, match="local/key is not a key"):
        make_key(tmp_path)
    assert key_file(tmp_path).read_text() == content
