"""One worker's conversation, pure: counts, the outbox, and who may say what when.

A session outlives its connections: each begins with `greet`, and the rest follows from what
`receive` is given. Nothing here knows a socket. The rules are the protocol's "Extensions".
"""

import zlib
from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from mu.messages import (
    Ack,
    Command,
    Hello,
    Log,
    Ping,
    Pong,
    Reply,
    Welcome,
    encode,
    from_coordinator,
)
from mu.wire import WORKER_FRAME_LIMIT, frame

OUTBOX_REPLIES = 1024
OUTBOX_BYTES = 8 * 2**20
"""With so many replies unacknowledged, in number or in size, no further command is started."""

LARGEST_REPLY = WORKER_FRAME_LIMIT - 64
"""Leaves room for the RE:<c>: in front."""


class SessionOver(Exception):
    """The coordinator asks for what cannot be: this session has no way on."""


@dataclass(frozen=True, slots=True)
class Order:
    """A command and its number, counted from 1 over the whole session."""

    number: int
    command: Command

    @property
    def is_quit(self) -> bool:
        return self.command.text.startswith("quit:")


class Voice(Enum):
    """How the worker may speak on the connection that it has."""

    SILENT = "the coordinator's first frame is awaited, or there is no connection"
    PLAIN = "a command came without a welcome: an original coordinator"
    NUMBERED = "welcomed"


class Session:
    """Counts the commands, numbers and keeps the replies, and says what may be sent now."""

    def __init__(self, name: str, launch: str = "") -> None:
        self.name = name
        self.launch = launch
        self.received = 0
        self.crc = 0
        self.sent = 0
        self.actor: int | None = None
        self.attempt = 0
        self.welcomed = False
        """Whether a coordinator of this project was ever heard."""
        self._outbox: deque[Reply] = deque()
        self._outbox_bytes = 0
        self._dropped = 0  # replies before the outbox: acknowledged, or said to an original
        self._next = 0  # the reply to send next on this connection
        self._voice = Voice.SILENT
        self._asides: list[bytes] = []  # logs, pings, pongs: uncounted, and lost with a connection

    def greet(self) -> bytes:
        """Begin a connection; return its first payload."""
        self.part()
        return Hello(self.name, self.launch, self.received, self.crc, self.sent).payload()

    def part(self) -> None:
        """Note that the connection is lost: nothing can be said until a welcome on the next."""
        self._voice = Voice.SILENT
        self._asides.clear()

    @property
    def answered(self) -> bool:
        """Whether the coordinator has answered the hello of this connection."""
        return self._voice is not Voice.SILENT

    @property
    def original(self) -> bool:
        """Whether an original coordinator answered it: one that resumes nothing."""
        return self._voice is Voice.PLAIN

    def receive(self, payload: bytes) -> Order | None:
        """Take one payload from the coordinator; return the command, if it was one.

        Raises BadMessage, or SessionOver. Before its first welcome a session answers no ping: it
        says nothing yet that an original would not say.
        """
        match from_coordinator(payload):
            case Welcome() as welcome:
                self._be_welcomed(welcome)
            case Ack(replies):
                self._drop(replies)
            case Ping(text):
                if self.welcomed:
                    self._asides.append(Pong(text).payload())
            case Pong():
                pass
            case Command() as command:
                return self._count(command, payload)
        return None

    def reply(self, number: int, text: str) -> None:
        """Answer command `number`; 0 for an INFO of the worker's own accord."""
        length = len(encode(text))
        if length > LARGEST_REPLY:
            text = f"FAIL(the reply of {length} bytes is over the limit of {LARGEST_REPLY})"
            length = len(text)
        self._outbox.append(Reply(text, number))
        self._outbox_bytes += length
        self.sent += 1

    def log(self, number: int, output: bytes) -> None:
        """Show people what command `number` prints. Never kept: it goes now, or not at all."""
        if self._may_reply and self._voice is Voice.NUMBERED:
            self._asides.append(Log(number, output).payload())

    def ping(self) -> None:
        """Ask whether the coordinator is there; before its welcome it would not understand."""
        if self._voice is Voice.NUMBERED:
            self._asides.append(Ping().payload())

    def outgoing(self) -> list[bytes]:
        """Return the payloads that may be sent now, and count them as sent on this connection."""
        payloads, self._asides = self._asides, []
        if self._may_reply:
            plain = self._voice is Voice.PLAIN
            for reply in islice(self._outbox, self._next - self._dropped, None):
                payloads.append(encode(reply.text) if plain else reply.payload())
            self._next = self.sent
            if plain:
                self._drop(self.sent)  # an original never asks again, and never acknowledges
        return payloads

    @property
    def full(self) -> bool:
        """Whether too much is unacknowledged for another command to be started."""
        return len(self._outbox) >= OUTBOX_REPLIES or self._outbox_bytes >= OUTBOX_BYTES

    @property
    def _may_reply(self) -> bool:
        if self._voice is Voice.NUMBERED:
            return self.actor is not None
        return self._voice is Voice.PLAIN

    def _count(self, command: Command, payload: bytes) -> Order:
        self.received += 1
        self.crc = zlib.crc32(frame(payload), self.crc)
        order = Order(self.received, command)
        if self._voice is Voice.SILENT and not order.is_quit:
            if self.welcomed:
                raise SessionOver(
                    f"the coordinator, which knew this session, sent {command.text[:80]!r}"
                    " on a new connection without a welcome"
                )
            self._voice = Voice.PLAIN
        return order

    def _be_welcomed(self, welcome: Welcome) -> None:
        self.actor, self.attempt = welcome.actor, welcome.attempt
        if self._voice is not Voice.NUMBERED:  # k asks only in a connection's first welcome
            if not self._dropped <= welcome.replies <= self.sent:
                raise SessionOver(
                    f"the coordinator has {welcome.replies} replies and asks for those after them;"
                    f" {self.sent} were made, and the first {self._dropped} are gone"
                )
            self._next = welcome.replies
        self.welcomed = True
        self._voice = Voice.NUMBERED

    def _drop(self, replies: int) -> None:
        if replies > self.sent:
            raise SessionOver(f"{replies} replies were acknowledged; only {self.sent} were made")
        while self._dropped < replies:
            self._outbox_bytes -= len(encode(self._outbox.popleft().text))
            self._dropped += 1
        self._next = max(self._next, self._dropped)
