"""Functions on disk: their settings, their zip, and the zip unpacked.

    <home>/local/functions/<name>/config.json
                                  code.zip
                                  code/<CodeSha256>/     one for each version that may still run

Calls block; the slow one, `unpack`, runs in a thread.
"""

import base64
import compileall
import errno
import hashlib
import io
import json
import os
import py_compile
import shutil
import stat
import uuid
import zipfile
import zlib
from dataclasses import asdict, replace
from pathlib import Path

from twisted.logger import Logger

from mu.aws.limits import UNZIPPED
from mu.engines.local.errors import invalid
from mu.engines.local.functions import Function

UNZIPPED_LIMIT = UNZIPPED.most
_NOT_THE_ZIPS_FAULT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
}


class FunctionStore:
    """All functions of one home folder, read from disk at the start."""

    log = Logger()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.functions: dict[str, Function] = {}
        for found in folder.iterdir():
            config = found / "config.json"
            try:
                if config.exists():
                    self.functions[found.name] = Function.from_json(config.read_text())
            except (OSError, ValueError, LookupError, TypeError) as error:
                self.log.warn(
                    "skipped {config}, which is not a function: {why!r}",
                    config=str(config),
                    why=error,
                )
                continue
            self.remove_old_code(found.name)

    def code_of(self, function: Function) -> Path:
        """Return the folder of its unpacked code."""
        digest = base64.b64decode(function.code_sha256).hex()
        return self.folder / function.name / "code" / digest[:32]

    def save(self, function: Function) -> None:
        folder = self.folder / function.name
        new = folder / "config.json.new"
        new.write_text(json.dumps(asdict(function), indent=1))
        new.replace(folder / "config.json")
        self.functions[function.name] = function

    def remove(self, name: str) -> None:
        del self.functions[name]
        (self.folder / name / "config.json").unlink()

    def unpack(self, function: Function, zipped: bytes) -> Function:
        """Unpack new code and return the function with it. Running sandboxes are not affected."""
        digest = base64.b64encode(hashlib.sha256(zipped).digest()).decode()
        function = replace(function, code_sha256=digest, code_size=len(zipped))
        target = self.code_of(function)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            new = target.parent / f"new-{uuid.uuid4()}"
            try:
                extract(zipped, new)
                # Sandboxes may see other paths and cannot write here, so never check the source.
                unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
                compileall.compile_dir(new, quiet=2, invalidation_mode=unchecked)
                new.rename(target)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        (target.parent.parent / "code.zip").write_bytes(zipped)
        return function

    def remove_old_code(self, name: str, in_use: frozenset[str] = frozenset()) -> None:
        """Remove the unpacked code of `name`, except the current version and those in use."""
        function = self.functions.get(name)
        current = self.code_of(function) if function else None
        codes = list((self.folder / name / "code").glob("*"))
        kept = [code for code in codes if code == current or str(code) in in_use]
        for code in codes:
            if code not in kept:
                shutil.rmtree(code, ignore_errors=True)
        if function is None and not kept:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def extract(zipped: bytes, target: Path) -> None:
    """Unzip with file modes, as AWS does. Raises LambdaError for damaged or malicious zips.

    Links are made last, so nothing is written through them. zipfile never reads more of an entry
    than its size in the zip's directory, so summing these sizes detects a zip bomb.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > UNZIPPED_LIMIT:
                raise invalid(f"Unzipped size must be smaller than {UNZIPPED_LIMIT} bytes")
            for entry in entries:
                _check_name(entry.filename)
            target.mkdir(parents=True)
            links = [entry for entry in entries if stat.S_ISLNK(entry.external_attr >> 16)]
            for entry in entries:
                if entry not in links:
                    made = archive.extract(entry, target)
                    mode = stat.S_IMODE(entry.external_attr >> 16)
                    if mode and not entry.is_dir():
                        os.chmod(made, mode & 0o777)
            for entry in links:
                _link(target / entry.filename, archive.read(entry).decode(), target)
            for entry in links:  # once all exist, since one can lead through another
                _check_inside(target / entry.filename, target)
    except OSError as error:
        if error.errno in _NOT_THE_ZIPS_FAULT:
            raise
        raise _bad_zip(error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _bad_zip(error) from error


def _bad_zip(why: object) -> Exception:
    message = "Could not unzip uploaded file. Please check your file, then try to upload again."
    return invalid(f"{message} ({why})")


def _check_name(name: str) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        raise _bad_zip(f"{name!r} points outside of the bundle")


def _link(path: Path, goal: str, target: Path) -> None:
    _check_inside(path.parent, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(goal, path)


def _check_inside(path: Path, target: Path) -> None:
    if not path.resolve().is_relative_to(target.resolve()):
        raise _bad_zip(f"{path.relative_to(target)} points outside of the bundle")
