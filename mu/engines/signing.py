"""AWS Signature Version 4 for small requests; the signing key is derived once a day.

botocore's own signer takes ten times as long (bench/launch.py); the tests compare the two
signatures. The algorithm: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

import hashlib
import hmac
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys that sign requests; only temporary credentials have a `token`."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class Signer:
    """Signs requests to one host in one region with one set of credentials.

    `headers` are sent and signed in addition to those that the signature requires.
    """

    def __init__(
        self,
        credentials: Credentials,
        service: str,
        region: str,
        host: str,
        headers: dict[str, str],
    ) -> None:
        self._credentials = credentials
        self._service = service
        self._region = region
        fixed = {"host": host, **{name.lower(): value for name, value in headers.items()}}
        if credentials.token:
            fixed["x-amz-security-token"] = credentials.token
        names = sorted([*fixed, "x-amz-date"])
        self._signed = ";".join(names)
        self._canonical = "".join(f"{name}:{fixed.get(name, '{date}')}\n" for name in names)
        self._sent = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
        self._day = ""
        self._scope = ""
        self._key = b""

    def head(self, path: str, payload: bytes, now: float, method: str = "POST") -> bytes:
        """Return the request line and headers.

        `path` is percent-encoded once; `now` is in seconds since the epoch.
        """
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        self._derive(date[:8])
        request = (
            f"{method}\n{path.replace('%', '%25')}\n\n{self._canonical.replace('{date}', date)}"
            f"\n{self._signed}\n{hashlib.sha256(payload).hexdigest()}"
        )
        to_sign = (
            f"AWS4-HMAC-SHA256\n{date}\n{self._scope}\n"
            f"{hashlib.sha256(request.encode('utf-8')).hexdigest()}"
        )
        signature = _hmac(self._key, to_sign).hex()
        return (
            f"{method} {path} HTTP/1.1\r\n{self._sent}x-amz-date: {date}\r\n"
            f"authorization: AWS4-HMAC-SHA256 Credential={self._credentials.access_key}/{self._scope},"
            f" SignedHeaders={self._signed}, Signature={signature}\r\n"
            f"content-length: {len(payload)}\r\n\r\n"
        ).encode()

    def _derive(self, day: str) -> None:
        if day == self._day:
            return
        self._day = day
        self._scope = f"{day}/{self._region}/{self._service}/aws4_request"
        self._key = derive_key(self._credentials.secret_key, day, self._region, self._service)


def derive_key(secret_key: str, day: str, region: str, service: str) -> bytes:
    """Return the key that signs the requests of a day (YYYYMMDD) to one service in one region."""
    key = _hmac(b"AWS4" + secret_key.encode("utf-8"), day)
    for part in (region, service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode("utf-8"), "sha256")
