"""The functions that were created, on disk: what they are, their zip, and the zip unpacked.

    <home>/local/functions/<name>/config.json
                                  code.zip
                                  code/<CodeSha256>/     one for each code that may still run

Blocking: what takes long (unpack) is called in a thread.
"""

import base64
import compileall
import hashlib
import io
import json
import os
import py_compile
import shutil
import stat
import uuid
import zipfile
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mu.engines.local.errors import invalid

UNZIPPED_LIMIT = 262_144_000
ACCOUNT = "000000000000"


def arn_of(name: str, region: str) -> str:
    return f"arn:aws:lambda:{region}:{ACCOUNT}:function:{name}"


@dataclass(frozen=True, slots=True)
class Function:
    """One function. Times in seconds, sizes of memory and /tmp in MB, of the code in bytes."""

    name: str
    handler: str
    runtime: str = "python3.12"
    role: str = ""
    timeout: int = 3
    memory: int = 128
    ephemeral: int = 512
    description: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    architectures: tuple[str, ...] = ("x86_64",)
    code_sha256: str = ""
    code_size: int = 0
    modified: str = ""
    revision: str = ""
    invoke_config: dict[str, Any] | None = None

    def touched(self) -> "Function":
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        return replace(self, modified=now, revision=str(uuid.uuid4()))

    def configuration(self, region: str) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {
            "FunctionName": self.name,
            "FunctionArn": arn_of(self.name, region),
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "CodeSize": self.code_size,
            "Description": self.description,
            "Timeout": self.timeout,
            "MemorySize": self.memory,
            "LastModified": self.modified,
            "CodeSha256": self.code_sha256,
            "Version": "$LATEST",
            "Environment": {"Variables": self.environment},
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": self.revision,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": list(self.architectures),
            "EphemeralStorage": {"Size": self.ephemeral},
        }


class FunctionStore:
    """All functions of one home; those on disk are read at the start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.functions: dict[str, Function] = {}
        for found in folder.iterdir():
            config = found / "config.json"
            if config.exists():
                fields = json.loads(config.read_text())
                fields["architectures"] = tuple(fields["architectures"])
                self.functions[found.name] = Function(**fields)
            self.remove_old_code(found.name)

    def code_of(self, function: Function) -> Path:
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
        """Put the code in place; return the function with it. Nothing that runs is disturbed."""
        digest = base64.b64encode(hashlib.sha256(zipped).digest()).decode()
        function = replace(function, code_sha256=digest, code_size=len(zipped))
        target = self.code_of(function)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            new = target.parent / f"new-{uuid.uuid4()}"
            try:
                extract(zipped, new)
                # Paths inside a sandbox may differ, and its code is read-only: never compare.
                unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
                compileall.compile_dir(new, quiet=2, invalidation_mode=unchecked)
                new.rename(target)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        (target.parent.parent / "code.zip").write_bytes(zipped)
        return function

    def remove_old_code(self, name: str, in_use: frozenset[str] = frozenset()) -> None:
        """Remove the unpacked codes of `name`, but for the current one and those in use."""
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
    """Unzip with the files' modes, as AWS does; links come last, so nothing is written through."""
    try:
        with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > UNZIPPED_LIMIT:
                raise invalid(f"Unzipped size must be smaller than {UNZIPPED_LIMIT} bytes")
            target.mkdir(parents=True)
            links = [entry for entry in entries if stat.S_ISLNK(entry.external_attr >> 16)]
            for entry in entries:
                if entry not in links:
                    made = archive.extract(entry, target)
                    mode = stat.S_IMODE(entry.external_attr >> 16)
                    if mode and not entry.is_dir():
                        os.chmod(made, mode & 0o777)
            for entry in links:
                made = archive.extract(entry, target)
                os.unlink(made)
                os.symlink(archive.read(entry).decode(), made)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        why = "Could not unzip uploaded file. Please check your file, then try to upload again."
        raise invalid(why) from error
