"""Credentials, endpoints, proxies and certificates as botocore has them, for all that speaks to AWS.

Everything here may block. What fails raises AwsTrouble, which names the profile and the remedy.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidRegionError,
    LoginError,
    MetadataRetrievalError,
    MissingDependencyException,
    PartialCredentialsError,
    ProfileNotFound,
    RefreshWithMFAUnsupportedError,
    SSOError,
    TokenRetrievalError,
)
from botocore.httpsession import get_cert_path
from botocore.session import Session

from mu.aws.answers import PASSING, ErrorAnswer, Kind
from mu.aws.proxies import is_loopback
from mu.aws.trouble import NO_CREDENTIALS, AwsTrouble

METADATA_URL = "http://169.254.169.254/"
VENDOR = Path("/sys/class/dmi/id/sys_vendor")
"""Says Amazon EC2 on instances of the Nitro system."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an API is, and for which region its requests are signed."""

    url: str
    region: str


def profile_of(session: Session) -> str:
    """Return the name of the profile in use."""
    return str(session.profile or "default")


def new_session(may_prompt: bool = True) -> Session:
    """Return a session of botocore. Without `may_prompt`, it never asks for an MFA code."""
    session = Session()
    if not may_prompt:
        with trouble_of(session):
            provider = session.get_component("credential_provider").get_provider("assume-role")
            provider._prompter = _no_prompt
    return session


def _no_prompt(prompt: str) -> str:
    raise RefreshWithMFAUnsupportedError


def find_keys(session: Session) -> ReadOnlyCredentials | None:
    """Return the credentials to sign with now, or None if there are none. Raises AwsTrouble."""
    with trouble_of(session):
        credentials = session.get_credentials()
        if credentials is None and _metadata_is_away(session):
            raise AwsTrouble(
                "the metadata service of this instance, which gives out its role's credentials,"
                " cannot be reached",
                "check its network",
                passing=True,
            )
        return None if credentials is None else credentials.get_frozen_credentials()


def _metadata_is_away(session: Session) -> bool:
    """Whether this is an EC2 instance whose metadata service does not answer.

    botocore finds no credentials then, as on a machine that has none.
    """
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    url = session.get_config_variable("ec2_metadata_service_endpoint")
    if not url and not _is_instance():
        return False
    parts = urlsplit(url or METADATA_URL)
    try:
        socket.create_connection((parts.hostname, parts.port or 80), 1.0).close()
    except OSError:
        return True
    return False


def _is_instance() -> bool:
    """Whether this machine is an EC2 instance, by its vendor."""
    try:
        return "Amazon EC2" in VENDOR.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


@contextmanager
def trouble_of(session: Session) -> Iterator[None]:
    """Turn all that botocore raises about credentials and configuration into AwsTrouble."""
    try:
        yield
    except AwsTrouble:
        raise
    except Exception as error:
        raise explain(error, session) from error


def explain(error: Exception, session: Session) -> AwsTrouble:
    """Return what an exception of botocore's credentials or configuration means."""
    name = "default"
    with suppress(Exception):  # the name itself may be what is wrong
        name = profile_of(session)
    profile = f"profile {name!r}"
    option = "" if name == "default" else f" --profile {name}"
    text = " ".join(str(error).split())
    match error:
        case ProfileNotFound():
            return AwsTrouble(f"there is no {profile} in {_files()}", _other_profiles(session))
        case ConfigParseError() | ConfigNotFound() | UnicodeDecodeError():
            return AwsTrouble(f"cannot read {_files()}: {text}", "correct the file")
        case PartialCredentialsError():
            return AwsTrouble(
                f"the credentials of {profile} are incomplete: {text}", NO_CREDENTIALS
            )
        case SSOError() | TokenRetrievalError():
            said = f"the single sign-on of {profile} is not valid: {text}"
            return AwsTrouble(said, f"run aws sso login{option} as the user who runs mu")
        case LoginError():
            said = f"the login of {profile} is not valid: {text}"
            return AwsTrouble(said, f"run aws login{option} as the user who runs mu")
        case MissingDependencyException():
            said = f"{profile} needs a library that is not installed: {text}"
            return AwsTrouble(said, "pip install 'botocore[crt]' where mu is installed")
        case RefreshWithMFAUnsupportedError():
            return AwsTrouble(
                f"{profile} needs an MFA code, which cannot be asked for here",
                "use a profile without mfa_serial, or give mu the keys of a session that has begun:"
                f" aws configure export-credentials{option} --format env",
            )
        case ClientError():
            return _refused(error, profile)
        case CredentialRetrievalError() if "custom-process" in text:
            said = f"the credential_process of {profile} failed: {text}"
            return AwsTrouble(said, "run that command by hand, as the user who runs mu")
        case CredentialRetrievalError() | MetadataRetrievalError():
            said = f"the credentials of {profile} could not be retrieved: {text}"
            return AwsTrouble(said, "check the service that issues them", passing=True)
        case ConnectionError() | HTTPClientError():
            said = f"the credentials of {profile} could not be retrieved: {text}"
            return AwsTrouble(said, "check that this machine has network access", passing=True)
        case InvalidRegionError():
            return AwsTrouble(text, "name regions as AWS does, such as eu-central-1")
        case BotoCoreError():
            return AwsTrouble(f"the configuration of {profile} is wrong: {text}", f"see {_files()}")
        case OSError():
            said = f"the credential_process or a file of {profile} cannot be used: {text}"
            return AwsTrouble(said, f"see {_files()}")
        case ValueError():
            said = f"the credential_process or a file of {profile} has no valid content: {text}"
            return AwsTrouble(said, f"see {_files()}")
    said = f"the credentials of {profile} cannot be used: {type(error).__name__}: {text}"
    return AwsTrouble(said, f"see {_files()}")


def _refused(error: Any, profile: str) -> AwsTrouble:
    """A refusal of the service that issues credentials: STS, or IAM Identity Center."""
    found, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, message = str(found.get("Code", "")), str(found.get("Message", ""))
    answer = ErrorAnswer(metadata.get("HTTPStatusCode", 400), code, message, {}, {})
    meaning = answer.meaning(0.0)
    said = f"{profile} gets no credentials from {error.operation_name}: {code}: {message}"
    remedy = meaning.remedy or f"check its role and source profile in {_files()}"
    if meaning.kind is Kind.DENIED:
        remedy = f"{answer.missing_right()}, and check that the role's trust policy allows it"
    return AwsTrouble(said, remedy, meaning.kind in PASSING)


def _files() -> str:
    config = os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config"
    keys = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    return f"{config} or {keys}"


def _other_profiles(session: Session) -> str:
    names: list[str] = []
    with suppress(Exception):
        names = sorted(session.available_profiles)
    return f"set AWS_PROFILE to {', '.join(names)}" if names else "create it with aws configure"


# ------------------------------------------------ endpoints


def lambda_endpoint(session: Session, region: str) -> Endpoint:
    """Return the endpoint that botocore would send an Invoke to. Raises AwsTrouble.

    botocore decides: by partition, FIPS, dual stack, endpoint_url and [services]. It is asked to
    invoke a function, without a signature, and stopped before it sends.
    """
    url, signed_for = "", region

    def stop(request: Any, **_: object) -> Any:
        nonlocal url
        url = request.url
        return AWSResponse(request.url, 202, {}, None)

    def see(region_name: str, context: Any, **_: object) -> None:
        nonlocal signed_for
        signed_for = context.get("signing", {}).get("region") or region_name

    with trouble_of(session):
        config = Config(signature_version=UNSIGNED, proxies={})
        client = session.create_client("lambda", region_name=region, config=config)
        client.meta.events.register("choose-signer.lambda.Invoke", see)
        client.meta.events.register("before-send.lambda.Invoke", stop)
        client.invoke(FunctionName="f", InvocationType="Event")
    return Endpoint(url.partition("/2015-03-31/")[0], signed_for)


@cache
def partition_of(region: str) -> str:
    """Return the partition of a region, such as aws-cn; `aws` if botocore does not know the region."""
    try:
        return str(Session().get_partition_for_region(region))
    except Exception:  # unknown, or a broken configuration, which the first call will report
        return "aws"


# ------------------------------------------------ certificates


def roots_of(session: Session) -> tuple[str, bytes]:
    """Return the certificates to trust, as PEM, and their file. Raises AwsTrouble.

    The file is that of AWS_CA_BUNDLE, `ca_bundle` in the profile, or REQUESTS_CA_BUNDLE; else the
    roots that come with botocore.
    """
    with trouble_of(session):
        path = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    path = str(path or get_cert_path(True))
    try:
        with open(path, "rb") as file:
            return path, file.read()
    except OSError as error:
        said = f"cannot read the certificates of AWS_CA_BUNDLE or ca_bundle, {path}"
        raise AwsTrouble(
            f"{said}: {error.strerror}", "name a file with certificates in PEM"
        ) from None


# ------------------------------------------------ clients


def make_client(
    session: Any, service: str, region: str | None, config: Config, url: str | None = None
) -> BaseClient:
    """Return a client of a boto3 or botocore session, which uses no proxy for this machine itself.

    `url` replaces the endpoint. Raises botocore's exceptions.
    """
    make: Callable[..., Any] = getattr(session, "create_client", None) or session.client
    client = make(service, region_name=region, config=config, endpoint_url=url)
    if is_loopback(urlsplit(client.meta.endpoint_url).hostname or ""):
        config = config.merge(Config(proxies={}))
        return make(service, region_name=region, config=config, endpoint_url=url)
    return client


def bucket_region(client: BaseClient, bucket: str) -> str | None:
    """Return a bucket's region, or None if S3 does not say it. Raises botocore's exceptions.

    S3 names it in its refusals, too, so no right is needed.
    """
    try:
        head = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        head = error.response
    found = head.get("BucketRegion")
    headers = head.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = found or headers.get("x-amz-bucket-region")
    return str(region) if region else None
