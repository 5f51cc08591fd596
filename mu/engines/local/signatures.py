"""Verifies the signatures of requests to the engine (AWS Signature Version 4).

The algorithm: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html. A signature
must cover the host, the date, all x-amz- headers and the body, and be at most 15 minutes old.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from mu.engines.local.errors import LambdaError
from mu.engines.signing import Credentials, derive_key

SKEW_S = 15 * 60
"""How far the date of a request may be from the engine's clock, in seconds."""
KEYS_KEPT = 64
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^,/ ]+)/(\d{8})/([a-z0-9-]+)/lambda/aws4_request"
    r",\s*SignedHeaders=([a-z0-9;-]+),\s*Signature=([0-9a-f]{64})"
)
_DATE = re.compile(r"\d{8}T\d{6}Z")

Headers = Callable[[str], Sequence[str]]
"""Returns all values of a header, by its name in lower case."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What an Authorization header says. Not verified."""

    access_key: str
    day: str
    region: str
    signed: tuple[str, ...]
    signature: str


def read_signature(authorization: str) -> Signature:
    """Parse an Authorization header. Raises LambdaError."""
    if not authorization:
        raise LambdaError(
            403, "MissingAuthenticationTokenException", "Missing Authentication Token"
        )
    match = _AUTHORIZATION.fullmatch(authorization.strip())
    if match is None:
        why = "Authorization must be AWS4-HMAC-SHA256 with Credential=KEY/DATE/REGION/lambda/aws4_request"
        raise LambdaError(
            403, "IncompleteSignatureException", f"{why}, SignedHeaders=... and Signature=..."
        )
    key, day, region, signed, signature = match.groups()
    return Signature(key, day, region, tuple(signed.split(";")), signature)


class Verifier:
    """Checks that requests are signed with our key; `now` returns the time since the epoch.

    `find_key` reads the key again when a request names another one, which may have replaced ours
    while the engine was running; it returns None if there is none.
    """

    def __init__(
        self, find_key: Callable[[], Credentials | None], now: Callable[[], float]
    ) -> None:
        self._find_key, self._now = find_key, now
        self._key = find_key()
        self._derived: dict[tuple[str, str], bytes] = {}

    def verify(
        self,
        given: Signature,
        method: str,
        uri: str,
        names: Sequence[str],
        headers: Headers,
        body: bytes,
    ) -> None:
        """Raises LambdaError, in AWS's words, if the request is not signed with our key.

        `uri` is the path and query as they were sent; `names` are the names of all headers.
        """
        key = self._key
        if key is None or key.access_key != given.access_key:
            key = self._key = self._find_key()
            self._derived.clear()
        if key is None or key.access_key != given.access_key:
            raise LambdaError(
                403,
                "UnrecognizedClientException",
                "The security token included in the request is invalid: this local engine accepts"
                " the key of its own home only, which `mu keys local` prints",
            )
        for name in names:
            if name.startswith("x-amz-") and name not in given.signed:
                raise _invalid(f"'{name}' must be a signed header")
        for name in ("host", "x-amz-date"):
            if name not in given.signed:
                raise _invalid(f"'{name}' must be a 'SignedHeader' in the AWS Authorization")
        date = "".join(headers("x-amz-date"))
        self._check_date(date, given)
        hashed = hashlib.sha256(body).hexdigest()
        stated = headers("x-amz-content-sha256")
        if stated and list(stated) != [hashed]:
            raise _invalid("x-amz-content-sha256 is not the SHA-256 of the body")
        path, _, query = uri.partition("?")
        canonical = "".join(
            f"{name}:{','.join(' '.join(value.split()) for value in headers(name))}\n"
            for name in given.signed
        )
        request = (
            f"{method}\n{quote(path or '/', safe='/~')}\n{_canonical_query(query)}\n{canonical}\n"
            f"{';'.join(given.signed)}\n{hashed}"
        )
        scope = f"{given.day}/{given.region}/lambda/aws4_request"
        digest = hashlib.sha256(request.encode("utf-8", "surrogateescape")).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}"
        derived = self._derive(key, given.day, given.region)
        expected = hmac.digest(derived, to_sign.encode(), "sha256").hex()
        if not hmac.compare_digest(expected, given.signature):
            raise _invalid(
                "The request signature we calculated does not match the signature you provided."
                " Check your AWS Secret Access Key and signing method. Consult the service"
                " documentation for details."
            )

    def _check_date(self, date: str, given: Signature) -> None:
        try:
            if not _DATE.fullmatch(date):
                raise ValueError
            signed_at = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
        except ValueError:
            raise _invalid(
                "Date must be in ISO-8601 'basic format', like 20261127T190000Z, in x-amz-date"
            ) from None
        if date[:8] != given.day:
            raise _invalid("Date in Credential scope does not match YYYYMMDD from x-amz-date")
        now = self._now()
        if signed_at < now - SKEW_S:
            limit = f"{_basic(now - SKEW_S)} ({_basic(now)} - 15 min.)"
            raise _invalid(f"Signature expired: {date} is now earlier than {limit}")
        if signed_at > now + SKEW_S:
            limit = f"{_basic(now + SKEW_S)} ({_basic(now)} + 15 min.)"
            raise _invalid(f"Signature not yet current: {date} is still later than {limit}")

    def _derive(self, key: Credentials, day: str, region: str) -> bytes:
        derived = self._derived.get((day, region))
        if derived is None:
            if len(self._derived) >= KEYS_KEPT:
                self._derived.clear()
            derived = derive_key(key.secret_key, day, region, "lambda")
            self._derived[day, region] = derived
        return derived


def _canonical_query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    encoded = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def _basic(at: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))


def _invalid(message: str) -> LambdaError:
    return LambdaError(403, "InvalidSignatureException", message)
