"""What chain's workers run: one part of an object. Needs Python 3.9 or newer, and no more.

    count FOLDER FIRST END          fetch the bytes FIRST to END - 1 of the URL in FOLDER/url
    join FOLDER FIRST STATE         wait for a line, add this part to the neighbour's STATE ("": none)
    index FOLDER EVERY SIZE         write FOLDER/index: number and offset of every EVERY-th line

A state is what is known of all bytes up to a place: how many there are, how many line breaks are
among them, and their hash, which is that they are one big number, modulo PRIME. The hash of two parts
follows from theirs, so that all parts are read at the same time, and only sums go along the chain.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

State = dict[str, int]

PRIME = 2**128 - 159
PIECE = 65536


def count(folder: str, first: str, end: str) -> None:
    """Keep the part, and its own state."""
    own = {"bytes": 0, "lines": 0, "hash": 0}
    with open(f"{folder}/part", "wb") as part:
        for piece in fetch(f"{folder}/url", int(first), int(end)):
            part.write(piece)
            own = joined(own, piece)
    write(f"{folder}/own", own)


def fetch(url_file: str, first: int, end: int) -> Iterator[bytes]:
    """Yield the object's bytes from first to end - 1."""
    if first == end:
        return
    import urllib.error  # the others need not wait for it
    import urllib.request

    with open(url_file) as file:
        asked = urllib.request.Request(file.read().strip())
    asked.add_header("Range", f"bytes={first}-{end - 1}")
    got = 0
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            for piece in iter(lambda: answer.read(PIECE), b""):
                got += len(piece)
                yield piece
    except urllib.error.HTTPError as error:
        sys.exit(f"the object could not be read: {error.code} {error.reason}")
    if got != end - first:
        sys.exit(f"bytes {first} to {end - 1} were asked for, and {got} bytes came")


def joined(state: State, piece: bytes) -> State:
    """Return the state after more bytes."""
    return {
        "bytes": state["bytes"] + len(piece),
        "lines": state["lines"] + piece.count(b"\n"),
        "hash": (state["hash"] * shift(len(piece)) + int.from_bytes(piece, "big")) % PRIME,
    }


def shift(length: int) -> int:
    return pow(256, length, PRIME)


def join(folder: str, first: str, state: str) -> None:
    """Write the state at this part's end, which goes to the next neighbour, and print it."""
    own = read(f"{folder}/own")
    sys.stdin.read()  # until the neighbour's state is here
    before = read(state) if state else {"bytes": 0, "lines": 0, "hash": 0}
    if before["bytes"] != int(first):
        sys.exit(
            f"this part begins at byte {first}; the neighbour's state ends at {before['bytes']}"
        )
    after = {
        "bytes": before["bytes"] + own["bytes"],
        "lines": before["lines"] + own["lines"],
        "hash": (before["hash"] * shift(own["bytes"]) + own["hash"]) % PRIME,
    }
    write(f"{folder}/before", before)
    write(f"{folder}/final.state", after)
    print(json.dumps(dict(after, hash=format(after["hash"], "032x"))))


def index(folder: str, every: str, size: str) -> None:
    """Write a row for every so many lines that begin in this part, or right after it."""
    before, step = read(f"{folder}/before"), int(every)
    offset, line = before["bytes"], before["lines"]
    with open(f"{folder}/part", "rb") as part, open(f"{folder}/index", "w") as rows:
        if offset == 0 < int(size):
            rows.write("1 0\n")
        for piece in iter(lambda: part.read(PIECE), b""):
            at = piece.find(b"\n") + 1
            while at:
                line += 1  # so many end here: the next one has the number line + 1
                if line % step == 0 and offset + at < int(size):
                    rows.write(f"{line + 1} {offset + at}\n")
                at = piece.find(b"\n", at) + 1
            offset += len(piece)


def read(path: str) -> State:
    with open(path) as file:
        state: State = json.load(file)
        return state


def write(path: str, state: State) -> None:
    with open(path, "w") as file:
        json.dump(state, file)


if __name__ == "__main__":
    {"count": count, "join": join, "index": index}[sys.argv[1]](*sys.argv[2:])
