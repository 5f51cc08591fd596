"""The lines of an actor's log on disk: written from pieces of output, and read back.

Each line is

    TIME ACTOR.ATTEMPT.COMMAND SOURCE TAG TEXT

TIME is when the daemon received it, in UTC. SOURCE is the name of the input that the command handles,
with spaces as %20, or `-`. TAG says what TEXT is:

    |  a line of output            +  output that no line break follows
    >  the same, of what had been  -  lost and came with the command's reply
    ^  where that belongs: after so many bytes of the command, and before so many
    !  a note                      ~  how much was cut out here, to keep the file small
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from mu.messages import decode, encode

TEXT, FILL, PLACE, NOTE, CUT = "text", "fill", "place", "note", "cut"
WHOLE = "whole"
"""All of a command's output, from its reply: it may have parts that the log lacks. Not on disk."""
ONCE = "once"
"""The same, but the log has all of it or nothing. Not on disk."""

MOST_TEXT = 16384
"""How much of a text becomes lines at once, in bytes: each line break adds the start of a line."""

_TAGS = {TEXT: (b"|", b"+"), FILL: (b">", b"-")}
_KINDS = {b"|": TEXT, b"+": TEXT, b">": FILL, b"-": FILL, b"^": PLACE, b"!": NOTE, b"~": CUT}
_LINE = re.compile(
    rb"^(\S+) \d{1,15}\.(\d{1,15})\.(\d{1,15}) (\S+) ([|+>^!~-]) (.*)\n", re.MULTILINE
)
_NUMBERS = {PLACE: re.compile(rb"\d{1,15} \d{1,15} \d{1,15}"), CUT: re.compile(rb"\d{1,15}")}
_UNSAFE = re.compile(rb"[\x00-\x20%\x7f]")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")


class Piece(NamedTuple):
    """A piece of what an attempt printed, or what there is to say about it."""

    at: float
    """In seconds since the epoch."""
    attempt: int
    command: int
    source: str
    text: bytes
    kind: str = TEXT


class OutputSink(Protocol):
    """Takes what the attempts of jobs print (mu.output.keeper.OutputKeeper)."""

    def write(self, job: str, actor: int, piece: Piece) -> None:
        """Add a piece to an actor's log."""

    def end(self, job: str) -> None:
        """Note that a job has ended, which is on disk: nothing more is printed."""


class NoOutput:
    """Keeps nothing."""

    def write(self, job: str, actor: int, piece: Piece) -> None: ...
    def end(self, job: str) -> None: ...


class LogEntry(NamedTuple):
    """A line of a log, as it was read."""

    time: bytes
    attempt: int
    command: int
    source: str
    kind: str
    text: bytes
    start: int
    """Its place in the actor's log, in which each byte of output counts, also those cut out."""
    end: int


def excerpt(pieces: list[Piece], limit: int) -> list[Piece]:
    """Return pieces of which only about `limit` bytes at the beginning and at the end are left."""
    size = sum(len(piece.text) for piece in pieces)
    if size <= 2 * limit:
        return pieces
    kept: list[Piece] = []
    place = 0
    for piece in pieces:
        text = piece.text
        until, since = max(0, limit - place), max(0, size - limit - place)
        place += len(text)
        if piece.kind not in (TEXT, ONCE) or until >= len(text) or since == 0:
            kept.append(piece)
            continue
        cut = min(since, len(text)) - until
        if until:
            kept.append(piece._replace(text=text[:until]))
        elif kept and kept[-1].kind == CUT:
            cut += int(kept.pop().text)
        kept.append(piece._replace(text=b"%d" % cut, kind=CUT))
        if since < len(text):
            kept.append(piece._replace(text=text[since:]))
    return kept


def lines_of(actor: int, piece: Piece) -> Iterator[bytes]:
    """Yield a piece as lines of a log, some at a time."""
    source = _quoted(piece.source)
    where = b"%d.%d.%d %b" % (actor, piece.attempt, piece.command, source)
    start = b"%b %b " % (_time(piece.at), where)
    if piece.kind not in _TAGS:
        tag = next(tag for tag, kind in _KINDS.items() if kind == piece.kind)
        yield b"%b%b %b\n" % (start, tag, piece.text)
        return
    whole, part = _TAGS[piece.kind]
    before = b"%b%b " % (start, whole)
    place, size = 0, len(piece.text)
    while place < size:
        end = place + MOST_TEXT
        if end < size:
            end = piece.text.rfind(b"\n", place, end) + 1 or end
        text, newline, rest = piece.text[place:end].rpartition(b"\n")
        lines = before + text.replace(b"\n", b"\n" + before) + b"\n" if newline else b""
        yield lines + b"%b%b %b\n" % (start, part, rest) if rest else lines
        place = end


def read_entries(data: bytes, place: int = 0) -> Iterator[LogEntry]:
    """Yield the entries in the lines of a log, the first of which begins at `place`.

    Anything else in it, such as half a line, is left out.
    """
    sources: dict[bytes, str] = {}
    for time, attempt, command, quoted, tag, text in _LINE.findall(data):
        source = sources.get(quoted)
        if source is None:
            source = sources[quoted] = _unquoted(quoted)
        kind = _KINDS[tag]
        width = 1
        if kind in _TAGS:
            text += b"\n" if tag in b"|>" else b""
            width = len(text)
        elif kind in _NUMBERS and not _NUMBERS[kind].fullmatch(text):
            continue
        elif kind == CUT:
            width = int(text)
        yield LogEntry(time, int(attempt), int(command), source, kind, text, place, place + width)
        place += width


def _time(at: float) -> bytes:
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):  # no clock says that
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds")[:23].encode("ascii") + b"Z"


def _quoted(source: str) -> bytes:
    """Return the name of an input as one word."""
    if source in ("", "-"):
        return b"%2D" if source else b"-"
    return _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], encode(source))


def _unquoted(word: bytes) -> str:
    if word == b"-":
        return ""
    return decode(_ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), word))
