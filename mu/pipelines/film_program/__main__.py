"""Does one part of the work on a film, and prints what it found."""

from __future__ import annotations

import json
import sys

from .chunk import encode
from .ffmpeg import Ffmpeg, FilmError, find_ffmpeg
from .look import look
from .whole import join, rest, room


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
