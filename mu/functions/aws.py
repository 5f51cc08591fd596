"""Clients of AWS, or of the local engine, and their errors as sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run aws configure"
)
_CONNECT_S, _READ_S, _TRIES = 10, 300, 6
_NO_KEYS = ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId")
_BAD_SECRET = ("InvalidSignatureException", "SignatureDoesNotMatch")
_EXPIRED = ("ExpiredTokenException", "ExpiredToken", "RequestExpired")
_DENIED = ("AccessDenied", "AccessDeniedException", "403")


class AwsError(Exception):
    """A call that failed: what happened, a remedy if there is one, and AWS's error code."""

    def __init__(self, sentence: str, remedy: str = "", code: str = "") -> None:
        super().__init__(f"{sentence}: {remedy}" if remedy else sentence)
        self.sentence = sentence
        self.remedy = remedy
        self.code = code


@dataclass(slots=True)
class AwsClients:
    """Clients of AWS, with botocore's usual credentials, endpoints and proxies."""

    _made: dict[tuple[str, str], Any] = field(default_factory=dict)
    _session: boto3.Session | None = None
    _lock: Lock = field(default_factory=Lock)

    def client(self, service: str, region: str) -> Any:
        """Raises AwsError."""
        with self._lock:
            if (service, region) not in self._made:
                with aws_errors(f"making a client for {service} in {region}"):
                    self._session = self._session or boto3.Session()
                    self._made[service, region] = self._session.client(
                        service, region_name=region, config=_config()
                    )
            return self._made[service, region]


@dataclass(frozen=True, slots=True)
class LocalClients:
    """Clients of the local engine, which has Lambda's API only, and the key of its home."""

    port: int
    access_key: str
    secret_key: str = field(repr=False)

    def client(self, service: str, region: str) -> Any:
        if service != "lambda":
            raise ValueError(f"the local engine has no {service} API")
        return boto3.client(
            "lambda",
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=_config(),
        )


def _config() -> Config:
    return Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
    )


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Turn botocore's exceptions into AwsError; `doing` is such as `creating f in us-east-1`."""
    failed = f"{doing} failed"
    try:
        yield
    except ClientError as error:
        raise _refused(failed, error) from None
    except (NoCredentialsError, PartialCredentialsError) as error:
        why = "there are no AWS credentials"
        if isinstance(error, PartialCredentialsError):
            why = f"the AWS credentials are incomplete: {error}"
        raise AwsError(f"{failed}: {why}", CREDENTIALS) from None
    except ProfileNotFound as error:
        raise AwsError(f"{failed}: {error}", CREDENTIALS) from None
    except (
        EndpointConnectionError,
        ConnectTimeoutError,
        ReadTimeoutError,
        ConnectionError,
        HTTPClientError,
    ) as error:
        raise AwsError(
            f"{failed}: {error}",
            "check that this machine has network access, and that AWS_ENDPOINT_URL is correct if"
            " it is set",
        ) from None
    except ResponseParserError as error:
        raise AwsError(
            f"{failed}: the server is not AWS: {str(error).partition(chr(10))[0]}",
            "check that AWS_ENDPOINT_URL is correct if it is set, and whether a proxy interferes",
        ) from None
    except BotoCoreError as error:
        raise AwsError(f"{failed}: {error}") from None


def _refused(failed: str, error: ClientError) -> AwsError:
    found = error.response.get("Error", {})
    code, message = str(found.get("Code", "")), str(found.get("Message", ""))
    sentence, remedy = f"{failed}: {code}: {message}".rstrip(": ."), ""
    if code in _DENIED:
        remedy = "grant your user this permission; mu doctor --policy prints what mu needs"
    elif code in _NO_KEYS:
        remedy = f"the access key belongs to another account, or was deleted: {CREDENTIALS}"
    elif code in _BAD_SECRET:
        remedy = f"the secret key is wrong, or this machine's clock is: {CREDENTIALS}"
    elif code in _EXPIRED:
        remedy = "get new credentials; if they are new, this machine's clock is wrong"
    return AwsError(sentence, remedy, code)
