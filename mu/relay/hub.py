"""The hub of the relay: links connections, switchboard and spool, and performs the effects."""

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from mu.config import RelaySection
from mu.net.strangers import LogSums, Strangers
from mu.relay.disk import Kept
from mu.relay.effects import (
    Close,
    Deliver,
    Drop,
    Forget,
    Give,
    Hold,
    Link,
    RelayEffect,
    ReportLoss,
    Resume,
    Store,
    Tell,
    Unlink,
    Unload,
)
from mu.relay.limits import JobLookup, RelayLimits
from mu.relay.outbox import OutboxSender
from mu.relay.parties import Frame, Name, Peer
from mu.relay.protocol import RelayClock, RelayProtocol
from mu.relay.spool import Spool, SpoolReactor
from mu.relay.switchboard import Switchboard
from mu.totals import Traffic

TICK_S = 5.0
AGAIN_S = 5.0
"""How long to wait before each attempt to use the disk again after it failed."""


class RelayReactor(RelayClock, SpoolReactor, Protocol):
    """What the relay needs from the reactor."""


class Relay(Factory):
    """Makes the relay port's protocols, and performs the switchboard's effects."""

    log = Logger()
    noisy = False

    def __init__(
        self,
        options: RelaySection,
        folder: Path,
        jobs: JobLookup,
        clock: RelayReactor,
        spool: Callable[..., Spool] = Spool,
    ) -> None:
        """Raises mu.relay.spool.SpoolError."""
        self.options = options
        self.clock = clock
        self.connections: set[RelayProtocol] = set()
        self.traffic = Traffic()
        self.strangers = Strangers(options.max_handshakes)
        """The connections that have not finished their TLS handshake."""
        self.refused = LogSums(
            self.log,
            clock,
            "relay: connection from {peer} refused: {reason}",
            "relay: {count} more connections refused within {seconds} s: {reasons}",
        )
        self._folder = folder
        self._jobs = jobs
        self._make_spool = spool
        self._queue: deque[RelayEffect] = deque()
        self._performing = False
        self._woken: dict[OutboxSender, None] = {}
        self._waking = False
        self._stopped = False
        self._usable = False  # whether the disk works
        self._open()
        self._tick_s = min(TICK_S, options.keep_s / 4)
        self._timer = clock.callLater(self._tick_s, self._tick)

    @property
    def waiting_bytes(self) -> int:
        """The size of all frames that are kept for their receivers."""
        return self._board.mailboxes.total

    # ------------------------------------------------ connections

    def accepts(self, addr: IAddress | None) -> bool:
        """Return whether another connection may be accepted."""
        most = self.options.max_connections
        if not self._usable:
            self.refused.add(addr, "the disk failed")
        elif len(self.connections) >= most and not self.strangers.drop_oldest():
            self.refused.add(addr, f"{most} connections are open (max_connections)")
        else:
            return True
        return False

    def buildProtocol(self, addr: IAddress | None) -> RelayProtocol:
        protocol = RelayProtocol(self)
        protocol.factory = self
        return protocol

    def stop(self) -> Deferred[None]:
        """Close all connections; the Deferred fires once everything accepted is on disk."""
        self._stopped = True
        self._timer.cancel()
        for connection in list(self.connections):
            connection.close("the relay stopped")
        usable, self._usable = self._usable, False
        return self._spool.close() if usable else succeed(None)

    # ------------------------------------------------ events

    def hello(self, peer: RelayProtocol, name: Name, partner: str) -> None:
        self._perform(self._board.hello(peer, name, partner))

    def plain(self, peer: RelayProtocol) -> None:
        self._perform(self._board.plain(peer))

    def extended(self, peer: RelayProtocol, attempt: int, sent: int, received: int) -> None:
        self._perform(self._board.extended(peer, attempt, sent, received))

    def leave(self, peer: RelayProtocol) -> None:
        self.connections.discard(peer)
        self._perform(self._board.gone(peer, peer.outbox.abandon()))

    def announce(self, peer: RelayProtocol, size: int) -> Frame | None:
        return self._board.announce(peer, size, self.clock.seconds())

    def arrived(self, peer: RelayProtocol, whole: Frame) -> None:
        self._perform(self._board.arrived(peer, whole))

    def linked(self, peer: RelayProtocol, whole: Frame) -> None:
        self._board.linked(peer, whole)

    def passed(self, whole: Frame) -> None:
        self._perform(self._board.passed(whole))

    def delivered(self, peer: Peer, whole: Frame) -> None:
        self._perform(self._board.delivered(peer, whole))

    # ------------------------------------------------ bodies

    def append(self, coming: Frame, part: bytes) -> None:
        self._spool.append(coming, part)

    def is_behind(self, coming: Frame, call: Callable[[], object]) -> bool:
        return self._spool.is_behind(coming, call)

    def read(self, whole: Frame, offset: int, length: int, tell: Callable[[bytes], object]) -> None:
        self._spool.read(whole, offset, length, tell)

    # ------------------------------------------------ effects

    def _perform(self, effects: Iterable[RelayEffect]) -> None:
        """Perform effects in order, and then the further effects that they cause."""
        self._queue.extend(effects)
        if self._performing:
            return
        self._performing = True
        try:
            while self._queue:
                self._do(self._queue.popleft())
        finally:
            self._performing = False
        self._wake_all()

    def wake(self, peer: OutboxSender) -> None:
        """Let a connection continue after all pending effects, which may change its link."""
        self._woken[peer] = None
        if not self._performing:
            self._wake_all()

    def _wake_all(self) -> None:
        if self._waking:
            return
        self._waking = True
        try:
            while self._woken:
                peer = next(iter(self._woken))
                del self._woken[peer]
                peer.resume()
        finally:
            self._waking = False

    def _do(self, effect: RelayEffect) -> None:
        match effect:
            case Deliver(receiver=RelayProtocol() as receiver, frame=whole, prefixed=prefixed):
                receiver.outbox.put(whole, None, prefixed)
            case Drop(frame=whole):
                self._spool.drop(whole)
            case Tell(peer=RelayProtocol() as peer, count=count):
                peer.say(b"AT:%d" % count)
            case Store(frame=whole):
                self._spool.store(whole)
            case Unload(frame=whole):
                whole.body = None
            case Resume(sender=RelayProtocol() as sender):
                self.wake(sender)
            case Link(sender=RelayProtocol() as sender, receiver=RelayProtocol() as receiver):
                sender.link(receiver)
                self.wake(sender)
            case Unlink(sender=RelayProtocol() as sender):
                sender.link(None)
                self.wake(sender)
            case Hold(sender=RelayProtocol() as sender):
                sender.hold()
            case Give():
                self._spool.give(effect)
            case Close(peer=RelayProtocol() as peer, reason=reason):
                peer.close(reason)
            case Forget():
                self._spool.forget(effect)
            case ReportLoss(name=name, frames=frames, size=size, reason=reason):
                self.traffic.dropped += frames
                self.log.warn(
                    "relay: dropped {frames} frames ({size} bytes) for {name}: {reason}",
                    frames=frames,
                    size=size,
                    name=name,
                    reason=reason,
                )

    def _tick(self) -> None:
        self._timer = self.clock.callLater(self._tick_s, self._tick)
        if self._usable:
            now = self.clock.seconds()
            for connection in list(self.connections):
                connection.look(now, self.options.keep_s)
            self._perform(self._board.tick(now))

    # ------------------------------------------------ the disk

    def _open(self) -> None:
        options = self.options
        limits = RelayLimits(
            options.keep_s, options.memory, options.mailbox_bytes, options.total_bytes
        )
        self._board = Switchboard(limits, self._jobs)
        self._spool = self._make_spool(
            self._folder,
            self.clock,
            lambda frames: self._perform(self._board.stored(frames)),
            lambda name: self._perform(self._board.gave(name)),
            self._failed,
        )
        for name, *counts in self._spool.kept.names:
            self._board.mailboxes.restore_name(name, *counts)
        for name, number, size, at, place in self._spool.kept.frames:
            self._board.mailboxes.restore_frame(name, number, size, at).place = place
        self._spool.kept = Kept([], [])
        self._usable = True

    def _failed(self, sentence: str) -> None:
        """Start again from the disk, as after a crash: data in memory can no longer be saved."""
        self.log.critical(
            "relay: {sentence}. All connections are closed; the relay tries to use the disk again"
            " every {seconds:g} s",
            sentence=sentence,
            seconds=AGAIN_S,
        )
        for connection in list(self.connections):
            connection.close("the relay's disk failed")
        self._usable = False
        self._spool.close()
        self.clock.callLater(AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        if self._stopped:
            return
        try:
            self._open()
            self.log.info("relay: the disk works again")
        except Exception as error:  # a broken disk may cause any error
            self.log.error("relay: {error}", error=str(error))
            self.clock.callLater(AGAIN_S, self._try_again)
