"""Endpoints, proxies and profiles are those of botocore, and each failure is a sentence."""

import io
import os
import socket
import sys

import boto3
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectTimeoutError, MetadataRetrievalError
from botocore.session import Session

from mu.aws import sessions
from mu.aws.proxies import proxy_for
from mu.aws.sessions import (
    explain,
    find_keys,
    lambda_endpoint,
    make_client,
    new_session,
    partition_of,
    roots_of,
    trouble_of,
)
from mu.aws.trouble import AwsTrouble
from mu.engines.routes import aws_credentials, aws_route
from mu.functions.aws import AwsClients, AwsError, aws_errors
from mu.net.proxy import BadProxy, HttpProxy


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No AWS_ and no proxy variables, and a HOME without ~/.aws."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or "CA_BUNDLE" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write ~/.aws/config and choose the profile `p` in it."""

    def write(text):
        (tmp_path / ".aws").mkdir(exist_ok=True)
        (tmp_path / ".aws" / "config").write_text(text)
        monkeypatch.setenv("AWS_PROFILE", "p")

    return write


# ---------------------------------------------------------------- endpoints


@pytest.mark.parametrize(
    ("region", "env", "url"),
    [
        ("us-east-1", {}, "https://lambda.us-east-1.amazonaws.com"),
        ("cn-north-1", {}, "https://lambda.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", {}, "https://lambda.us-gov-west-1.amazonaws.com"),
        ("eusc-de-east-1", {}, "https://lambda.eusc-de-east-1.amazonaws.eu"),
        ("us-iso-east-1", {}, "https://lambda.us-iso-east-1.c2s.ic.gov"),
        (
            "us-east-1",
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "https://lambda-fips.us-east-1.amazonaws.com",
        ),
        (
            "us-east-1",
            {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
            "https://lambda.us-east-1.api.aws",
        ),
        ("us-east-1", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        (
            "us-east-1",
            {
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_ENDPOINT_URL_LAMBDA": "https://x.test/y",
            },
            "https://x.test/y",
        ),
        (
            "eu-west-1",
            {
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            },
            "https://lambda.eu-west-1.amazonaws.com",
        ),
    ],
)
def test_the_endpoint_is_the_one_of_botocore(monkeypatch, region, env, url):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = lambda_endpoint(new_session(), region)
    assert (found.url, found.region) == (url, region)


@pytest.mark.parametrize(
    "text",
    [
        "[profile p]\nendpoint_url = https://x.test\n",
        "[profile p]\nservices = s\n[services s]\nlambda =\n  endpoint_url = https://x.test\n",
    ],
)
def test_the_endpoint_may_come_from_the_config_file(config, text):
    config(text)
    assert aws_route("us-east-1").url == "https://x.test"


def test_an_impossible_region_is_a_sentence():
    with pytest.raises(AwsTrouble, match="'us east' .*: name regions as AWS does"):
        aws_route("us east")


@pytest.mark.parametrize(
    ("region", "partition"),
    [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-east-1", "aws-us-gov"), ("?", "aws")],
)
def test_the_partition_of_a_region_is_known(region, partition):
    assert partition_of(region) == partition


# ---------------------------------------------------------------- proxies and certificates


def test_proxies_come_from_the_environment_and_never_lead_to_this_machine(monkeypatch):
    assert proxy_for("https://lambda.us-east-1.amazonaws.com") is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:8080")
    monkeypatch.setenv("NO_PROXY", "eu-west-1.amazonaws.com")
    assert proxy_for("https://lambda.us-east-1.amazonaws.com") == "http://proxy.test:8080"
    assert proxy_for("https://lambda.eu-west-1.amazonaws.com") is None
    assert proxy_for("http://lambda.us-east-1.amazonaws.com") is None
    for host in ("127.0.0.1", "localhost", "[::1]", "127.1.2.3"):
        assert proxy_for(f"https://{host}:13590") is None


def test_clients_use_no_proxy_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    for url, proxied in (("http://127.0.0.1:13590", False), ("http://lambda.test", True)):
        client = make_client(boto3.Session(), "lambda", "us-east-1", Config(), url)
        assert bool(client._endpoint.http_session._proxy_config.proxy_url_for(url)) is proxied


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:secret@proxy.test:1080")
    with pytest.raises(AwsTrouble) as raised:
        aws_route("us-east-1")
    assert str(raised.value) == (
        "the proxy socks5://proxy.test:1080 must be http:// or https://:"
        " correct HTTPS_PROXY, or list the host in NO_PROXY"
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://u:p@proxy.test:port", "the proxy http://proxy.test:port has no valid port"),
        ("http://u:p@:80", "the proxy http://:80 has no host"),
    ],
)
def test_a_broken_proxy_is_named(url, says):
    with pytest.raises(BadProxy) as raised:
        HttpProxy.parse(url)
    assert str(raised.value) == says


def test_a_proxy_has_its_schemes_port():
    assert HttpProxy.parse("http://proxy.test").port == 80
    assert HttpProxy.parse("https://proxy.test") == HttpProxy("proxy.test", 443, tls=True)


@pytest.mark.parametrize(
    "content", [None, "", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"]
)
def test_certificates_that_cannot_be_used_are_named(monkeypatch, tmp_path, content):
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    with pytest.raises(AwsTrouble) as raised:
        aws_route("us-east-1")
    assert str(path) in str(raised.value)
    assert str(raised.value).endswith(": name a file with certificates in PEM")


def test_certificates_may_come_from_the_profile(config, tmp_path):
    (tmp_path / "ours.pem").write_text("certificates")
    config(f"[profile p]\nca_bundle = {tmp_path}/ours.pem\n")
    assert roots_of(new_session()) == (f"{tmp_path}/ours.pem", b"certificates")


# ---------------------------------------------------------------- profiles

KEYS = "aws_access_key_id = a\naws_secret_access_key = b\n"
SSO = "sso_start_url = https://x.test\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n"
FAILURES = {
    "another profile": ("[profile q]\n", "there is no profile 'p' in ", "set AWS_PROFILE to q"),
    "not INI": ("[profile p\n", "cannot read ", "correct the file"),
    "half a key": (
        "[profile p]\naws_access_key_id = a\n",
        "the credentials of profile 'p' are incomplete: ",
        "aws configure",
    ),
    "no such program": (
        "[profile p]\ncredential_process = /none/program\n",
        "the credential_process or a file of profile 'p' cannot be used: ",
        "~/.aws/config",
    ),
    "a program that fails": (
        "[profile p]\ncredential_process = sh -c 'echo not today >&2; exit 3'\n",
        "the credential_process of profile 'p' failed: ",
        "run that command by hand",
    ),
    "a program that prints no JSON": (
        "[profile p]\ncredential_process = echo hello\n",
        "the credential_process or a file of profile 'p' has no valid content: ",
        "~/.aws/config",
    ),
    "a program that prints something else": (
        "[profile p]\ncredential_process = echo []\n",
        "the credentials of profile 'p' cannot be used: ",
        "~/.aws/config",
    ),
    "a role without a source": (
        "[profile p]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = q\n",
        "the configuration of profile 'p' is wrong: ",
        "~/.aws/config",
    ),
    "single sign-on": (
        f"[profile p]\n{SSO}",
        "the single sign-on of profile 'p' is not valid: ",
        "run aws sso login --profile p",
    ),
    "single sign-on with a session": (
        "[profile p]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"
        "[sso-session s]\nsso_start_url = https://x.test\nsso_region = eu-west-1\n",
        "the single sign-on of profile 'p' is not valid: ",
        "run aws sso login --profile p",
    ),
    "aws login": (
        "[profile p]\nlogin_session = arn:aws:iam::1:user/u\nregion = eu-west-1\n",
        "profile 'p' ",
        "pip install 'botocore[crt]'",
    ),
    "an MFA device": (
        "[profile p]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = p\nregion = eu-west-1\n"
        f"mfa_serial = arn:aws:iam::1:mfa/u\n{KEYS}",
        "profile 'p' needs an MFA code, which cannot be asked for here",
        "aws configure export-credentials --profile p --format env",
    ),
}


@pytest.mark.parametrize(("text", "says", "remedy"), FAILURES.values(), ids=FAILURES)
def test_a_profile_that_does_not_work_is_a_sentence_with_a_remedy(
    config, monkeypatch, text, says, remedy
):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    config(text)
    with pytest.raises(AwsTrouble) as raised:
        aws_credentials()(None)
    assert says in raised.value.sentence
    assert remedy in raised.value.remedy
    assert not raised.value.passing
    if "MFA" not in says:  # mu deploy asks for a code
        with pytest.raises(AwsError) as failed:
            AwsClients().client("lambda", "us-east-1")
        assert (
            str(failed.value) == f"making a client for lambda in us-east-1 failed: {raised.value}"
        )


def refusal(code, message, operation="AssumeRole"):
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ConnectTimeoutError(endpoint_url="https://sts.amazonaws.com"), True),
        (MetadataRetrievalError(error_msg="Received error when attempting to retrieve"), True),
        (refusal("Throttling", "Rate exceeded"), True),
        (refusal("ServiceUnavailable", "try later"), True),
        (refusal("InvalidClientTokenId", "invalid"), False),
        (PermissionError(13, "Permission denied"), False),
    ],
)
def test_an_outage_is_told_from_what_stays_wrong(error, passing):
    with pytest.raises(AwsTrouble) as raised, trouble_of(new_session()):
        raise error
    assert raised.value.passing is passing
    assert "profile 'default'" in raised.value.sentence


def test_a_role_that_may_not_be_assumed_names_the_action_and_the_role():
    role = "arn:aws:iam::1:role/r"
    said = f"User: u is not authorized to perform: sts:AssumeRole on resource: {role}"
    trouble = explain(refusal("AccessDenied", said), new_session())
    assert trouble.sentence.startswith("profile 'default' gets no credentials from AssumeRole: ")
    assert f"grant your user or role sts:AssumeRole on {role}" in trouble.remedy
    with pytest.raises(AwsError) as raised, aws_errors("creating f"):
        raise refusal("AccessDenied", said)
    assert str(raised.value).startswith("creating f failed: profile 'default' gets no credentials")


def upload_refused():
    try:
        raise refusal("AccessDenied", "no", "PutObject")
    except ClientError:
        raise S3UploadFailedError("Failed to upload")  # noqa: B904, as boto3 does


def test_a_refused_upload_is_explained():
    says = "^uploading failed: AccessDenied: no: grant "
    with pytest.raises(AwsError, match=says), aws_errors("uploading"):
        upload_refused()


def test_keys_that_aws_rejects_and_that_stay_the_same_are_reported(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    find = aws_credentials()
    keys = find(None)
    assert keys is not None
    assert find(keys.__class__("other", "keys")) == keys
    with pytest.raises(
        AwsTrouble, match="AWS no longer accepts the credentials of profile 'default'"
    ):
        find(keys)


def test_without_credentials_there_are_none():
    assert find_keys(Session()) is None
    assert aws_credentials()(None) is None


@pytest.mark.parametrize("answers", [True, False])
def test_a_metadata_service_that_does_not_answer_is_an_outage(monkeypatch, answers):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}/")
        monkeypatch.setattr(Session, "get_credentials", lambda self: None)  # it asks it first
        assert find_keys(new_session()) is None  # it may be disabled
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        if answers:
            assert find_keys(new_session()) is None
            return
        with pytest.raises(AwsTrouble, match="metadata service") as caught:
            find_keys(new_session())
        assert caught.value.passing


@pytest.mark.parametrize("vendor", ["Amazon EC2\n", "QEMU\n"])
def test_a_machine_that_is_no_instance_has_no_metadata_service(monkeypatch, tmp_path, vendor):
    (tmp_path / "vendor").write_text(vendor)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setattr(sessions, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(sessions, "METADATA_URL", "http://127.0.0.1:1/")
    monkeypatch.setattr(Session, "get_credentials", lambda self: None)
    if "EC2" not in vendor:
        assert find_keys(new_session()) is None
        return
    with pytest.raises(AwsTrouble):
        find_keys(new_session())
