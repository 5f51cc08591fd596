"""Invokes functions on AWS Lambda, or on the local engine, which has the same API."""

import json
import os
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote, urlsplit

from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path
from botocore.session import Session
from twisted.internet import ssl
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.threads import deferToThread

from mu.engines.connections import Connections, NoAnswer, NotSent, Origin, Response
from mu.engines.reactors import IClientReactor
from mu.engines.signing import Credentials, Signer
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
CONCURRENCY_PATH = "/2019-09-30/functions/{}/concurrency"
ACCOUNT_PATH = "/2016-08-19/account-settings"
CREDENTIALS_S = 60.0
"""How often credentials are looked up again, so that they are refreshed in time."""
EVENT_LIMIT = 2**20
"""Maximum event size of an asynchronous invocation, in bytes."""
HEADERS = {"Content-Type": "application/json", "X-Amz-Invocation-Type": "Event"}
EXPIRED = ("ExpiredTokenException", "ExpiredToken", "RequestExpired")


class FindCredentials(Protocol):
    """Returns the credentials to sign with, or None if there are none. May block."""

    def __call__(self, expired: Credentials | None) -> Credentials | None:
        """`expired` are credentials that AWS has just rejected as expired: return other ones."""


class LambdaEngine(Engine):
    """Starts workers by asynchronous invocations of a Lambda function.

    `endpoint(region)` returns the base URL of the API; `find_credentials` runs in a thread.
    A request fails after `timeout_s` seconds without a response. Nothing is sent while `is_up`
    returns False. cancel() does nothing, since Lambda cannot withdraw events: workers that start
    late are told to quit.
    """

    def __init__(
        self,
        name: str,
        reactor: IClientReactor,
        endpoint: Callable[[str], str],
        find_credentials: FindCredentials,
        timeout_s: float,
        growth: int = 0,
        is_up: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.growth = growth
        self._is_up = is_up
        self._reactor = reactor
        self._endpoint = endpoint
        self._find_credentials = find_credentials
        self._credentials: Credentials | None = None
        self._expired: Credentials | None = None
        self._found_at = 0.0
        self._finding = DeferredLock()
        self._connections = Connections(reactor, timeout_s)
        self._regions: dict[str, tuple[Origin, Signer, str]] = {}
        self._paths: dict[str, str] = {}
        self._tls: dict[str, IOpenSSLClientConnectionCreator] = {}

    def launch(self, invocation: Invocation) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._launch(invocation))

    def stop(self) -> Deferred[None]:
        """Close all connections."""
        return self._connections.close()

    def size(self, function: str, region: str) -> Deferred[Size | str]:
        """Return a function's memory and architecture, or why they are unknown."""
        return Deferred.fromCoroutine(self._size(function, region))

    async def _size(self, function: str, region: str) -> Size | str:
        try:
            credentials = await self._current_credentials()
            if credentials is None:
                return "there are no AWS credentials"
            origin, signer, base = self._region(region, credentials)
            path = base + self._path(function) + "configuration"
            head = signer.head(path, b"", self._reactor.seconds(), "GET")
            response = await self._send(origin, head)
            configuration = _json_object(response.body)
            if response.status != 200:
                return f"{response.status}: {_message(configuration)}"
            memory, architectures = configuration["MemorySize"], configuration.get("Architectures")
            if not isinstance(memory, int):
                return f"MemorySize is not an integer: {memory!r}"
            first = architectures[0] if isinstance(architectures, list) and architectures else None
            return Size(memory, str(first or "x86_64"))
        except (BotoCoreError, NotSent, NoAnswer, KeyError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def concurrency(self, function: str, region: str) -> Deferred[int | None]:
        """Return how many workers may run at once: the function's reserve, or the account's limit."""
        return Deferred.fromCoroutine(self._concurrency(function, region))

    async def _concurrency(self, function: str, region: str) -> int | None:
        name = quote(
            function.partition(":")[0] if ":function:" not in function else function, safe=""
        )
        reserved = await self._ask(region, CONCURRENCY_PATH.format(name))
        if isinstance(own := reserved.get("ReservedConcurrentExecutions"), int):
            return own
        limits = (await self._ask(region, ACCOUNT_PATH)).get("AccountLimit")
        unreserved = limits.get("UnreservedConcurrentExecutions") if isinstance(limits, dict) else 0
        return unreserved if isinstance(unreserved, int) and unreserved > 0 else None

    async def _ask(self, region: str, path: str) -> dict[str, object]:
        """Return the JSON object of a GET; empty where it is refused or fails."""
        try:
            credentials = await self._current_credentials()
            if credentials is None:
                return {}
            origin, signer, base = self._region(region, credentials)
            head = signer.head(base + path, b"", self._reactor.seconds(), "GET")
            response = await self._send(origin, head)
            return _json_object(response.body) if response.status == 200 else {}
        except (BotoCoreError, NotSent, NoAnswer, ValueError):
            return {}

    async def _launch(self, invocation: Invocation) -> Answer:
        if len(invocation.payload) > EVENT_LIMIT:
            return Refused(
                f"the event has {len(invocation.payload)} bytes, but Lambda accepts at most"
                f" {EVENT_LIMIT}: make the job's event smaller, and pass large input through S3"
            )
        try:
            credentials = await self._current_credentials()
        except BotoCoreError as error:
            return Refused(f"cannot read the AWS credentials: {error}")
        if credentials is None:
            return Refused(
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or run aws configure, on the machine where the daemon runs"
            )
        origin, signer, base = self._region(invocation.region, credentials)
        path = base + self._path(invocation.function) + "invocations"
        head = signer.head(path, invocation.payload, self._reactor.seconds())
        try:
            response = await self._send(origin, head + invocation.payload)
        except NotSent as error:
            return Unreached(
                f"cannot reach the {self.name} engine at {self._endpoint(invocation.region)}:"
                f" {error}; check that it is running and that this machine can connect to it"
            )
        except NoAnswer as error:  # it may have been accepted; the worker's launch id will tell
            return Unknown(f"{self.name} engine at {origin}: {error}")
        answer = _answer(response, invocation)
        expired = isinstance(answer, Throttled) and answer.reason.startswith(EXPIRED)
        if expired and self._credentials == credentials:
            self._expired, self._credentials = credentials, None
        return answer

    async def _send(self, origin: Origin, request: bytes) -> Response:
        if not self._is_up():  # another program may listen there meanwhile
            raise NotSent("it has ended, and is being restarted")
        return await self._connections.ask(origin, request)

    def _path(self, function: str) -> str:
        path = self._paths.get(function)
        if path is None:
            path = self._paths[function] = FUNCTION_PATH.format(quote(function, safe=""))
        return path

    def _region(self, region: str, credentials: Credentials) -> tuple[Origin, Signer, str]:
        known = self._regions.get(region)
        if known is None:
            url = urlsplit(self._endpoint(region))
            host = url.hostname or ""
            port = url.port or (443 if url.scheme == "https" else 80)
            tls = (lambda: self._tls_options(host)) if url.scheme == "https" else None
            signer = Signer(credentials, "lambda", region, url.netloc, HEADERS)
            known = self._regions[region] = Origin(host, port, tls), signer, url.path.rstrip("/")
        return known

    def _tls_options(self, host: str) -> IOpenSSLClientConnectionCreator:
        options = self._tls.get(host)
        if options is None:
            options = self._tls[host] = _client_tls(host)
        return options

    async def _current_credentials(self) -> Credentials | None:
        """Return the credentials, looked up again after CREDENTIALS_S seconds."""
        if not self._are_fresh:
            await self._finding.acquire()
            try:
                if not self._are_fresh:  # another launch may have looked them up meanwhile
                    await self._look_up_credentials()
            finally:
                self._finding.release()
        return self._credentials

    async def _look_up_credentials(self) -> None:
        found = await deferToThread(self._find_credentials, self._expired)
        if found != self._credentials:
            self._regions.clear()
        self._credentials, self._found_at = found, self._reactor.seconds()

    @property
    def _are_fresh(self) -> bool:
        age = self._reactor.seconds() - self._found_at
        return self._credentials is not None and age <= CREDENTIALS_S


def _client_tls(host: str) -> IOpenSSLClientConnectionCreator:
    """Trust what boto3 trusts: AWS_CA_BUNDLE, or the roots that come with botocore."""
    path = os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True)
    with open(path, "rb") as file:
        ends = file.read().split(b"-----END CERTIFICATE-----")
    roots = [ssl.Certificate.loadPEM(one + b"-----END CERTIFICATE-----\n") for one in ends[:-1]]
    return ssl.optionsForClientTLS(host, trustRoot=ssl.trustRootFromCertificates(roots))


def aws_endpoint(region: str) -> str:
    """Return the URL of the API. The environment can override it, with botocore's variables."""
    for name in ("AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    return f"https://lambda.{region}.amazonaws.com"


def aws_credentials() -> FindCredentials:
    """Return a lookup through botocore's usual chain, which refreshes credentials in time."""
    session = Session()

    def find(expired: Credentials | None) -> Credentials | None:
        nonlocal session
        found = _frozen(session)
        if found is not None and found == expired:  # they expired earlier than announced
            session = Session()
            found = _frozen(session)
        return found

    return find


def _frozen(session: Session) -> Credentials | None:
    credentials = session.get_credentials()
    if credentials is None:
        return None
    keys = credentials.get_frozen_credentials()
    return Credentials(keys.access_key, keys.secret_key, keys.token)


def _answer(response: Response, invocation: Invocation) -> Answer:
    if response.status == 202:
        return Accepted()
    fields = _json_object(response.body)
    message = _message(fields) or repr(response.body[:200])
    code = response.headers.get("x-amzn-errortype", "").split(":")[0]
    sentence = f"{code or response.status}: {message}"
    if response.status == 429:
        wait = response.headers.get("retry-after") or str(fields.get("retryAfterSeconds", ""))
        wait_s = float(wait) if wait.replace(".", "", 1).isdigit() else None
        return Throttled(f"{fields.get('Reason', '')} {sentence}".strip(), wait_s)
    if response.status >= 500 or sentence.startswith(EXPIRED):
        # A retry is safe: if the event was accepted after all, the second worker is told to quit.
        return Throttled(sentence)
    if response.status == 404:
        sentence += f" (deploy the function {invocation.function!r}, or name another one)"
    if response.status in (401, 403):
        sentence += (
            " (the daemon's role or user needs lambda:InvokeFunction on the function;"
            " run mu doctor to check)"
        )
    return Refused(sentence)


def _message(fields: dict[str, object]) -> str:
    """Return the API's error message; its key is capitalized in some errors only."""
    return str(fields.get("Message") or fields.get("message") or "")


def _json_object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
