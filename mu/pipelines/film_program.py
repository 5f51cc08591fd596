"""What film's workers run, with ffmpeg. Needs Python 3.9 or newer, and no more.

    film.py look|encode|rest|room|join FOLDER

reads FOLDER/order.json, writes files into FOLDER, and prints one line of JSON: what it found, or
{"refused": a sentence}. All times are ticks of the film's own time base, so that nothing is rounded.
A frame belongs to chunk k if `border(k) <= its timestamp < border(k + 1)`; the first chunk has no
begin and the last no end. So no frame is lost or doubled, wherever the borders are.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

Order = dict[str, Any]

EARLIER_S = (0, 3, 15, 60)
"""How much earlier a chunk's decoding begins, in seconds, if the key frame before it is missed."""
LATER_S = 2
"""How far packets are listed after a chunk's end, in seconds."""
TAIL = 400
"""How many characters of what ffmpeg printed are in an error."""
SCENE_S = 1
"""How far a border may move to a scene cut, in seconds."""
SCENE = 10
"""The score of ffmpeg's scdet from which a frame begins a scene; its own default."""
SYNC_S = 0.05
"""How far a sound that is encoded anew may begin or end from where it did, in seconds."""
MOV = (".mp4", ".m4v", ".mov")
NO_TIME = str(-(2**63))
"""A timestamp that is not there."""
TEXTS = ("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text")
"""Codecs of subtitles that are text, and not pictures."""


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


# ---------------------------------------------------------------- ffmpeg


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
            raise FilmError(f"{what}: ffmpeg ended with status {status}: {_sentence(told)}")
        self.told = told.strip()
        return out

    def packets(self, what: str, *words: object) -> Listing:
        """Return the packets of what these words select."""
        return Listing(self.need(what, *words, "-c", "copy", "-f", "framecrc", "-").splitlines())


def _sentence(told: str) -> str:
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
                    "its frames have no timestamps of their own: first copy it into an .mkv, with"
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


# ---------------------------------------------------------------- what the film is


def look(order: Order, ffmpeg: Ffmpeg) -> dict[str, Any]:
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
        why = _sentence("\n".join(lines))
        raise FilmError(f"it is no film that ffmpeg can read: {why}")
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


def _filters(order: Order, text: str, notes: list[str]) -> list[str]:
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
    order: Order, tracks: Sequence[tuple[int, str, str]], notes: list[str]
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


def _try_muxing(order: Order, ffmpeg: Ffmpeg, words: Sequence[str]) -> None:
    """Raise FilmError if the format of the result cannot have the film's other tracks."""
    kind = FORMATS[order["ending"]]
    begun = ("-i", order["url"], *words, "-t", 0.1, "-f", kind)
    status, _, told = ffmpeg.run("-v", "error", *begun, os.devnull)
    if status:
        raise FilmError(
            f"{order['ending']} cannot have all its tracks: {_sentence(told)} (give the result another"
            " ending, such as .mkv, or encode the sound with -p audio=aac or -p audio=opus)"
        )


FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}


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
    told = _sentence(ffmpeg.told)
    listing = ffmpeg.packets("the chunk", "-copyts", "-i", out)
    ticks = sorted(packet.pts * listing.bases[0] / base + frames[0] for packet in listing)
    if ticks != frames:
        raise FilmError(
            f"from {float(frames[0] * base):.3f} s to {float(frames[-1] * base):.3f} s it has"
            f" {len(frames)} frames, but {len(ticks)} could be encoded: it is damaged there, or"
            " params.filters changes their number or times"
        )
    made: dict[str, Any] = {
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


def cut_near(order: Order, ffmpeg: Ffmpeg, base: Fraction, number: int) -> int | None:
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


def _frames_from(film: dict[str, Any], first: int, end: int | None) -> str:
    """Return the filters for the frames from the timestamp `first` to before `end`."""
    to = "" if end is None else f":end_pts={end}"
    top, bottom = film["base"]
    chosen = f"settb={top}/{bottom},trim=start_pts={first}{to}"
    return ",".join([chosen, *film["filters"]])


def find_frames(
    order: Order, ffmpeg: Ffmpeg, base: Fraction, first: int | None, end: int | None
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
    order: Order, ffmpeg: Ffmpeg, seek: Sequence[object], frames: Sequence[int], out: str
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


# ---------------------------------------------------------------- all else in the film


def later(ending: str) -> int:
    """Return how much later than in the film FOLDER/rest.* begins, in seconds.

    Matroska has no times before 0, which sounds begin at; it would move them.
    """
    return 0 if ending in MOV else 10


def rest(order: Order, ffmpeg: Ffmpeg, folder: str) -> dict[str, Any]:
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
            f" ({_sentence(told)})"
        )
    with open(f"{folder}/frames", "w", encoding="ascii") as file:
        json.dump({"frames": frames, "spans": spans}, file)
    size = os.path.getsize(f"{folder}/rest{order['ending']}") if film["words"] else 0
    return {"frames": len(frames), "bytes": size}


# ---------------------------------------------------------------- the whole


def room(order: Order, ffmpeg: Ffmpeg, folder: str) -> dict[str, Any]:
    """Raise FilmError if the disk has no room for the chunks and the result."""
    free = shutil.disk_usage(folder).free
    if order["needed"] > free:
        raise FilmError(
            f"joining needs {order['needed'] / 1e6:.0f} MB of this worker's disk, which has"
            f" {free / 1e6:.0f} MB: give the function more (mu deploy --tmp)"
        )
    return {}


def join(order: Order, ffmpeg: Ffmpeg, folder: str) -> dict[str, Any]:
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


def _refuse_gaps(chunks: Sequence[dict[str, Any]], frames: Sequence[int]) -> None:
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


def _write_list(path: str, base: Fraction, kept: Sequence[tuple[int, dict[str, Any]]]) -> None:
    """Write the list for ffmpeg's concat. The roundings to microseconds do not add up."""
    begins = [round(one["first"] * base * 1_000_000) for _, one in kept]
    with open(path, "w", encoding="ascii") as file:
        file.write("ffconcat version 1.0\n")
        for at, (number, _) in enumerate(kept):
            file.write(f"file {number}.mp4\n")
            if at + 1 < len(kept):
                file.write(f"duration {(begins[at + 1] - begins[at]) / 1_000_000:.6f}\n")


def _check(
    ffmpeg: Ffmpeg, out: str, film: dict[str, Any], base: Fraction, known: dict[str, Any]
) -> dict[str, Any]:
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


def main(work: str, folder: str) -> None:
    with open(f"{folder}/order.json", encoding="utf-8") as file:
        order = json.load(file)
    try:
        ffmpeg = Ffmpeg(find_ffmpeg(order["ffmpeg"]), order["url"])
        if work == "look":
            found = look(order, ffmpeg)
        else:
            parts = {"encode": encode, "rest": rest, "room": room, "join": join}
            found = parts[work](order, ffmpeg, folder)
    except FilmError as why:
        found = {"refused": str(why)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
