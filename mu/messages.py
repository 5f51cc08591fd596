"""Payloads to values and back: hellos, welcomes, numbered replies, commands.

Both ends speak this one module (the worker's bundle ships it), so it needs only mu.wire. Texts
are UTF-8 with surrogateescape, so that whatever bytes came in go out again unaltered.
"""

import re
from dataclasses import dataclass

__all__ = ["HELLO", "expected_reply", "parse_info", "parse_retval"]  # what plugins may import

HELLO = "OK:HELLO"
PING_BYTES = 256
"""The longest ping that is answered: an answer is as long."""


class BadMessage(ValueError):
    """A payload that begins like one of ours, but does not go on like it."""


def decode(payload: bytes) -> str:
    """Return the payload as the text that states see."""
    return payload.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the payload of a text; the exact inverse of decode."""
    return text.encode("utf-8", "surrogateescape")


# ---------------------------------------------------------------- from a worker


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first words. An original worker's has no session: then all else is empty too."""

    session: str = ""
    """Hexadecimal, chosen by the worker once; the same on each of its connections."""
    launch: str = ""
    """The one-time launch id of the event that started it."""
    received: int = 0
    """Commands received since the session began."""
    crc: int = 0
    """CRC-32 of those command frames, headers included."""
    sent: int = 0
    """Replies sent since the session began."""

    _FORM = re.compile(
        r"\(session=(?P<session>[0-9a-f]{1,64}),launch=(?P<launch>[^,()]{0,64})"
        r",received=(?P<received>[0-9]{1,15}):(?P<crc>[0-9a-f]{8}),sent=(?P<sent>[0-9]{1,15})\)"
    )

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

        What follows OK:HELLO in another form than ours is some other worker's own affair: it is
        greeted as an original one.
        """
        text = decode(payload)
        if not text.startswith(HELLO):
            raise BadMessage(f"a worker's first words must be {HELLO}; {text[:80]!r} came instead")
        form = cls._FORM.fullmatch(text, len(HELLO))
        if form is None:
            return cls()
        return cls(
            session=form["session"],
            launch=form["launch"],
            received=int(form["received"]),
            crc=int(form["crc"], 16),
            sent=int(form["sent"]),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker answered; `command` is the number of the command (from 1), 0 if not said."""

    text: str
    command: int = 0

    def payload(self) -> bytes:
        return encode(f"RE:{self.command}:{self.text}")


@dataclass(frozen=True, slots=True)
class Log:
    """Output of the running command number `command`, for people; states never see it."""

    command: int
    output: bytes

    def payload(self) -> bytes:
        return b"LOG:%d:%b" % (self.command, self.output)


@dataclass(frozen=True, slots=True)
class Ping:
    """Either side asks whether the other is there."""

    text: str = ""

    def payload(self) -> bytes:
        return encode(f"ping:{self.text}")


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a Ping, with its text."""

    text: str = ""

    def payload(self) -> bytes:
        return encode(f"pong:{self.text}")


def from_worker(payload: bytes, welcomed: bool) -> Reply | Log | Ping | Pong:
    """Read a frame that came from a worker after its hello.

    A worker that was not welcomed speaks the original's language: all it says is a reply.
    Raises BadMessage.
    """
    if welcomed:
        if payload.startswith(b"RE:"):
            number, text = _numbered(payload)
            return Reply(decode(text), number)
        if payload.startswith(b"LOG:"):
            number, output = _numbered(payload)
            return Log(number, output)
        if payload.startswith(b"ping:"):
            if len(payload) > PING_BYTES:
                raise BadMessage(f"a ping has {PING_BYTES} bytes at most; {len(payload)} came")
            return Ping(decode(payload[5:]))
        if payload.startswith(b"pong:"):
            return Pong(decode(payload[5:]))
        raise BadMessage(
            f"a welcomed worker says RE:, LOG:, ping: or pong:; {payload[:80]!r} came instead"
        )
    return Reply(decode(payload))


def _numbered(payload: bytes) -> tuple[int, bytes]:
    _, number, rest = (*payload.split(b":", 2), b"")[:3]
    if not number.isdigit() or len(number) > 15:
        raise BadMessage(f"a command's number must follow the first colon; {payload[:80]!r} came")
    return int(number), rest


# ---------------------------------------------------------------- to a worker


@dataclass(frozen=True, slots=True)
class Welcome:
    """A session's actor (None: a spare); the coordinator has its first `replies` replies."""

    actor: int | None
    attempt: int
    replies: int

    def payload(self) -> bytes:
        actor = "-" if self.actor is None else self.actor
        return encode(f"welcome:{actor}:{self.attempt}:{self.replies}")


@dataclass(frozen=True, slots=True)
class Ack:
    """The first `replies` replies are on disk: the worker may drop them."""

    replies: int

    def payload(self) -> bytes:
        return encode(f"ack:{self.replies}")


@dataclass(frozen=True, slots=True)
class Command:
    """An order for the worker: a name, a colon, and an argument that may hold anything."""

    text: str

    @property
    def name(self) -> str:
        return self.text.partition(":")[0]

    @property
    def argument(self) -> str:
        return self.text.partition(":")[2]

    def payload(self) -> bytes:
        return encode(self.text)


def from_coordinator(payload: bytes) -> Welcome | Ack | Ping | Pong | Command:
    """Read a frame that came to a worker. Raises BadMessage."""
    text = decode(payload)
    name, _, rest = text.partition(":")
    match name:
        case "welcome":
            form = re.fullmatch(r"(-|\d+):(\d+):(\d+)", rest)
            if form is None:
                raise BadMessage(
                    f"a welcome reads welcome:<actor>:<attempt>:<k>; {text[:80]!r} came"
                )
            actor = None if form[1] == "-" else int(form[1])
            return Welcome(actor, int(form[2]), int(form[3]))
        case "ack":
            if not rest.isdecimal():
                raise BadMessage(f"an ack reads ack:<k>; {text[:80]!r} came")
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
}


def expected_reply(command: str | None) -> str:
    """Return the prefix with which the reply to `command` begins, as far as it is known before."""
    if command is None:
        return "OK"
    return _EXPECTED.get(command.partition(":")[0], "OK")


def parse_info(text: str) -> tuple[str, str] | None:
    """Return key and value of an `INFO:key:value`, or None for any other reply.

    Raises BadMessage for an INFO without a key or without a second colon.
    """
    if not text.startswith("INFO:"):
        return None
    _, _, rest = text.partition(":")
    key, colon, value = rest.partition(":")
    if not key or not colon:
        raise BadMessage(f"an INFO reads INFO:key:value; {text[:80]!r} came")
    return key, value


_RETVAL = re.compile(r"OK:RETVAL\((-?\d+)\)(?::OUTPUT\((.*)\):COMMAND\(.*\))?", re.DOTALL)


def parse_retval(text: str) -> tuple[int, str]:
    """Return the exit status and the output of an OK:RETVAL(n):OUTPUT(...):COMMAND(...).

    Raises BadMessage.
    """
    form = _RETVAL.match(text)
    if form is None:
        raise BadMessage(f"OK:RETVAL(n):OUTPUT(...) was expected; {text[:80]!r} came")
    return int(form[1]), form[2] or ""
