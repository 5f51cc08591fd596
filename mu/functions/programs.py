"""The programs of a bundle: their architecture, the shared libraries they need, and warnings."""

import posixpath
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mu.functions.contents import BundleError, Entry, add
from mu.functions.elf import ARCHITECTURES, INTERPRETERS, BadElf, Elf, find_libraries, read_elf
from mu.functions.scripts import FIND_FOLDER

LIBRARIES = "lib"
"""The folder of shared libraries: Lambda's LD_LIBRARY_PATH ends with it."""
LAMBDA_GLIBC = (2, 34)
"""The version in Amazon Linux 2023, on which python3.12 and newer run."""

LONGEST_LINE = 255
"""How much of a script's first line Linux reads, in bytes."""

_PROGRAMS = f"{LIBRARIES}/programs"
# The system's folders come first in Lambda's LD_LIBRARY_PATH and may have an older library of the
# same name. The bundled one must win, but only for this program and not for Python.
_STARTER = """\
#!/bin/sh
# Made by mu bundle: runs the program of this name with the shared libraries that came with it.
{find_folder}export LD_LIBRARY_PATH="$here/{lib}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$here"/{program} "$@"
"""
_SHELLS = ("/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/env")


def read_elves(paths: Mapping[str, Path]) -> dict[str, Elf]:
    """Return the files that are ELF programs or libraries. Raises BundleError."""
    found = {}
    for name, path in paths.items():
        try:
            elf = read_elf(path)
        except BadElf as error:
            raise BundleError(f"cannot bundle {error}") from None
        except OSError as error:
            raise BundleError(f"cannot bundle {path}: {error.strerror or error}") from None
        if elf is not None:
            found[name] = elf
    return found


def one_architecture(elves: Mapping[str, Elf], wanted: str | None) -> str | None:
    """Return the files' common architecture. Raises BundleError if they differ."""
    expected, why = wanted, "but the function is for"
    for elf in elves.values():
        if elf.architecture not in ARCHITECTURES:
            raise BundleError(
                f"{elf.path} is built for {elf.architecture}; Lambda runs x86_64 and arm64"
            )
        if expected is None:
            expected, why = elf.architecture, f"but {elf.path} for"
        elif elf.architecture != expected:
            raise BundleError(
                f"{elf.path} is built for {elf.architecture}, {why} {expected}: all files and the"
                " function (--arch) must have one architecture"
            )
    return expected


def add_libraries(
    contents: dict[str, Entry],
    elves: Mapping[str, Elf],
    programs: Mapping[str, Path],
    folders: Iterable[Path],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Add the libraries that the files need, and a starter for each program that needs some.

    Return the names of the libraries, and warnings.
    """
    folders = list(folders)
    for name in programs:
        if name in elves and elves[name].interpreter:
            _check_loader(elves[name])
    given = {
        name.removeprefix(f"{LIBRARIES}/"): elf
        for name, elf in elves.items()
        if posixpath.dirname(name) == LIBRARIES
    }
    bundled = {entry.path.resolve() for entry in contents.values()}
    libraries: dict[str, Elf] = {}
    warnings = []
    for name, elf in elves.items():
        its = find_libraries([elf], folders, given)
        for library, needer in its.missing.items():
            sentence = f"{needer} needs the shared library {library}, which is not on this machine"
            if name in programs:
                raise BundleError(
                    f"{sentence}: install its package, or name its folder with --lib-dir"
                )
            warnings.append(f"{sentence} and may be missing on Lambda")
        if name in programs and (its.found or set(given) & set(elf.needed)):
            _start_with_libraries(contents, name)
        for library, found in its.found.items():
            if name in programs or found.path.resolve() not in bundled:
                libraries.setdefault(library, found)
    for name, elf in libraries.items():
        add(contents, (), f"{LIBRARIES}/{name}", Entry(elf.path, executable=True))
    warnings += _script_warnings(programs, elves)
    warnings += _glibc_warnings([*elves.values(), *libraries.values()])
    return tuple(sorted(libraries)), tuple(warnings)


def _check_loader(elf: Elf) -> None:
    loader = INTERPRETERS[elf.architecture]
    if posixpath.basename(elf.interpreter) != loader:
        raise BundleError(
            f"{elf.path} needs the loader {elf.interpreter}, but Lambda has only glibc's {loader}:"
            " link the program statically, or against glibc"
        )


def _start_with_libraries(contents: dict[str, Entry], name: str) -> None:
    """Move a program, and put a script in its place that starts it with its libraries."""
    program, moved = contents[name], f"{_PROGRAMS}/{name}"
    if moved in contents:
        raise BundleError(
            f"cannot bundle {contents[moved].path} as {moved}: the program {name} is moved there"
        )
    up = "../" * name.count("/")
    text = _STARTER.format(
        find_folder=FIND_FOLDER, lib=up + LIBRARIES, program=shlex.quote(up + moved)
    )
    contents[moved] = program
    contents[name] = Entry(program.path, executable=True, text=text.encode())


def _script_warnings(programs: Mapping[str, Path], elves: Mapping[str, Elf]) -> Iterator[str]:
    for name, path in programs.items():
        if name in elves:
            continue
        with path.open("rb") as file:
            line = file.readline(LONGEST_LINE + 1).decode("utf-8", "replace")
        _check_first_line(path, line)
        words = line.removeprefix("#!").split()
        if not line.startswith("#!") or not words:
            yield f"{path} is neither an ELF program nor a script that begins with #!"
        elif words[0] not in _SHELLS:
            yield f"{path} is a script for {words[0]}, which Lambda may lack: try #!/usr/bin/env"


def _check_first_line(path: Path, line: str) -> None:
    """Raise BundleError for a first line with which Linux does not find the interpreter."""
    if line.startswith("\ufeff"):
        raise BundleError(
            f"{path} begins with a byte order mark, so Linux ignores its #! line: save it as"
            " UTF-8 without BOM"
        )
    if not line.startswith("#!"):
        return
    if line.endswith(("\r\n", "\r")):
        interpreter = line[2:].strip()
        raise BundleError(
            f"{path} has Windows line ends, so Linux would look for the program"
            f" {interpreter + chr(13)!r}: convert it, as with sed -i 's/\\r$//' {path.name}"
        )
    if "\0" in line:
        raise BundleError(f"{path} has a NUL in its first line, where Linux stops reading it")
    if len(line) > LONGEST_LINE:
        raise BundleError(
            f"{path}: Linux reads only {LONGEST_LINE} bytes of the first line, and it is longer"
        )


def _glibc_warnings(elves: Iterable[Elf]) -> list[str]:
    newer = sorted((elf for elf in elves if elf.glibc > LAMBDA_GLIBC), key=lambda elf: elf.glibc)
    if not newer:
        return []
    worst, others, ours = newer[-1], len(newer) - 1, _version(LAMBDA_GLIBC)
    more = ""
    if others:
        more = f" ({others} more file{'s' if others > 1 else ''} also newer than {ours})"
    return [
        f"{worst.path} needs glibc {_version(worst.glibc)}{more} and will not start on Lambda, whose"
        f" python3.12 to 3.14 have {ours}: build it where glibc is older (Amazon Linux 2023,"
        " Debian 11), or link it statically"
    ]


def _version(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
