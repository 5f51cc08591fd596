"""A bundle on its way to Lambda: in the request itself, or through S3."""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mu.functions.apis import Clients, CodeSource
from mu.functions.aws import aws_errors
from mu.functions.bundle import ZIP_LIMIT, sized

Report = Callable[[str], None]
"""Called with a sentence about the current step."""


class DeployError(Exception):
    """The function cannot be deployed; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Code:
    """A bundle to deploy."""

    path: Path
    size: int
    sha256: str
    """In base64, as in Lambda's responses."""
    architecture: str | None
    """None: it runs on any architecture."""

    @classmethod
    def of(cls, path: Path, architecture: str | None) -> "Code":
        """Raises DeployError if the file cannot be read."""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            return cls(path, path.stat().st_size, base64.b64encode(digest).decode(), architecture)
        except OSError as error:
            raise DeployError(f"cannot read {path}: {error.strerror}") from None


class Shipment:
    """Gets code to one region: in the request itself, or through an S3 bucket.

    Lambda keeps its own copy, so close() deletes the object from S3.
    """

    def __init__(
        self, code: Code, region: str, clients: Clients, bucket: str, report: Report
    ) -> None:
        self._code, self._region, self._clients, self._report = code, region, clients, report
        self._bucket = bucket.replace("{region}", region)
        self._key = f"mu/{base64.b64decode(code.sha256).hex()}-{secrets.token_hex(4)}.zip"
        self._lock = Lock()
        self._sent = False

    def check(self) -> None:
        """Raises DeployError or AwsError if the code cannot be sent there."""
        if not self._bucket:
            if self._code.size > ZIP_LIMIT:
                raise DeployError(
                    f"{self._code.path} has {sized(self._code.size)}, more than the"
                    f" {sized(ZIP_LIMIT)} that Lambda accepts directly: give --bucket NAME, an S3"
                    f" bucket in {self._region}"
                )
            return
        with aws_errors(f"looking up bucket {self._bucket}"):
            head = self._clients.client("s3", self._region).head_bucket(Bucket=self._bucket)
        region = head.get("BucketRegion") or self._region
        if region != self._region:
            raise DeployError(
                f"bucket {self._bucket} is in {region}, and Lambda in {self._region} accepts code"
                " from buckets of its own region only: name another bucket, as in --bucket"
                " 'code-{region}'"
            )

    def source(self) -> CodeSource:
        """Return the code's location for CreateFunction and UpdateFunctionCode."""
        if not self._bucket:
            return {"ZipFile": self._code.path.read_bytes()}
        with self._lock:
            if not self._sent:
                to = f"s3://{self._bucket}/{self._key}"
                self._report(f"Uploading {sized(self._code.size)} to {to}")
                with aws_errors(f"uploading to s3://{self._bucket}"):
                    self._clients.client("s3", self._region).upload_file(
                        str(self._code.path), self._bucket, self._key
                    )
                self._sent = True
        return {"S3Bucket": self._bucket, "S3Key": self._key}

    def close(self) -> None:
        """Delete what was uploaded. Raises AwsError."""
        if self._sent:
            self._sent = False
            with aws_errors(f"deleting s3://{self._bucket}/{self._key}"):
                self._clients.client("s3", self._region).delete_object(
                    Bucket=self._bucket, Key=self._key
                )
