"""The packages that Python scripts need, as pip finds them for a function's Python."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from mu.functions.contents import BundleError

_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
_OLDEST_GLIBC = 5
_LAMBDA_GLIBC, _OLDER_GLIBC = 34, 26
"""The minor versions of glibc 2 in Amazon Linux 2023, for Python 3.12 and newer, and in Amazon Linux 2."""
_NO_WHEEL = re.compile(r"No matching distribution found for (.+)")
_OUTPUT = 500


@dataclass(frozen=True, slots=True)
class Requirements:
    """A file of requirements, and the Python that will import them."""

    file: Path
    runtime: str = ""
    """Lambda's name of the Python, such as python3.12; empty: this machine runs the function, with
    the Python that runs mu."""
    architecture: str = "x86_64"
    """That of the function, if its programs do not say."""

    def install(self, folder: Path, architecture: str | None) -> None:
        """Install all packages into `folder`, from wheels only. Raises BundleError."""
        target = [] if not self.runtime else self._target(architecture or self.architecture)
        command = [sys.executable, "-m", "pip", "install", "--requirement", str(self.file)]
        command += ["--target", str(folder), "--only-binary=:all:", *target]
        command += ["--no-compile", "--no-input", "--quiet", "--disable-pip-version-check"]
        command += ["--root-user-action=ignore", "--no-warn-conflicts"]
        env = {**os.environ, "PIP_USER": "0"}  # it contradicts --target
        ran = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True)
        if ran.returncode:
            told = (ran.stderr + ran.stdout).decode(errors="replace")
            raise BundleError(self._reason(told, architecture or self.architecture))
        _keep_modules(folder)

    def python(self, architecture: str | None = None) -> str:
        """Return the Python in words."""
        if not self.runtime:
            return f"Python {sys.version_info[0]}.{sys.version_info[1]} on this machine"
        return f"Python {self._version} on {architecture or self.architecture}"

    @property
    def _version(self) -> str:
        return self.runtime.removeprefix("python")

    def _target(self, architecture: str) -> Iterator[str]:
        """Yield pip's options for a Python that is not the one that runs pip."""
        if not re.fullmatch(r"python3\.\d{1,2}", self.runtime):
            raise BundleError(
                f"the function's runtime must be like python3.12 for --requirements, got {self.runtime}"
            )
        minor = int(self.runtime.rpartition(".")[2])
        glibc = _LAMBDA_GLIBC if minor >= 12 else _OLDER_GLIBC
        yield from ("--implementation", "cp", "--python-version", self._version)
        machine = _MACHINES[architecture]
        for tag in (*(f"2_{n}" for n in range(glibc, _OLDEST_GLIBC - 1, -1)), "2014"):
            yield from ("--platform", f"manylinux{tag if tag == '2014' else f'_{tag}'}_{machine}")

    def _reason(self, told: str, architecture: str) -> str:
        """Return why pip failed, as a sentence."""
        if found := _NO_WHEEL.search(told):
            return (
                f"there is no wheel of {found[1].strip()} for {self.python(architecture)}, or pip"
                f" cannot find it; {self.file} may name another version, or a wheel that you built"
            )
        if "No module named pip" in told:
            return f"--requirements needs pip: {sys.executable} -m ensurepip"
        errors = [line for line in told.splitlines() if line.startswith("ERROR: ")]
        why = errors[-1].removeprefix("ERROR: ") if errors else told.strip()[-_OUTPUT:]
        return f"pip cannot install the requirements in {self.file}: {why}"


def _keep_modules(folder: Path) -> None:
    """Delete programs that pip made: they begin with the path of this machine's Python."""
    rmtree(folder / "bin", ignore_errors=True)
    for record in folder.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("../../bin/")]
        record.write_text("".join(kept), encoding="utf-8")
