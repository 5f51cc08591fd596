"""What one name has sent and received over the relay, by number: the protocol's AT. Pure.

A ledger outlives its connections: each begins with `greet`, and what may be sent on it follows
from the relay's answer. The rules are the protocol's, and models/relay_model.py has them as "X".
"""

from typing import Generic, TypeVar

Frame = TypeVar("Frame")


class LedgerError(Exception):
    """The relay says what cannot be."""


class Ledger(Generic[Frame]):
    """Counts the frames of one name in both directions, and keeps those it sent."""

    def __init__(self) -> None:
        self.received = 0
        self.made = 0
        """Frames to send, sent or not."""
        self.held = 0
        """So many of them the relay has on disk."""
        self.open = False
        """Whether the relay has answered on this connection, so that frames may pass."""
        self._said = 0  # how many were made when this connection's greeting was written
        self._next = 1  # the number of the frame to send next on this connection
        self._kept: dict[int, Frame] = {}

    def greet(self, attempt: int) -> bytes:
        """Begin a connection; return the payload that follows the hello."""
        self.part()
        self._said = self.made
        return b"AT:%d:%d:%d" % (attempt, self.made, self.received)

    def part(self) -> None:
        """Note that the connection is lost: nothing passes until the answer on the next."""
        self.open = False
        self._forget()

    def add(self, frame: Frame) -> int:
        """Have a frame sent when that may be; return its number."""
        self.made += 1
        self._kept[self.made] = frame
        return self.made

    def answer(self, held: int) -> None:
        """The relay has so many on disk; its first word on a connection opens that.

        Raises LedgerError where it asks for a frame that it once had, and that is gone here.
        """
        self.held = max(self.held, held)
        if not self.open:
            self._next = min(self._said, held) + 1
            for number in range(self._next, self.made + 1):
                if number not in self._kept:
                    raise LedgerError(
                        f"the relay has {held} frames and asks for the next; it had more before"
                    )
            self.open = True
        self._forget()

    def outgoing(self) -> list[Frame]:
        """Return the frames that are to be sent now, and count them as sent on this connection."""
        if not self.open:
            return []
        frames = [self._kept[number] for number in range(self._next, self.made + 1)]
        self._next = self.made + 1
        self._forget()
        return frames

    def _forget(self) -> None:
        """Let go what the relay holds and this connection needs no more.

        A frame that the relay holds of an earlier attempt is sent all the same, where it is the
        next in the count.
        """
        last = min(self.held, self._next - 1) if self.open else self.held
        for number in [number for number in self._kept if number <= last]:
            del self._kept[number]
