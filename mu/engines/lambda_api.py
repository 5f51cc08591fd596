"""Invokes functions on AWS Lambda, or on the local engine, which has the same API."""

import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote, urlsplit

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from mu.aws.answers import PASSING, ErrorAnswer, Kind, how_far, json_object
from mu.aws.limits import PAYLOAD
from mu.aws.names import unqualified
from mu.aws.trouble import NO_CREDENTIALS, AwsTrouble
from mu.engines.connections import Connections, NoAnswer, NotSent, Origin, Response, Timeouts
from mu.engines.reactors import IClientReactor
from mu.engines.routes import Route
from mu.engines.signing import Credentials, Signer
from mu.invocations import (
    Accepted,
    Answer,
    BadEnding,
    ConcurrencyLimit,
    Invocation,
    Refused,
    Size,
    Throttled,
    Unknown,
    Unreached,
)
from mu.plugins import Engine, LaunchListener

FUNCTION_PATH = "/2015-03-31/functions/{}/"
CONCURRENCY_PATH = "/2019-09-30/functions/{}/concurrency"
ACCOUNT_PATH = "/2016-08-19/account-settings"
CREDENTIALS_S = 60.0
"""How often credentials are looked up again, so that they are refreshed in time."""
AGAIN_S = 5.0
"""How soon they are looked up again after that failed."""
EVENT_LIMIT = PAYLOAD.most
"""Maximum event size in bytes; AWS refuses smaller ones, too, and says so."""
HEADERS = {"Content-Type": "application/json", "X-Amz-Invocation-Type": "Event"}


ReadEnding = Callable[[str, str, str, float], BadEnding | None]
"""Returns how an invocation ended badly, as Engine.ending_of does."""

ReadLog = Callable[[str, str, float], str]
"""Returns what a function's workers printed in a region since a time, as Engine.log_of does."""


class FindCredentials(Protocol):
    """Returns the credentials to sign with, or None if there are none. May block.

    Raises AwsTrouble.
    """

    def __call__(self, expired: Credentials | None, /) -> Credentials | None:
        """`expired` are credentials that AWS has just rejected as expired: return other ones."""


class LambdaEngine(Engine):
    """Starts workers by asynchronous invocations of a Lambda function.

    `find_route(region)` says how to reach the API. It, `find_credentials`, `read_log` and
    `read_ending` run in threads.
    Nothing is sent while `is_up` returns False. cancel() does nothing, since Lambda cannot withdraw
    events: workers that start late are told to quit.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        reactor: IClientReactor,
        find_route: Callable[[str], Route],
        find_credentials: FindCredentials,
        timeouts: Timeouts,
        growth: int = 0,
        is_up: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.time,
        read_log: ReadLog | None = None,
        read_ending: ReadEnding | None = None,
        on_this_machine: bool = False,
        regional: bool = True,
    ) -> None:
        """`now` is for signatures: the system's time, which may jump."""
        self.name = name
        self.on_this_machine = on_this_machine
        self.regional = regional
        self._read_log = read_log
        self._read_ending = read_ending
        self.growth = growth
        self.listener: LaunchListener | None = None
        """Is told when workers end, by the local engine only: AWS does not say so."""
        self._is_up = is_up
        self._now = now
        self._reactor = reactor
        self._find_route = find_route
        self._find_credentials = find_credentials
        self._credentials: Credentials | None = None
        self._expired: Credentials | None = None
        self._found_at = 0.0
        self._trouble: AwsTrouble | None = None
        """Why the last lookup failed."""
        self._failed_at = 0.0
        self._worked = False
        """Whether AWS has accepted a launch with these or earlier credentials."""
        self._finding = DeferredLock()
        self._connections = Connections(reactor, timeouts)
        self._routes: dict[str, tuple[Route, Origin]] = {}
        self._signers: dict[str, tuple[Signer, str]] = {}
        self._paths: dict[str, str] = {}

    def watch(self, listener: LaunchListener) -> None:
        self.listener = listener

    def launch(self, invocation: Invocation) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._launch(invocation))

    def stop(self) -> Deferred[None]:
        """Close all connections."""
        return self._connections.close()

    def size(self, function: str, region: str) -> Deferred[Size | Unreached | str]:
        """Return a function's memory and architecture, or why they are unknown."""
        return Deferred.fromCoroutine(self._size(function, region))

    async def _size(self, function: str, region: str) -> Size | Unreached | str:
        try:
            credentials = await self._current_credentials()
            if credentials is None:
                return "there are no AWS credentials"
            route, origin = await self._route(region)
            signer, base = self._signer(region, route, credentials)
            path = base + self._path(function) + "configuration"
            head = signer.head(path, b"", self._now(), "GET")
            response = await self._send(origin, head)
            configuration = json_object(response.body)
            if response.status != 200:
                error = ErrorAnswer.read(response.status, response.headers, response.body)
                said = f"{error.code or error.status}: {error.message}"
                kind = error.meaning(self._now()).kind
                return Unreached(said) if kind in PASSING else said
            memory, architectures = configuration["MemorySize"], configuration.get("Architectures")
            if not isinstance(memory, int):
                return f"MemorySize is not an integer: {memory!r}"
            first = architectures[0] if isinstance(architectures, list) and architectures else None
            timeout = configuration.get("Timeout")
            return Size(
                memory,
                str(first or "x86_64"),
                timeout if isinstance(timeout, int) else 0,
                str(configuration.get("LastModified") or ""),
            )
        except (NotSent, NoAnswer) as error:
            return Unreached(str(error))
        except AwsTrouble as error:
            return Unreached(str(error)) if error.passing or self._worked else str(error)
        except (KeyError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def concurrency(self, function: str, region: str) -> Deferred[ConcurrencyLimit | None]:
        """Return how many workers may run at once: the function's reserve, or the account's limit."""
        return Deferred.fromCoroutine(self._concurrency(function, region))

    async def _concurrency(self, function: str, region: str) -> ConcurrencyLimit | None:
        name = quote(unqualified(function), safe="")  # a version or alias has no reserve of its own
        reserved = await self._ask(region, CONCURRENCY_PATH.format(name))
        if isinstance(own := reserved.get("ReservedConcurrentExecutions"), int):
            return ConcurrencyLimit(own, reserved=True)
        limits = (await self._ask(region, ACCOUNT_PATH)).get("AccountLimit")
        unreserved = limits.get("UnreservedConcurrentExecutions") if isinstance(limits, dict) else 0
        return (
            ConcurrencyLimit(unreserved) if isinstance(unreserved, int) and unreserved > 0 else None
        )

    def log_of(self, function: str, region: str, since: float) -> Deferred[str]:
        """Return what workers printed since a time, or where to look, as a clause of an error."""
        if self._read_log is None:
            return super().log_of(function, region, since)
        return deferToThread(self._read_log, function, region, since)

    def ending_of(
        self, function: str, region: str, request: str, since: float
    ) -> Deferred[BadEnding | None]:
        """Return how an invocation ended badly; None: not, or unknown."""
        if self._read_ending is None:
            return super().ending_of(function, region, request, since)
        return deferToThread(self._read_ending, function, region, request, since)

    async def _ask(self, region: str, path: str) -> dict[str, object]:
        """Return the JSON object of a GET; empty: it was refused or failed."""
        try:
            credentials = await self._current_credentials()
            if credentials is None:
                return {}
            route, origin = await self._route(region)
            signer, base = self._signer(region, route, credentials)
            head = signer.head(base + path, b"", self._now(), "GET")
            response = await self._send(origin, head)
            return json_object(response.body) if response.status == 200 else {}
        except (AwsTrouble, NotSent, NoAnswer, ValueError):
            return {}

    async def _launch(self, invocation: Invocation) -> Answer:
        if len(invocation.payload) > EVENT_LIMIT:
            return Refused(
                f"the event has {len(invocation.payload)} bytes, but Lambda accepts at most"
                f" {EVENT_LIMIT}: make the job's event smaller, and pass large input through S3"
            )
        try:
            credentials = await self._current_credentials()
        except AwsTrouble as error:  # what worked before may work again, after a login for example
            passing = error.passing or self._worked
            return Unreached(str(error)) if passing else Refused(str(error))
        try:
            known = self._routes.get(invocation.region)
            route, origin = known or await self._route(invocation.region)
        except AwsTrouble as error:
            return Unreached(str(error)) if error.passing else Refused(str(error))
        if credentials is None:
            none = f"there are no AWS credentials: {NO_CREDENTIALS}, on the machine where the daemon runs"
            return Unreached(none) if self._worked else Refused(none)
        signer, base = self._signer(invocation.region, route, credentials)
        path = base + self._path(invocation.function) + "invocations"
        head = signer.head(path, invocation.payload, self._now())
        try:
            response = await self._send(origin, head + invocation.payload)
        except NotSent as error:
            # If a connection broke and the next one failed, it may have run: the launch id will tell.
            return Unreached(
                f"cannot reach the {self.name} engine at {route}: {error}; check that it is running and"
                " that this machine can connect to it"
            )
        except NoAnswer as error:  # it may have been accepted; the worker's launch id will tell
            return Unknown(f"{self.name} engine at {origin}: {error}")
        if response.status == 202:
            self._worked = True
            return Accepted()
        answer, kind = _answer_to(response, invocation, self._now())
        if kind is Kind.KEYS and self._worked and isinstance(answer, Refused):  # they were rotated
            answer, kind = Throttled(answer.reason), Kind.EXPIRED
        if kind is Kind.EXPIRED and self._credentials == credentials:
            self._expired, self._credentials = credentials, None
        return answer

    async def _send(self, origin: Origin, request: bytes) -> Response:
        if not self._is_up():  # another program may listen there meanwhile
            raise NotSent("it has ended, and is being restarted")
        return await self._connections.ask(origin, request, self._is_up)

    def _path(self, function: str) -> str:
        path = self._paths.get(function)
        if path is None:
            path = self._paths[function] = FUNCTION_PATH.format(quote(function, safe=""))
        return path

    async def _route(self, region: str) -> tuple[Route, Origin]:
        found = self._routes.get(region)
        if found is not None:
            return found
        await self._finding.acquire()
        try:
            if region not in self._routes:  # another launch may have looked it up meanwhile
                route = await deferToThread(self._find_route, region)
                origin = Origin(route.host, route.port, route.tls, route.proxy)
                self._routes[region] = route, origin
        finally:
            self._finding.release()
        return self._routes[region]

    def _signer(self, region: str, route: Route, credentials: Credentials) -> tuple[Signer, str]:
        known = self._signers.get(region)
        if known is None:
            url = urlsplit(route.url)
            signer = Signer(credentials, "lambda", route.region, url.netloc, HEADERS)
            known = self._signers[region] = signer, url.path.rstrip("/")
        return known

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
        """Look them up; the old ones are kept while they work, if that fails."""
        now = self._reactor.seconds()
        if self._trouble is not None and now - self._failed_at < 1:  # many launches wait for this
            raise self._trouble
        try:
            found = await deferToThread(self._find_credentials, self._expired)
        except AwsTrouble as error:
            if self._credentials is None:
                self._trouble, self._failed_at = error, self._reactor.seconds()
                raise
            self.log.warn("{why}; the old credentials are used meanwhile", why=str(error))
            self._found_at = self._reactor.seconds() - CREDENTIALS_S + AGAIN_S
            return
        if found != self._credentials:
            self._signers.clear()
        self._trouble = None
        self._credentials, self._found_at = found, self._reactor.seconds()

    @property
    def _are_fresh(self) -> bool:
        age = self._reactor.seconds() - self._found_at
        return self._credentials is not None and age <= CREDENTIALS_S


def _answer_to(response: Response, invocation: Invocation, now: float) -> tuple[Answer, Kind]:
    """Return what an error means for the launch, and of which kind it is."""
    error = ErrorAnswer.read(response.status, response.headers, response.body)
    meaning = error.meaning(now)
    remedy = meaning.remedy.replace("{function!r}", repr(invocation.function))
    said = f"{error.code or error.status}: {error.message}"
    match meaning.kind:
        case Kind.BUSY:
            return Throttled(
                f"{error.fields.get('Reason', '')} {said}".strip(), error.wait_s
            ), Kind.BUSY
        case Kind.NOT_READY:
            return Throttled(f"{said} ({remedy})", error.wait_s), Kind.NOT_READY
        case Kind.AGAIN | Kind.EXPIRED:
            # A retry is safe: if the event was accepted after all, the second worker is told to quit.
            return Throttled(said, error.wait_s), meaning.kind
        case Kind.DENIED if not remedy:
            function = f"function:{invocation.function} in {invocation.region}"
            remedy = error.missing_right("lambda:InvokeFunction", function)
            remedy += "; mu doctor --policy daemon prints the policy"
        case Kind.CLOCK:
            ahead = error.clock_ahead(now)
            said = (
                f"this machine's clock is {'wrong' if ahead is None else how_far(ahead)} ({said})"
            )
            return Refused(f"{said}: {remedy}"), Kind.CLOCK
    return Refused(f"{said} ({remedy})" if remedy else said), meaning.kind
