"""The files of this machine: which of them are inputs, and what their keys are."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mu.aws.keys import no_files
from mu.cli.display.text import many
from mu.cli.options import CliError

NAMED = 10
"""How many files are named of those that are left out or refused."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload: its name below the folder, with slashes, and what is known about it."""

    name: str
    path: Path
    size: int
    changed: float
    """When its content or its place last changed, in seconds since the epoch."""

    def is_unchanged(self) -> bool:
        """Whether the file is still what it was."""
        try:
            return self == look_at(self.path, self.name)
        except CliError:
            return False


def prefix_for(path: Path, role: str = "") -> str:
    """Return the prefix for the files of a folder (or a file) of this machine, always the same one.

    No other folder, user or machine has it, so that its objects can be deleted with their files.
    """
    whole = path.resolve()
    words = (_machine(), str(os.getuid()), role, os.fsdecode(whole))
    digest = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", whole.name).strip("._") or "files"
    return f"{name[:40]}{role}-{digest[:10]}/"


def _machine() -> str:
    """Return what tells this machine from others."""
    try:
        return socket.gethostname() + Path("/etc/machine-id").read_text()
    except OSError:
        return socket.gethostname()


def scan(folder: Path) -> tuple[list[LocalFile], list[str]]:
    """Return the files below a folder (or the file), and a phrase for each thing that is left out.

    Raises CliError if something cannot be read.
    """
    if not folder.is_dir():
        return [look_at(folder, folder.name)], []
    found: list[LocalFile] = []
    left: list[str] = []

    def failed(error: OSError) -> None:
        raise CliError(f"cannot read {shown(error.filename)}: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=failed):
        below = os.path.relpath(place, folder)
        below = "" if below == "." else f"{below}/"
        for name in sorted(folders):
            if os.path.islink(os.path.join(place, name)):
                left.append(f"{shown(below + name)} (a link)")
        folders.sort()
        if below and not (names or folders):
            left.append(f"{shown(below)} (an empty folder)")
        for name in sorted(names):
            kind = os.lstat(os.path.join(place, name)).st_mode
            if stat.S_ISREG(kind):
                found.append(look_at(Path(place, name), below + name))
            else:
                what = "a link" if stat.S_ISLNK(kind) else "not a regular file"
                left.append(f"{shown(below + name)} ({what})")
    return found, left


def look_at(path: Path, name: str) -> LocalFile:
    """Return what is known about a file. Raises CliError if it cannot be read."""
    try:
        known = path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied", str(path))
    except OSError as error:
        raise CliError(f"cannot read {shown(path)}: {error.strerror}") from None
    return LocalFile(name, path, known.st_size, max(known.st_mtime, known.st_ctime))


def refuse_names(keys: Sequence[str], where: str, prefix: str = "") -> None:
    """Raise CliError, which names those keys that cannot be files, if there are any."""
    refused = [f"{shown(key.removeprefix(prefix))}: {why}" for key, why in no_files(keys)]
    if refused:
        few = many(len(refused), "name")
        raise CliError(f"{where} cannot hold {few}; nothing was copied:\n{listed(refused)}")


def warn_of(left: Sequence[str]) -> None:
    if left:
        click.echo(f"Left out: {many(len(left), 'entry').replace('entrys', 'entries')}:", err=True)
        click.echo(listed(left), err=True)


def listed(lines: Sequence[str]) -> str:
    more = len(lines) - NAMED
    shown = [f"  {line}" for line in lines[:NAMED]]
    return "\n".join([*shown, *([f"  and {more} more"] if more > 0 else [])])


def shown(name: object) -> str:
    """Return a name as it can be printed, whatever its bytes: with escapes, in quotes."""
    text = os.fsdecode(name) if isinstance(name, str | bytes | Path) else str(name)
    if text.isprintable():
        return text
    return re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", repr(text))
