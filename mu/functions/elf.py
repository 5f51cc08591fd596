"""Reads ELF files, and finds the shared libraries that they need.

It executes nothing, unlike ldd, which runs the file's own interpreter.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.segments import InterpSegment

ARCHITECTURES = ("x86_64", "arm64")
"""The architectures that Lambda runs, by Lambda's names."""
INTERPRETERS = {"x86_64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
"""glibc's dynamic loaders, which Amazon Linux has on Lambda. It does not have musl's."""
GLIBC_LIBRARIES = {
    *INTERPRETERS.values(),
    *("libc.so.6", "libm.so.6", "libmvec.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"),
    *("libresolv.so.2", "libutil.so.1", "libanl.so.1", "libnsl.so.1", "libthread_db.so.1"),
    *("libBrokenLocale.so.1", "linux-vdso.so.1"),
}
"""Libraries that must match the system's loader, and so are not bundled."""
SYSTEM_CONFIG = Path("/etc/ld.so.conf")

_MACHINES = {(62, 64): "x86_64", (62, 32): "x32", (183, 64): "arm64", (3, 32): "i386"}
_MACHINES |= {(40, 32): "32-bit ARM", (243, 64): "RISC-V", (21, 64): "POWER", (22, 64): "s390x"}
_PROGRAM, _LIBRARY = 2, 3
_HEAD = 20
_TRIPLETS = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_RELR = "GLIBC_ABI_DT_RELR", (2, 36)


class BadElf(ValueError):
    """A file that begins like an ELF file but is damaged."""


@dataclass(frozen=True, slots=True)
class Elf:
    """A program or a shared library."""

    path: Path
    architecture: str
    """Lambda's name for it, or a common name where Lambda has none."""
    interpreter: str = ""
    """The dynamic loader that a dynamic program names; empty for other files."""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    glibc: tuple[int, ...] = ()
    """The newest version of glibc that it needs, such as (2, 34); empty: none."""


@dataclass(slots=True)
class Libraries:
    """The shared libraries that some files need, without glibc's."""

    found: dict[str, Elf] = field(default_factory=dict)
    """By the names under which they are needed."""
    missing: dict[str, Path] = field(default_factory=dict)
    """Names that were not found, each with a file that needs it."""


def read_elf(path: Path) -> Elf | None:
    """Return the description of an ELF program or library, or None for any other file.

    Raises BadElf and OSError.
    """
    with path.open("rb") as file:
        architecture = machine_of(file.read(_HEAD))
        if architecture is None:
            return None
        try:
            return _read(path, architecture, ELFFile(file))
        except (ELFError, AssertionError, ValueError, KeyError, IndexError) as error:
            raise BadElf(f"{path} is a damaged ELF file: {error or type(error).__name__}") from None


def machine_of(head: bytes) -> str | None:
    """Return the architecture of an ELF program or library, by its first 20 bytes or more."""
    if head[:4] != b"\x7fELF" or len(head) < _HEAD:
        return None
    order: Literal["big", "little"] = "big" if head[5] == 2 else "little"
    kind, number = (int.from_bytes(head[at : at + 2], order) for at in (16, 18))
    if kind not in (_PROGRAM, _LIBRARY):
        return None
    machine = number, 64 if head[4] == 2 else 32
    return _MACHINES.get(machine, f"machine {machine[0]} ({machine[1]} bits)")


def find_libraries(
    elves: Iterable[Elf], folders: Iterable[Path] = (), given: Mapping[str, Elf] | None = None
) -> Libraries:
    """Return all libraries that these files need, directly or indirectly.

    It looks first in `given`, by name, then in `folders`, then where the loader looks: the files'
    RPATH, LD_LIBRARY_PATH, their RUNPATH, and the system's folders.
    """
    libraries = Libraries()
    given = given or {}
    first = list(folders)
    after = [Path(word) for word in os.environ.get("LD_LIBRARY_PATH", "").split(":") if word]
    waiting = [(elf, elf.rpath) for elf in elves]
    system = {name: _system_folders(name) for name in {elf.architecture for elf, _ in waiting}}
    while waiting:
        elf, rpath = waiting.pop()
        for name in elf.needed:
            if name in GLIBC_LIBRARIES or name in libraries.found or name in given:
                continue
            places = [
                *first,
                *([] if elf.runpath else _expanded(elf, rpath)),
                *after,
                *_expanded(elf, elf.runpath),
                *system.get(elf.architecture, []),
            ]
            library = _find(name, places, elf.architecture)
            if library is None:
                libraries.missing.setdefault(name, elf.path)
                continue
            libraries.found[name] = library
            waiting.append((library, library.rpath + tuple(map(str, _expanded(elf, rpath)))))
    return libraries


def _read(path: Path, architecture: str, elf: ELFFile) -> Elf:
    interpreter = ""
    lists: dict[str, list[str]] = {"needed": [], "rpath": [], "runpath": []}
    for segment in elf.iter_segments():
        if isinstance(segment, InterpSegment):
            interpreter = segment.get_interp_name()
        elif isinstance(segment, DynamicSegment):
            for tag in segment.iter_tags():
                kind = str(tag.entry.d_tag).removeprefix("DT_").lower()
                if kind in lists:
                    lists[kind].append(getattr(tag, kind))
    return Elf(
        path,
        architecture,
        interpreter,
        tuple(lists["needed"]),
        _split(lists["rpath"]),
        _split(lists["runpath"]),
        max(_glibc_versions(elf), default=()),
    )


def _glibc_versions(elf: ELFFile) -> Iterator[tuple[int, ...]]:
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, versions in section.iter_versions():
                for version in versions:
                    if version.name == _RELR[0]:
                        yield _RELR[1]
                    elif match := re.fullmatch(r"GLIBC_([\d.]+)", version.name):
                        yield tuple(map(int, match[1].split(".")))


def _split(paths: list[str]) -> tuple[str, ...]:
    return tuple(word for path in paths for word in path.split(":") if word)


def _expanded(elf: Elf, paths: Iterable[str]) -> list[Path]:
    origin = str(elf.path.resolve().parent)
    return [Path(re.sub(r"\$(ORIGIN\b|\{ORIGIN\})", lambda _: origin, path)) for path in paths]


def _find(name: str, places: list[Path], architecture: str) -> Elf | None:
    """Return the first library with that name and architecture."""
    for place in places:
        path = place / name
        try:
            found = read_elf(path)
        except (OSError, BadElf):
            continue
        if found is not None and found.architecture == architecture:
            return found
    return None


def _system_folders(architecture: str) -> list[Path]:
    triplet = _TRIPLETS.get(architecture, "")
    named = [f"/usr/local/lib/{triplet}", f"/lib/{triplet}", f"/usr/lib/{triplet}"]
    named += [f"/usr/{triplet}/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    return [*_configured(SYSTEM_CONFIG), *map(Path, named)]


def _configured(config: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the folders that a file such as /etc/ld.so.conf lists."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth < 5:
            for pattern in words[1:]:
                base = Path("/") if pattern.startswith("/") else config.parent
                for included in sorted(base.glob(pattern.lstrip("/"))):
                    yield from _configured(included, depth + 1)
        elif words and words[0].startswith("/"):
            yield Path(words[0])
