"""Checks of the data bucket."""

import secrets
from collections.abc import Sequence

from mu.aws.answers import Kind
from mu.aws.s3 import EMBEDDED_BUCKET
from mu.findings import FAIL, OK, WARN, Finding
from mu.functions.apis import Clients
from mu.functions.aws import AwsError, aws_errors


def check_bucket(
    clients: Clients, regions: Sequence[str], bucket: str, endpoint: str = ""
) -> Finding:
    """Check that the bucket exists, and in which region.

    `endpoint` is the URL of an S3 server that is not AWS's.
    """
    check = "bucket"
    if bucket == EMBEDDED_BUCKET:
        return Finding(
            check,
            OK,
            f"{bucket} is that of the embedded S3 server, which starts when it is needed, and which"
            " only workers on this machine reach",
        )
    try:
        with aws_errors(f"looking up bucket {bucket}"):
            head = clients.client("s3", regions[0]).head_bucket(Bucket=bucket)
    except AwsError as error:
        if error.code == "404":
            where = f"--endpoint-url {endpoint}" if endpoint else f"--region {regions[0]}"
            at = f" at {endpoint}" if endpoint else ""
            return Finding(
                check,
                FAIL,
                f"bucket {bucket} does not exist{at}",
                f"aws s3 mb s3://{bucket} {where}",
            )
        if error.code == "403":
            return Finding(
                check,
                WARN,
                f"bucket {bucket} belongs to another account, or these credentials may not list it",
                "use a bucket of your own; --write tries what the permissions allow, and mu doctor"
                " --policy daemon prints those that pipelines may need",
            )
        raise
    if endpoint:
        return Finding(check, OK, f"{bucket} exists at {endpoint}")
    there = head.get("BucketRegion")
    far = [region for region in regions if there and region != there]
    if far:
        return Finding(
            check,
            WARN,
            f"{bucket} is in {there}: traffic with workers in {', '.join(far)} is slower, and is"
            " charged for",
            "keep workers and data in one region",
        )
    return Finding(check, OK, f"{bucket} exists" + (f", in {there}" if there else ""))


def check_bucket_write(clients: Clients, region: str, bucket: str) -> Finding:
    """Write, read and delete an object with a random name.

    The right to delete is not needed by jobs: without it, the object is left behind.
    """
    check = "writing"
    client, key, body = clients.client("s3", region), f"mu/doctor-{secrets.token_hex(8)}", b"mu"
    with aws_errors(f"writing s3://{bucket}/{key}"):
        client.put_object(Bucket=bucket, Key=key, Body=body)
    left = ""
    try:
        with aws_errors(f"reading s3://{bucket}/{key}"):
            same = client.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    finally:
        try:
            with aws_errors(f"deleting s3://{bucket}/{key}"):
                client.delete_object(Bucket=bucket, Key=key)
        except AwsError as error:
            if error.kind is not Kind.DENIED:
                raise
            left = f"s3://{bucket}/{key}"
    if not same:
        return Finding(check, FAIL, f"s3://{bucket}/{key} had another content than was written")
    if left:
        return Finding(
            check,
            WARN,
            f"{left} was written and read; these credentials may not delete it, so it is still there",
            f"aws s3 rm {left}, as a user who may",
        )
    return Finding(check, OK, f"an object in {bucket} was written, read and deleted")
