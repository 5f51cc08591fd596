"""S3 for `plan` and `finish` of pipelines, which run in a thread. States must not use it.

botocore is imported by the first call, so that pipelines can be listed and tested without it.
Where S3 is, [s3] of mu.conf says; credentials and proxies come from the daemon's environment. Requests
are signed for the bucket's own region, wherever it is. During an outage, requests are tried again: a job
must not fail because S3 could not be reached for a minute when all its work was done.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from mu.aws.s3 import FROM_ENVIRONMENT, S3Error, S3Place, explained

__all__ = ["S3Error", "S3Object", "keys_below", "objects_below", "put", "readable_url", "size"]

KNOWN_S = 300.0
"""How long a bucket's region is believed: it may be deleted, and made again elsewhere."""

PAUSES_S = (0.5, 10.0)
"""The first and the longest pause between two tries during an outage."""

REMEDY = (
    "put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into its environment (with systemd, into"
    " mu.env), or name a profile of its user in [s3] of mu.conf; docs/data.md says more"
)

T = TypeVar("T")

_find: Callable[[str], S3Place] | None = None
_start_region: str | None = None
_regions: dict[str, tuple[str | None, float]] = {}
"""The regions of buckets, and when they were looked up."""


_outage_s = 0.0
_warn: Callable[[str], object] = print


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object in a list of a bucket."""

    key: str
    size: int
    """In bytes."""
    modified: datetime


def look_up_from(region: str) -> None:
    """Ask this region where a bucket is, if the environment and the profile name no region."""
    global _start_region
    _start_region = region


def find_with(find: Callable[[str], S3Place]) -> None:
    """Ask `find` on which server a bucket is. It may block; it raises S3Error."""
    global _find
    _find = find


def wait_out(outage_s: float, warn: Callable[[str], object]) -> None:
    """Try requests again for that time while S3 or credentials are out of reach; `warn` is told why."""
    global _outage_s, _warn
    _outage_s, _warn = outage_s, warn


def keys_below(bucket: str, prefix: str) -> Iterator[str]:
    """Yield all keys that begin with `prefix`, in S3's order. Raises S3Error."""
    return (found.key for found in objects_below(bucket, prefix))


def objects_below(bucket: str, prefix: str) -> Iterator[S3Object]:
    """Yield all objects whose key begins with `prefix`, in S3's order. Raises S3Error."""
    asked = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = _patiently(
            f"list s3://{bucket}/{prefix}", lambda: _client(bucket).list_objects_v2(**asked)
        )
        for found in page.get("Contents", ()):
            yield S3Object(found["Key"], found["Size"], found["LastModified"])
        if not page.get("NextContinuationToken"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def put(bucket: str, key: str, body: bytes, content_type: str) -> None:
    """Store an object. Raises S3Error."""

    def write() -> None:
        _client(bucket).put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    _patiently(f"write s3://{bucket}/{key}", write)


def size(bucket: str, key: str) -> int:
    """Return the size of an object in bytes. Raises S3Error."""
    head = _patiently(
        f"read s3://{bucket}/{key}", lambda: _client(bucket).head_object(Bucket=bucket, Key=key)
    )
    length: int = head["ContentLength"]
    return length


def readable_url(bucket: str, key: str, seconds: int) -> str:
    """Return a URL that gives anybody read access to the object for `seconds`. Raises S3Error.

    A missing object is an error here, rather than later on every worker.
    """

    def sign() -> str:
        client = _client(bucket, own_host=True)
        client.head_object(Bucket=bucket, Key=key)
        names = {"Bucket": bucket, "Key": key}
        url: str = client.generate_presigned_url("get_object", Params=names, ExpiresIn=seconds)
        return url

    return _patiently(f"read s3://{bucket}/{key}", sign)


def _patiently(attempt: str, call: Callable[[], T]) -> T:
    """Call, and again while that may help. Raises S3Error."""
    pause_s, longest_s = PAUSES_S
    until = time.monotonic() + _outage_s
    while True:
        try:
            with _explained(attempt):
                return call()
        except S3Error as error:
            if not error.passing or time.monotonic() + pause_s > until:
                raise
            _warn(f"{error}; trying again")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)


def _client(bucket: str, own_host: bool = False) -> Any:
    """Return a client for the bucket's region. Raises AwsTrouble and botocore's exceptions.

    With `own_host`, presigned URLs name the region's host. botocore names s3.amazonaws.com, which may
    redirect to the region, where a URL signed for another host is refused.
    """
    from mu.aws.sessions import bucket_region

    place = _find(bucket) if _find else FROM_ENVIRONMENT
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
