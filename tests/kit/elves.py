"""Programs and libraries for tests: compiled here, or made up byte by byte for other processors."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

X86_64, ARM64, I386 = 62, 183, 3
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")

INNER = "int inner(void) { return 40; }"
OUTER = "int inner(void); int outer(void) { return inner() + 2; }"
MAIN = """
#include <stdio.h>
int outer(void);
int main(int count, char **words) {
    printf("%d %s\\n", outer(), count > 1 ? words[1] : "");
    return 0;
}
"""


def fake_elf(path: Path, machine: int, kind: int = 2, bits: int = 64) -> Path:
    """Write an ELF header without anything behind it; such a file cannot run anywhere."""
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    layout = "<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH"
    size = struct.calcsize(layout) + 16
    path.write_bytes(ident + struct.pack(layout, kind, machine, 1, 0, 0, 0, 0, size, 0, 0, 0, 0, 0))
    path.chmod(0o755)
    return path


def compiled(out: Path, source: str, *options: str) -> Path:
    command = ["gcc", "-x", "c", "-", "-o", str(out), *options]
    subprocess.run(command, input=source, text=True, check=True)
    return out


def program_with_libraries(folder: Path) -> Path:
    """A program that needs libouter.so, which needs libinner.so; nothing says where they are."""
    libs = folder / "libs"
    libs.mkdir()
    link = ["-shared", "-fPIC", f"-L{libs}"]
    compiled(libs / "libinner.so", INNER, *link)
    compiled(libs / "libouter.so", OUTER, *link, "-linner")
    return compiled(folder / "answer", MAIN, f"-L{libs}", "-louter", f"-Wl,-rpath-link={libs}")
