"""S3: one object to one file, or the other way. boto3 is imported when it is first needed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

CHUNK_BYTES = 2**20
TRIES = 3
"""How often a download is begun when the connection breaks in its middle."""


class StoreError(Exception):
    """What did not work, with which bucket, key and file, and what S3 said about it."""


class Cancelled(Exception):
    """The worker is ending: the transfer under way stops."""


class Store:
    """Used from several threads at once; `cancel` makes them all stop soon."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._clients: dict[str, Any] = {}
        self._lock = Lock()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def warm(self, region: str | None) -> None:
        """Make the client before the first command needs it. Whatever fails, fails again then."""
        try:
            self._client(region)
        except Exception:
            return

    def retrieve(self, region: str | None, bucket: str, key: str, path: str) -> None:
        """Download an object. The file appears whole or not at all. Raises StoreError."""
        with _explained(f"retrieve {bucket}/{key} to {path}"):
            client = self._client(region)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            partial = f"{path}.{os.urandom(4).hex()}.part"
            try:
                self._download(client, bucket, key, partial)
                os.replace(partial, path)
            finally:
                if os.path.exists(partial):
                    os.unlink(partial)

    def upload(self, region: str | None, bucket: str, key: str, path: str) -> None:
        """Upload a file; large ones in parts. Raises StoreError."""
        with _explained(f"upload {path} to {bucket}/{key}"):
            if not os.path.isfile(path):
                raise FileNotFoundError(f"there is no file {path}")
            from boto3.s3.transfer import TransferConfig

            self._client(region).upload_file(
                path,
                bucket,
                key,
                Callback=lambda _: self._check(),
                Config=TransferConfig(use_threads=False),  # this is a thread already
            )

    def _download(self, client: Any, bucket: str, key: str, path: str) -> None:
        from botocore.exceptions import (
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        for tries_left in reversed(range(TRIES)):
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
            try:
                with body, open(path, "wb") as file:
                    while chunk := body.read(CHUNK_BYTES):
                        self._check()
                        file.write(chunk)
            except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                if not tries_left:
                    raise
            else:
                return

    def _check(self) -> None:
        if self._cancelled:
            raise Cancelled

    def _client(self, region: str | None) -> Any:
        where = region or os.environ.get("AWS_REGION") or "us-east-1"
        with self._lock:
            self._check()
            if where not in self._clients:
                self._clients[where] = _new_client(where, self._connections)
            return self._clients[where]


def _new_client(region: str, connections: int) -> Any:
    import boto3
    from botocore.config import Config

    # a session of its own: the default one would keep a warm sandbox's earlier environment
    return boto3.session.Session(region_name=region).client(
        "s3",
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",  # not every S3 knows the new ones
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 5},
            s3={"addressing_style": "auto"},
            max_pool_connections=connections,
        ),
    )


@contextmanager
def _explained(attempt: str) -> Iterator[None]:
    """Turn whatever goes wrong into a StoreError that says what was attempted."""
    try:
        yield
    except Exception as error:
        raise StoreError(f"could not {attempt}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    # boto3's upload_file hides S3's answer behind an error of its own
    for cause in (error, error.__context__):
        answer = getattr(cause, "response", None)
        if isinstance(answer, dict) and "Error" in answer:
            said = (answer["Error"].get("Code"), answer["Error"].get("Message"))
            return ": ".join(part for part in said if part) or str(error)
    return f"{type(error).__name__}: {error}"
