"""What film's workers run, with ffmpeg. Needs Python 3.9 or newer, and no more.

    film.py look|encode|rest|join FOLDER

reads FOLDER/order.json, writes files into FOLDER, and prints one line of JSON: what it found, or
{"refused": a sentence}. All times are ticks of the film's own time base, so that nothing is rounded.
A frame belongs to chunk k if `border(k) <= its timestamp < border(k + 1)`; the first chunk has no
begin and the last no end. So no frame is lost or doubled, wherever the borders are.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

Order = dict[str, Any]

EARLIER_S = (0, 3, 15, 60)
"""How much earlier a chunk's decoding begins, in seconds, if the key frame before it is missed."""
LATER_S = 2
"""How far packets are listed after a chunk's end, in seconds."""
TAIL = 400


class Refused(Exception):
    """The film cannot be encoded; the message says why, to its owner."""


class Packet(NamedTuple):
    """A packet of a film, or a frame: its stream, timestamps and duration in ticks, and flags."""

    stream: int
    dts: int
    pts: int
    duration: int
    size: int
    key: bool
    shown: bool
    """False for packets before an edit list's begin, which are decoded, but not shown."""


# ---------------------------------------------------------------- ffmpeg


def find_ffmpeg(named: str = "") -> str:
    """Return the ffmpeg to run: the named one, the one in the bundle, or this machine's."""
    bundled = sorted(
        path for path in glob.glob("./ffmpeg*") if os.path.isfile(path) and os.access(path, os.X_OK)
    )
    found = named or next(iter(bundled), None) or shutil.which("ffmpeg")
    if not found:
        raise Refused("this worker has no ffmpeg: add one to the function's bundle")
    return found


class Ffmpeg:
    """Runs ffmpeg, and notes how long it took. Its errors do not have the film's URL."""

    def __init__(self, program: str, secret: str) -> None:
        self._program = program
        self._secret = secret
        self.seconds = 0.0

    def run(self, *words: object) -> tuple[int, str, str]:
        """Return the exit status, and what it printed: to stdout, and to stderr."""
        begun = time.monotonic()
        command = [self._program, "-hide_banner", "-nostdin", "-y", *map(str, words)]
        ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
        self.seconds = time.monotonic() - begun
        told = ran.stderr.decode("utf-8", "replace").replace(self._secret, "the film")
        return ran.returncode, ran.stdout.decode("utf-8", "replace"), told

    def need(self, what: str, *words: object) -> str:
        """Run ffmpeg, which must succeed; return its stdout. Raises Refused."""
        status, out, told = self.run("-v", "error", *words)
        if status:
            raise Refused(f"{what}: ffmpeg ended with status {status}: {told.strip()[-TAIL:]}")
        return out


def read_packets(listing: str) -> tuple[dict[int, Fraction], list[Packet]]:
    """Return the time bases of the streams in what `-f framecrc` printed, and the packets."""
    bases: dict[int, Fraction] = {}
    packets = []
    for line in listing.splitlines():
        base = re.match(r"#tb (\d+): (\d+)/(\d+)", line)
        if base:
            bases[int(base[1])] = Fraction(int(base[2]), int(base[3]))
        if not line or line[0] == "#":
            continue
        words = [word.strip() for word in line.split(",")]
        flags = next((int(word[2:], 16) for word in words[6:] if word.startswith("F=")), 1)
        if "NOPTS" in words[1:3]:
            raise Refused(
                "its frames have no timestamps of their own: copy it into an .mkv with ffmpeg first"
            )
        stream, dts, pts, duration, size = map(int, words[:5])
        packets.append(Packet(stream, dts, pts, duration, size, bool(flags & 1), not flags & 4))
    return bases, packets


def digest(ticks: Sequence[int]) -> str:
    """Return a short digest of timestamps."""
    return hashlib.sha256(" ".join(map(str, ticks)).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- what the film is


def look(order: Order, ffmpeg: Ffmpeg) -> dict[str, Any]:
    """Return what all other actors need to know about the film. Raises Refused."""
    url = order["url"]
    _, _, told = ffmpeg.run("-i", url)
    kinds = re.findall(r"^  Stream #0:(\d+).*?: (\w+): (.*)$", told, re.MULTILINE)
    films = [
        (int(number), text)
        for number, kind, text in kinds
        if kind == "Video" and "(attached pic)" not in text and "(still image)" not in text
    ]
    if not kinds:
        lines = [line for line in told.strip().splitlines() if not line.startswith("  ")]
        raise Refused(f"it is no film that ffmpeg can read: {' '.join(lines)[-TAIL:]}")
    if not films:
        raise Refused("it has no video track")
    if len(films) > 1:
        numbers = ", ".join(str(number) for number, _ in films)
        raise Refused(f"it has {len(films)} video tracks ({numbers}): keep one, with ffmpeg -map")
    one = ffmpeg.need(
        "its first frame",
        "-copyts",
        "-i",
        url,
        "-map",
        "0:V:0",
        "-c",
        "copy",
        "-frames:v",
        1,
        "-f",
        "framecrc",
        "-",
    )
    bases, packets = read_packets(one)
    if not packets:
        raise Refused("its video track has no frames")
    base = bases[0]
    ends = re.search(r"Duration: (\d+):(\d+):(\d+\.\d+), start: (-?\d+\.\d+)", told)
    if ends:
        length = int(ends[1]) * 3600 + int(ends[2]) * 60 + Fraction(ends[3])
        begin = Fraction(ends[4])
    else:
        listed = ffmpeg.need(
            "its frames", "-copyts", "-i", url, "-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"
        )
        _, packets = read_packets(listed)
        begin = min(packet.pts for packet in packets) * base
        length = max(packet.pts + packet.duration for packet in packets) * base - begin
    chunks = max(1, min(order["chunks"], int(length / Fraction(str(order["shortest_s"])))))
    return {
        "video": films[0][0],
        "base": [base.numerator, base.denominator],
        "begin": int(begin / base),
        "end": int((begin + length) / base),
        "chunks": chunks,
        "seconds": round(float(length), 3),
        "is": re.sub(r"\s+", " ", films[0][1])[:300],
        "tracks": [kind for _, kind, _ in kinds],
    }


def border(film: dict[str, Any], number: int) -> int | None:
    """Return where a chunk begins, in ticks. None: it has no limit on this side."""
    if not 0 < number < film["chunks"]:
        return None
    begin, end = film["begin"], film["end"]
    return int(begin + (end - begin) * number // film["chunks"])


def inside(ticks: Sequence[int], first: int | None, end: int | None) -> list[int]:
    """Return those timestamps that are in a chunk, in order."""
    return sorted(
        one for one in ticks if (first is None or first <= one) and (end is None or one < end)
    )


# ---------------------------------------------------------------- one chunk


def encode(order: Order, ffmpeg: Ffmpeg, folder: str) -> dict[str, Any]:
    """Encode a chunk to FOLDER/chunk.mp4; return its frames, or none if it has none."""
    begun = time.monotonic()
    film, number = order["film"], order["chunk"]
    if number >= film["chunks"]:
        return {"frames": 0}
    base = Fraction(*film["base"])
    first, end = border(film, number), border(film, number + 1)
    seek, frames = find_frames(order, ffmpeg, base, first, end)
    if not frames:
        return {"frames": 0}
    out = f"{folder}/chunk.mp4"
    limits = [f"start_pts={frames[0]}", *([f"end_pts={end}"] if end is not None else [])]
    filters = [
        f"settb={base.numerator}/{base.denominator}",
        f"trim={':'.join(limits)}",
        f"setpts=PTS-({frames[0]})",
        *order["filters"],
    ]
    log = f"{folder}/passes"
    source = [*seek, "-i", order["url"], "-map", "0:V:0", "-vf", ",".join(filters)]
    source += ["-fps_mode", "passthrough", "-enc_time_base", f"{base.numerator}/{base.denominator}"]
    encoding = 0.0
    for turn in range(1, order["passes"] + 1):
        words = [*source, *order["encoder"]]
        if order["passes"] > 1:
            words += ["-pass", turn, "-passlogfile", log]
        if turn < order["passes"]:
            words += ["-f", "null", "-"]
        else:
            words += ["-video_track_timescale", base.denominator, out]
        ffmpeg.need("encoding", *words)
        encoding += ffmpeg.seconds
    made = ffmpeg.need("the chunk", "-copyts", "-i", out, "-c", "copy", "-f", "framecrc", "-")
    bases, packets = read_packets(made)
    ticks = sorted(packet.pts * bases[0] / base + frames[0] for packet in packets)
    if ticks != frames:
        raise Refused(
            f"from {float(frames[0] * base):.3f} s to {float(frames[-1] * base):.3f} s it has"
            f" {len(frames)} frames, but {len(ticks)} could be decoded: it is damaged there"
        )
    return {
        "frames": len(frames),
        "first": frames[0],
        "digest": digest(frames),
        "bytes": os.path.getsize(out),
        "encoding_s": round(encoding, 3),
        "seconds": round(time.monotonic() - begun, 3),
    }


def find_frames(
    order: Order, ffmpeg: Ffmpeg, base: Fraction, first: int | None, end: int | None
) -> tuple[list[object], list[int]]:
    """Return words that let ffmpeg begin at a key frame before a chunk, and the chunk's frames.

    What follows a key frame in the order of display can be decoded from there on.
    """
    for earlier in (*EARLIER_S, None):
        seek: list[object] = ["-copyts"]
        begin = None
        if first is not None and earlier is not None:
            begin = first * base - earlier
            seek += ["-seek_timestamp", 1, "-noaccurate_seek", "-ss", f"{float(begin):.6f}"]
        limit: list[object] = []
        if end is not None and begin is not None:
            limit = ["-t", f"{float(end * base - begin + LATER_S):.6f}"]
        listed = ffmpeg.need(
            "its frames",
            *seek,
            *limit,
            "-i",
            order["url"],
            "-map",
            "0:V:0",
            "-c",
            "copy",
            "-copyinkf",
            "-copypriorss",
            1,
            "-f",
            "framecrc",
            "-",
        )
        _, packets = read_packets(listed)
        if begin is None or (packets and packets[0].key and packets[0].pts <= (first or 0)):
            return seek, inside([one.pts for one in packets if one.shown], first, end)
    raise AssertionError("without a seek, a list begins with the film")


# ---------------------------------------------------------------- all else in the film


def rest(order: Order, ffmpeg: Ffmpeg, folder: str) -> dict[str, Any]:
    """Copy what is no video to FOLDER/rest.*, and list the frames of each chunk in FOLDER/frames."""
    film = order["film"]
    listing = f"{folder}/listing"
    words: list[object] = ["-copyts", "-i", order["url"]]
    words += ["-map", "0:V:0", "-c", "copy", "-copyinkf", "-f", "framecrc", listing]
    ffmpeg.need("its frames", *words)
    with open(listing, encoding="ascii") as file:
        _, packets = read_packets(file.read())
    os.remove(listing)
    ticks = sorted(packet.pts for packet in packets if packet.shown)
    borders = [border(film, number) for number in range(film["chunks"] + 1)]
    parts = [inside(ticks, *both) for both in zip(borders, borders[1:])]
    with open(f"{folder}/frames", "w", encoding="ascii") as file:
        json.dump([[len(part), digest(part)] for part in parts], file)
    return {"frames": len(ticks)}


# ---------------------------------------------------------------- the whole


def join(order: Order, ffmpeg: Ffmpeg, folder: str) -> dict[str, Any]:
    """Join FOLDER/0.mp4 and so on to FOLDER/<out>; check it against FOLDER/frames."""
    film, chunks = order["film"], order["chunks"]
    base = Fraction(*film["base"])
    with open(f"{folder}/frames", encoding="ascii") as file:
        expected = json.load(file)
    for number, (count, its_digest) in enumerate(expected):
        made = chunks[number]
        if (made["frames"], made.get("digest", digest([]))) != (count, its_digest):
            raise Refused(f"chunk {number} has {made['frames']} frames, and the film {count} there")
    kept = [(number, one) for number, one in enumerate(chunks) if one["frames"]]
    begins = [round(one["first"] * base * 1_000_000) for _, one in kept]
    with open(f"{folder}/list", "w", encoding="ascii") as file:
        file.write("ffconcat version 1.0\n")
        for at, (number, _) in enumerate(kept):
            file.write(f"file {number}.mp4\n")
            if at + 1 < len(kept):
                file.write(f"duration {(begins[at + 1] - begins[at]) / 1_000_000:.6f}\n")
    out = f"{folder}/{order['out']}"
    ffmpeg.need(
        "joining",
        "-f",
        "concat",
        "-i",
        f"{folder}/list",
        "-map",
        "0:v",
        "-c",
        "copy",
        "-video_track_timescale",
        base.denominator,
        *order["muxer"],
        out,
    )
    listed = ffmpeg.need(
        "the result", "-copyts", "-i", out, "-map", "0:V", "-c", "copy", "-f", "framecrc", "-"
    )
    bases, packets = read_packets(listed)
    total = sum(one["frames"] for _, one in kept)
    if len(packets) != total:
        raise Refused(f"the joined film has {len(packets)} frames instead of {total}")
    return {"frames": total, "bytes": os.path.getsize(out)}


def main(work: str, folder: str) -> None:
    with open(f"{folder}/order.json", encoding="utf-8") as file:
        order = json.load(file)
    try:
        ffmpeg = Ffmpeg(find_ffmpeg(order["ffmpeg"]), order["url"])
        if work == "look":
            found = look(order, ffmpeg)
        else:
            found = {"encode": encode, "rest": rest, "join": join}[work](order, ffmpeg, folder)
    except Refused as why:
        found = {"refused": str(why)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
