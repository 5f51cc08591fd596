"""Makes the zip of a function: the worker's code, the user's programs, and the packaged command.

It is reproducible: the same input gives the same bytes, so an unchanged function need not be
deployed again. The shared libraries of dynamic programs are added in lib/, except those of glibc.
Python scripts are run by the worker's Python; the packages that they require are in lib/python/.
"""

import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mu.aws import limits
from mu.functions.contents import BundleError as BundleError
from mu.functions.contents import Entry, add, below, checked, named
from mu.functions.contents import worker_sources as worker_sources
from mu.functions.elf import ARCHITECTURES, machine_of
from mu.functions.programs import add_libraries, one_architecture, read_elves
from mu.functions.requirements import Requirements
from mu.functions.scripts import PACKAGES, add_starter, python_options

ZIP_LIMIT = limits.ZIP.most
"""The largest zip, in bytes, that Lambda accepts directly; larger ones go through S3."""
UNZIPPED_LIMIT = limits.UNZIPPED.most
"""The most that Lambda unzips, in bytes, layers included. Above it, there is a warning."""
COMMAND_LIMIT = 131_071
"""The most bytes of the packaged command: Linux's MAX_ARG_STRLEN, without the NUL at its end."""
COMMAND_FILE = "mu_command.json"

_LEVEL = 6
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can have


@dataclass(frozen=True, slots=True)
class Bundle:
    """A zip that was written."""

    path: Path
    zipped: int
    """Its size in bytes."""
    unzipped: int
    """Its unzipped size in bytes."""
    names: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    """The shared libraries that were found and added."""
    architecture: str | None = None
    """The architecture of its programs, x86_64 or arm64; None: it has none, or only scripts."""
    warnings: tuple[str, ...] = ()
    """Sentences about programs that may not run on Lambda."""


def bundle(
    out: Path,
    *,
    executables: Iterable[Path] | Mapping[str, Path] = (),
    files: Iterable[Path] | Mapping[str, Path] = (),
    command: str | None = None,
    architecture: str | None = None,
    library_folders: Iterable[Path] = (),
    requirements: Requirements | None = None,
    zip_limit: int | None = ZIP_LIMIT,
) -> Bundle:
    """Write a zip of the worker, the user's files, and the packaged command. Raises BundleError.

    A mapping gives the files' names in the zip; otherwise they keep their own. The `executables`
    get mode 0755; other files are executable if they were. A folder is added with all its files.
    Shared libraries are looked up in `library_folders`, then where the loader looks. All programs
    must be for `architecture`, or for one and the same without it. The packages in `requirements` are
    added for Python scripts. `out` is replaced only once the zip is complete. `zip_limit` None allows any size, for a zip that goes through S3.
    """
    if command is not None:
        _check_command(command)
    with tempfile.TemporaryDirectory(prefix="mu-packages-") as packages:
        contents, about = _collect(
            executables, files, architecture, library_folders, requirements, Path(packages)
        )
        return _written(out, contents, command, zip_limit, about)


@dataclass(frozen=True, slots=True)
class _About:
    """What is known about a bundle's programs."""

    libraries: tuple[str, ...]
    architecture: str | None
    warnings: tuple[str, ...]


def _collect(
    executables: Iterable[Path] | Mapping[str, Path],
    files: Iterable[Path] | Mapping[str, Path],
    architecture: str | None,
    library_folders: Iterable[Path],
    requirements: Requirements | None,
    packages: Path,
) -> tuple[dict[str, Entry], _About]:
    """Return the bundle's contents by name; requirements are installed into `packages`."""
    contents: dict[str, Entry] = {
        name: Entry(path, executable=False) for name, path in worker_sources()
    }
    reserved = {name.partition("/")[0] for name in contents} | {COMMAND_FILE}
    programs = dict(named(executables))
    for name, path in programs.items():
        add(contents, reserved, name, Entry(path, executable=True))
    users = dict.fromkeys(programs)
    for root, path in named(files):
        for name, file in below(root, path):
            mode = checked(file).st_mode
            add(contents, reserved, name, Entry(file, executable=bool(mode & 0o111)))
            users[name] = None
    elves = read_elves({name: contents[name].path for name in users})
    architecture = one_architecture(elves, architecture)
    scripts = {
        name: options
        for name, path in programs.items()
        if name not in elves and (options := python_options(path)) is not None
    }
    others = {name: path for name, path in programs.items() if name not in scripts}
    libraries, warnings = add_libraries(contents, elves, others, library_folders)
    for name, options in scripts.items():
        add_starter(contents, name, options)
    if requirements is not None:
        if not (scripts or any(name.endswith(".py") for name in users)):
            raise BundleError(
                "--requirements is for Python scripts, but none of the programs is one"
            )
        requirements.install(packages, architecture)
        installed = dict(below(PACKAGES, packages)) if any(packages.iterdir()) else {}
        for name, path in installed.items():
            add(contents, (), name, Entry(path, executable=bool(checked(path).st_mode & 0o111)))
        architecture = one_architecture(read_elves(installed), architecture)
    return contents, _About(libraries, architecture, warnings)


def _written(
    out: Path, contents: dict[str, Entry], command: str | None, zip_limit: int | None, about: _About
) -> Bundle:
    warnings = about.warnings
    unzipped = sum(entry.size for entry in contents.values())
    if unzipped > UNZIPPED_LIMIT:
        largest = max(contents, key=lambda name: contents[name].size)
        warnings += (
            f"the unzipped bundle has {sized(unzipped)}; Lambda's limit was {sized(UNZIPPED_LIMIT)} in"
            f" {limits.AS_OF}. The largest file is {largest} ({sized(contents[largest].size)}): strip"
            " it, or have workers fetch large data from S3",
        )
    partial = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        _write(partial, contents, command)
        zipped = partial.stat().st_size
        if zip_limit is not None and zipped > zip_limit:
            raise BundleError(
                f"the bundle has {sized(zipped)}; Lambda accepts {sized(zip_limit)} directly, and"
                " larger zips through S3: mu deploy --bucket NAME"
            )
        partial.replace(out)
    except OSError as error:
        raise BundleError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    names = {*contents, COMMAND_FILE} if command is not None else contents
    return Bundle(
        out, zipped, unzipped, tuple(sorted(names)), about.libraries, about.architecture, warnings
    )


def _check_command(command: str) -> None:
    """Raise BundleError for a packaged command that no shell can be given."""
    try:
        size = len(command.encode())
    except UnicodeEncodeError:
        raise BundleError(
            f"the packaged command must be valid UTF-8, got {command!r:.200}"
        ) from None
    if "\0" in command:
        raise BundleError(f"the packaged command must not contain a NUL, got {command!r:.200}")
    if size > COMMAND_LIMIT:
        raise BundleError(
            f"the packaged command must have at most {COMMAND_LIMIT} bytes, since Linux passes no"
            f" longer argument to a shell, got {size}: put it into a script"
        )


def look_into(path: Path) -> Bundle:
    """Return the description of an existing bundle. Raises BundleError if it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            heads = {info.filename: _head(archive, info) for info in infos}
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise BundleError(f"cannot read {path} as a zip: {error}") from None
    if "lambda_function.py" not in heads or "mu_worker/start.py" not in heads:
        raise BundleError(
            f"{path} is not a bundle of mu: it has no worker (mu_worker/) at its root. Make one"
            " with mu bundle"
        )
    unzipped = sum(info.file_size for info in infos)
    warnings: tuple[str, ...] = ()
    if unzipped > UNZIPPED_LIMIT:
        had = f"Lambda's limit was {sized(UNZIPPED_LIMIT)} in {limits.AS_OF}"
        warnings = (f"{path} has {sized(unzipped)} unzipped; {had}",)
    kinds = {kind: name for name, head in heads.items() if (kind := machine_of(head))}
    if len(kinds) > 1:
        each = ", ".join(f"{name} is for {kind}" for kind, name in kinds.items())
        raise BundleError(f"{path} has programs for several architectures: {each}")
    architecture = next(iter(kinds), None)
    if architecture not in (None, *ARCHITECTURES):
        raise BundleError(f"{path} is for {architecture}; Lambda runs x86_64 and arm64")
    return Bundle(
        path,
        path.stat().st_size,
        unzipped,
        tuple(heads),
        architecture=architecture,
        warnings=warnings,
    )


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(64)


def _write(out: Path, contents: dict[str, Entry], command: str | None) -> None:
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
    info.create_system = 3  # Unix, so that the modes are used
    info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def sized(size: int) -> str:
    """Return a size as text, in Lambda's units."""
    if size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**20:.1f} MiB"
