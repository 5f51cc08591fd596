"""The Lambda Invoke API, of AWS or of the local engine: signed requests on kept-alive connections."""

import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path
from botocore.session import Session
from twisted.internet import ssl
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.threads import deferToThread

from mu.engines.connections import Connections, NoAnswer, NotSent, Origin, Response
from mu.engines.signing import Signer
from mu.invocations import (
    Accepted,
    Answer,
    Invocation,
    Refused,
    Size,
    Throttled,
    Unknown,
    Unreached,
)
from mu.plugins import Engine

FUNCTION_PATH = "/2015-03-31/functions/{}/"
CREDENTIALS_S = 60.0
EVENT_LIMIT = 2**20
"""The largest event, in bytes, that an asynchronous invocation takes."""
HEADERS = {"Content-Type": "application/json", "X-Amz-Invocation-Type": "Event"}
EXPIRED = ("ExpiredTokenException", "ExpiredToken", "RequestExpired")


class LambdaEngine(Engine):
    """Starts workers by asynchronous invocations of a Lambda function.

    `endpoint(region)` gives the API's base URL, `credentials(expired)` (may block, runs in a
    thread) what requests are signed with, other than those that have expired, or None where there
    is nothing.
    """

    def __init__(
        self,
        name: str,
        reactor: Any,
        endpoint: Callable[[str], str],
        credentials: Callable[[Any], Any],
        timeout_s: float,
    ) -> None:
        self.name = name
        self._reactor = reactor
        self._endpoint = endpoint
        self._find_credentials = credentials
        self._credentials: Any = None
        self._expired: Any = None
        self._found_at = 0.0
        self._finding = DeferredLock()
        self._connections = Connections(reactor, timeout_s)
        self._regions: dict[str, tuple[Origin, Signer, str]] = {}
        self._paths: dict[str, str] = {}
        self._tls: dict[str, Any] = {}

    def launch(self, invocation: Invocation) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._launch(invocation))

    def cancel(self, job_id: str) -> Deferred[None]:
        """Nothing: Lambda cannot be told. A worker that comes later is told to quit."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Close the kept connections."""
        return self._connections.close()

    def size(self, function: str, region: str) -> Deferred[Size | str]:
        """Return what a function's price depends on, or why that is not known."""
        return Deferred.fromCoroutine(self._size(function, region))

    async def _size(self, function: str, region: str) -> Size | str:
        try:
            await self._refresh_credentials()
            if self._credentials is None:
                return "there are no AWS credentials"
            origin, signer, base = self._region(region)
            path = base + self._path(function) + "configuration"
            head = signer.head(path, b"", self._reactor.seconds(), "GET")
            response = await self._connections.ask(origin, head)
            told = _object(response.body)
            if response.status != 200:
                return f"{response.status}: {told.get('Message') or told.get('message') or ''}"
            return Size(int(told["MemorySize"]), str((told.get("Architectures") or ["x86_64"])[0]))
        except (BotoCoreError, NotSent, NoAnswer, KeyError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    async def _launch(self, invocation: Invocation) -> Answer:
        if len(invocation.payload) > EVENT_LIMIT:
            return Refused(
                f"the event has {len(invocation.payload)} bytes, Lambda takes {EVENT_LIMIT}: pass"
                " less in the order's event, and large input by S3"
            )
        try:
            await self._refresh_credentials()
        except BotoCoreError as error:
            return Refused(f"the AWS credentials cannot be read: {error}")
        if self._credentials is None:
            return Refused(
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or run aws configure, where the daemon runs"
            )
        origin, signer, base = self._region(invocation.region)
        path = base + self._path(invocation.function) + "invocations"
        head = signer.head(path, invocation.payload, self._reactor.seconds())
        used = self._credentials
        try:
            response = await self._connections.ask(origin, head + invocation.payload)
        except NotSent as error:
            return Unreached(
                f"the {self.name} engine at {self._endpoint(invocation.region)} cannot be reached:"
                f" {error}; see whether it runs there and the network lets this machine through"
            )
        except NoAnswer as error:  # it may have been taken: its launch id will tell
            return Unknown(f"{self.name} engine at {origin}: {error}")
        answer = _answer(response, invocation)
        expired = isinstance(answer, Throttled) and answer.reason.startswith(EXPIRED)
        if expired and self._credentials == used:
            self._expired, self._credentials = used, None
        return answer

    def _path(self, function: str) -> str:
        path = self._paths.get(function)
        if path is None:
            path = self._paths[function] = FUNCTION_PATH.format(quote(function, safe=""))
        return path

    def _region(self, region: str) -> tuple[Origin, Signer, str]:
        known = self._regions.get(region)
        if known is None:
            url = urlsplit(self._endpoint(region))
            host = url.hostname or ""
            port = url.port or (443 if url.scheme == "https" else 80)
            tls = (lambda: self._tls_options(host)) if url.scheme == "https" else None
            signer = Signer(self._credentials, "lambda", region, url.netloc, HEADERS)
            known = self._regions[region] = Origin(host, port, tls), signer, url.path.rstrip("/")
        return known

    def _tls_options(self, host: str) -> Any:
        """Trust what boto3 trusts: AWS_CA_BUNDLE, or the roots that come with botocore."""
        options = self._tls.get(host)
        if options is None:
            options = self._tls[host] = ssl.optionsForClientTLS(host, trustRoot=_roots())
        return options

    async def _refresh_credentials(self) -> None:
        """Ask for them again after a while, so that they are refreshed before they expire."""
        if self._are_fresh:
            return
        await self._finding.acquire()
        try:
            if self._are_fresh:  # somebody else asked meanwhile
                return
            found = await deferToThread(self._find_credentials, self._expired)
            if found != self._credentials:
                self._regions.clear()
            self._credentials, self._found_at = found, self._reactor.seconds()
        finally:
            self._finding.release()

    @property
    def _are_fresh(self) -> bool:
        age = self._reactor.seconds() - self._found_at
        return self._credentials is not None and age <= CREDENTIALS_S


def _roots() -> Any:
    path = os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True)
    with open(path, "rb") as file:
        ends = file.read().split(b"-----END CERTIFICATE-----")
    return ssl.trustRootFromCertificates(
        [ssl.Certificate.loadPEM(one + b"-----END CERTIFICATE-----\n") for one in ends[:-1]]
    )


def aws_endpoint(region: str) -> str:
    """Return the API's URL; the environment may name another one, as botocore has it."""
    for name in ("AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    return f"https://lambda.{region}.amazonaws.com"


def aws_credentials() -> Callable[[Any], Any]:
    """Return a finder of credentials by botocore's usual chain, which refreshes them in time."""
    session = Session()

    def find(expired: Any) -> Any:
        nonlocal session
        found = _frozen(session)
        if found is not None and found == expired:  # sooner than was said
            session = Session()
            found = _frozen(session)
        return found

    return find


def _frozen(session: Session) -> Any:
    credentials = session.get_credentials()
    return credentials.get_frozen_credentials() if credentials else None


def local_credentials(expired: Any) -> Credentials:
    """What the local engine is asked with: it wants a signature, but knows no keys."""
    return Credentials("local", "local")


def _answer(response: Response, invocation: Invocation) -> Answer:
    if response.status == 202:
        return Accepted()
    told = _object(response.body)
    message = told.get("Message") or told.get("message") or repr(response.body[:200])
    kind = response.headers.get("x-amzn-errortype", "").split(":")[0]
    sentence = f"{kind or response.status}: {message}"
    if response.status == 429:
        wait = response.headers.get("retry-after") or str(told.get("retryAfterSeconds", ""))
        wait_s = float(wait) if wait.replace(".", "", 1).isdigit() else None
        return Throttled(f"{told.get('Reason', '')} {sentence}".strip(), wait_s)
    if response.status >= 500 or sentence.startswith(EXPIRED):
        return Throttled(
            sentence
        )  # if it was taken all the same, its second worker is told to quit
    if response.status == 404:
        sentence += f" (deploy the function {invocation.function!r}, or name another one)"
    if response.status in (401, 403):
        sentence += (
            " (the role or user of the daemon needs lambda:InvokeFunction on it; mu doctor tells)"
        )
    return Refused(sentence)


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
