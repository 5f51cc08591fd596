"""Where a job's objects are: AWS's S3, another server with its API, or the embedded one.

The daemon, the workers and the command line get the same answer: [s3] of mu.conf, what the
environment and the profile say where it is silent, and the embedded server for its own bucket. botocore
is imported by the first call.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # slow to import, and the daemon starts without them
    from botocore.client import BaseClient
    from botocore.session import Session

EMBEDDED_BUCKET = "mu_files"
"""The bucket of the embedded server. AWS gives no bucket such a name."""

ADDRESSING = "MU_S3_ADDRESSING"
"""The variable that tells workers how to name buckets in URLs; boto3 has none."""


class S3Error(ValueError):
    """A request to S3 failed; the message says which one, and what S3 replied.

    `passing`: whether the same request may succeed later.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class S3Place:
    """A server of the S3 API. Empty values are left to the environment and the profile."""

    endpoint: str = ""
    region: str = ""
    addressing: str = "auto"
    profile: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)

    @property
    def embedded(self) -> bool:
        """Whether it is a daemon's own server, which has keys of its own."""
        return bool(self.access_key)

    def variables(self) -> dict[str, str]:
        """Return the variables with which a worker finds the server. Only the embedded one has keys."""
        told = {"AWS_ENDPOINT_URL_S3": self.endpoint}
        told[ADDRESSING] = "" if self.addressing == "auto" else self.addressing
        told = {name: value for name, value in told.items() if value}
        if self.embedded:
            told["AWS_ACCESS_KEY_ID"] = self.access_key
            told["AWS_SECRET_ACCESS_KEY"] = self.secret_key
            told["AWS_SESSION_TOKEN"] = ""  # that of other keys does not fit
        return told

    def session(self) -> "Session":
        """Return a new session of botocore: the default one is not thread-safe. Raises AwsTrouble."""
        from botocore.session import Session

        from mu.aws.sessions import trouble_of

        session = Session(profile=self.profile or None)
        if self.embedded:
            session.set_credentials(self.access_key, self.secret_key)
        with trouble_of(session):
            session.get_credentials()
        return session

    def client(
        self, session: "Session", region: str | None, host: str | None = None, **options: object
    ) -> "BaseClient":
        """Return a client of S3 for this region. Raises botocore's exceptions."""
        from botocore.config import Config

        from mu.aws.sessions import make_client

        config = Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",  # not every S3 server knows the newer ones
            response_checksum_validation="when_required",
            s3={"addressing_style": self.addressing},
            **options,
        )
        return make_client(session, "s3", region, config, host or self.endpoint or None)

    def region_of(self, session: "Session", otherwise: str | None) -> str | None:
        """Return the region to sign for: the configured one, the session's, or `otherwise`."""
        from mu.aws.sessions import trouble_of

        with trouble_of(session):
            return self.region or session.get_config_variable("region") or otherwise

    def bucket_client(self, bucket: str, otherwise: str | None, **options: Any) -> "BaseClient":
        """Return a client for the region that the bucket is in. Raises botocore's and AwsTrouble."""
        from mu.aws.sessions import bucket_region

        session = self.session()
        region = self.region_of(session, otherwise)
        client = self.client(session, region, **options)
        found = bucket_region(client, bucket)
        if found in (None, region):
            return client
        return self.client(session, found, **options)


FROM_ENVIRONMENT = S3Place()


@contextmanager
def explained(attempt: str, who: str, remedy: str) -> Iterator[None]:
    """Turn the exceptions of botocore into an S3Error, which says what was attempted.

    `who` is the process that makes the request, and `remedy` says where it gets credentials.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        SSLError,
    )

    from mu.aws.answers import is_passing
    from mu.aws.trouble import AwsTrouble

    try:
        yield
    except NoCredentialsError as error:
        raise S3Error(f"cannot {attempt}: {who} has no AWS credentials: {remedy}") from error
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        whose = f" (with the credentials of {who})" if status == 403 else ""
        said = f"cannot {attempt}: {answer_of(error.response) or error}{whose}"
        raise S3Error(said, is_passing(error.response)) from error
    except AwsTrouble as error:
        raise S3Error(f"cannot {attempt}: {error}", error.passing) from error
    except (BotoCoreError, Boto3Error) as error:
        passing = isinstance(error, ConnectionError | HTTPClientError)
        passing = passing and not isinstance(error, SSLError)
        raise S3Error(f"cannot {attempt}: {error}", passing) from error


def answer_of(response: Mapping[str, Any]) -> str:
    """Return the code and message of an error response of S3; empty: it has none."""
    answer = response.get("Error", {})
    return ": ".join(str(answer[part]) for part in ("Code", "Message") if answer.get(part))
