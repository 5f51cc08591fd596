#!/usr/bin/env -S python3 -IS
"""Stands in for alfalfa's xc-framesize and xc-decode-bundle, and for daala's dump_ssim.

They read real IVF and Y4M files. The last four bytes of an IVF header, which are unused, say which
state a chunk needs, counted from 1; 0: none. A state is a text, `state N`. So a state that is missing
or of another chunk is refused. What is decoded is what the bundle's ffmpeg decodes.
"""

import subprocess
import sys
from pathlib import Path


def insist(true, complaint):
    if not true:
        sys.exit(f"{Path(sys.argv[0]).name}: {complaint}")


def xc_framesize(ivf):
    content, at = Path(ivf).read_bytes(), 32
    insist(content[:4] == b"DKIF", f"{ivf} is not IVF")
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        print(size)
        at += 12 + size


def xc_decode_bundle(state=None):
    (ivf,) = sys.stdin.read().split()
    needed = int.from_bytes(Path(ivf).read_bytes()[28:32], "little")
    given = 0 if state is None else int(Path(state).read_text().split()[1])
    insist(needed in (0, given), f"{ivf} needs state {needed}, and got {given}")
    ffmpeg = [
        Path(sys.argv[0]).with_name("ffmpeg"),
        "-nostdin",
        "-v",
        "error",
        "-i",
        ivf,
        "-f",
        "yuv4mpegpipe",
        "-",
    ]
    sys.exit(subprocess.run(ffmpeg).returncode)


def frames(y4m):
    content = Path(y4m).read_bytes()
    header, _, rest = content.partition(b"\n")
    sizes = {word[:1]: word[1:] for word in header.split()[1:]}
    size = int(sizes[b"W"]) * int(sizes[b"H"]) * 3 // 2 + 6
    insist(len(rest) % size == 0, f"{y4m} ends in the middle of a frame")
    return [rest[at + 6 : at + size] for at in range(0, len(rest), size)]


def dump_ssim(one, other):
    ours, theirs = frames(one), frames(other)
    insist(len(ours) == len(theirs), f"{len(ours)} frames are not {len(theirs)}")
    for number, (mine, other_one) in enumerate(zip(ours, theirs, strict=True)):
        apart = sum((a - b) ** 2 for a, b in zip(mine, other_one, strict=True))
        print(f"{number:08d}: {apart} of {sum(mine)}")


JUDGES = {
    "xc-framesize": xc_framesize,
    "xc-decode-bundle": xc_decode_bundle,
    "dump_ssim": dump_ssim,
}

if __name__ == "__main__":
    JUDGES[Path(sys.argv[0]).name](*sys.argv[1:])
