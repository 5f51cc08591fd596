"""The relay put together: connections, switchboard and disk, which know one another only through it."""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from mu.config import RelaySection
from mu.relay.protocol import RelayProtocol
from mu.relay.spool import Spool
from mu.relay.switchboard import (
    Close,
    Deliver,
    Drop,
    Forget,
    Frame,
    Give,
    Hold,
    Jobs,
    Limits,
    Link,
    Lost,
    Name,
    Order,
    Resume,
    Store,
    Switchboard,
    Tell,
    Unlink,
    Unload,
)

TICK_S = 5.0
AGAIN_S = 5.0
"""After the disk failed, it is tried anew after so long; until then nobody is let in."""


class Relay(Factory):
    """Makes the relay port's protocols, and performs what the switchboard orders."""

    log = Logger()
    noisy = False

    def __init__(
        self, options: RelaySection, folder: Path, jobs: Jobs, clock: Any, spool: Any = Spool
    ) -> None:
        """Raises mu.relay.spool.SpoolError."""
        self.options = options
        self.clock = clock
        self.connections: set[RelayProtocol] = set()
        self._folder = folder
        self._jobs = jobs
        self._make_spool = spool
        self._queue: deque[Order] = deque()
        self._performing = False
        self._woken: dict[RelayProtocol, None] = {}
        self._waking = False
        self._stopped = False
        self._spool: Any = None
        self._open()
        self._tick_s = min(TICK_S, options.keep_s / 4)
        self._timer = clock.callLater(self._tick_s, self._tick)

    # ------------------------------------------------ connections

    def has_room(self, addr: Any) -> bool:
        """Whether one more connection may be open."""
        most = self.options.max_connections
        if self._spool is None:
            self.log.warn("relay: connection from {peer} refused: no disk", peer=addr)
        elif len(self.connections) >= most:
            self.log.warn(
                "relay: connection from {peer} refused: {most} are open", peer=addr, most=most
            )
        else:
            return True
        return False

    def buildProtocol(self, addr: Any) -> RelayProtocol:
        protocol = RelayProtocol(self)
        protocol.factory = self
        return protocol

    def stop(self) -> Deferred[None]:
        """Close all; fires once what has to be is on disk."""
        self._stopped = True
        self._timer.cancel()
        for connection in list(self.connections):
            connection.close("the relay was stopped")
        spool, self._spool = self._spool, None
        return spool.close() if spool is not None else succeed(None)

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

    def delivered(self, peer: RelayProtocol, whole: Frame) -> None:
        self._perform(self._board.delivered(peer, whole))

    # ------------------------------------------------ bodies

    def append(self, coming: Frame, part: bytes) -> None:
        self._spool.append(coming, part)

    def is_behind(self, coming: Frame, call: Any) -> bool:
        return bool(self._spool.is_behind(coming, call))

    def read(self, whole: Frame, offset: int, length: int, tell: Any) -> None:
        self._spool.read(whole, offset, length, tell)

    # ------------------------------------------------ orders

    def _perform(self, orders: Iterable[Order]) -> None:
        """Do what is ordered, in order; what that leads to is done after it."""
        self._queue.extend(orders)
        if self._performing:
            return
        self._performing = True
        try:
            while self._queue:
                self._do(self._queue.popleft())
        finally:
            self._performing = False
        self._wake_all()

    def wake(self, peer: RelayProtocol) -> None:
        """Have a connection go on, once all that is ordered is done: its link may be among that."""
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
                peer.go_on()
        finally:
            self._waking = False

    def _do(self, order: Order) -> None:
        match order:
            case Deliver(receiver=receiver, frame=whole, prefixed=prefixed):
                receiver.outbox.put(whole, None, prefixed)
            case Drop(frame=whole):
                self._spool.drop(whole)
            case Tell(peer=peer, count=count):
                peer.say(b"AT:%d" % count)
            case Store(frame=whole):
                self._spool.store(whole)
            case Unload(frame=whole):
                whole.body = None
            case Resume(sender=sender):
                self.wake(sender)
            case Link(sender=sender, receiver=receiver):
                sender.link(receiver)
                self.wake(sender)
            case Unlink(sender=sender):
                sender.link(None)
                self.wake(sender)
            case Hold(sender=sender):
                sender.hold()
            case Give():
                self._spool.give(order)
            case Close(peer=peer, reason=reason):
                peer.close(reason)
            case Forget():
                self._spool.forget(order)
            case Lost(name=name, frames=frames, size=size, reason=reason):
                self.log.warn(
                    "relay: {frames} frames ({size} bytes) for {name} are dropped: {reason}",
                    frames=frames,
                    size=size,
                    name=name,
                    reason=reason,
                )

    def _tick(self) -> None:
        self._timer = self.clock.callLater(self._tick_s, self._tick)
        if self._spool is not None:
            now = self.clock.seconds()
            for connection in list(self.connections):
                connection.look(now, self.options.keep_s)
            self._perform(self._board.tick(now))

    # ------------------------------------------------ the disk

    def _open(self) -> None:
        options = self.options
        limits = Limits(options.keep_s, options.memory, options.mailbox_bytes, options.total_bytes)
        self._board = Switchboard(limits, self._jobs)
        self._spool = self._make_spool(
            self._folder,
            self.clock,
            lambda frames: self._perform(self._board.stored(frames)),
            lambda name: self._perform(self._board.gave(name)),
            self._failed,
        )
        for name, *counts in self._spool.kept.names:
            self._board.restore_name(name, *counts)
        for name, number, size, at, place in self._spool.kept.frames:
            self._board.restore_frame(name, number, size, at).place = place
        self._spool.kept = None

    def _failed(self, sentence: str) -> None:
        """Nothing that is told from here on would be true: as after a crash, begin from the disk."""
        self.log.critical(
            "relay: {sentence}. All its connections are closed; it is tried again every"
            " {seconds:g} s",
            sentence=sentence,
            seconds=AGAIN_S,
        )
        for connection in list(self.connections):
            connection.close("the relay's disk failed")
        self._spool.close()
        self._spool = None
        self.clock.callLater(AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        if self._stopped:
            return
        try:
            self._open()
            self.log.info("relay: the disk can be used again")
        except Exception as error:  # whatever a broken disk says
            self.log.error("relay: {error}", error=str(error))
            self._spool = None
            self.clock.callLater(AGAIN_S, self._try_again)
