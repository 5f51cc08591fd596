"""S3 for `plan` and `finish` of pipelines, which run in a thread; states never come here.

boto3 is imported by the first call, so that pipelines can be listed and tested without it.
Credentials, region and AWS_ENDPOINT_URL_S3 are the daemon's own, from its environment.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class S3Error(ValueError):
    """What did not work, and what S3 said: a sentence for people."""


def keys_below(bucket: str, prefix: str) -> Iterator[str]:
    """Yield all keys that begin with `prefix`, in S3's order. Raises S3Error."""
    with _explained(f"list s3://{bucket}/{prefix}"):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                yield found["Key"]


def put(bucket: str, key: str, body: bytes, content_type: str) -> None:
    """Store an object. Raises S3Error."""
    with _explained(f"write s3://{bucket}/{key}"):
        _client().put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)


def size(bucket: str, key: str) -> int:
    """Return how many bytes an object has. Raises S3Error."""
    with _explained(f"read s3://{bucket}/{key}"):
        length: int = _client().head_object(Bucket=bucket, Key=key)["ContentLength"]
        return length


def readable_url(bucket: str, key: str, seconds: int) -> str:
    """Return a URL with which anybody can read the object, for so long. Raises S3Error.

    An object that is not there is an error now, not on every worker.
    """
    with _explained(f"read s3://{bucket}/{key}"):
        client = _client()
        client.head_object(Bucket=bucket, Key=key)
        told = {"Bucket": bucket, "Key": key}
        url: str = client.generate_presigned_url("get_object", Params=told, ExpiresIn=seconds)
        return url


def _client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(  # a session of its own: the default one is no thread's
        "s3",
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",  # not every S3 knows the new ones
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def _explained(attempt: str) -> Iterator[None]:
    """Turn what S3 and the way there may raise into an S3Error."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        parts = [str(said[part]) for part in ("Code", "Message") if said.get(part)]
        raise S3Error(f"cannot {attempt}: {': '.join(parts) or error}") from error
    except BotoCoreError as error:
        raise S3Error(f"cannot {attempt}: {error}") from error
