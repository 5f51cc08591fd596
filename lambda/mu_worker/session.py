"""One worker's conversation: the counts, the outbox, and what may be sent when. Pure.

A session outlives its connections. Each connection begins with `greet`; everything else follows
from the frames passed to `receive`. The rules are the protocol's "Extensions".
"""

import zlib
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import islice

from mu.messages import (
    Ack,
    Command,
    Hello,
    Log,
    Message,
    Ping,
    Pong,
    Reply,
    Use,
    Welcome,
    encode,
    from_coordinator,
)
from mu.wire import WORKER_FRAME_LIMIT, frame

OUTBOX_REPLIES = 1024
OUTBOX_BYTES = 8 * 2**20
"""While this many replies, or bytes of them, are unacknowledged, no further command is started."""

LARGEST_REPLY = WORKER_FRAME_LIMIT - 64
"""The largest reply, in bytes. It leaves space for RE:<c>: before it."""


class SessionOver(Exception):
    """The coordinator contradicted the session, which cannot continue."""


class NumberedCommand(Message):
    """A command and its number, counted from 1 over the whole session."""

    __slots__ = __match_args__ = ("number", "command")

    def __init__(self, number: int, command: Command) -> None:
        self.number = number
        self.command = command

    @property
    def is_quit(self) -> bool:
        return self.command.text.startswith("quit:")


class Voice(Enum):
    """What the worker may send on its current connection."""

    SILENT = "not before the coordinator's first frame"
    PLAIN = "as to an original coordinator, which sent a command without a welcome"
    NUMBERED = "with the extensions, after a welcome"


class WorkerSession:
    """Counts the commands, numbers and keeps the replies, and decides what may be sent now.

    `use_so_far` returns what the worker has used before its hello, if its event asks for that. It is
    told after each connection's first welcome, since it is lost with the connection.
    """

    def __init__(
        self,
        name: str,
        launch: str = "",
        use_so_far: Callable[[], dict[str, float | str]] | None = None,
    ) -> None:
        self.name = name
        self.launch = launch
        self.received = 0
        self.crc = 0
        self.sent = 0
        self.actor: int | None = None
        self.attempt = 0
        self.welcomed = False
        """Whether this session has ever received a welcome."""
        self._outbox: deque[tuple[Reply, Use | None]] = deque()
        self._outbox_bytes = 0
        self._dropped = (
            0  # replies before the outbox: acknowledged, or sent to an original coordinator
        )
        self._next = 0  # the index of the reply to send next on this connection
        self._voice = Voice.SILENT
        self._asides: list[
            bytes
        ] = []  # logs, pings, pongs, uses: not counted, and lost with the connection
        self._use_so_far = use_so_far
        self._use: dict[str, float | str] = {}

    def greet(self) -> bytes:
        """Begin a connection; return its first payload."""
        self.part()
        if self._use_so_far is not None and not self.welcomed:
            self._use = self._use_so_far()
        return Hello(self.name, self.launch, self.received, self.crc, self.sent).payload()

    def part(self) -> None:
        """Note that the connection is lost: send nothing until the next one is welcomed."""
        self._voice = Voice.SILENT
        self._asides.clear()

    @property
    def answered(self) -> bool:
        """Whether the coordinator answered the hello of this connection."""
        return self._voice is not Voice.SILENT

    @property
    def original(self) -> bool:
        """Whether an original coordinator answered it, which cannot resume a session."""
        return self._voice is Voice.PLAIN

    def receive(self, payload: bytes) -> NumberedCommand | None:
        """Process a payload from the coordinator; return the command, if it is one.

        Raises BadMessage or SessionOver. Before its first welcome, a session does not answer pings,
        because an original worker would not.
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

    def reply(self, number: int, text: str, used: Mapping[str, float] | None = None) -> None:
        """Add a reply to command `number`, which `used` this; 0: an INFO without a command."""
        length = len(encode(text))
        if length > LARGEST_REPLY:
            text = f"FAIL(the reply of {length} bytes exceeds the limit of {LARGEST_REPLY} bytes)"
            length = len(text)
        self._outbox.append((Reply(text, number), Use.of(number, used) if used else None))
        self._outbox_bytes += length
        self.sent += 1

    def log(self, number: int, output: bytes) -> None:
        """Send live output of command `number` if that is possible now; it is not kept."""
        if self._may_reply and self._voice is Voice.NUMBERED:
            self._asides.append(Log(number, output).payload())

    def tell_use(self, used: Mapping[str, float]) -> None:
        """Tell what the worker itself has used, if that is possible now; it is not kept."""
        if used and self._may_reply and self._voice is Voice.NUMBERED:
            self._asides.append(Use.of(0, used).payload())

    def ping(self) -> None:
        """Send a ping, if the coordinator is known to understand it."""
        if self._voice is Voice.NUMBERED:
            self._asides.append(Ping().payload())

    def outgoing(self) -> list[bytes]:
        """Return the payloads to send now, and count them as sent on this connection."""
        payloads, self._asides = self._asides, []
        if self._may_reply:
            plain = self._voice is Voice.PLAIN
            for reply, use in islice(self._outbox, self._next - self._dropped, None):
                if use is not None and not plain:
                    payloads.append(use.payload())
                payloads.append(encode(reply.text) if plain else reply.payload())
            self._next = self.sent
            if plain:
                self._drop(self.sent)  # an original coordinator never acknowledges replies
        return payloads

    @property
    def full(self) -> bool:
        """Whether too many replies are unacknowledged to start another command."""
        return len(self._outbox) >= OUTBOX_REPLIES or self._outbox_bytes >= OUTBOX_BYTES

    @property
    def _may_reply(self) -> bool:
        if self._voice is Voice.NUMBERED:
            return self.actor is not None
        return self._voice is Voice.PLAIN

    def _count(self, command: Command, payload: bytes) -> NumberedCommand:
        self.received += 1
        self.crc = zlib.crc32(frame(payload), self.crc)
        numbered = NumberedCommand(self.received, command)
        if self._voice is Voice.SILENT and not numbered.is_quit:
            if self.welcomed:
                raise SessionOver(
                    f"the coordinator, which knows this session, sent {command.text[:80]!r}"
                    " on a new connection without a welcome"
                )
            self._voice = Voice.PLAIN
        return numbered

    def _be_welcomed(self, welcome: Welcome) -> None:
        self.actor, self.attempt = welcome.actor, welcome.attempt
        if self._voice is not Voice.NUMBERED:  # only a connection's first welcome asks for replies
            if not self._dropped <= welcome.replies <= self.sent:
                raise SessionOver(
                    f"the coordinator asks for the replies after {welcome.replies}; {self.sent}"
                    f" exist, and the first {self._dropped} are gone"
                )
            self._next = welcome.replies
            if self._use:
                self._asides.append(Use.of(0, self._use).payload())
        self.welcomed = True
        self._voice = Voice.NUMBERED

    def _drop(self, replies: int) -> None:
        if replies > self.sent:
            raise SessionOver(f"{replies} replies were acknowledged, but only {self.sent} exist")
        while self._dropped < replies:
            self._outbox_bytes -= len(encode(self._outbox.popleft()[0].text))
            self._dropped += 1
        self._next = max(self._next, self._dropped)
