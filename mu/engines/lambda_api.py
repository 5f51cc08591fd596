"""The Lambda Invoke API, of AWS or of the local engine: signed requests on kept-alive connections."""

import json
import os
from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseDone,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from mu.interfaces import IEngine
from mu.invocations import Accepted, Answer, Invocation, Refused, Throttled, Unknown, Unreached

INVOKE_PATH = "/2015-03-31/functions/{}/invocations"
CREDENTIALS_S = 60.0
LONGEST_BODY = 2**16


class _QuietFactory(_HTTP11ClientFactory):
    """Logs nothing for each connection."""

    noisy = False


@implementer(IEngine)
class LambdaEngine:
    """Starts workers by asynchronous invocations of a Lambda function.

    `endpoint(region)` gives the API's base URL, `credentials()` (may block, runs in a thread)
    what requests are signed with, or None where there is nothing.
    """

    def __init__(
        self,
        name: str,
        reactor: Any,
        endpoint: Callable[[str], str],
        credentials: Callable[[], Any],
        connections: int,
        timeout_s: float,
    ) -> None:
        self.name = name
        self._reactor = reactor
        self._endpoint = endpoint
        self._find_credentials = credentials
        self._credentials: Any = None
        self._found_at = 0.0
        self._timeout_s = timeout_s
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = connections
        self._pool._factory = _QuietFactory
        self._pool.retryAutomatically = False  # an invocation may have run: the launch id decides
        self._agent = Agent(reactor, connectTimeout=timeout_s, pool=self._pool)

    def launch(self, invocation: Invocation) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._launch(invocation))

    def cancel(self, job_id: str) -> Deferred[None]:
        """Nothing: Lambda cannot be told. A worker that comes later is told to quit."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Close the kept connections."""
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing

    async def _launch(self, invocation: Invocation) -> Answer:
        try:
            credentials = await self._current_credentials()
        except BotoCoreError as error:
            return Refused(f"the AWS credentials cannot be read: {error}")
        if credentials is None:
            return Refused(
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or run aws configure, where the daemon runs"
            )
        path = INVOKE_PATH.format(quote(invocation.function, safe=""))
        url = self._endpoint(invocation.region) + path
        headers = _signed(url, invocation, credentials)
        asking = self._agent.request(
            b"POST", url.encode("ascii"), headers, FileBodyProducer(BytesIO(invocation.payload))
        )
        try:
            answering = Deferred.fromCoroutine(_whole(asking))
            response, body = await answering.addTimeout(self._timeout_s, self._reactor)
        except (ConnectError, DNSLookupError) as error:
            return Unreached(
                f"the {self.name} engine at {self._endpoint(invocation.region)} cannot be reached:"
                f" {error}; see whether it runs there and the network lets this machine through"
            )
        except Exception as error:  # whatever breaks a connection leaves its launch unknown
            return Unknown(f"{self.name} engine at {url}: {error or type(error).__name__}")
        return _answer(response, body, invocation)

    async def _current_credentials(self) -> Any:
        """Ask for them again after a while, so that they are refreshed before they expire."""
        now = self._reactor.seconds()
        if self._credentials is None or now - self._found_at > CREDENTIALS_S:
            self._credentials = await deferToThread(self._find_credentials)
            self._found_at = now
        return self._credentials


async def _whole(asking: Any) -> tuple[IResponse, bytes]:
    """Return an answer with its body."""
    response = await asking
    if response.length == 0:
        return response, b""
    body = _Body()
    response.deliverBody(body)
    return response, await body.whole


class _Body(Protocol):
    """Collects a body, which the API keeps short. Cancelled, or over the limit, it hangs up."""

    transport: Any

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())
        self._parts = b""

    def dataReceived(self, data: bytes) -> None:
        self._parts += data
        if len(self._parts) > LONGEST_BODY:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.whole.called:
            ended = reason.check(ResponseDone, PotentialDataLoss)
            self.whole.callback(self._parts) if ended else self.whole.errback(reason)


def aws_endpoint(region: str) -> str:
    """Return the API's URL; the environment may name another one, as botocore has it."""
    for name in ("AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    return f"https://lambda.{region}.amazonaws.com"


def aws_credentials() -> Callable[[], Any]:
    """Return a finder of credentials by botocore's usual chain, which refreshes them in time."""
    session = Session()

    def find() -> Any:
        credentials = session.get_credentials()
        return credentials.get_frozen_credentials() if credentials else None

    return find


def local_credentials() -> Credentials:
    """What the local engine is asked with: it wants a signature, but knows no keys."""
    return Credentials("local", "local")


def _signed(url: str, invocation: Invocation, credentials: Any) -> Headers:
    request = AWSRequest(
        "POST",
        url,
        headers={"Content-Type": "application/json", "X-Amz-Invocation-Type": "Event"},
        data=invocation.payload,
    )
    SigV4Auth(credentials, "lambda", invocation.region).add_auth(request)
    return Headers({name: [value] for name, value in request.headers.items()})


def _answer(response: IResponse, body: bytes, invocation: Invocation) -> Answer:
    if response.code == 202:
        return Accepted()
    told = _object(body)
    message = told.get("Message") or told.get("message") or repr(body[:200])
    kind = _header(response, "x-amzn-errortype").split(":")[0]
    sentence = f"{kind or response.code}: {message}"
    if response.code == 429:
        wait = _header(response, "retry-after") or str(told.get("retryAfterSeconds", ""))
        wait_s = float(wait) if wait.replace(".", "", 1).isdigit() else None
        return Throttled(f"{told.get('Reason', '')} {sentence}".strip(), wait_s)
    if response.code >= 500:
        return Unknown(sentence)
    if response.code == 404:
        sentence += f" (deploy the function {invocation.function!r}, or name another one)"
    return Refused(sentence)


def _header(response: IResponse, name: str) -> str:
    value: str = (response.headers.getRawHeaders(name) or [""])[0]
    return value


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
