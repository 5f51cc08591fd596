"""Clients of AWS's management APIs, or of the local engine's, and what goes wrong there in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol

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
    """A call that failed: what came, what to do, and AWS's word for it, or nothing."""

    def __init__(self, sentence: str, remedy: str = "", code: str = "") -> None:
        super().__init__(f"{sentence}: {remedy}" if remedy else sentence)
        self.sentence = sentence
        self.remedy = remedy
        self.code = code


class Clients(Protocol):
    """boto3's clients, by service and region."""

    def client(self, service: str, region: str) -> Any: ...


@dataclass(slots=True)
class Aws:
    """Clients by botocore's usual chain of credentials, endpoints and proxies."""

    _made: dict[tuple[str, str], Any] = field(default_factory=dict)
    _session: Any = None
    _lock: Any = field(default_factory=Lock)

    def client(self, service: str, region: str) -> Any:
        """Raises AwsError."""
        with self._lock:
            if (service, region) not in self._made:
                with told(f"{service} in {region}"):
                    self._session = self._session or boto3.Session()
                    self._made[service, region] = self._session.client(
                        service, region_name=region, config=_config()
                    )
            return self._made[service, region]


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """The clients of a local engine, which has Lambda's API alone."""

    port: int

    def client(self, service: str, region: str) -> Any:
        if service != "lambda":
            raise ValueError(f"the local engine has no {service}")
        return boto3.client(
            "lambda",
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=_config(),
        )


def _config() -> Config:
    return Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
    )


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn botocore's exceptions into AwsError; `what` was being done, or asked."""
    try:
        yield
    except ClientError as error:
        raise _refused(what, error) from None
    except (NoCredentialsError, PartialCredentialsError) as error:
        why = "there are no AWS credentials"
        if isinstance(error, PartialCredentialsError):
            why = f"the AWS credentials are not whole: {error}"
        raise AwsError(f"{what}: {why}", CREDENTIALS) from None
    except ProfileNotFound as error:
        raise AwsError(f"{what}: {error}", CREDENTIALS) from None
    except (
        EndpointConnectionError,
        ConnectTimeoutError,
        ReadTimeoutError,
        ConnectionError,
        HTTPClientError,
    ) as error:
        raise AwsError(
            f"{what}: {error}",
            "see whether the network lets this machine through, and whether AWS_ENDPOINT_URL is"
            " set and right",
        ) from None
    except ResponseParserError as error:
        raise AwsError(
            f"{what}: what answers there is not AWS: {str(error).partition(chr(10))[0]}",
            "see whether AWS_ENDPOINT_URL is set and right, and whether a proxy is in between",
        ) from None
    except BotoCoreError as error:
        raise AwsError(f"{what}: {error}") from None


def _refused(what: str, error: ClientError) -> AwsError:
    told = error.response.get("Error", {})
    code, message = str(told.get("Code", "")), str(told.get("Message", ""))
    sentence, remedy = f"{what}: {code}: {message}".rstrip(": ."), ""
    if code in _DENIED:
        remedy = "let your user do that; mu doctor --policy prints what it needs"
    elif code in _NO_KEYS:
        remedy = f"the access key is not this account's, or was deleted: {CREDENTIALS}"
    elif code in _BAD_SECRET:
        remedy = f"the secret key does not fit, or this clock is wrong: {CREDENTIALS}"
    elif code in _EXPIRED:
        remedy = "get new credentials; or this clock is wrong"
    return AwsError(sentence, remedy, code)
