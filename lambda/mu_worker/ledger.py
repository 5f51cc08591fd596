"""Counts what one name has sent and received over the relay: the protocol's AT. Pure.

A ledger outlives its connections. Each connection begins with `greet`, and the relay's answer
determines what is sent on it. The rules are the protocol's.
"""

from typing import Generic, TypeVar

T = TypeVar("T")


class LedgerError(Exception):
    """The relay contradicts what it said before."""


class FrameLedger(Generic[T]):
    """Counts the frames of one name in both directions, and keeps those that may be sent again."""

    def __init__(self) -> None:
        self.received = 0
        self.made = 0
        """Frames that were added, sent or not."""
        self.held = 0
        """How many of them the relay has on disk."""
        self.open = False
        """Whether the relay has answered on this connection, so that frames may pass."""
        self._said = 0  # how many were added when this connection began
        self._next = 1  # the number of the frame to send next on this connection
        self._kept: dict[int, T] = {}

    def greet(self, attempt: int) -> bytes:
        """Begin a connection; return the payload to send after the hello."""
        self.part()
        self._said = self.made
        return b"AT:%d:%d:%d" % (attempt, self.made, self.received)

    def part(self) -> None:
        """Note that the connection is lost; send nothing until the relay answers on the next."""
        self.open = False
        self._forget()

    def add(self, frame: T) -> int:
        """Add a frame, which is sent when possible; return its number."""
        self.made += 1
        self._kept[self.made] = frame
        return self.made

    def answer(self, held: int) -> None:
        """Note that the relay has `held` frames on disk; frames may pass after its first answer.

        Raises LedgerError if it asks for a frame that it had before and that was dropped here.
        """
        self.held = max(self.held, held)
        if not self.open:
            self._next = min(self._said, held) + 1
            for number in range(self._next, self.made + 1):
                if number not in self._kept:
                    raise LedgerError(f"the relay has only {held} frames, but it had more before")
            self.open = True
        self._forget()

    def outgoing(self) -> list[T]:
        """Return the frames to send now, and count them as sent on this connection."""
        if not self.open:
            return []
        frames = [self._kept[number] for number in range(self._next, self.made + 1)]
        self._next = self.made + 1
        self._forget()
        return frames

    def _forget(self) -> None:
        """Drop the frames that the relay holds and that this connection no longer needs.

        A frame that the relay holds from an earlier attempt is still sent if it is the next one.
        """
        last = min(self.held, self._next - 1) if self.open else self.held
        for number in [number for number in self._kept if number <= last]:
            del self._kept[number]
