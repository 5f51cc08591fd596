"""The files that go into a bundle, by their names in it, including the worker's own files."""

import os
import stat
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import mu

LONGEST_NAME = 255
"""The longest file name on Linux, in bytes."""

_SHARED = ("__init__.py", "wire.py", "messages.py")  # of mu/: both ends run the same code


class BundleError(Exception):
    """The bundle cannot be made; the text says which file or limit prevents it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the bundle."""

    path: Path
    executable: bool
    text: bytes | None = None
    """The content, if it is not that of `path`."""

    @property
    def size(self) -> int:
        return checked(self.path).st_size if self.text is None else len(self.text)


def worker_sources() -> list[tuple[str, Path]]:
    """Return the worker's own files: their names in the zip, and their paths.

    An installed mu has the worker's code in mu/worker_code; a checkout has it in lambda/, beside
    mu/. Raises BundleError if there is neither.
    """
    package = Path(mu.__file__).resolve().parent
    homes = [package / "worker_code", package.parent / "lambda"]
    for home in homes:
        if (home / "lambda_function.py").is_file():
            break
    else:
        tried = " nor in ".join(map(str, homes))
        raise BundleError(f"the worker's code is missing: it is neither in {tried}")
    found = [("lambda_function.py", home / "lambda_function.py")]
    found += [(f"mu_worker/{path.name}", path) for path in (home / "mu_worker").glob("*.py")]
    found += [(f"mu/{name}", package / name) for name in _SHARED]
    return sorted(found)


def named(given: Iterable[Path] | Mapping[str, Path]) -> Iterable[tuple[str, Path]]:
    """Return names in the zip and paths; without a mapping, files keep their own names."""
    if isinstance(given, Mapping):
        return given.items()
    return [(path.name or path.resolve().name, path) for path in given]


def below(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """Yield names in the zip and paths: of `path` itself, or of all files in that folder."""
    if not path.is_dir():
        yield name, path
        return
    found = sorted(_walk(path, ()))
    if not found:
        raise BundleError(f"cannot bundle {path}: there are no files in this folder")
    for file in found:
        yield f"{name}/{file.relative_to(path).as_posix()}", file


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield all files of a folder, following links. Raises BundleError for a circular link."""
    real = folder.resolve()
    if real in above:
        raise BundleError(f"cannot bundle {folder}: it is a link to a folder that contains it")
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise BundleError(f"cannot bundle {folder}: {error.strerror or error}") from error
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry, (*above, real))
        else:
            yield entry


def add(contents: dict[str, Entry], reserved: Collection[str], name: str, entry: Entry) -> None:
    """Add a file. Raises BundleError for a name that is invalid, reserved or taken."""
    checked(entry.path)
    path = PurePosixPath(name)
    if str(path) != name or name == "." or path.is_absolute() or ".." in path.parts:
        raise BundleError(
            f"cannot bundle {entry.path} as {name!r}: the name must be a relative path"
        )
    if why := _unusable(path):
        raise BundleError(f"cannot bundle {str(entry.path)!r} as {name!r}: {why}")
    top = name.partition("/")[0]
    if top in reserved:
        raise BundleError(f"cannot bundle {entry.path} as {top}: the worker uses this name")
    if name in (f"{top}/__init__.py", f"{top.removesuffix('.py')}.py") and (
        top.removesuffix(".py") in sys.stdlib_module_names
    ):
        raise BundleError(
            f"cannot bundle {entry.path} as {top}: the worker would import it instead of Python's"
            " own module"
        )
    if name in contents:
        raise BundleError(f"{entry.path} and {contents[name].path} would both be bundled as {name}")
    contents[name] = entry


def _unusable(name: PurePosixPath) -> str:
    """Return why a file with this name cannot be unzipped everywhere; empty: it can."""
    try:
        longest = max(len(part.encode()) for part in name.parts)
    except UnicodeEncodeError:
        return "the name must be valid UTF-8"
    if longest > LONGEST_NAME:
        return f"each part of the name must have at most {LONGEST_NAME} bytes, got {longest}"
    if any(unicodedata.category(char) == "Cc" for char in str(name)):
        return "the name must not contain line breaks or other control characters"
    return ""


def checked(path: Path) -> os.stat_result:
    """Return the status of a readable file. Raises BundleError for any other."""
    try:
        status = path.stat()
    except OSError as error:
        raise BundleError(f"cannot bundle {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"cannot bundle {path}: it is not a regular file")
    if not os.access(path, os.R_OK):
        raise BundleError(f"cannot bundle {path}: it is not readable")
    return status
