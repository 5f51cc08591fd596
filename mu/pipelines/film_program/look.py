"""What a film is: its tracks and length, and what the result can have of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .ffmpeg import MOV, Ffmpeg, FilmError, Json, sentence

TEXTS = ("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text")
"""Codecs of subtitles that are text, and not pictures."""
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}


def look(order: Json, ffmpeg: Ffmpeg) -> Json:
    """Return what all other actors need to know about the film. Raises FilmError."""
    url = order["url"]
    notes: list[str] = []
    status, _, told = ffmpeg.run("-i", url)
    tracks = [
        (int(number), kind, text)
        for number, kind, text in re.findall(
            r"^ +Stream #0:(\d+).*?: (\w+): (.*)$", told, re.MULTILINE
        )
    ]
    if status < 0:
        raise FilmError(
            f"ffmpeg was killed by signal {-status} when it opened the film: give the function another"
            " build of ffmpeg, or the film another format"
        )
    if not tracks:
        lines = [line for line in told.strip().splitlines() if not line.startswith("  ")]
        why = sentence("\n".join(lines))
        raise FilmError(f"ffmpeg cannot read it as a film: {why}")
    films = [
        (number, text) for number, kind, text in tracks if kind == "Video" and not _still(text)
    ]
    if not films:
        raise FilmError("it has no video track")
    if len(films) > 1:
        numbers = ", ".join(str(number) for number, _ in films)
        raise FilmError(
            f"it has {len(films)} video tracks ({numbers}): keep one, with ffmpeg -map 0:{films[0][0]}"
        )
    video, text = films[0]
    base, begin, length = _extent(ffmpeg, url, told)
    encoders = ffmpeg.need("its encoders", "-encoders")
    if not re.search(rf"^ V\S+ {re.escape(order['encoder'])} ", encoders, re.MULTILINE):
        raise FilmError(f"the workers' ffmpeg has no encoder {order['encoder']}")
    words, mapped = _others(order, tracks, notes)
    if words:
        _try_muxing(order, ffmpeg, words)
    measure = order["measure"]
    if measure and not re.search(rf" (lib)?{measure} ", ffmpeg.need("its filters", "-filters")):
        notes.append(f"the workers' ffmpeg cannot measure {measure}")
        measure = ""
    chunks = max(1, min(order["chunks"], int(length / Fraction(str(order["shortest_s"])))))
    return {
        "video": video,
        "base": [base.numerator, base.denominator],
        "begin": int(begin / base),
        "end": int((begin + length) / base),
        "start_us": int(begin * 1_000_000),
        "chunks": chunks,
        "seconds": round(float(length), 3),
        "is": re.sub(r"\s+", " ", text)[:300],
        "filters": _filters(order, text, notes),
        "words": words,
        "mapped": mapped,
        "measure": measure,
        "light": _light(ffmpeg, url),
        "notes": notes,
    }


def _still(text: str) -> bool:
    return "(attached pic)" in text or "(still image)" in text


def _extent(ffmpeg: Ffmpeg, url: str, told: str) -> tuple[Fraction, Fraction, Fraction]:
    """Return the length of a tick of the video, and the film's begin and length, in seconds.

    The last two need not be exact: they only say where the borders of chunks are, and from where the
    result's times count.
    """
    source = ("-copyts", "-i", url, "-map", "0:V:0")
    listing = ffmpeg.packets("its first frame", *source, "-frames:v", 1)
    if not list(listing):
        raise FilmError("its video track has no frames")
    base = listing.bases[0]
    found = re.search(r"Duration: (\d+):(\d+):(\d+\.\d+), start: (-?\d+\.\d+)", told)
    if found:
        length = int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3])
        return base, Fraction(found[4]), length
    packets = list(ffmpeg.packets("its frames", *source))
    begin = min(packet.pts for packet in packets)
    end = max(packet.pts + packet.duration for packet in packets)
    return base, begin * base, (end - begin) * base


def _filters(order: Json, text: str, notes: list[str]) -> list[str]:
    """Return the filters that the frames need for the encoder, after those of the order."""
    filters = [order["filters"]] if order["filters"] else []
    size = re.search(r" (\d+)x(\d+)[ ,]", text)
    halved = re.search(r"[, ](yuvj?a?4(20|22|11|10)\w*|nv12|p010\w*)[(,]", text)
    if order["even"] and halved and size and (int(size[1]) % 2 or int(size[2]) % 2):
        filters.append("crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0")
        notes.append(
            f"its size, {size[1]}x{size[2]}, is odd, which this codec cannot have: the last line was cut off"
        )
    if " first)" in text:
        notes.append(
            "it is interlaced, and so is the result: -p filters=bwdif=0 makes it progressive"
        )
    if "DOVI" in text or "dvh" in text:
        notes.append("its Dolby Vision data are not carried over")
    return filters


def _others(
    order: Json, tracks: Sequence[tuple[int, str, str]], notes: list[str]
) -> tuple[list[str], list[list[Any]]]:
    """Return ffmpeg's words to copy what is no film, and [track, is copied] of each one."""
    ending = order["ending"]
    words: list[str] = []
    mapped: list[list[Any]] = []
    left: set[str] = set()
    for number, kind, text in tracks:
        codec = text.split()[0].strip(",")
        to = "copy"
        if kind == "Audio":
            if order["audio"] == "none":
                continue
            to = {"aac": "aac", "opus": "libopus"}.get(order["audio"], "copy")
        elif kind == "Subtitle":
            if order["subtitles"] == "none":
                continue
            if ending == ".mkv":
                to = "subrip" if codec == "mov_text" else "copy"
            elif codec not in TEXTS:
                raise FilmError(
                    f"its track {number} has subtitles that are pictures ({codec}), which {ending} cannot"
                    " have: give the result the ending .mkv, or leave them out with -p subtitles=none"
                )
            else:
                to = "mov_text" if ending in MOV else "webvtt"
        elif (kind == "Video" and _still(text) and ending != ".webm") or (
            kind == "Attachment" and ending == ".mkv"
        ):
            pass
        elif kind != "Video" or _still(text):
            if "bin_data" not in text:  # the names of chapters
                left.add(kind.lower())
            continue
        else:
            continue
        words += ["-map", f"0:{number}", f"-c:{len(mapped)}", to]
        if to == "libopus":  # which has fewer layouts of channels than others
            words += [f"-mapping_family:{len(mapped)}", "1" if _channels(text) > 2 else "0"]
        if to in ("aac", "libopus") and order["audio_kbit"]:
            words += [f"-b:{len(mapped)}", f"{order['audio_kbit']}k"]
        mapped.append([number, kind, to == "copy"])
    notes += [f"{ending} has no place for its {kind} track" for kind in sorted(left)]
    return words, mapped


def _channels(text: str) -> int:
    return 1 if " mono" in text else 2 if " stereo" in text else 6


def _try_muxing(order: Json, ffmpeg: Ffmpeg, words: Sequence[str]) -> None:
    """Raise FilmError if the format of the result cannot have the film's other tracks."""
    kind = FORMATS[order["ending"]]
    begun = ("-i", order["url"], *words, "-t", 0.1, "-f", kind)
    status, _, told = ffmpeg.run("-v", "error", *begun, os.devnull)
    if status:
        raise FilmError(
            f"{order['ending']} cannot have all its tracks: {sentence(told)} (give the result another"
            " ending, such as .mkv, or encode the sound with -p audio=aac or -p audio=opus)"
        )


def _light(ffmpeg: Ffmpeg, url: str) -> dict[str, str]:
    """Return the HDR metadata of the first frame, in x265's form."""
    _, _, told = ffmpeg.run(
        "-i", url, "-map", "0:V:0", "-vf", "showinfo", "-frames:v", 1, "-f", "null", "-"
    )
    found = {}
    colours = re.search(
        r"Mastering display metadata: .*?r\((\S+?)[ ,]+(\S+)\) g\((\S+?)[ ,]+(\S+)\)"
        r" b\((\S+?)[ ,]+(\S+)\) wp\((\S+?)[ ,]+(\S+)\)"
        r" min_luminance=([0-9.]+),? max_luminance=([0-9.]+)",
        told,
    )
    if colours:
        r, g, b, wp = (
            ",".join(str(round(float(one) * 50_000)) for one in colours.groups()[at : at + 2])
            for at in (0, 2, 4, 6)
        )
        least, most = (str(round(float(colours[at]) * 10_000)) for at in (9, 10))
        found["master"] = f"G({g})B({b})R({r})WP({wp})L({most},{least})"
    levels = re.search(r"MaxCLL=(\d+),? MaxFALL=(\d+)", told)
    if levels:
        found["cll"] = f"{levels[1]},{levels[2]}"
    return found
