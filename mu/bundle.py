"""The zip that a function is made of: the worker's code, the user's programs, their command.

Reproducible: the same input gives the same bytes, so an unchanged function need not be deployed
again.
"""

import json
import os
import stat
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ZIP_LIMIT = 50 * 2**20
"""The largest zip, in bytes, that Lambda takes directly; larger ones go by S3."""
UNZIPPED_LIMIT = 250 * 2**20
"""The most that Lambda unzips, in bytes, layers included."""
COMMAND_FILE = "mu_command.json"

_SHARED = ("__init__.py", "wire.py", "messages.py")  # of mu/, which both ends speak
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


def bundle(
    out: Path,
    *,
    executables: Iterable[Path] | Mapping[str, Path] = (),
    files: Iterable[Path] | Mapping[str, Path] = (),
    command: str | None = None,
    zip_limit: int = ZIP_LIMIT,
) -> Bundle:
    """Write the zip of the worker, the user's files at its root, and the packaged command.

    A mapping says under which names the files go in; else they keep their own. Executables get
    mode 0755; of other files it is kept whether they can be executed, and a folder is taken with
    all that is in it. `out` is replaced only once the zip is complete. Raises BundleError.
    """
    contents: dict[str, _Entry] = {
        name: _Entry(path, executable=False) for name, path in worker_sources()
    }
    own = {name.partition("/")[0] for name in contents} | {COMMAND_FILE}
    for name, path in _named(executables):
        _add(contents, own, name, _Entry(path, executable=True))
    for root, path in _named(files):
        for name, file in _below(root, path):
            mode = _checked(file).st_mode
            _add(contents, own, name, _Entry(file, executable=bool(mode & 0o111)))
    unzipped = sum(_checked(entry.path).st_size for entry in contents.values())
    if unzipped > UNZIPPED_LIMIT:
        largest = max(contents, key=lambda name: _checked(contents[name].path).st_size)
        raise BundleError(
            f"unzipped, the bundle would have {_mib(unzipped)}; Lambda takes {_mib(UNZIPPED_LIMIT)}"
            f" at most. The largest file is {largest}"
        )
    partial = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        _write(partial, contents, command)
        zipped = partial.stat().st_size
        if zipped > zip_limit:
            raise BundleError(
                f"the bundle has {_mib(zipped)}; Lambda takes a zip of {_mib(zip_limit)} at most"
                " directly, and a larger one only by way of S3"
            )
        partial.replace(out)
    except OSError as error:
        raise BundleError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    names = {*contents, COMMAND_FILE} if command is not None else contents
    return Bundle(out, zipped, unzipped, tuple(sorted(names)))


def worker_sources() -> list[tuple[str, Path]]:
    """Return the worker's own files: names in the zip, and where they are.

    An installed mu has the worker's code inside the package, as mu/worker_code; in a checkout it
    is lambda/, beside mu/. Raises BundleError where there is neither.
    """
    package = Path(__file__).resolve().parent
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


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
