"""The commands of one session: numbered, kept until the worker confirms them, sent when allowed.

Commands are numbered from 1, and each count below is the number of the last command it covers:

    confirmed <= sent <= free <= produced

A command is *free* once the event that caused it is safe. A reply is safe at once; any other event
is safe when it is on disk. Commands never overtake one another, so a command also waits for those
before it.
"""

import zlib
from collections import deque
from collections.abc import Sequence
from itertools import islice

from mu.messages import encode
from mu.wire import frame


class CommandOutbox:
    """Pure bookkeeping: the caller writes what `take` returns.

    A position is a number of records in the journal. `barrier` is the position that must be on
    disk before newly added commands are free.
    """

    __slots__ = (
        *("barrier", "confirmed", "free", "produced", "sent"),
        *("_confirmed_crc", "_crcs", "_frames"),
    )

    def __init__(self, barrier: int = 0) -> None:
        self.barrier = barrier
        self.produced = 0
        """Commands that the machine has produced."""
        self.free = 0
        """Commands that may be sent: none of them waits for the disk."""
        self.sent = 0
        """Commands sent on the current connection, or received before it began."""
        self.confirmed = 0
        """Commands that the worker has confirmed with a reply."""
        self._confirmed_crc = 0
        self._frames: deque[bytes] = deque()  # of the commands that are not confirmed
        self._crcs: deque[int] = deque()  # the CRC of all commands up to and including each

    def add(self, command: str) -> None:
        """Number a command and keep it."""
        data = frame(encode(command))
        crcs = self._crcs
        self.produced += 1
        self._frames.append(data)
        crcs.append(zlib.crc32(data, crcs[-1] if crcs else self._confirmed_crc))

    def restore(self, commands: Sequence[str], confirmed: int) -> None:
        """Add the commands from before a restart; the worker has replied to `confirmed` of them."""
        frames = [frame(encode(command)) for command in commands]
        self.produced = self.free = len(frames)
        self.sent = self.confirmed = confirmed = min(confirmed, len(frames))
        self._confirmed_crc = crc = zlib.crc32(b"".join(frames[:confirmed]))
        for data in frames[confirmed:]:
            crc = zlib.crc32(data, crc)
            self._frames.append(data)
            self._crcs.append(crc)

    # ------------------------------------------------ the disk

    def release(self, synced: int) -> bool:
        """Free everything if the barrier is on disk; return whether any command still waits."""
        if self.barrier <= synced:
            self.free = self.produced
            return False
        return self.free < self.produced

    def free_first(self, count: int) -> None:
        """Free the first `count` commands: the events that caused them are on disk."""
        self.free = max(self.free, count)

    # ------------------------------------------------ the connection

    def crc(self, count: int) -> int:
        """Return the CRC-32 of the first `count` commands; confirmed <= count <= produced."""
        if count == self.confirmed:
            return self._confirmed_crc
        return self._crcs[count - self.confirmed - 1]

    def take(self) -> bytes:
        """Return the frames of commands that are free and not sent yet, and count them as sent."""
        first, end = self.sent, self.free
        if first >= end:
            return b""
        self.sent = end
        start = first - self.confirmed
        if end - first == 1:  # by far the most frequent case
            return self._frames[start]
        return b"".join(islice(self._frames, start, end - self.confirmed))

    def confirm(self, count: int) -> None:
        """Drop the first `count` commands, which the worker has; unsent ones stay."""
        count = min(count, self.sent)
        while self.confirmed < count:
            self._frames.popleft()
            self._confirmed_crc = self._crcs.popleft()
            self.confirmed += 1
