"""The worker port: one WorkerProtocol for each TLS connection, as a thin layer over a session."""

from collections import deque
from collections.abc import Callable, Iterator

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from mu.blob_line import BlobLine
from mu.blobs import Blobs
from mu.config import WorkerSection
from mu.jobs.book import JobBook
from mu.jobs.driver import SessionDriver
from mu.logs import DaemonLogger
from mu.messages import BLOB, BadMessage, Hello, Log, Ping, Pong, Reply, Use, Welcome, from_worker
from mu.net.endings import handshake_error, loss
from mu.net.handover import HandedOver
from mu.net.strangers import LogSums, Strangers
from mu.net.transport import TLSTransport
from mu.session import QUIT
from mu.totals import Totals
from mu.wire import FrameError, Framer, count_frames, frame

GOODBYE_S = 10.0
"""How long a worker that was told to quit may take to close its connection, in seconds."""


@implementer(IHandshakeListener, IPushProducer)
class WorkerProtocol(Protocol):
    """One connection: checks the certificate, reads the hello, then passes frames to a session."""

    log = DaemonLogger()
    transport: TLSTransport | HandedOver

    def __init__(
        self,
        book: JobBook,
        options: WorkerSection,
        clock: IReactorTime,
        factory: "WorkerFactory",
    ) -> None:
        self._factory = factory
        self._traffic = factory.totals.traffic
        self._book = book
        self._options = options
        self._clock = clock
        self._framer = Framer(options.frame_limit)
        self._job_id: str | None = None
        self._hello: Hello | None = None
        self._session: SessionDriver | None = None
        self._blob_line: BlobLine | None = None  # instead of a session
        self._inbox: deque[bytes] = deque()  # received, but not split into frames yet
        self._frames: Iterator[bytes] = iter(())
        self._paused = False  # the worker is not reading what we write
        self._working = False
        self._stalled = False  # we stopped reading, until less is buffered here
        self._closing = ""  # the reason, once no more frames are read
        self._gone = False
        self._dismissed = False
        self._heard = 0.0  # when anything was last received
        self._timer: IDelayedCall | None = None
        self.peer = ""

    # ------------------------------------------------ the connection

    def connectionMade(self) -> None:
        self._note_peer()
        self._factory.totals.accepted += 1
        self._factory.connections.add(self)
        self._factory.strangers.add(self)
        self.transport.registerProducer(self, True)
        hello_s = self._options.hello_s
        self._wait(hello_s, lambda: self._close(f"it did not say hello within {hello_s:g} s"))

    def handshakeCompleted(self) -> None:
        self._factory.strangers.discard(self)
        self._note_peer()  # a proxy has said it only now
        self._job_id = self.transport.peer_job
        if self._job_id is None:
            self._close("its certificate names no job")

    def _note_peer(self) -> None:
        peer = self.transport.getPeer()
        self.peer = f"{getattr(peer, 'host', peer)}:{getattr(peer, 'port', '')}"

    def dataReceived(self, data: bytes) -> None:
        self._traffic.bytes_in += len(data)
        if not self._closing:
            self._heard = self._clock.seconds()
            self._inbox.append(data)
            self._work()
            if self._inbox and not self._stalled:
                self._stalled = True
                self.transport.pauseProducing()

    def pauseProducing(self) -> None:
        """Read no more frames, since the worker reads too slowly: they would make us write more."""
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._blob_line is not None:
            self._wait_for_blobs()
            self._blob_line.send()
        self.read_on()
        if not (self._paused or self._stalled or self._gone):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Called when the connection is lost; connectionLost follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.connections.discard(self)
        self._factory.strangers.discard(self)
        self._gone = True
        self._stop_timer()
        if self._blob_line is not None:
            self._blob_line.close()
        elif self._hello is None:
            self._factory.totals.refused += 1
            self._factory.refused.add(self.peer, self._closing or handshake_error(reason))
        else:
            if self._session is not None:
                if not self._session.over and self._session.line is self:
                    self._factory.totals.lost += 1
                self._session.detach(self, self._closing or loss(reason))
            if self._job_id is not None:
                self._book.leave(self._job_id, self, self._hello)
        self._session = None  # breaks one of thousands of reference cycles
        self._inbox.clear()

    # ------------------------------------------------ for the job and its session

    def adopt(self, session: SessionDriver) -> None:
        self._session = session
        self._wait(self._options.heartbeat_s, self._beat)
        self.log.debug(
            "worker {peer} has actor {actor} of job {job}",
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
        self._factory.dismissed.add(self.peer, reason)
        self._dismissed = True
        self.write(frame(QUIT.encode("ascii")))
        self.goodbye()

    def supersede(self, reason: str) -> None:
        self.log.debug("connection from {peer} closed: {reason}", peer=self.peer, reason=reason)
        self._closing = self._closing or reason
        self.transport.abortConnection()

    def write(self, data: bytes) -> None:
        if not self._gone:
            self._traffic.bytes_out += len(data)
            self._traffic.frames_out += count_frames(data)
            self.transport.write(data)

    def read_on(self) -> None:
        self._work()
        if self._stalled and not (self._inbox or self._paused or self._gone):
            self._stalled = False
            self.transport.resumeProducing()

    def goodbye(self) -> None:
        self._wait(
            GOODBYE_S, lambda: self._close(f"it did not close within {GOODBYE_S:g} s of quit")
        )

    def drop(self, reason: str) -> None:
        """Close the connection, which has not finished its TLS handshake."""
        self._close(reason)

    def stop(self, reason: str, keep: bool) -> None:
        """Close, because the port closes. `keep`: tell no worker to quit that can reconnect."""
        if self._hello is None or (keep and self._hello.session):
            self._closing = self._closing or reason
            self._session = None  # the next coordinator resumes it: do not report an end
            self.transport.unregisterProducer()  # it never finishes, and TLS would wait for it
            self.transport.loseConnection()
        elif self._session is not None:
            self._session.give_up(reason)  # no effect if it has ended
        else:
            self.dismiss(reason)

    # ------------------------------------------------ frames

    def _work(self) -> None:
        """Handle the received frames, unless frames must wait."""
        if self._working or self._is_full:  # handling a frame may call this method again
            return
        self._working = True
        try:
            while True:
                payload = next(self._frames, None)
                if payload is not None:
                    self._take(payload)
                    if self._is_full:
                        return
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
        """Whether frames must wait, or are no longer wanted."""
        if self._paused or self._closing:
            return True
        return self._session is not None and self._session.full

    def _take(self, payload: bytes) -> None:
        self._traffic.frames_in += 1
        if self._session is not None:
            self._session.receive(payload)
        elif self._dismissed:
            return  # sent before it closed
        elif self._blob_line is not None or (self._hello is None and payload.startswith(BLOB)):
            self._wait_for_blobs()
            self._line_for_blobs().receive(payload)
        elif self._hello is None:
            self._hello = Hello.parse(payload)
            assert self._job_id is not None
            self._book.join(self._job_id, self._hello, self)
        else:
            said = from_worker(payload, bool(self._hello.session))
            if isinstance(said, Reply | Log):
                raise BadMessage("a worker without an actor must not send replies or output")
            if isinstance(said, Use):
                assert self._job_id is not None
                self._book.used(self._job_id, self._hello, said)
            elif isinstance(said, Ping):
                self.write(frame(Pong(said.text).payload()))

    # ------------------------------------------------ blobs

    def _line_for_blobs(self) -> BlobLine:
        """Return what answers on a connection for blobs. Raises BadMessage."""
        if self._blob_line is None:
            blobs = self._factory.blobs
            job = self._book.get(self._job_id or "")
            if blobs is None or job is None or job.ended:
                raise BadMessage(f"job {self._job_id} may have no blobs: it has ended")
            self._blob_line = BlobLine(blobs, self.write, lambda: not (self._paused or self._gone))
        return self._blob_line

    def _wait_for_blobs(self) -> None:
        limit_s = self._options.silence_s
        self._wait(limit_s, lambda: self._close(f"it was silent for {limit_s:g} s"))

    # ------------------------------------------------ time

    def _beat(self) -> None:
        """Ping a silent worker; close the connection of one that has been silent too long.

        An original worker does not know pings, so it may be silent, except in the middle of a
        frame. Only the worker timeout limits its silence.
        """
        silent = self._clock.seconds() - self._heard
        answers_pings = bool(self._hello and self._hello.session)
        if silent >= self._options.silence_s and (answers_pings or self._framer.partial):
            where = " in the middle of a frame" if self._framer.partial else ""
            self._close(f"it was silent for {silent:.0f} s{where}")
            return
        if silent >= self._options.heartbeat_s and answers_pings:
            self.write(frame(Ping(f"{self._clock.seconds():.0f}").payload()))
        self._wait(self._options.heartbeat_s, self._beat)

    def _wait(self, seconds: float, call: Callable[[], None]) -> None:
        """Replace the connection's only timer."""
        self._stop_timer()
        if not self._gone:
            self._timer = self._clock.callLater(seconds, call)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _close(self, reason: str) -> None:
        if not self._closing:
            self._closing = reason
            if self._hello is not None:
                self.log.warn(
                    "connection from {peer} closed: {reason}", peer=self.peer, reason=reason
                )
        self.transport.abortConnection()


class WorkerFactory(Factory):
    """Makes the worker port's protocols and keeps the open connections."""

    log = DaemonLogger()
    noisy = False

    def __init__(
        self,
        book: JobBook,
        options: WorkerSection,
        clock: IReactorTime,
        totals: Totals | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self.totals = totals or Totals()
        self.blobs = blobs
        self._book = book
        self._options = options
        self._clock = clock
        self.connections: set[WorkerProtocol] = set()
        self.strangers = Strangers(options.max_handshakes)
        """The connections that have not finished their TLS handshake."""
        self.refused = LogSums(
            self.log,
            clock,
            "connection from {peer} refused: {reason}",
            "{count} more connections refused within {seconds} s: {reasons}",
        )
        self.dismissed = LogSums(
            self.log,
            clock,
            "worker {peer} is told to quit: {reason}",
            "{count} more workers told to quit within {seconds} s: {reasons}",
            LogLevel.info,
        )

    def accepts(self, addr: object) -> bool:
        """Return whether another connection may be opened."""
        limit = self._options.max_connections
        if len(self.connections) < limit or self.strangers.drop_oldest():
            return True
        self.totals.refused += 1
        self.refused.add(addr, f"{limit} connections are open (max_connections)")
        return False

    def buildProtocol(self, addr: IAddress | None) -> WorkerProtocol:
        return WorkerProtocol(self._book, self._options, self._clock, self)
