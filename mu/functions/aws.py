"""Clients of AWS, or of the local engine, and their errors as sentences."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from json import JSONDecodeError
from threading import Lock
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from mu.aws.answers import ErrorAnswer, Kind, how_far
from mu.aws.s3 import FROM_ENVIRONMENT, S3Place
from mu.aws.sessions import (
    explain,
    find_keys,
    make_client,
    new_session,
    trouble_of,
)
from mu.aws.trouble import NO_CREDENTIALS, AwsTrouble

CREDENTIALS = NO_CREDENTIALS
POLICY = "mu doctor --policy deploy --function NAME --bucket NAME --role ARN"
_ISSUING = ("AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken")
"""Calls of botocore's own, for credentials; their failures concern the profile."""
_CONNECT_S, _READ_S, _TRIES = 10, 300, 6


class AwsError(Exception):
    """A call that failed: what happened, a remedy if there is one, AWS's error code and its kind.

    Kind.AGAIN also means that AWS could not be reached. None: it is no answer of AWS.
    """

    def __init__(
        self, sentence: str, remedy: str = "", code: str = "", kind: Kind | None = None
    ) -> None:
        super().__init__(f"{sentence}: {remedy}" if remedy else sentence)
        self.sentence = sentence
        self.remedy = remedy
        self.code = code
        self.kind = kind


@dataclass(slots=True)
class AwsClients:
    """Clients of AWS, with botocore's usual credentials, endpoints and proxies.

    Without `may_prompt`, nobody is asked for an MFA code. `s3` is where S3 is, and with which profile.
    """

    may_prompt: bool = True
    s3: S3Place = FROM_ENVIRONMENT
    _made: dict[tuple[str, str], Any] = field(default_factory=dict)
    _session: boto3.Session | None = None
    _lock: Lock = field(default_factory=Lock)

    def client(self, service: str, region: str) -> Any:
        """Raises AwsError."""
        with self._lock:
            if (service, region) not in self._made:
                with aws_errors(f"making a client for {service} in {region}"):
                    self._made[service, region] = self._make(service, region)
            return self._made[service, region]

    def _make(self, service: str, region: str) -> Any:
        if service == "s3" and self.s3 != FROM_ENVIRONMENT:
            return self.s3.client(
                self.s3.session(),
                self.s3.region or region,
                connect_timeout=_CONNECT_S,
                read_timeout=_READ_S,
            )
        self._session = self._session or _new_session(self.may_prompt)
        return make_client(self._session, service, region, _config())


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
            config=_config().merge(Config(proxies={})),
        )


def _new_session(may_prompt: bool) -> boto3.Session:
    """Return a session whose credentials, if there are any, have been found. Raises AwsTrouble."""
    core = new_session(may_prompt)
    find_keys(core)
    with trouble_of(core):
        return boto3.Session(botocore_session=core)


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
    except AwsTrouble as trouble:
        raise AwsError(f"{failed}: {trouble.sentence}", trouble.remedy) from None
    except ClientError as error:
        if error.operation_name in _ISSUING:
            raise _not_issued(failed, error) from None
        raise _refused(failed, error) from None
    except Boto3Error as error:  # upload_file hides S3's answer behind an error of its own
        if isinstance(error.__context__, ClientError):
            raise _refused(failed, error.__context__) from None
        raise AwsError(f"{failed}: {error}") from None
    except NoCredentialsError:
        raise AwsError(f"{failed}: there are no AWS credentials", CREDENTIALS) from None
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
            kind=Kind.AGAIN,
        ) from None
    except ResponseParserError as error:
        raise AwsError(
            f"{failed}: the server is not AWS: {str(error).partition(chr(10))[0]}",
            "check that AWS_ENDPOINT_URL is correct if it is set, and whether a proxy interferes",
        ) from None
    except (ParamValidationError, InvalidRegionError) as error:
        raise AwsError(f"{failed}: {error}") from None
    except (BotoCoreError, OSError, JSONDecodeError) as error:  # of a refresh of the credentials
        raise _not_issued(failed, error) from None


def _not_issued(failed: str, error: Exception) -> AwsError:
    """What botocore needs for itself failed, such as the credentials of the profile."""
    trouble = explain(error, new_session())
    return AwsError(f"{failed}: {trouble.sentence}", trouble.remedy)


def _refused(failed: str, error: ClientError) -> AwsError:
    found = error.response.get("Error", {})
    code, message = str(found.get("Code", "")), str(found.get("Message", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status, headers = metadata.get("HTTPStatusCode", 400), metadata.get("HTTPHeaders", {})
    answer = ErrorAnswer(status, code, message, headers, {})
    meaning, now = answer.meaning(time.time()), time.time()
    sentence, remedy = f"{failed}: {code}: {message}".rstrip(": ."), ""
    match meaning.kind:
        case Kind.DENIED:
            remedy = f"{meaning.remedy or answer.missing_right()}; {POLICY} prints the policy"
        case Kind.KEYS:
            remedy = f"{meaning.remedy}: {CREDENTIALS}"
        case Kind.CLOCK:
            ahead = answer.clock_ahead(now)
            sentence += f" (this machine's clock is {how_far(ahead)})" if ahead else ""
            remedy = meaning.remedy
        case Kind.EXPIRED:
            remedy = "get new credentials; if they are new, this machine's clock is wrong"
    if "MemorySize" in message and "less than or equal to" in message:
        remedy = (
            "this account allows less memory, as new accounts do: use --memory with less, or ask AWS"
            " Support for more"
        )
    return AwsError(sentence, remedy, code, meaning.kind)
