"""S3 for plans: buckets in any region, and failures as sentences. moto answers in this process."""

import time
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, SSLError
from kit.moto_aws import in_process_aws

from mu.aws.trouble import AwsTrouble
from mu.pipelines import s3

FAR = "eu-central-1"


@pytest.fixture
def aws(monkeypatch):
    monkeypatch.setattr(s3, "_regions", {})
    monkeypatch.setattr(s3, "_start_region", None)
    with in_process_aws(monkeypatch):
        yield monkeypatch


def bucket_in(region, name="far"):
    client = boto3.client("s3", region)
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
    client.put_object(Bucket=name, Key="a b", Body=b"xyz")


@pytest.mark.parametrize("ours", [None, "us-east-1", "ap-south-1", FAR])
@pytest.mark.parametrize("name", ["far", "fa.r"])
def test_a_presigned_url_is_signed_for_the_buckets_own_region_and_host(aws, ours, name):
    s3.look_up_from(ours)
    bucket_in(FAR, name)
    url = urlsplit(s3.readable_url(name, "a b", 60))
    assert url.hostname == f"s3.{FAR}.amazonaws.com"
    assert url.path == f"/{name}/a%20b"
    (scope,) = parse_qs(url.query)["X-Amz-Credential"]
    assert f"/{FAR}/s3/aws4_request" in scope


def test_the_region_of_the_profile_or_environment_is_no_obstacle(aws):
    aws.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    bucket_in(FAR)
    assert s3.size("far", "a b") == 3
    assert list(s3.keys_below("far", "a")) == ["a b"]
    s3.put("far", "new", b"1", "text/plain")
    assert f"{FAR}%2Fs3" in s3.readable_url("far", "new", 60)


def test_a_bucket_that_was_made_again_elsewhere_is_found_after_a_while(aws):
    bucket_in(FAR)
    assert s3.size("far", "a b") == 3
    found, at = s3._regions["far"]
    assert found == FAR
    s3._regions["far"] = "ap-south-1", at - 2 * s3.KNOWN_S
    assert f"{FAR}%2Fs3" in s3.readable_url("far", "a b", 60)


def test_a_missing_bucket_is_named(aws):
    with pytest.raises(s3.S3Error, match="cannot read s3://none/k: NoSuchBucket"):
        s3.size("none", "k")


def test_an_unknown_profile_is_a_sentence(aws, tmp_path):
    config = tmp_path / "config"
    config.write_text("[profile work]\n")
    aws.setenv("AWS_CONFIG_FILE", str(config))
    aws.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    aws.setenv("AWS_PROFILE", "wrok")
    with pytest.raises(s3.S3Error) as raised:
        s3.size("far", "k")
    assert str(raised.value) == (
        f"cannot read s3://far/k: there is no profile 'wrok' in {config} or {tmp_path / 'none'}:"
        " set AWS_PROFILE to work"
    )


class Outage:
    """Makes the first requests fail, and keeps the pauses."""

    def __init__(self, patch, *errors):
        self.errors, self.pauses, self.told = list(errors), [], []
        patch.setattr(time, "sleep", self.pauses.append)
        patch.setattr(s3, "_outage_s", 600.0)
        patch.setattr(s3, "_warn", self.told.append)
        found = s3._client

        def client(*args, **options):
            if self.errors:
                raise self.errors.pop(0)
            return found(*args, **options)

        patch.setattr(s3, "_client", client)


DOWN = EndpointConnectionError(endpoint_url="https://s3")
BUSY = ClientError(
    {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "X"
)


@pytest.mark.parametrize(
    "call",
    [
        lambda: s3.size("far", "a b"),
        lambda: s3.readable_url("far", "a b", 60),
        lambda: s3.put("far", "new", b"1", "text/plain"),
        lambda: list(s3.keys_below("far", "a")),
    ],
)
def test_an_outage_is_waited_out(aws, call):
    bucket_in(FAR)
    outage = Outage(aws, *[DOWN] * 4, BUSY, AwsTrouble("STS", "", passing=True))
    call()
    assert outage.pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert len(outage.told) == 6
    assert "Could not connect" in outage.told[0]


def test_an_outage_that_lasts_is_an_error(aws):
    outage = Outage(aws, *[DOWN] * 100)
    aws.setattr(time, "monotonic", lambda: sum(outage.pauses))
    with pytest.raises(s3.S3Error, match="Could not connect"):
        s3.size("far", "a b")
    assert 580 < sum(outage.pauses) <= 600


@pytest.mark.parametrize(
    "error",
    [
        ClientError(
            {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "X"
        ),
        SSLError(endpoint_url="https://s3", error="certificate verify failed"),
        AwsTrouble("there is no profile 'x'"),
    ],
)
def test_what_does_not_pass_is_an_error_at_once(aws, error):
    outage = Outage(aws, error)
    with pytest.raises(s3.S3Error):
        s3.size("far", "a b")
    assert outage.pauses == []


class Pages:
    """A client whose lists have two keys each."""

    def list_objects_v2(self, Bucket, Prefix, ContinuationToken="0"):
        first = int(ContinuationToken)
        keys = [
            {"Key": f"{Prefix}{number}", "Size": 1, "LastModified": None}
            for number in range(first, min(first + 2, 5))
        ]
        more = {"NextContinuationToken": str(first + 2)} if first + 2 < 5 else {}
        return {"Contents": keys, **more}


def test_an_outage_between_two_pages_of_keys_repeats_and_leaves_out_none(monkeypatch):
    monkeypatch.setattr(s3, "_client", lambda bucket: Pages())
    keys = s3.keys_below("far", "k")
    assert next(keys) == "k0"
    Outage(monkeypatch, DOWN)
    assert list(keys) == ["k1", "k2", "k3", "k4"]
