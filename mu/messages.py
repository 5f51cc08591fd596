"""Payloads to values and back: hellos, welcomes, numbered replies, commands.

Coordinator and worker share this module: the worker's bundle contains it, so it uses only mu.wire.
Text is UTF-8 with surrogateescape, so any bytes received can be sent again unaltered.
"""

import json
import re
from collections.abc import Mapping

__all__ = ["HELLO", "expected_reply", "parse_info", "parse_retval"]  # what plugins may import

HELLO = "OK:HELLO"
BLOB = b"BLOB:"
"""The beginning of the first frame of a connection for blobs (mu.blob_line), instead of a hello."""
PING_BYTES = 256
"""The longest accepted ping, in bytes: the answer is just as long."""
USED = b"USED:"
USE_BYTES = 4096
"""The longest accepted USED, in bytes."""


class BadMessage(ValueError):
    """A payload that is not valid at this point of the protocol."""


def decode(payload: bytes) -> str:
    """Return a payload as the text that states see."""
    return payload.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the payload of a text: the exact inverse of decode."""
    return text.encode("utf-8", "surrogateescape")


class Message:
    """A value that is compared and shown by its fields, which `__match_args__` names.

    It is no dataclass: to define one takes a worker longer than all else here, before its hello.
    """

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values == other._values

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        named = zip(self.__match_args__, self._values, strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in named)})"

    @property
    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])


# ---------------------------------------------------------------- from a worker

_HELLO_FORM = (
    r"\(session=(?P<session>[0-9a-f]{1,64}),launch=(?P<launch>[^,()]{0,64})"
    r",received=(?P<received>[0-9]{1,15}):(?P<crc>[0-9a-f]{8}),sent=(?P<sent>[0-9]{1,15})\)"
)


class Hello(Message):
    """A worker's first message. All fields are empty for a worker of the original mu."""

    __slots__ = __match_args__ = ("session", "launch", "received", "crc", "sent")

    def __init__(
        self, session: str = "", launch: str = "", received: int = 0, crc: int = 0, sent: int = 0
    ) -> None:
        self.session = session
        """Hexadecimal; chosen by the worker, and the same on all its connections."""
        self.launch = launch
        """The one-time launch id in the event that started the worker."""
        self.received = received
        """Number of commands received since the session began."""
        self.crc = crc
        """CRC-32 of those command frames, headers included."""
        self.sent = sent
        """Number of replies sent since the session began."""

    def payload(self) -> bytes:
        if not self.session:
            return encode(HELLO)
        return encode(
            f"{HELLO}(session={self.session},launch={self.launch}"
            f",received={self.received}:{self.crc:08x},sent={self.sent})"
        )

    @classmethod
    def parse(cls, payload: bytes) -> "Hello":
        """Raises BadMessage for a payload that does not begin with OK:HELLO.

        If its OK:HELLO continues in any other form than this one, it counts as an original worker.
        """
        text = decode(payload)
        if not text.startswith(HELLO):
            raise BadMessage(f"a worker must begin with {HELLO}, not {text[:80]!r}")
        form = re.fullmatch(_HELLO_FORM, text[len(HELLO) :])
        if form is None:
            return cls()
        return cls(
            session=form["session"],
            launch=form["launch"],
            received=int(form["received"]),
            crc=int(form["crc"], 16),
            sent=int(form["sent"]),
        )


class Reply(Message):
    """A worker's answer; `command` is the number of the command, from 1 (0: unknown)."""

    __slots__ = __match_args__ = ("text", "command")

    def __init__(self, text: str, command: int = 0) -> None:
        self.text = text
        self.command = command

    def payload(self) -> bytes:
        return encode(f"RE:{self.command}:{self.text}")


class Log(Message):
    """Live output of command number `command`, shown to users; states never see it."""

    __slots__ = __match_args__ = ("command", "output")

    def __init__(self, command: int, output: bytes) -> None:
        self.command = command
        self.output = output

    def payload(self) -> bytes:
        return b"LOG:%d:%b" % (self.command, self.output)


class Use(Message):
    """What command number `command` used, or the worker itself (0); states never see it.

    A worker sends it only where its event has `usage_ext`.
    """

    __slots__ = __match_args__ = ("command", "text")

    def __init__(self, command: int, text: bytes) -> None:
        self.command = command
        self.text = text
        """A JSON object, or whatever a worker sent instead."""

    @classmethod
    def of(cls, command: int, values: Mapping[str, object]) -> "Use":
        return cls(command, json.dumps(values).encode("ascii"))

    @classmethod
    def parse(cls, payload: bytes) -> "Use":
        """Raises BadMessage; what its text is shows later."""
        return cls(*_numbered(payload, len(USED)))

    @property
    def values(self) -> dict[str, object]:
        """The object. Raises BadMessage if it is none."""
        return _object(self.text)

    def payload(self) -> bytes:
        return b"USED:%d:%b" % (self.command, self.text)


class Ping(Message):
    """Asks the other side for a Pong, to see whether it is alive."""

    __slots__ = __match_args__ = ("text",)

    def __init__(self, text: str = "") -> None:
        self.text = text

    def payload(self) -> bytes:
        return encode(f"ping:{self.text}")


class Pong(Message):
    """The answer to a Ping, with its text."""

    __slots__ = __match_args__ = ("text",)

    def __init__(self, text: str = "") -> None:
        self.text = text

    def payload(self) -> bytes:
        return encode(f"pong:{self.text}")


def from_worker(payload: bytes, welcomed: bool) -> Reply | Log | Use | Ping | Pong:
    """Parse a payload that a worker sent after its hello.

    A worker that was not welcomed uses the original protocol: everything it sends is a reply.
    Raises BadMessage.
    """
    if welcomed:
        if payload.startswith(b"RE:"):
            number, text = _numbered(payload, 3)
            return Reply(decode(text), number)
        if payload.startswith(b"LOG:"):
            number, output = _numbered(payload, 4)
            return Log(number, output)
        if payload.startswith(USED):
            return Use.parse(payload)
        if payload.startswith(b"ping:"):
            if len(payload) > PING_BYTES:
                raise BadMessage(f"a ping must have at most {PING_BYTES} bytes, got {len(payload)}")
            return Ping(decode(payload[5:]))
        if payload.startswith(b"pong:"):
            return Pong(decode(payload[5:]))
        raise BadMessage(
            f"a welcomed worker must send RE:, LOG:, USED:, ping: or pong:, not {payload[:80]!r}"
        )
    return Reply(decode(payload))


def _numbered(payload: bytes, start: int) -> tuple[int, bytes]:
    """Return the command's number, which begins at `start`, and the rest after its colon."""
    end = payload.find(b":", start)
    if end < 0:
        end = len(payload)
    number = payload[start:end]
    if not number.isdigit() or len(number) > 15:
        raise BadMessage(
            f"the first colon must be followed by a command number, not {payload[:80]!r}"
        )
    return int(number), payload[end + 1 :]


def _object(text: bytes) -> dict[str, object]:
    """Return the JSON object in a USED."""
    try:
        value = json.loads(text.decode()) if len(text) <= USE_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadMessage(
            f"a USED must be USED:<command>: and a JSON object of at most {USE_BYTES} bytes, not"
            f" {text[:80]!r}"
        )
    return value


# ---------------------------------------------------------------- to a worker


class Welcome(Message):
    """Assigns an actor (None: a spare). The coordinator has the worker's first `replies` replies."""

    __slots__ = __match_args__ = ("actor", "attempt", "replies")

    def __init__(self, actor: int | None, attempt: int, replies: int) -> None:
        self.actor = actor
        self.attempt = attempt
        self.replies = replies

    def payload(self) -> bytes:
        actor = "-" if self.actor is None else self.actor
        return encode(f"welcome:{actor}:{self.attempt}:{self.replies}")


class Ack(Message):
    """The worker's first `replies` replies are on disk: it may drop them."""

    __slots__ = __match_args__ = ("replies",)

    def __init__(self, replies: int) -> None:
        self.replies = replies

    def payload(self) -> bytes:
        return encode(f"ack:{self.replies}")


class Command(Message):
    """A command for the worker: a name, a colon, and an argument of any content."""

    __slots__ = __match_args__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def name(self) -> str:
        return self.text.partition(":")[0]

    @property
    def argument(self) -> str:
        return self.text.partition(":")[2]

    def payload(self) -> bytes:
        return encode(self.text)


def from_coordinator(payload: bytes) -> Welcome | Ack | Ping | Pong | Command:
    """Parse a payload that the coordinator sent. Raises BadMessage."""
    text = decode(payload)
    name, _, rest = text.partition(":")
    match name:
        case "welcome":
            form = re.fullmatch(r"(-|[0-9]{1,15}):([0-9]{1,15}):([0-9]{1,15})", rest)
            if form is None:
                raise BadMessage(
                    f"a welcome must be welcome:<actor>:<attempt>:<replies>, not {text[:80]!r}"
                )
            actor = None if form[1] == "-" else int(form[1])
            return Welcome(actor, int(form[2]), int(form[3]))
        case "ack":
            if not re.fullmatch(r"[0-9]{1,15}", rest):
                raise BadMessage(f"an ack must be ack:<replies>, not {text[:80]!r}")
            return Ack(int(rest))
        case "ping":
            return Ping(rest)
        case "pong":
            return Pong(rest)
    return Command(text)


# ---------------------------------------------------------------- what states expect

_EXPECTED = {
    "set": "OK:SET",
    "seti": "OK:SETI",
    "get": "OK:GET",
    "geti": "OK:GETI",
    "dump_vals": "OK:DUMP_VALS",
    "echo": "OK:ECHO",
    "run": "OK:R",
    "retrieve": "OK:RETRIEV",
    "upload": "OK:UPLOAD",
    "connect": "OK:CONNECT",
    "close_connect": "OK:CLOSE_CONNECT",
    "get_blob": "OK:GET_BLOB(",
    "put_blob": "OK:PUT_BLOB(",
}
COMMANDS = frozenset(_EXPECTED)
"""The names of the commands that workers know, apart from quit."""


def expected_reply(command: str | None) -> str:
    """Return the known prefix of a successful reply to `command`."""
    if command is None:
        return "OK"
    return _EXPECTED.get(command.partition(":")[0], "OK")


STARTED = "OK:RUNNING(", "OK:RETRIEVING(", "OK:UPLOADING("
"""How the first reply to a slow command begins, if it runs in the background: another one follows."""


def may_bring(command: str, prefix: str) -> bool:
    """Return whether a reply to `command` may begin with `prefix`."""
    reply = expected_reply(command)
    return reply == "OK" or prefix.startswith((reply, "FAIL")) or reply.startswith(prefix)


def parse_info(text: str) -> tuple[str, str] | None:
    """Return the key and value of an `INFO:key:value`, or None for any other reply.

    Raises BadMessage for an INFO without a key or without a second colon.
    """
    if not text.startswith("INFO:"):
        return None
    _, _, rest = text.partition(":")
    key, colon, value = rest.partition(":")
    if not key or not colon:
        raise BadMessage(f"an INFO must be INFO:key:value, not {text[:80]!r}")
    return key, value


_RETVAL = r"OK:RETVAL\((-?[0-9]{1,15})\)(?::OUTPUT\((.*)\):COMMAND\(.*\))?"


def parse_retval(text: str) -> tuple[int, str]:
    """Return the exit status and output in an OK:RETVAL(n):OUTPUT(...):COMMAND(...).

    Raises BadMessage.
    """
    form = re.match(_RETVAL, text, re.DOTALL)
    if form is None:
        raise BadMessage(f"the reply must be OK:RETVAL(n):OUTPUT(...), not {text[:80]!r}")
    return int(form[1]), form[2] or ""


_ENCODERS = r"(?<![\w.-])(?:xc-enc|xc-dump|xc-terminate-chunk)(?![\w.-])"


def runs_encoder(command: str) -> bool:
    """Return whether a command names one of the encoder's programs that write a state."""
    return re.search(_ENCODERS, command) is not None
