"""One chunk of a film: where it begins and ends, its encoding, and its quality."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from fractions import Fraction

from .ffmpeg import TAIL, Ffmpeg, FilmError, Json, sentence

EARLIER_S = (0, 3, 15, 60)
"""How much earlier a chunk's decoding begins, in seconds, if the key frame before it is missed."""
LATER_S = 2
"""How far packets are listed after a chunk's end, in seconds."""
SCENE_S = 1
"""How far a border may move to a scene cut, in seconds."""
SCENE = 10
"""The score of ffmpeg's scdet from which a frame begins a scene; its own default."""


def border(film: Json, number: int) -> int | None:
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


def encode(order: Json, ffmpeg: Ffmpeg, folder: str) -> Json:
    """Encode a chunk to FOLDER/chunk.mp4; return its frames, or none if it has none."""
    begun = time.monotonic()
    film, number = order["film"], order["chunk"]
    if number >= film["chunks"]:
        return {"frames": 0}
    base = Fraction(*film["base"])
    first, end = (cut_near(order, ffmpeg, base, at) for at in (number, number + 1))
    seek, frames = find_frames(order, ffmpeg, base, first, end)
    if not frames:
        return {"frames": 0}
    out = f"{folder}/chunk.mp4"
    source = [
        *seek,
        "-i",
        order["url"],
        "-map",
        "0:V:0",
        "-map_metadata:g",
        -1,
        "-map_chapters",
        -1,
    ]
    source += ["-vf", _frames_from(film, frames[0], end), "-fps_mode", "passthrough"]
    shift = f"pts=PTS-({frames[0]}):dts=DTS-({frames[0]}):duration=max(DURATION\\,1)"
    source += ["-enc_time_base", f"{base.numerator}/{base.denominator}"]
    encoding = 0.0
    for turn, words in enumerate(order["encoder"], 1):
        words = [word.replace("PASSES", f"{folder}/passes") for word in words]
        last = turn == len(order["encoder"])
        to = (
            ["-bsf:v", f"setts={shift}", "-video_track_timescale", base.denominator, out]
            if last
            else ["-f", "null", "-"]
        )
        ffmpeg.need("encoding", *source, *words, *to)
        encoding += ffmpeg.seconds
    told = sentence(ffmpeg.told)
    listing = ffmpeg.packets("the chunk", "-copyts", "-i", out)
    ticks = sorted(packet.pts * listing.bases[0] / base + frames[0] for packet in listing)
    if ticks != frames:
        raise FilmError(
            f"from {float(frames[0] * base):.3f} s to {float(frames[-1] * base):.3f} s it has"
            f" {len(frames)} frames, but {len(ticks)} could be encoded: it is damaged there, or"
            " params.filters changes their number or times"
        )
    made: Json = {
        "frames": len(frames),
        "first": frames[0],
        "last": frames[-1],
        "bytes": os.path.getsize(out),
        "encoding_s": round(encoding, 3),
    }
    if told:
        made["told"] = told
    if film["measure"]:
        made[film["measure"]] = measure(order, ffmpeg, seek, frames, out)
    made["seconds"] = round(time.monotonic() - begun, 3)
    return made


def cut_near(order: Json, ffmpeg: Ffmpeg, base: Fraction, number: int) -> int | None:
    """Return the border before a chunk, or the scene cut near it if the order wants one.

    The workers on both sides of it find the same one.
    """
    film = order["film"]
    at = border(film, number)
    if at is None or not order["scenes"]:
        return at
    reach = min(int(SCENE_S / base), (film["end"] - film["begin"]) // film["chunks"] // 4)
    first, end = at - reach, at + reach
    seek, _ = find_frames(order, ffmpeg, base, first, end)
    top, bottom = film["base"]
    filters = f"settb={top}/{bottom},trim=start_pts={first}:end_pts={end},scdet=threshold=0"
    filters += ",metadata=print:key=lavfi.scd.score:file=-"
    told = ffmpeg.need(
        "its scene cuts",
        *seek,
        "-i",
        order["url"],
        "-map",
        "0:V:0",
        "-vf",
        filters,
        "-f",
        "null",
        "-",
    )
    found = re.findall(r"pts:(-?\d+) .*\nlavfi\.scd\.score=([0-9.]+)", told)
    score, cut = max(((float(score), int(pts)) for pts, score in found), default=(0.0, at))
    return cut if score >= SCENE else at


def _frames_from(film: Json, first: int, end: int | None) -> str:
    """Return the filters for the frames from the timestamp `first` to before `end`."""
    to = "" if end is None else f":end_pts={end}"
    top, bottom = film["base"]
    chosen = f"settb={top}/{bottom},trim=start_pts={first}{to}"
    return ",".join([chosen, *film["filters"]])


def find_frames(
    order: Json, ffmpeg: Ffmpeg, base: Fraction, first: int | None, end: int | None
) -> tuple[list[object], list[int]]:
    """Return words that let ffmpeg begin at a key frame before a chunk, and the chunk's frames.

    What follows a key frame in the order of display can be decoded from there on.
    """
    for earlier in (*EARLIER_S, None):
        seek: list[object] = ["-copyts"]
        begin = None
        limit: list[object] = []
        if first is not None and earlier is not None:
            begin = first * base - earlier
            seek += ["-seek_timestamp", 1, "-noaccurate_seek", "-ss", f"{float(begin):.6f}"]
            if end is not None:
                limit = ["-t", f"{float(end * base - begin + LATER_S):.6f}"]
        source = (*seek, *limit, "-i", order["url"], "-map", "0:V:0")
        packets = list(ffmpeg.packets("its frames", *source, "-copyinkf", "-copypriorss", 1))
        if begin is None or (packets and packets[0].key and packets[0].pts <= (first or 0)):
            return seek, inside([one.pts for one in packets if one.shown], first, end)
    raise AssertionError("without a seek, a list begins with the film")


def measure(
    order: Json, ffmpeg: Ffmpeg, seek: Sequence[object], frames: Sequence[int], out: str
) -> float:
    """Return how like the film's the chunk's first frames are: SSIM of the brightness, or VMAF."""
    film = order["film"]
    count = order["sample"]
    end = frames[count] if len(frames) > count else frames[-1] + 1
    top, bottom = film["base"]
    likeness = "libvmaf" if film["measure"] == "vmaf" else "ssim"
    pixels = "format=yuv420p" if film["measure"] == "vmaf" else "format=gray10le"
    to = f",trim=end_pts={end - frames[0]}"
    graph = (
        f"[0:V:0]settb={top}/{bottom}{to},{pixels}[ours];"
        f"[1:V:0]{_frames_from(film, frames[0], end)},setpts=PTS-({frames[0]}),{pixels}[theirs];[ours][theirs]{likeness}"
    )
    status, _, told = ffmpeg.run(
        "-i", out, *seek, "-i", order["url"], "-lavfi", graph, "-f", "null", "-"
    )
    found = re.search(r"SSIM Y:([0-9.]+)|VMAF score: ([0-9.]+)", told)
    if status or not found:
        raise FilmError(f"measuring {film['measure']}: status {status}: {told.strip()[-TAIL:]}")
    return float(found[1] or found[2])
