"""The worker port: one WorkerProtocol for each TLS connection, thin over a session."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.config import WorkerSection
from mu.jobs.book import JobBook
from mu.messages import BadMessage, Hello, Log, Ping, Pong, Reply, Welcome, from_worker
from mu.net.certificates import job_of
from mu.net.endings import handshake_error, loss
from mu.session import QUIT, Session
from mu.wire import FrameError, Framer, frame

GOODBYE_S = 10.0
"""A worker that was told to quit closes the connection; after so many seconds we do."""


@implementer(IHandshakeListener)
class WorkerProtocol(Protocol):
    """One connection: certificate, hello, then a session that is fed with frames."""

    log = Logger()
    transport: Any
    factory: "WorkerFactory"

    def __init__(self, book: JobBook, options: WorkerSection, clock: Any) -> None:
        self._book = book
        self._options = options
        self._clock = clock
        self._framer = Framer(options.frame_limit)
        self._job_id: str | None = None
        self._hello: Hello | None = None
        self._session: Session | None = None
        self._inbox: deque[bytes] = deque()  # received, but not cut into frames yet
        self._frames: Iterator[bytes] = iter(())
        self._paused = False  # the worker does not read what we write
        self._working = False
        self._stalled = False  # we do not read what it says, until what we hold is less
        self._closing = ""  # why nothing more is read
        self._gone = False
        self._dismissed = False
        self._heard = 0.0
        self._timer: Any = None
        self.peer = ""

    # ------------------------------------------------ the connection

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.peer = f"{getattr(peer, 'host', peer)}:{getattr(peer, 'port', '')}"
        self.factory.connections.add(self)
        self.transport.registerProducer(self, True)
        self._wait(self._options.hello_s, self._close, "it did not say hello in time")

    def handshakeCompleted(self) -> None:
        certificate = self.transport.getPeerCertificate()
        self._job_id = job_of(certificate.to_cryptography()) if certificate else None
        if self._job_id is None:
            self._close("its certificate names no job")

    def dataReceived(self, data: bytes) -> None:
        if not self._closing:
            self._heard = self._clock.seconds()
            self._inbox.append(data)
            self._work()
            if self._inbox and not self._stalled:
                self._stalled = True
                self.transport.pauseProducing()

    def pauseProducing(self) -> None:
        """The worker reads too slowly: hear no more of it, or we would say ever more."""
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self.go_on()
        if not (self._paused or self._stalled or self._gone):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost says so, too."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        self._gone = True
        self._wait(None)
        why = self._closing or loss(reason)
        if self._hello is None:
            self._log_refusal(self._closing or handshake_error(reason))
        else:
            if self._session is not None:
                self._session.detach(self, why)
            if self._job_id is not None:
                self._book.leave(self._job_id, self, self._hello)
        self._session = None  # cut the cycle: thousands of these would wait for a collection
        self._inbox.clear()

    # ------------------------------------------------ what the book decides

    def adopt(self, session: Session) -> None:
        self._session = session
        self._wait(self._options.heartbeat_s, self._beat)
        self.log.debug(
            "worker {peer} is actor {actor} of job {job}",
            peer=self.peer,
            actor=session.part.actor_number,
            job=session.part.job_id,
        )

    def wait(self) -> None:
        assert self._hello is not None
        self._wait(self._options.heartbeat_s, self._beat)
        if self._hello.session:
            self.write(frame(Welcome(None, 0, 0).payload()))

    def dismiss(self, reason: str) -> None:
        self.log.info("worker {peer} is told to quit: {reason}", peer=self.peer, reason=reason)
        self._dismissed = True
        self.write(frame(QUIT.encode("ascii")))
        self.goodbye()

    def supersede(self, reason: str) -> None:
        self.log.debug("worker {peer} is let go: {reason}", peer=self.peer, reason=reason)
        self._closing = self._closing or reason
        self.transport.abortConnection()

    def write(self, data: bytes) -> None:
        if not self._gone:
            self.transport.write(data)

    def go_on(self) -> None:
        self._work()
        if self._stalled and not (self._inbox or self._paused or self._gone):
            self._stalled = False
            self.transport.resumeProducing()

    def goodbye(self) -> None:
        self._wait(GOODBYE_S, self._close, "it did not close after quit")

    def stop(self, reason: str, keep: bool) -> None:
        """The port closes: tell the worker to quit, unless it is to come back later."""
        if self._hello is None or (keep and self._hello.session):
            self._closing = self._closing or reason
            self._session = None  # the next coordinator waits for it, not this one's last seconds
            self.transport.unregisterProducer()  # TLS would wait for its end, which never comes
            self.transport.loseConnection()
        elif self._session is not None:
            self._session.give_up(reason)  # nothing, if it is over
        else:
            self.dismiss(reason)

    # ------------------------------------------------ inside

    def _work(self) -> None:
        """Take the frames that have come, as long as what they cause can be written."""
        if self._working:  # what a frame causes may ask for the next one
            return
        self._working = True
        try:
            while not (self._paused or self._closing or self._is_full):
                payload = next(self._frames, None)
                if payload is not None:
                    self._take(payload)
                elif self._inbox:
                    self._frames = self._framer.feed(self._inbox.popleft())
                else:
                    return
        except (FrameError, BadMessage) as error:
            self._close(str(error))
        finally:
            self._working = False

    @property
    def _is_full(self) -> bool:
        return self._session is not None and self._session.full

    def _take(self, payload: bytes) -> None:
        if self._session is not None:
            self._session.receive(payload)
        elif self._dismissed:
            return  # what it says on its way out
        elif self._hello is None:
            self._hello = Hello.parse(payload)
            assert self._job_id is not None
            self._book.join(self._job_id, self._hello, self)
        else:
            said = from_worker(payload, bool(self._hello.session))
            if isinstance(said, Reply | Log):
                raise BadMessage("a worker without an actor has nothing to say")
            if isinstance(said, Ping):
                self.write(frame(Pong(said.text).payload()))

    def _beat(self) -> None:
        """Ask a silent worker whether it is there; give up one that has been silent too long.

        An original worker knows no ping, so it may be silent, though not in the middle of a frame:
        for it there is the worker's time limit.
        """
        silent = self._clock.seconds() - self._heard
        answers_pings = bool(self._hello and self._hello.session)
        if silent >= self._options.silence_s and (answers_pings or self._framer.partial):
            where = " in the middle of a frame" if self._framer.partial else ""
            self._close(f"it said nothing for {silent:.0f} s{where}")
            return
        if silent >= self._options.heartbeat_s and answers_pings:
            self.write(frame(Ping(f"{self._clock.seconds():.0f}").payload()))
        self._wait(self._options.heartbeat_s, self._beat)

    def _wait(self, seconds: float | None, call: Any = None, *args: Any) -> None:
        """Replace the connection's one timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if seconds is not None and not self._gone:
            self._timer = self._clock.callLater(seconds, call, *args)

    def _close(self, reason: str) -> None:
        if not self._closing:
            self._closing = reason
            if self._hello is not None:
                self.log.warn("worker {peer} is cut: {reason}", peer=self.peer, reason=reason)
        self.transport.abortConnection()

    def _log_refusal(self, reason: str) -> None:
        self.log.warn("connection from {peer} refused: {reason}", peer=self.peer, reason=reason)


class WorkerFactory(Factory):
    """Makes the worker port's protocols; knows the connections that are open."""

    log = Logger()
    noisy = False

    def __init__(self, book: JobBook, options: WorkerSection, clock: Any) -> None:
        self._book = book
        self._options = options
        self._clock = clock
        self.connections: set[WorkerProtocol] = set()

    def has_room(self, addr: Any) -> bool:
        """Whether one more connection may be open."""
        most = self._options.max_connections
        if len(self.connections) < most:
            return True
        self.log.warn("connection from {peer} refused: {most} are open", peer=addr, most=most)
        return False

    def buildProtocol(self, addr: Any) -> Any:
        protocol = WorkerProtocol(self._book, self._options, self._clock)
        protocol.factory = self
        return protocol
