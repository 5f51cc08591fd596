"""S3 for `plan` and `finish` of pipelines, which run in a thread. States must not use it.

boto3 is imported by the first call, so that pipelines can be listed and tested without it.
Credentials, region and AWS_ENDPOINT_URL_S3 come from the daemon's environment.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["S3Error", "keys_below", "put", "readable_url", "size"]


class S3Error(ValueError):
    """A request failed; the message says which one, and what S3 replied."""


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
    """Return the size of an object in bytes. Raises S3Error."""
    with _explained(f"read s3://{bucket}/{key}"):
        length: int = _client().head_object(Bucket=bucket, Key=key)["ContentLength"]
        return length


def readable_url(bucket: str, key: str, seconds: int) -> str:
    """Return a URL that gives anybody read access to the object for `seconds`. Raises S3Error.

    A missing object is an error here, rather than later on every worker.
    """
    with _explained(f"read s3://{bucket}/{key}"):
        client = _client()
        client.head_object(Bucket=bucket, Key=key)
        names = {"Bucket": bucket, "Key": key}
        url: str = client.generate_presigned_url("get_object", Params=names, ExpiresIn=seconds)
        return url


def _client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(  # its own session: the default one is not thread-safe
        "s3",
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",  # not every S3 server knows the newer checksums
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def _explained(attempt: str) -> Iterator[None]:
    """Turn the exceptions of boto3 into an S3Error."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        answer = error.response.get("Error", {})
        parts = [str(answer[part]) for part in ("Code", "Message") if answer.get(part)]
        raise S3Error(f"cannot {attempt}: {': '.join(parts) or error}") from error
    except BotoCoreError as error:
        raise S3Error(f"cannot {attempt}: {error}") from error
