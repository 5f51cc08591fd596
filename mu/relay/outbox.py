"""Writes to one connection: complete frames, one after another, as fast as the peer reads."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import ITransport

from mu.relay.parties import Frame

PIECE = 64 * 2**10
"""Small frames are joined and written together, up to about this size in bytes."""
READ = 256 * 2**10
"""How many bytes of a frame are read from disk at a time."""


class OutboxSender(Protocol):
    """A connection whose frames an outbox writes to another one."""

    passing: bool
    """Whether its last frame is still being written."""

    def resume(self) -> None:
        """Try again to pass on the frame that had to wait."""


class OutboxOwner(Protocol):
    """The connection that an outbox writes to."""

    @property
    def transport(self) -> ITransport: ...

    def close(self, reason: str) -> None: ...

    def __hash__(self) -> int: ...


class OutboxHub(Protocol):
    """What an outbox needs from the hub."""

    def wake(self, peer: OutboxSender) -> None:
        """Call the peer's `resume` after all pending effects."""

    def read(
        self, whole: Frame, offset: int, length: int, tell: Callable[[bytes], object]
    ) -> None: ...

    def delivered(self, peer: OutboxOwner, whole: Frame) -> None: ...

    def passed(self, whole: Frame) -> None: ...


class Outbox:
    """The queue of frames for one connection, and how much of the first one is written."""

    def __init__(self, owner: OutboxOwner, hub: OutboxHub) -> None:
        self.ready = True
        """Whether the transport accepts more."""
        self.used = False
        """Whether any frame was written or queued."""
        self._owner = owner
        self._hub = hub
        self._queue: deque[tuple[Frame, OutboxSender | None, bool]] = deque()
        self._waiters: dict[OutboxSender, None] = {}
        self._told = b""  # the relay's own message, written before the next frame
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._body: list[bytes] | None = None  # of the frame being written, if it is in memory
        self._begun = False
        self._at = 0  # how much of its body was written: chunks if in memory, else bytes
        self._reading = False
        self._pumping = False
        self._dead = False

    def write(self, data: bytes) -> None:
        """Write complete frames with their headers, bypassing the queue."""
        self.used = True
        self._owner.transport.write(data)

    def is_free(self, sender: OutboxSender) -> bool:
        """Return whether `write` may be called now; if not, the sender is woken later."""
        if self.ready and not self._queue:
            return True
        self._waiters[sender] = None
        return False

    def tell(self, said: bytes) -> None:
        """Write the relay's own message between two frames; it replaces an unwritten one."""
        self._told = said
        self.pump()

    def put(self, whole: Frame, sender: OutboxSender | None, prefixed: bool = False) -> None:
        """Queue a frame from a linked sender or, if that is None, from the switchboard."""
        self.used = True
        self._queue.append((whole, sender, prefixed))
        self.pump()

    def abandon(self) -> list[Frame]:
        """Return the linked senders' frames that were not fully written: the connection is lost."""
        self._dead = True
        left = []
        for whole, sender, _ in self._queue:
            if sender is not None:
                left.append(whole)
                sender.passing = False
        self._queue.clear()
        self._waiters.clear()
        self._pending.clear()
        self._body = None
        return left

    def pump(self) -> None:
        """Write as much as possible."""
        if self._pumping:
            return
        self._pumping = True
        while self.ready and not (self._reading or self._dead) and (self._queue or self._told):
            self._write_some()
        self._pumping = False
        while self._waiters and self.ready and not self._queue:
            sender = next(iter(self._waiters))
            del self._waiters[sender]
            self._hub.wake(sender)

    def _write_some(self) -> None:
        """Write roughly one piece of the first frames."""
        done: list[tuple[Frame, OutboxSender | None]] = []
        wanted: Frame | None = None
        if self._told and not self._begun:
            self._take(self._told)
            self._told = b""
        for whole, sender, prefixed in self._queue:
            if not self._begun:
                self._begun, self._at = True, 0
                self._body = whole.body if isinstance(whole.body, list) else None
                self._take(b"%012d " % (whole.size + 2 * prefixed))
                if prefixed:
                    self._take(b"F:")
            if self._body is not None:
                while self._at < len(self._body) and self._pending_size < PIECE:
                    self._take(self._body[self._at])
                    self._at += 1
                if self._at < len(self._body):
                    break
            elif self._at < whole.size:
                if self._pending_size < PIECE:
                    wanted = whole
                break
            self._begun, self._body = False, None
            done.append((whole, sender))
            if self._pending_size >= PIECE:
                break
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_size = 0
            self.write(data)
        for _ in done:
            self._queue.popleft()
        if wanted is not None:
            self._reading = True
            self._hub.read(wanted, self._at, READ, self._take_part)
        for whole, sender in done:
            if sender is None:
                self._hub.delivered(self._owner, whole)
            else:
                sender.passing = False
                self._hub.passed(whole)
                self._hub.wake(sender)

    def _take(self, part: bytes) -> None:
        self._pending.append(part)
        self._pending_size += len(part)

    def _take_part(self, part: bytes) -> None:
        self._reading = False
        if not part:
            self._owner.close("the relay could not read a frame for it from disk")
        if not self._dead:
            self._at += len(part)
            self._take(part)
            self.pump()
