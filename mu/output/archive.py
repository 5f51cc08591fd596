"""The logs of an ended job in one file: gzip members, one for each actor.

`zgrep` and `zcat` read it like any other. The header of each member says which actor it is of and how
long it is (in an extra field, as gzip's format allows), so that one actor's log is found without
decompressing the others.
"""

import os
import struct
import zlib
from pathlib import Path

_HEADER = struct.Struct("<4sIBBH2sHIQ")
_MAGIC = b"\x1f\x8b\x08\x04"  # gzip, deflate, with an extra field
_FIELD = b"mu"
_FIELD_BYTES = 12
_TRAILER = struct.Struct("<II")
_LEAST = _HEADER.size + _TRAILER.size


def member(actor: int, data: bytes) -> bytes:
    """Return an actor's log as a gzip member."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    size = _HEADER.size + len(packed) + _TRAILER.size
    header = _HEADER.pack(_MAGIC, 0, 0, 255, _FIELD_BYTES + 4, _FIELD, _FIELD_BYTES, actor, size)
    return header + packed + _TRAILER.pack(zlib.crc32(data), len(data) & 0xFFFFFFFF)


def read_index(path: Path) -> dict[int, tuple[int, int]]:
    """Return the actors whose logs are in a file, and where each one's member begins and ends.

    Raises OSError, and ValueError for a file that no daemon wrote.
    """
    index: dict[int, tuple[int, int]] = {}
    place = 0
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while place < end:
            file.seek(place)
            try:
                magic, _, _, _, _, field, _, actor, size = _HEADER.unpack(file.read(_HEADER.size))
            except struct.error:
                magic, field, actor, size = b"", b"", 0, 0
            if (magic, field) != (_MAGIC, _FIELD) or not _LEAST <= size <= end - place:
                raise ValueError(f"{path} is damaged at byte {place}")
            index[actor] = place, place + size
            place += size
    return index


def read_member(path: Path, place: tuple[int, int]) -> bytes:
    """Return the log that begins and ends there. Raises OSError, and ValueError if it is damaged."""
    begin, end = place
    with path.open("rb") as file:
        file.seek(begin)
        packed = file.read(end - begin)
    try:
        return zlib.decompress(packed, zlib.MAX_WBITS | 16)
    except zlib.error as error:
        raise ValueError(f"{path} is damaged after byte {begin}: {error}") from None
