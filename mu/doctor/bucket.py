"""The bucket of the data."""

import secrets
from collections.abc import Sequence

from mu.doctor.finding import FAIL, OK, WARN, Finding
from mu.functions.aws import AwsError, Clients, told


def check_bucket(clients: Clients, regions: Sequence[str], bucket: str) -> Finding:
    """Look whether the bucket is there, and where."""
    check = "bucket"
    try:
        with told(f"the bucket {bucket}"):
            head = clients.client("s3", regions[0]).head_bucket(Bucket=bucket)
    except AwsError as error:
        if error.code == "404":
            return Finding(
                check,
                FAIL,
                f"there is no bucket {bucket}",
                f"aws s3 mb s3://{bucket} --region {regions[0]}",
            )
        if error.code == "403":
            return Finding(
                check,
                FAIL,
                f"{bucket} is another account's, or these credentials may not list it",
                "take a bucket of yours; mu doctor --policy daemon prints what is needed",
            )
        raise
    there = head.get("BucketRegion")
    far = [region for region in regions if there and region != there]
    if far:
        return Finding(
            check,
            WARN,
            f"{bucket} is in {there}: traffic with workers in {', '.join(far)} is slower, and paid"
            " for",
            "have workers and data in one region",
        )
    return Finding(check, OK, f"{bucket} is there" + (f", in {there}" if there else ""))


def check_bucket_write(clients: Clients, region: str, bucket: str) -> Finding:
    """Put an object of a name that nobody has, get it again, delete it."""
    client, key, body = clients.client("s3", region), f"mu/doctor-{secrets.token_hex(8)}", b"mu"
    with told(f"putting s3://{bucket}/{key}"):
        client.put_object(Bucket=bucket, Key=key, Body=body)
    try:
        with told(f"getting s3://{bucket}/{key}"):
            same = client.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    finally:
        with told(f"deleting s3://{bucket}/{key}"):
            client.delete_object(Bucket=bucket, Key=key)
    if not same:
        return Finding("writing", FAIL, f"s3://{bucket}/{key} held something else than was put")
    return Finding("writing", OK, f"an object was put to {bucket}, got and deleted")
