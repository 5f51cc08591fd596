"""The output of an actor's commands: as much of its end as is kept, and which input each part is of."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from mu.messages import encode

_LINE_START = re.compile(rb"^(?=.)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the stream that belongs to one input."""

    place: int
    turns: bool
    """Whether the previous byte belongs to another input."""
    source: str
    output: bytes


class Tail:
    """The last `limit` bytes of a stream, whose parts belong to inputs."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._sources: deque[tuple[int, str]] = deque()
        """From which byte on the stream is of which input, oldest first."""
        self.end = 0
        """The length of the whole stream, in bytes."""

    def write(self, output: bytes, source: str = "") -> None:
        """Add output of this input, or of none in particular."""
        if not self._sources or self._sources[-1][1] != source:
            self._sources.append((self.end, source))
        self._bytes += output
        self.end += len(output)
        del self._bytes[: max(0, len(self._bytes) - self._limit)]
        while len(self._sources) > 1 and self._sources[1][0] <= self.begin:
            self._sources.popleft()

    @property
    def begin(self) -> int:
        """The place in the stream of the first byte that is kept."""
        return self.end - len(self._bytes)

    def since(self, start: int) -> bytes:
        """Return the stream from byte `start` on, as far as it is kept."""
        return bytes(self._bytes[max(0, start - self.begin) :])

    def of(self, source: str, start: int) -> bytes:
        """Return the output of one input from byte `start` of the stream on."""
        return b"".join(part.output for part in self._parts(start) if part.source == source)

    def labelled(self, start: int) -> bytes:
        """Return the stream from byte `start` on; each line begins with the name of its input.

        Pieces that are read one after the other give the same text as the whole.
        """
        return b"".join(map(self._label, self._parts(start)))

    def _parts(self, start: int) -> Iterator["_Part"]:
        """Yield the parts of the stream from `start` on."""
        sources = list(self._sources)
        ends = [place for place, _ in sources[1:]] + [self.end]
        for (place, source), end in zip(sources, ends, strict=False):  # there may be no output
            first = max(place, start, self.begin)
            if first < end:
                output = bytes(self._bytes[first - self.begin : end - self.begin])
                yield _Part(first, first == place, source, output)

    def _label(self, part: "_Part") -> bytes:
        label = b"%b: " % encode(part.source.replace("\n", "\\n")) if part.source else b""
        text = _LINE_START.sub(lambda _: label, part.output)
        if part.place == self.begin or self._bytes[part.place - self.begin - 1] == ord("\n"):
            return text
        return b"\n" + text if part.turns else text.removeprefix(label)

    def __len__(self) -> int:
        return len(self._bytes)

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)

    def drop(self) -> None:
        """Keep nothing of what there is."""
        self._bytes.clear()
        self._sources.clear()

    def misses(self, start: int) -> bool:
        """Whether nothing is kept of the stream from byte `start` on, although there was some."""
        return not self._bytes and start < self.end
