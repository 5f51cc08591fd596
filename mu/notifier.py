"""Notifies the `notify_url` of an order when its job has ended, at least once.

A request is made as https://www.standardwebhooks.com describes, so that existing libraries can check
it: a webhook-id, which stays the same in all attempts, a webhook-timestamp, and a webhook-signature.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from io import BytesIO
from typing import Protocol as Interface
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IResponse
from zope.interface import implementer

import mu
from mu.aws.proxies import proxy_for
from mu.config import NotifySection
from mu.jobs.book import JobBook
from mu.journal.ledger import Notification
from mu.net.proxy import HttpProxy, IProxyReactor, ProxyEndpoint
from mu.strict_json import dumps
from mu.totals import Totals


class Deliveries(Interface):
    """What keeps the notifications that must still be delivered (a mu.journal.ledger.Ledger)."""

    def notified(self, job: str) -> None: ...


def signature(secret: str, event: str, at: int, body: bytes) -> str:
    """Return the webhook-signature of a request.

    `secret` is that of mu.conf, `event` the webhook-id, `at` the webhook-timestamp in seconds.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b"%b.%d.%b" % (event.encode("ascii"), at, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


class Notifier:
    """Delivers notifications: `agent` makes the requests, which must not follow redirects.

    What is not delivered when the daemon stops stays in the journal for the next one.
    """

    log = Logger()

    def __init__(
        self,
        options: Callable[[], NotifySection],
        book: JobBook,
        totals: Totals,
        clock: IProxyReactor,
        agent: IAgent,
    ) -> None:
        self._options = options
        self._book = book
        self._totals = totals
        self._clock = clock
        self._agent = agent
        self._slots = DeferredSemaphore(options().in_flight)
        self._running: dict[str, Deferred[None]] = {}
        self._stopped = False

    @property
    def pending(self) -> int:
        """How many notifications are not delivered yet."""
        return len(self._running)

    def notify(self, one: Notification, deliveries: Deliveries) -> None:
        """Deliver a notification, and tell `deliveries` when that is done or given up."""
        if self._stopped or one.job in self._running:
            return
        running = Deferred.fromCoroutine(self._deliver(one))
        self._running[one.job] = running
        running.addCallback(lambda _: deliveries.notified(one.job))
        running.addErrback(self._broken, one)
        running.addBoth(self._over, one)

    def _over(self, _: object, one: Notification) -> None:
        del self._running[one.job]

    def stop(self) -> None:
        """Deliver nothing more."""
        self._stopped = True
        for running in list(self._running.values()):
            running.cancel()

    async def _deliver(self, one: Notification) -> None:
        """Return once it is delivered or given up."""
        options = self._options()
        pause, attempts, totals = options.pause_s, 0, self._totals.notifications
        while True:
            await self._slots.acquire()
            try:
                why = await self._attempt(one)
            finally:
                self._slots.release()
            attempts += 1
            if not why:
                totals["delivered"] += 1
                self.log.info(
                    "job {job}: {place} was notified of its end", job=one.job, place=place_of(one)
                )
                return
            totals["failed"] += 1
            left = one.since + self._options().give_up_s - self._clock.seconds()
            left = left if self._book.get(one.job) is not None else 0.0
            self.log.warn(
                "job {job}: {place} was not notified of its end: {why}; attempt {attempts}, {next}",
                job=one.job,
                place=place_of(one),
                why=why,
                attempts=attempts,
                next=f"the next in {pause:g} s" if left > pause else "the last",
            )
            if left <= pause:
                totals["given_up"] += 1
                return
            await deferLater(self._clock, pause)
            pause = min(2 * pause, self._options().longest_pause_s)

    async def _attempt(self, one: Notification) -> str:
        """Make one request. Return why it was not delivered; empty: it was."""
        job, options = self._book.get(one.job), self._options()
        if job is None:
            return "the job is no longer known"
        if options.secret == "none":
            return "there is no [notify] secret in mu.conf to sign it with"
        body, at = dumps(job.describe()).encode("ascii"), int(self._clock.seconds())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"mu/{mu.__version__}",
            "webhook-id": one.event,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(options.secret, one.event, at, body),
        }
        asking: Deferred[IResponse] = self._agent.request(
            b"POST",
            one.url.encode("ascii"),
            Headers({name: [value] for name, value in headers.items()}),
            FileBodyProducer(BytesIO(body)),
        )
        asking.addTimeout(options.timeout_s, self._clock)
        try:
            response = await asking
        except CancelledError:
            raise
        except TimeoutError:
            return f"it gave no answer within {options.timeout_s:g} s"
        except ResponseFailed as failed:
            return "; ".join(reason.getErrorMessage() for reason in failed.reasons)
        except Exception as error:  # of sockets, TLS, names or the proxy
            return f"{type(error).__name__}: {error}"
        response.deliverBody(_Unread())
        code = response.code
        if 200 <= code < 300:
            return ""
        return f"it answered {code}{', and redirects are not followed' if code < 400 else ''}"

    def _broken(self, failure: Failure, one: Notification) -> None:
        if not failure.check(CancelledError):
            self.log.failure("job {job}: the notification of its end failed", failure, job=one.job)


def place_of(one: Notification) -> str:
    """Return the address for the log, without the path, which may be a secret."""
    parts = urlsplit(one.url)
    return f"{parts.scheme}://{parts.netloc}"


class _Unread(Protocol):
    """Closes the connection instead of reading the body."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IAgentEndpointFactory)
class ProxiedEndpoints:
    """Connects to a URL, through a proxy if the environment names one, and checks certificates."""

    def __init__(self, reactor: IProxyReactor, timeout_s: float) -> None:
        self._reactor, self._timeout_s = reactor, timeout_s
        self._policy = BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Raises mu.net.proxy.BadProxy."""
        host, port = uri.host.decode("ascii"), uri.port
        proxy = proxy_for(uri.toBytes().decode("ascii"))
        endpoint: IStreamClientEndpoint = (
            HostnameEndpoint(self._reactor, host, port, timeout=self._timeout_s)
            if proxy is None
            else ProxyEndpoint(self._reactor, HttpProxy.parse(proxy), host, port, self._timeout_s)
        )
        if uri.scheme == b"https":
            return wrapClientTLS(self._policy.creatorForNetloc(uri.host, port), endpoint)
        return endpoint


def make_agent(reactor: IProxyReactor, timeout_s: float) -> IAgent:
    """Return what makes the requests, on a new connection each."""
    agent: IAgent = Agent.usingEndpointFactory(reactor, ProxiedEndpoints(reactor, timeout_s))
    return agent
