"""The zip that a function is made of: the worker's code, the user's programs, their command.

Reproducible: the same input gives the same bytes, so an unchanged function need not be deployed
again. A dynamic program brings its shared libraries along, but for glibc's, in lib/.
"""

import json
import os
import posixpath
import stat
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import mu
from mu.functions.elf import (
    ARCHITECTURES,
    INTERPRETERS,
    BadElf,
    Elf,
    find_libraries,
    machine_of,
    read_elf,
)

ZIP_LIMIT = 50 * 2**20
"""The largest zip, in bytes, that Lambda takes directly; larger ones go by S3."""
UNZIPPED_LIMIT = 250 * 2**20
"""The most that Lambda unzips, in bytes, layers included."""
COMMAND_FILE = "mu_command.json"
LIBRARIES = "lib"
"""The folder of shared libraries: Lambda's LD_LIBRARY_PATH ends with it."""
LAMBDA_GLIBC = (2, 34)
"""What Amazon Linux 2023 has, on which python3.12 and newer run."""

_SHARED = ("__init__.py", "wire.py", "messages.py")  # of mu/, which both ends speak
_PROGRAMS = f"{LIBRARIES}/programs"
# The system's own folders stand first in Lambda's LD_LIBRARY_PATH, and may have an older library of
# that name: ours are to win, for this program alone and not for Python.
_STARTER = """\
#!/bin/sh
# Made by mu bundle: runs the program of this name with the shared libraries that came with it.
case $0 in /*) here=${{0%/*}} ;; */*) here=$PWD/${{0%/*}} ;; *) here=$PWD ;; esac
export LD_LIBRARY_PATH="$here/{lib}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$here/{program}" "$@"
"""
_SHELLS = ("/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/env")
_LEVEL = 6
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can say


class BundleError(Exception):
    """The bundle asked for cannot be made; the text says which file or limit is in the way."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A zip that was written."""

    path: Path
    zipped: int
    """Its size in bytes."""
    unzipped: int
    """What it unzips to, in bytes."""
    names: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    """The shared libraries that were found and put in."""
    architecture: str | None = None
    """What its programs run on, x86_64 or arm64; None: there are none but scripts."""
    warnings: tuple[str, ...] = ()
    """Sentences about what may not run on Lambda."""


def bundle(
    out: Path,
    *,
    executables: Iterable[Path] | Mapping[str, Path] = (),
    files: Iterable[Path] | Mapping[str, Path] = (),
    command: str | None = None,
    architecture: str | None = None,
    library_folders: Iterable[Path] = (),
    zip_limit: int | None = ZIP_LIMIT,
) -> Bundle:
    """Write the zip of the worker, the user's files at its root, and the packaged command.

    A mapping says under which names the files go in; else they keep their own. Executables get
    mode 0755; of other files it is kept whether they can be executed, and a folder is taken with
    all that is in it. Shared libraries are looked for in `library_folders`, then as the loader
    does. With `architecture`, all programs must be for that; else for one and the same. `out` is
    replaced only once the zip is complete; `zip_limit` None: it may have any size, since it goes
    by S3. Raises BundleError.
    """
    contents: dict[str, _Entry] = {
        name: _Entry(path, executable=False) for name, path in worker_sources()
    }
    own = {name.partition("/")[0] for name in contents} | {COMMAND_FILE}
    programs = dict(_named(executables))
    for name, path in programs.items():
        _add(contents, own, name, _Entry(path, executable=True))
    users = dict.fromkeys(programs)
    for root, path in _named(files):
        for name, file in _below(root, path):
            mode = _checked(file).st_mode
            _add(contents, own, name, _Entry(file, executable=bool(mode & 0o111)))
            users[name] = None
    elves = _elves({name: contents[name].path for name in users})
    architecture = _one_architecture(elves, architecture)
    libraries, warnings = _add_libraries(contents, elves, programs, library_folders)
    unzipped = sum(entry.size for entry in contents.values())
    if unzipped > UNZIPPED_LIMIT:
        largest = max(contents, key=lambda name: contents[name].size)
        raise BundleError(
            f"unzipped, the bundle would have {sized(unzipped)}; Lambda takes {sized(UNZIPPED_LIMIT)}"
            f" at most. The largest file is {largest} ({sized(contents[largest].size)}): strip it, or"
            " have workers fetch large data from S3"
        )
    partial = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        _write(partial, contents, command)
        zipped = partial.stat().st_size
        if zip_limit is not None and zipped > zip_limit:
            raise BundleError(
                f"the bundle has {sized(zipped)}; Lambda takes a zip of {sized(zip_limit)} at most"
                " directly, and a larger one by way of S3: mu deploy --bucket NAME"
            )
        partial.replace(out)
    except OSError as error:
        raise BundleError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    names = {*contents, COMMAND_FILE} if command is not None else contents
    return Bundle(out, zipped, unzipped, tuple(sorted(names)), libraries, architecture, warnings)


def look_into(path: Path) -> Bundle:
    """Return what a bundle has that was written before. Raises BundleError if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            heads = {info.filename: _head(archive, info) for info in infos}
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise BundleError(f"{path} cannot be read as a zip: {error}") from None
    if "lambda_function.py" not in heads or "mu_worker/start.py" not in heads:
        raise BundleError(
            f"{path} is no bundle of mu: it has no worker (mu_worker/) at its root. Make one with"
            " mu bundle"
        )
    unzipped = sum(info.file_size for info in infos)
    if unzipped > UNZIPPED_LIMIT:
        raise BundleError(
            f"{path} has {sized(unzipped)} unzipped; Lambda takes {sized(UNZIPPED_LIMIT)} at most"
        )
    kinds = {kind: name for name, head in heads.items() if (kind := machine_of(head))}
    if len(kinds) > 1:
        told = ", ".join(f"{name} is for {kind}" for kind, name in kinds.items())
        raise BundleError(f"{path} has programs of several architectures: {told}")
    architecture = next(iter(kinds), None)
    if architecture not in (None, *ARCHITECTURES):
        raise BundleError(f"{path} is for {architecture}; Lambda runs x86_64 and arm64")
    return Bundle(path, path.stat().st_size, unzipped, tuple(heads), architecture=architecture)


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(64)


def worker_sources() -> list[tuple[str, Path]]:
    """Return the worker's own files: names in the zip, and where they are.

    An installed mu has the worker's code inside the package, as mu/worker_code; in a checkout it
    is lambda/, beside mu/. Raises BundleError where there is neither.
    """
    package = Path(mu.__file__).resolve().parent
    homes = [package / "worker_code", package.parent / "lambda"]
    for home in homes:
        if (home / "lambda_function.py").is_file():
            break
    else:
        tried = " nor ".join(map(str, homes))
        raise BundleError(f"the worker's code is missing: neither {tried} has it")
    found = [("lambda_function.py", home / "lambda_function.py")]
    found += [(f"mu_worker/{path.name}", path) for path in (home / "mu_worker").glob("*.py")]
    found += [(f"mu/{name}", package / name) for name in _SHARED]
    return sorted(found)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    executable: bool
    text: bytes | None = None
    """What goes in instead of what `path` holds."""

    @property
    def size(self) -> int:
        return _checked(self.path).st_size if self.text is None else len(self.text)


# ------------------------------------------------ programs and their libraries


def _elves(paths: Mapping[str, Path]) -> dict[str, Elf]:
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


def _one_architecture(elves: Mapping[str, Elf], wanted: str | None) -> str | None:
    """Return the architecture of all these files. Raises BundleError where one has another."""
    expected, why = wanted, "the function's architecture"
    for elf in elves.values():
        if elf.architecture not in ARCHITECTURES:
            raise BundleError(
                f"{elf.path} is built for {elf.architecture}; Lambda runs x86_64 and arm64"
            )
        if expected is None:
            expected, why = elf.architecture, f"that of {elf.path}"
        elif elf.architecture != expected:
            raise BundleError(
                f"{elf.path} is built for {elf.architecture}, {why} is {expected}: take files of one"
                " architecture, and a function of the same (--arch)"
            )
    return expected


def _add_libraries(
    contents: dict[str, _Entry],
    elves: Mapping[str, Elf],
    programs: Mapping[str, Path],
    folders: Iterable[Path],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put in what the files need, and a starter before each program that needs some of it.

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
                    f"{sentence}: install the package that has it, or name its folder with --lib-dir"
                )
            warnings.append(f"{sentence}; Lambda may have it, or not")
        if name in programs and (its.found or set(given) & set(elf.needed)):
            _start_with_libraries(contents, name)
        for library, found in its.found.items():
            if name in programs or found.path.resolve() not in bundled:
                libraries.setdefault(library, found)
    for name, elf in libraries.items():
        _add(contents, set(), f"{LIBRARIES}/{name}", _Entry(elf.path, executable=True))
    warnings += _script_warnings(programs, elves)
    warnings += _glibc_warnings([*elves.values(), *libraries.values()])
    return tuple(sorted(libraries)), tuple(warnings)


def _check_loader(elf: Elf) -> None:
    loader = INTERPRETERS[elf.architecture]
    if posixpath.basename(elf.interpreter) != loader:
        raise BundleError(
            f"{elf.path} wants the loader {elf.interpreter}; Lambda has glibc's {loader} only: link"
            " the program statically, or against glibc"
        )


def _start_with_libraries(contents: dict[str, _Entry], name: str) -> None:
    """Move a program away, and put what starts it with its libraries in its place."""
    program, moved = contents[name], f"{_PROGRAMS}/{name}"
    if moved in contents:
        raise BundleError(f"{contents[moved].path} cannot be bundled as {moved}: {name} goes there")
    up = "../" * name.count("/")
    text = _STARTER.format(lib=up + LIBRARIES, program=up + moved)
    contents[moved] = program
    contents[name] = _Entry(program.path, executable=True, text=text.encode("ascii"))


def _script_warnings(programs: Mapping[str, Path], elves: Mapping[str, Elf]) -> Iterator[str]:
    for name, path in programs.items():
        if name in elves:
            continue
        with path.open("rb") as file:
            line = file.readline(200).decode("utf-8", "replace")
        words = line.removeprefix("#!").split()
        if not line.startswith("#!") or not words:
            yield f"{path} is neither an ELF program nor a script that begins with #!"
        elif words[0] not in _SHELLS:
            yield f"{path} is a script for {words[0]}, which Lambda may not have: try #!/usr/bin/env"


def _glibc_warnings(elves: Iterable[Elf]) -> list[str]:
    newer = sorted((elf for elf in elves if elf.glibc > LAMBDA_GLIBC), key=lambda elf: elf.glibc)
    if not newer:
        return []
    worst, others = newer[-1], len(newer) - 1
    more = f", and {others} more file{'s' if others > 1 else ''} one newer than 2.34" * bool(others)
    return [
        f"{worst.path} needs glibc {_version(worst.glibc)}{more}; Lambda's python3.12 to 3.14 have"
        f" {_version(LAMBDA_GLIBC)}, where it will not start: build it where glibc is older (Amazon"
        " Linux 2023, Debian 11), or link it statically"
    ]


def _version(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


# ------------------------------------------------ files


def _add(contents: dict[str, _Entry], own: set[str], name: str, entry: _Entry) -> None:
    _checked(entry.path)
    path = PurePosixPath(name)
    if str(path) != name or name == "." or path.is_absolute() or ".." in path.parts:
        raise BundleError(
            f"{entry.path} cannot be bundled as {name!r}: a relative path is expected"
        )
    top = name.partition("/")[0]
    if top in own:
        raise BundleError(f"{entry.path} cannot be bundled as {top}: the worker's own is named so")
    if name in (f"{top}/__init__.py", f"{top.removesuffix('.py')}.py") and (
        top.removesuffix(".py") in sys.stdlib_module_names
    ):
        raise BundleError(
            f"{entry.path} cannot be bundled as {top}: the worker would import it in place of"
            " Python's own module"
        )
    if name in contents:
        raise BundleError(f"{entry.path} and {contents[name].path} would both be {name}")
    contents[name] = entry


def _named(given: Iterable[Path] | Mapping[str, Path]) -> Iterable[tuple[str, Path]]:
    if isinstance(given, Mapping):
        return given.items()
    return [(path.name or path.resolve().name, path) for path in given]


def _below(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """Yield names in the zip and files: `path` itself, or all that is in that folder."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if not file.is_dir():
                yield f"{name}/{file.relative_to(path).as_posix()}", file
    else:
        yield name, path


def _checked(path: Path) -> os.stat_result:
    """Return what is known about a file that can be read. Raises BundleError for another."""
    try:
        status = path.stat()
    except OSError as error:
        raise BundleError(f"cannot bundle {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"cannot bundle {path}: it is no regular file")
    if not os.access(path, os.R_OK):
        raise BundleError(f"cannot bundle {path}: it is not readable")
    return status


def _write(out: Path, contents: dict[str, _Entry], command: str | None) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name in sorted(contents):
            entry = contents[name]
            info = _info(name, entry.executable)
            if entry.text is not None:
                archive.writestr(info, entry.text, compresslevel=_LEVEL)
                continue
            with entry.path.open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(2**20):
                    target.write(chunk)
        if command is not None:
            text = json.dumps({"command": command}) + "\n"
            archive.writestr(_info(COMMAND_FILE, executable=False), text, compresslevel=_LEVEL)


def _info(name: str, executable: bool) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _LONG_AGO)
    info.create_system = 3  # Unix, whatever this machine is: only then do the modes count
    info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def sized(size: int) -> str:
    """Return a size in bytes for people, in Lambda's units."""
    if size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**20:.1f} MiB"
