"""ffmpeg and what it lists of a film: its packets, their times, and how long each track is."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

Json = dict[str, Any]
"""An object: an order, or what was found."""
TAIL = 400
"""How many characters of what ffmpeg printed are in an error."""
MOV = (".mp4", ".m4v", ".mov")
NO_TIME = str(-(2**63))
"""A timestamp that is not there."""


class FilmError(Exception):
    """The film cannot be encoded; the message says why, to its owner."""


class Packet(NamedTuple):
    """A packet of a film, or a frame: its stream, timestamps and duration in ticks, and flags."""

    stream: int
    dts: int
    pts: int
    duration: int
    key: bool
    shown: bool
    """False for packets before an edit list's begin, which are decoded, but not shown."""


class Span(NamedTuple):
    """A track: how many packets it has, and when it begins and ends, in seconds."""

    packets: int
    begin: float
    end: float


def find_ffmpeg(named: str = "") -> str:
    """Return the ffmpeg to run: the named one, the one in the bundle, or this machine's."""
    bundled = sorted(
        path for path in glob.glob("./ffmpeg*") if os.path.isfile(path) and os.access(path, os.X_OK)
    )
    found = named or next(iter(bundled), None) or shutil.which("ffmpeg")
    if not found:
        raise FilmError(
            "this worker has no ffmpeg: make its function with mu launch --program FFMPEG, or name"
            " the path of one with -p ffmpeg"
        )
    return found


class Ffmpeg:
    """Runs ffmpeg, and notes how long it took. Its errors do not have the film's URL."""

    def __init__(self, program: str, secret: str) -> None:
        self._program = program
        self._secret = secret or "\0"
        self.seconds = 0.0
        self.told = ""
        """The errors that it printed, though it succeeded."""

    def run(self, *words: object) -> tuple[int, str, str]:
        """Return the exit status, and what it printed: to stdout, and to stderr."""
        begun = time.monotonic()
        command = [self._program, "-hide_banner", "-nostdin", "-y", *map(str, words)]
        try:
            ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise FilmError(f"ffmpeg {self._program}: {error.strerror}") from None
        self.seconds = time.monotonic() - begun
        told = ran.stderr.decode("utf-8", "replace").replace(self._secret, "the film")
        return ran.returncode, ran.stdout.decode("utf-8", "replace"), told

    def need(self, what: str, *words: object) -> str:
        """Run ffmpeg, which must succeed; return its stdout. Raises FilmError."""
        status, out, told = self.run("-v", "error", *words)
        if status:
            raise FilmError(f"{what}: ffmpeg ended with status {status}: {sentence(told)}")
        self.told = told.strip()
        return out

    def packets(self, what: str, *words: object) -> Listing:
        """Return the packets of what these words select."""
        return Listing(self.need(what, *words, "-c", "copy", "-f", "framecrc", "-").splitlines())


def sentence(told: str) -> str:
    """Return the first line that ffmpeg printed, without addresses."""
    return re.sub(r"\[(\S+) @ \w+\]", r"\1:", told.strip().partition("\n")[0])[:TAIL]


class Listing:
    """The packets in what `-f framecrc` has written; `bases` are the streams' ticks in seconds.

    Iterate over it once.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.bases: dict[int, Fraction] = {}
        self._lines = lines

    def __iter__(self) -> Iterator[Packet]:
        for line in self._lines:
            if line.startswith("#"):
                base = re.match(r"#tb (\d+): (\d+)/(\d+)", line)
                if base:
                    self.bases[int(base[1])] = Fraction(int(base[2]), int(base[3]))
                continue
            words = [word.strip() for word in line.split(",")]
            flags = next((int(word[2:], 16) for word in words[6:] if word.startswith("F=")), 1)
            if NO_TIME in words[1:3]:
                raise FilmError(
                    "its frames have no timestamps: first copy it into an .mkv file, with"
                    " ffmpeg -fflags +genpts -i FILM -c copy FILM.mkv"
                )
            stream, dts, pts, duration = map(int, words[:4])
            yield Packet(stream, dts, pts, duration, bool(flags & 1), not flags & 4)


def frames_and_spans(listing: Listing, video: int) -> tuple[list[int], dict[int, Span]]:
    """Return the timestamps of the frames in one stream of a listing, and each stream's span."""
    frames: list[int] = []
    spans: dict[int, Span] = {}
    for one in listing:
        if one.stream == video and one.shown:
            frames.append(one.pts)
        base = listing.bases[one.stream]
        begin, end = float(one.pts * base), float((one.pts + one.duration) * base)
        had = spans.get(one.stream, Span(0, begin, end))
        spans[one.stream] = Span(had.packets + 1, min(had.begin, begin), max(had.end, end))
    return sorted(frames), spans
