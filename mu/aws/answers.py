"""What AWS's error answers mean: one table, by code.

The code decides and not the status: a throttled call may have status 400, 429 or 503, and a 502 may
stand for a zip that will never run. Only an unknown code is judged by its status.
"""

import email.utils
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

MODEL = "errors of Invoke in botocore 1.44.8's model of Lambda"
COMMON = "https://docs.aws.amazon.com/lambda/latest/api/CommonErrors.html"
RETRIED = "throttling and transient codes in botocore 1.44.8's retries/standard.py"
OTHER = "https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and STS's errors"
CLOCK_REMEDY = "synchronize it with NTP: timedatectl set-ntp true"
SKEW_S = 240
"""AWS refuses requests whose time is 5 minutes off; a Date header this far off explains it."""


class Kind(Enum):
    """What to do about an error."""

    BUSY = "throttled: nothing was started, try again more slowly"
    NOT_READY = "the function is not ready: try again after some seconds"
    AGAIN = "a fault of the service: try again"
    NEVER = "it will never succeed as it is"
    DENIED = "rights are missing"
    KEYS = "the credentials are wrong"
    EXPIRED = "the credentials have expired: try again with others"
    CLOCK = "this machine's clock is wrong"


PASSING = (Kind.BUSY, Kind.AGAIN)
"""Errors after which the same request may succeed, whatever it is."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A row of the table: what an error code means, and where AWS says so."""

    code: str
    status: int
    """The usual status, which the local engine's fault injection sends."""
    kind: Kind
    remedy: str
    source: str


_DEPLOY = "deploy the function again"
_KMS = "check the KMS key of the function's environment variables"
_VPC = "check the VPC settings of the function"
_EFS = "check the file system of the function: mu needs none"
_PREPARED = "AWS is preparing the function, which takes 1 to 2 minutes after weeks without use"
_BUSY = "AWS limits how fast functions and calls start"
_FAULT = "a fault on AWS's side"
_KEY = (
    "the access key belongs to another account, was deleted, or this region is not enabled for it"
)
_SECRET = "the secret key is wrong, or this machine's clock is"
_EXPIRED = "get new credentials"

TABLE = {
    row.code: row
    for row in (
        # Throttled
        Meaning("TooManyRequestsException", 429, Kind.BUSY, _BUSY, MODEL),
        Meaning("EC2ThrottledException", 502, Kind.BUSY, "EC2 limits Lambda's calls", MODEL),
        Meaning("ThrottlingException", 400, Kind.BUSY, _BUSY, COMMON),
        Meaning("Throttling", 400, Kind.BUSY, _BUSY, RETRIED),
        Meaning("ThrottledException", 400, Kind.BUSY, _BUSY, RETRIED),
        Meaning("RequestThrottledException", 400, Kind.BUSY, _BUSY, RETRIED),
        Meaning("RequestThrottled", 400, Kind.BUSY, _BUSY, RETRIED),
        Meaning("ProvisionedThroughputExceededException", 400, Kind.BUSY, _BUSY, RETRIED),
        Meaning("TransactionInProgressException", 400, Kind.BUSY, _BUSY, RETRIED),
        Meaning("RequestLimitExceeded", 503, Kind.BUSY, _BUSY, RETRIED),
        Meaning("BandwidthLimitExceeded", 509, Kind.BUSY, _BUSY, RETRIED),
        Meaning("LimitExceededException", 400, Kind.BUSY, _BUSY, RETRIED),
        Meaning("SlowDown", 503, Kind.BUSY, _BUSY, RETRIED),
        Meaning("PriorRequestNotComplete", 400, Kind.BUSY, _BUSY, RETRIED),
        # Not ready
        Meaning("ResourceConflictException", 409, Kind.NOT_READY, _PREPARED, MODEL),
        Meaning("CodeArtifactUserPendingException", 409, Kind.NOT_READY, _PREPARED, MODEL),
        Meaning("CodeArtifactUserDeletedException", 409, Kind.NOT_READY, _PREPARED, MODEL),
        Meaning("ResourceNotReadyException", 502, Kind.NOT_READY, _PREPARED, MODEL),
        Meaning("ENINotReadyException", 502, Kind.NOT_READY, _PREPARED, MODEL),
        Meaning("SnapStartNotReadyException", 409, Kind.NOT_READY, _PREPARED, MODEL),
        Meaning("SnapStartRegenerationFailureException", 409, Kind.NOT_READY, _PREPARED, MODEL),
        # Faults that pass
        Meaning("ServiceException", 500, Kind.AGAIN, _FAULT, MODEL),
        Meaning("EC2UnexpectedException", 502, Kind.AGAIN, _FAULT, MODEL),
        Meaning("SnapStartTimeoutException", 408, Kind.AGAIN, _FAULT, MODEL),
        Meaning("EFSMountTimeoutException", 408, Kind.AGAIN, _EFS, MODEL),
        Meaning("EFSMountConnectivityException", 408, Kind.AGAIN, _EFS, MODEL),
        Meaning("S3FilesMountTimeoutException", 408, Kind.AGAIN, _EFS, MODEL),
        Meaning("S3FilesMountConnectivityException", 408, Kind.AGAIN, _EFS, MODEL),
        Meaning("RequestTimeout", 400, Kind.AGAIN, _FAULT, RETRIED),
        Meaning("RequestTimeoutException", 400, Kind.AGAIN, _FAULT, RETRIED),
        Meaning("InternalFailure", 500, Kind.AGAIN, _FAULT, COMMON),
        Meaning("InternalError", 500, Kind.AGAIN, _FAULT, OTHER),
        Meaning("ServiceUnavailable", 503, Kind.AGAIN, _FAULT, COMMON),
        # Never
        Meaning("InvalidZipFileException", 502, Kind.NEVER, _DEPLOY, MODEL),
        Meaning("InvalidRuntimeException", 502, Kind.NEVER, f"{_DEPLOY}, with --runtime", MODEL),
        Meaning(
            "RuntimeVersionDeletedException", 409, Kind.NEVER, f"{_DEPLOY}, with --runtime", MODEL
        ),
        Meaning(
            "RuntimeAliasDeletedException", 409, Kind.NEVER, f"{_DEPLOY}, with --runtime", MODEL
        ),
        Meaning("CodeArtifactUserFailedException", 409, Kind.NEVER, _DEPLOY, MODEL),
        Meaning("NoPublishedVersionException", 400, Kind.NEVER, _DEPLOY, MODEL),
        Meaning("KMSAccessDeniedException", 502, Kind.NEVER, _KMS, MODEL),
        Meaning("KMSDisabledException", 502, Kind.NEVER, _KMS, MODEL),
        Meaning("KMSInvalidStateException", 502, Kind.NEVER, _KMS, MODEL),
        Meaning("KMSNotFoundException", 502, Kind.NEVER, _KMS, MODEL),
        Meaning("InvalidSubnetIDException", 502, Kind.NEVER, _VPC, MODEL),
        Meaning("InvalidSecurityGroupIDException", 502, Kind.NEVER, _VPC, MODEL),
        Meaning(
            "SubnetIPAddressLimitReachedException",
            502,
            Kind.NEVER,
            f"{_VPC}: its subnets are full",
            MODEL,
        ),
        Meaning(
            "ENILimitReachedException",
            502,
            Kind.NEVER,
            f"{_VPC}, or request a higher limit of network interfaces",
            MODEL,
        ),
        Meaning(
            "EC2AccessDeniedException",
            502,
            Kind.NEVER,
            "give the function's role the rights for its VPC: policy AWSLambdaVPCAccessExecutionRole",
            MODEL,
        ),
        Meaning("EFSMountFailureException", 403, Kind.NEVER, _EFS, MODEL),
        Meaning("EFSIOException", 410, Kind.NEVER, _EFS, MODEL),
        Meaning("S3FilesMountFailureException", 403, Kind.NEVER, _EFS, MODEL),
        Meaning(
            "SnapStartException",
            400,
            Kind.NEVER,
            "turn SnapStart off: mu's worker does not use it",
            MODEL,
        ),
        Meaning(
            "ModeNotSupportedException",
            400,
            Kind.NEVER,
            "the function must allow asynchronous invocations",
            MODEL,
        ),
        Meaning(
            "RecursiveInvocationException",
            400,
            Kind.NEVER,
            "AWS stopped a loop of functions that call one another",
            MODEL,
        ),
        Meaning(
            "DurableExecutionAlreadyStartedException",
            409,
            Kind.NEVER,
            "mu needs a function without DurableConfig",
            MODEL,
        ),
        Meaning(
            "ServiceQuotaExceededException",
            402,
            Kind.NEVER,
            "request an increase at Service Quotas",
            MODEL,
        ),
        Meaning(
            "ResourceNotFoundException",
            404,
            Kind.NEVER,
            "deploy the function {function!r}, or name another one",
            MODEL,
        ),
        Meaning("RequestTooLargeException", 413, Kind.NEVER, "make the job's event smaller", MODEL),
        Meaning(
            "SerializedRequestEntityTooLargeException",
            413,
            Kind.NEVER,
            "make the job's event smaller",
            MODEL,
        ),
        Meaning("InvalidParameterValueException", 400, Kind.NEVER, "", MODEL),
        Meaning("InvalidRequestContentException", 400, Kind.NEVER, "", MODEL),
        Meaning("UnsupportedMediaTypeException", 415, Kind.NEVER, "", MODEL),
        Meaning("ValidationException", 400, Kind.NEVER, "", COMMON),
        Meaning(
            "UnknownOperationException",
            404,
            Kind.NEVER,
            "the endpoint is not that of AWS Lambda",
            COMMON,
        ),
        # Rights
        Meaning("AccessDeniedException", 403, Kind.DENIED, "", COMMON),
        Meaning("AccessDenied", 403, Kind.DENIED, "", OTHER),
        Meaning("403", 403, Kind.DENIED, "", "what botocore makes of a HEAD without a body"),
        Meaning("NotAuthorized", 400, Kind.DENIED, "", COMMON),
        Meaning(
            "OptInRequired",
            403,
            Kind.DENIED,
            "enable the service or region in this account",
            COMMON,
        ),
        # Credentials
        Meaning("UnrecognizedClientException", 403, Kind.KEYS, _KEY, COMMON),
        Meaning("InvalidClientTokenId", 403, Kind.KEYS, _KEY, COMMON),
        Meaning("InvalidAccessKeyId", 403, Kind.KEYS, _KEY, OTHER),
        Meaning(
            "MissingAuthenticationTokenException",
            403,
            Kind.KEYS,
            "the request was not signed",
            COMMON,
        ),
        Meaning("MissingAuthenticationToken", 403, Kind.KEYS, "the request was not signed", COMMON),
        Meaning(
            "IncompleteSignature",
            400,
            Kind.KEYS,
            "a key has characters that do not belong there",
            COMMON,
        ),
        Meaning(
            "IncompleteSignatureException",
            400,
            Kind.KEYS,
            "a key has characters that do not belong there",
            COMMON,
        ),
        Meaning("InvalidSignatureException", 403, Kind.KEYS, _SECRET, COMMON),
        Meaning("SignatureDoesNotMatch", 403, Kind.KEYS, _SECRET, OTHER),
        Meaning("ExpiredTokenException", 403, Kind.EXPIRED, _EXPIRED, COMMON),
        Meaning("ExpiredToken", 400, Kind.EXPIRED, _EXPIRED, OTHER),
        Meaning("RequestExpired", 400, Kind.EXPIRED, _EXPIRED, COMMON),
        # The clock
        Meaning("RequestTimeTooSkewed", 403, Kind.CLOCK, CLOCK_REMEDY, OTHER),
    )
}
_ABOUT_TIME = ("InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired")
"""Codes that AWS also sends when a request's time is too far off its own."""
_TIMES = re.compile(r"(\d{8}T\d{6}Z) is .*\((\d{8}T\d{6}Z) [-+]")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]*)?")
_ACTION = re.compile(r"not authorized to perform: ([\w-]+:[\w*-]+)(?: on resource: (\S+))?")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as AWS sent it: its status, headers (names in lower case) and fields."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str]
    fields: Mapping[str, object]

    @classmethod
    def read(cls, status: int, headers: Mapping[str, str], body: bytes) -> "ErrorAnswer":
        """Read an answer of a JSON API; the code may be in a header or in the body."""
        fields = json_object(body)
        code = headers.get("x-amzn-errortype", "")
        code = code or str(fields.get("code") or fields.get("Code") or fields.get("__type") or "")
        code = code.partition(":")[0].rpartition("#")[2]
        message = str(fields.get("Message") or fields.get("message") or "")
        return cls(status, code, message or repr(body[:200]), headers, fields)

    def meaning(self, now: float) -> Meaning:
        """Return what it means; `now` is this machine's time, in seconds since the epoch."""
        known = TABLE.get(self.code)
        if known is None:
            return self._by_status()
        ahead = self.clock_ahead(now)
        if self.code in _ABOUT_TIME and ahead is not None and abs(ahead) > SKEW_S:
            return replace(known, kind=Kind.CLOCK, remedy=CLOCK_REMEDY)
        return known

    def _by_status(self) -> Meaning:
        kind, remedy = Kind.NEVER, ""
        if self.status == 429:
            kind, remedy = Kind.BUSY, _BUSY
        elif self.status in (408, 425) or self.status >= 500:
            kind, remedy = Kind.AGAIN, _FAULT
        elif self.status == 409:
            kind, remedy = Kind.NOT_READY, _PREPARED
        elif self.status in (401, 403):
            kind = Kind.DENIED
        elif self.status == 404:
            remedy = TABLE["ResourceNotFoundException"].remedy
        elif self.status == 407:
            remedy = (
                "the proxy wants a user and a password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
            )
        elif self.status < 400:
            where = self.headers.get("location")
            remedy = "this is not AWS Lambda: check the endpoint, and whether a proxy interferes"
            remedy += f" (it redirects to {where})" if where else ""
        return Meaning(self.code, self.status, kind, remedy, "the status")

    def clock_ahead(self, now: float) -> float | None:
        """Return by how many seconds this machine's clock is ahead of AWS's, if the answer says."""
        try:
            if times := _TIMES.search(self.message):
                ours, theirs = (
                    datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                    for time in times.groups()
                )
                return (ours - theirs).total_seconds()
            there = email.utils.parsedate_to_datetime(self.headers.get("date", ""))
            return now - there.timestamp()
        except (ValueError, TypeError):
            return None

    @property
    def wait_s(self) -> float | None:
        """How long to wait before a retry, if the answer says so."""
        wait = self.headers.get("retry-after") or str(self.fields.get("retryAfterSeconds", ""))
        return float(wait) if _SECONDS.fullmatch(wait) else None

    def missing_right(self, action: str = "this permission", resource: str = "") -> str:
        """Return which action on which resource is denied, or the given ones if AWS does not say."""
        if found := _ACTION.search(self.message):
            action = action if "*" in found[1] else found[1]
            resource = found[2] or resource
        right = f"{action} on {resource}" if resource else action
        if "explicit deny" in self.message:
            return f"a policy denies {right} explicitly: change that policy"
        return f"grant your user or role {right}"


def is_passing(response: Mapping[str, Any]) -> bool:
    """Whether an error in botocore's form is a fault that passes, so that a retry may help."""
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode", 400)
    return ErrorAnswer(status, code, "", {}, {}).meaning(0.0).kind in PASSING


def how_far(ahead: float) -> str:
    """Return words such as `601 s behind AWS's`."""
    return f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} AWS's"


def json_object(body: bytes) -> dict[str, object]:
    """Return the JSON object in a body, or an empty one if it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
