"""The whole film: all but its video, copied; and the chunks, joined and checked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from fractions import Fraction

from .ffmpeg import MOV, Ffmpeg, FilmError, Json, Listing, Span, frames_and_spans, sentence

SYNC_S = 0.05
"""How far a sound that is encoded anew may begin or end from where it did, in seconds."""


def later(ending: str) -> int:
    """Return how much later than in the film FOLDER/rest.* begins, in seconds.

    Matroska has no times before 0, which sounds begin at; it would move them.
    """
    return 0 if ending in MOV else 10


def rest(order: Json, ffmpeg: Ffmpeg, folder: str) -> Json:
    """Copy what is no video to FOLDER/rest.*, its tags to FOLDER/tags; list what FOLDER/frames has."""
    film, listing = order["film"], f"{folder}/listing"
    words: list[object] = ["-copyts", "-i", order["url"], "-map", "0:V:0"]
    for number, _, _ in film["mapped"]:
        words += ["-map", f"0:{number}"]
    words += ["-c", "copy", "-copyinkf", "-f", "framecrc", listing]
    words += ["-map", "0:V:0", "-c", "copy", "-f", "ffmetadata", f"{folder}/tags"]
    if film["words"]:
        offset = -film["start_us"] / 1_000_000
        words += [*film["words"], "-map_chapters", -1]
        words += ["-output_ts_offset", f"{offset + later(order['ending']):.6f}"]
        words.append(f"{folder}/rest{order['ending']}")
    ffmpeg.need("copying its other tracks", *words)
    told = ffmpeg.told
    with open(listing, encoding="ascii") as file:
        frames, spans = frames_and_spans(Listing(file), 0)
    os.remove(listing)
    ends = max((span.end for span in spans.values()), default=0.0)
    due = float(film["end"] * Fraction(*film["base"]))
    if told and ends < due - 0.1:
        raise FilmError(
            f"it ends at {ends:.1f} s, and should at {due:.1f} s: it is not whole"
            f" ({sentence(told)})"
        )
    with open(f"{folder}/frames", "w", encoding="ascii") as file:
        json.dump({"frames": frames, "spans": spans}, file)
    size = os.path.getsize(f"{folder}/rest{order['ending']}") if film["words"] else 0
    return {"frames": len(frames), "bytes": size}


def room(order: Json, ffmpeg: Ffmpeg, folder: str) -> Json:
    """Raise FilmError if the disk has no room for the chunks and the result."""
    free = shutil.disk_usage(folder).free
    if order["needed"] > free:
        raise FilmError(
            f"joining needs {order['needed'] / 1e6:.0f} MB of this worker's disk, which has"
            f" {free / 1e6:.0f} MB: give the function more (mu deploy --tmp)"
        )
    return {}


def join(order: Json, ffmpeg: Ffmpeg, folder: str) -> Json:
    """Join FOLDER/0.mp4 and so on, and FOLDER/rest.*, to FOLDER/film.*; check that all is there."""
    film, chunks, ending = order["film"], order["chunks"], order["ending"]
    base = Fraction(*film["base"])
    with open(f"{folder}/frames", encoding="ascii") as file:
        known = json.load(file)
    _refuse_gaps(chunks, known["frames"])
    kept = [(number, one) for number, one in enumerate(chunks) if one["frames"]]
    _write_list(f"{folder}/list", base, kept)
    late = float(kept[0][1]["first"] * base) - film["start_us"] / 1_000_000
    out = f"{folder}/film{ending}"
    words: list[object] = ["-copyts", "-itsoffset", f"{late:.6f}"]
    words += ["-f", "concat", "-i", f"{folder}/list", "-i", f"{folder}/tags"]
    if film["words"]:
        words += ["-itsoffset", -later(ending), "-i", f"{folder}/rest{ending}"]
    words += ["-map", "0:v", *(["-map", "2"] if film["words"] else []), "-c", "copy"]
    words += ["-map_metadata", 1, "-map_chapters", 1, "-map_metadata:s:0", "1:s:0"]
    for at in range(len(film["mapped"])):
        words += [f"-map_metadata:s:{at + 1}", f"2:s:{at}"]
    if ending in MOV:
        words += ["-video_track_timescale", base.denominator, "-movflags", "+faststart"]
        words += ["-tag:v:0", "hvc1"] if order["codec"] == "h265" else []
    ffmpeg.need("joining", *words, out)
    checked = _check(ffmpeg, out, film, base, known)
    return {**checked, "bytes": os.path.getsize(out)}


def _refuse_gaps(chunks: Sequence[Json], frames: Sequence[int]) -> None:
    """Raise FilmError unless the chunks have all frames, one after the other."""
    at = 0
    for number, made in enumerate(chunks):
        there = frames[at : at + made["frames"]]
        if there and [made["first"], made["last"]] != [there[0], there[-1]]:
            raise FilmError(
                f"chunk {number} begins or ends at another frame than the film has there"
            )
        at += made["frames"]
    if at != len(frames):
        raise FilmError(f"the chunks have {at} frames together, and the film has {len(frames)}")


def _write_list(path: str, base: Fraction, kept: Sequence[tuple[int, Json]]) -> None:
    """Write the list for ffmpeg's concat. The roundings to microseconds do not add up."""
    begins = [round(one["first"] * base * 1_000_000) for _, one in kept]
    with open(path, "w", encoding="ascii") as file:
        file.write("ffconcat version 1.0\n")
        for at, (number, _) in enumerate(kept):
            file.write(f"file {number}.mp4\n")
            if at + 1 < len(kept):
                file.write(f"duration {(begins[at + 1] - begins[at]) / 1_000_000:.6f}\n")


def _check(ffmpeg: Ffmpeg, out: str, film: Json, base: Fraction, known: Json) -> Json:
    """Return what was compared. Raises FilmError if the result is not the film."""
    listing = ffmpeg.packets("the result", "-copyts", "-i", out, "-map", "0")
    made, spans = frames_and_spans(listing, 0)
    frames = known["frames"]
    if len(made) != len(frames):
        raise FilmError(f"the result has {len(made)} frames, and the film {len(frames)}")
    tick = max(base, listing.bases[0])
    moved = made[0] * listing.bases[0] - frames[0] * base  # all tracks of the film together
    late = [abs(one * listing.bases[0] - frames[at] * base - moved) for at, one in enumerate(made)]
    if max(late) > tick:
        at = late.index(max(late))
        raise FilmError(
            f"frame {at} of the result is {float(late[at]):.6f} s from its place in the film"
        )
    off = 0.0
    for at, (number, kind, copied) in enumerate(film["mapped"], 1):
        if kind not in ("Audio", "Subtitle") or str(at) not in known["spans"]:
            continue
        was = Span(*known["spans"][str(at)])
        if at not in spans:
            raise FilmError(f"track {number} of the film is missing in the result")
        if kind == "Audio":
            off = max(off, _off(was, spans[at], float(moved), copied, number))
    return {"frames": len(made), "audio_off_s": round(off, 6)}


def _off(was: Span, now: Span, moved: float, copied: bool, number: int) -> float:
    """Return how far a sound is from where it was, in seconds. Raises FilmError if that can be heard.

    One that is encoded anew may begin with a packet that is not heard.
    """
    begin, end = abs(now.begin - was.begin - moved), abs(now.end - was.end - moved)
    off = max(begin, end) if copied else min(begin, end)
    if (copied and now.packets != was.packets) or off > SYNC_S:
        raise FilmError(
            f"the sound of track {number} has {was.packets} packets from {was.begin:.3f} s to"
            f" {was.end:.3f} s in the film, and {now.packets} from {now.begin - moved:.3f} s to"
            f" {now.end - moved:.3f} s in the result"
        )
    return off
