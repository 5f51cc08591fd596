"""The logs of an ended job in one file: gzip members, one for each actor.

`zgrep` and `zcat` read it like any other. The header of each member says which actor it is of and how
long it is (in an extra field, as gzip's format allows), so that one actor's log is found without
decompressing the others.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<4sIBBH2sHIQ")
_MAGIC = b"\x1f\x8b\x08\x04"  # gzip, deflate, with an extra field
_FIELD = b"mu"
_FIELD_BYTES = 12
_TRAILER = struct.Struct("<II")


def member(actor: int, data: bytes) -> bytes:
    """Return an actor's log as a gzip member."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    size = _HEADER.size + len(packed) + _TRAILER.size
    header = _HEADER.pack(_MAGIC, 0, 0, 255, _FIELD_BYTES + 4, _FIELD, _FIELD_BYTES, actor, size)
    return header + packed + _TRAILER.pack(zlib.crc32(data), len(data) & 0xFFFFFFFF)


def read_members(path: Path, actor: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the actors and their logs, in the order of the file; with `actor`, only that one.

    Raises OSError, and ValueError for a file that no daemon wrote.
    """
    with path.open("rb") as file:
        while head := file.read(_HEADER.size):
            try:
                magic, _, _, _, _, field, _, number, size = _HEADER.unpack(head)
                if (magic, field) != (_MAGIC, _FIELD):
                    raise ValueError("it is not a job's log")
                if actor in (None, number):
                    packed = file.read(size - _HEADER.size)[: -_TRAILER.size]
                    yield number, zlib.decompress(packed, -zlib.MAX_WBITS)
                else:
                    file.seek(size - _HEADER.size, 1)
            except (struct.error, zlib.error, ValueError) as error:
                raise ValueError(f"{path} is damaged: {error}") from None
