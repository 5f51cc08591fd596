"""S3: downloads an object to a file, or uploads a file. boto3 is imported when first needed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

Client = Any  # boto3 creates its classes at run time

CHUNK_BYTES = 2**20
KEYS = (
    "the local engine takes them from the daemon's environment (mu.env) or [s3] profile in mu.conf"
)
"""Where a worker without credentials gets them."""
TRIES = 3
"""How many times to try a download whose connection breaks."""


class StoreError(Exception):
    """A transfer failed; the message has the bucket, key, file, and S3's answer."""


class Cancelled(Exception):
    """A transfer was stopped, because the worker is ending."""


class ObjectStore:
    """May be used by several threads; `cancel` makes all transfers stop soon."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._clients: dict[str, Client] = {}
        self._lock = Lock()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def warm(self, region: str | None) -> None:
        """Create the client before the first command needs it. That command reports any errors."""
        try:
            self._client(region)
        except Exception:
            return

    def retrieve(self, region: str | None, bucket: str, key: str, path: str) -> int:
        """Download an object, completely or not at all. Raises StoreError.

        Return how many bytes were received, including those of tries that broke.
        """
        with _explained(f"retrieve {bucket}/{key} to {path}"):
            client = self._client(region)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            partial = f"{path}.{os.urandom(4).hex()}.part"
            try:
                received = self._download(client, bucket, key, partial)
                os.replace(partial, path)
                return received
            finally:
                if os.path.exists(partial):
                    os.unlink(partial)

    def upload(self, region: str | None, bucket: str, key: str, path: str) -> int:
        """Upload a file; large ones in parts. Return how many bytes it had. Raises StoreError."""
        sent = 0

        def count(more: int) -> None:  # below 0: they are sent again
            nonlocal sent
            sent += more
            self._check()

        with _explained(f"upload {path} to {bucket}/{key}"):
            if not os.path.isfile(path):
                raise FileNotFoundError(f"there is no file {path}")
            from boto3.s3.transfer import TransferConfig

            self._client(region).upload_file(
                path,
                bucket,
                key,
                Callback=count,
                Config=TransferConfig(use_threads=False),  # this already runs in a thread
            )
        return sent

    def _download(self, client: Client, bucket: str, key: str, path: str) -> int:
        from botocore.exceptions import (
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        received = 0
        for tries_left in reversed(range(TRIES)):
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
            try:
                with body, open(path, "wb") as file:
                    while chunk := body.read(CHUNK_BYTES):
                        self._check()
                        received += len(chunk)
                        file.write(chunk)
            except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                if not tries_left:
                    raise
            else:
                return received
        raise AssertionError(TRIES)

    def _check(self) -> None:
        if self._cancelled:
            raise Cancelled

    def _client(self, region: str | None) -> Client:
        where = region or os.environ.get("AWS_REGION") or "us-east-1"
        with self._lock:
            self._check()
            if where not in self._clients:
                self._clients[where] = _new_client(where, self._connections)
            return self._clients[where]


def _new_client(region: str, connections: int) -> Client:
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    # A new session: the default one would keep the environment of a warm sandbox's earlier event.
    # But it shares the default one's models of the API, which take most of the time to load.
    session = Session()
    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    models = boto3.DEFAULT_SESSION._session.get_component("data_loader")
    session.register_component("data_loader", models)
    return boto3.session.Session(
        region_name=region, botocore_session=session
    ).client(
        "s3",
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",  # not every S3 server supports the newer ones
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 5},
            s3={"addressing_style": os.environ.get("MU_S3_ADDRESSING") or "auto"},
            max_pool_connections=connections,
        ),
    )


@contextmanager
def _explained(attempt: str) -> Iterator[None]:
    """Turn any error into a StoreError that says what was attempted."""
    try:
        yield
    except Exception as error:
        raise StoreError(f"could not {attempt}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    # boto3's upload_file hides S3's answer behind its own error
    for cause in (error, error.__context__):
        answer = getattr(cause, "response", None)
        if isinstance(answer, dict) and "Error" in answer:
            said = (answer["Error"].get("Code"), answer["Error"].get("Message"))
            return ": ".join(part for part in said if part) or str(error)
    if type(error).__name__ == "NoCredentialsError":
        why = os.environ.get("MU_NO_AWS_KEYS", "")  # set by the local engine
        hint = f" (the local engine has none for functions: {why})" if why else ""
        return f"this worker has no AWS credentials{hint}; {KEYS}"
    return f"{type(error).__name__}: {error}"
