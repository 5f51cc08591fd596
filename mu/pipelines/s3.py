"""S3 for `plan` and `finish` of pipelines, which run in a thread. States must not use it.

botocore is imported by the first call, so that pipelines can be listed and tested without it. Where
S3 is, [s3] of mu.conf says; credentials, proxies and the rest come from the daemon's environment.
Requests are signed for the bucket's own region, wherever it is.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from mu.aws.s3 import S3Error, S3Place, explained

__all__ = ["S3Error", "keys_below", "put", "readable_url", "size"]

KNOWN_S = 300.0
"""How long a bucket's region is believed: it may be deleted, and made again elsewhere."""

REMEDY = (
    "put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into its environment (with systemd, into"
    " mu.env), or name a profile of its user in [s3] of mu.conf; docs/data.md says more"
)

_find: Callable[[str], S3Place] | None = None
_start_region: str | None = None
_regions: dict[str, tuple[str | None, float]] = {}
"""The regions of buckets, and when they were looked up."""


def look_up_from(region: str) -> None:
    """Ask this region where a bucket is, if the environment and the profile name no region."""
    global _start_region
    _start_region = region


def find_with(find: Callable[[str], S3Place]) -> None:
    """Ask `find` on which server a bucket is. It may block; it raises S3Error."""
    global _find
    _find = find


def keys_below(bucket: str, prefix: str) -> Iterator[str]:
    """Yield all keys that begin with `prefix`, in S3's order. Raises S3Error."""
    with _explained(f"list s3://{bucket}/{prefix}"):
        pages = (
            _client(bucket).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        for page in pages:
            for found in page.get("Contents", ()):
                yield found["Key"]


def put(bucket: str, key: str, body: bytes, content_type: str) -> None:
    """Store an object. Raises S3Error."""
    with _explained(f"write s3://{bucket}/{key}"):
        _client(bucket).put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)


def size(bucket: str, key: str) -> int:
    """Return the size of an object in bytes. Raises S3Error."""
    with _explained(f"read s3://{bucket}/{key}"):
        length: int = _client(bucket).head_object(Bucket=bucket, Key=key)["ContentLength"]
        return length


def readable_url(bucket: str, key: str, seconds: int) -> str:
    """Return a URL that gives anybody read access to the object for `seconds`. Raises S3Error.

    A missing object is an error here, rather than later on every worker.
    """
    with _explained(f"read s3://{bucket}/{key}"):
        client = _client(bucket, own_host=True)
        client.head_object(Bucket=bucket, Key=key)
        names = {"Bucket": bucket, "Key": key}
        url: str = client.generate_presigned_url("get_object", Params=names, ExpiresIn=seconds)
        return url


def _client(bucket: str, own_host: bool = False) -> Any:
    """Return a client for the bucket's region. Raises AwsTrouble and botocore's exceptions.

    With `own_host`, presigned URLs name the region's host. botocore names s3.amazonaws.com, which may
    redirect to the region, where a URL signed for another host is refused.
    """
    from mu.aws.sessions import bucket_region

    place = _find(bucket) if _find else S3Place()
    session = place.session()
    region = place.region_of(session, _start_region)
    found, at = _regions.get(bucket, (None, 0.0))
    client = None
    if not at or time.monotonic() - at > KNOWN_S:
        client = place.client(session, region)
        found = bucket_region(client, bucket)
        _regions[bucket] = found, time.monotonic()
    if client is None or found not in (None, region):
        client = place.client(session, found or region)
    host: str = client.meta.endpoint_url
    if own_host and host == f"https://s3.{found}.amazonaws.com":
        return place.client(session, found, host)
    return client


def _explained(attempt: str) -> AbstractContextManager[None]:
    """Turn the exceptions of botocore into an S3Error."""
    return explained(attempt, "the daemon", REMEDY)
