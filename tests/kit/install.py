"""Wheels of mu, and venvs of their own in which it is installed as a user would."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copy_of(source: Path, folder: Path) -> Path:
    """Return a copy without what building left behind, so that nothing is built in the checkout."""
    shutil.copytree(
        source, folder, symlinks=True, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info")
    )
    return folder


def build(source: Path, folder: Path) -> Path:
    """Build a source distribution, and a wheel from it; return the wheel."""
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    subprocess.run(words, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def make_venv(folder: Path, *packages: object) -> Path:
    """Return the Python of a new venv with these packages; their dependencies are ours."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # A .pth shows our dependencies, and not what our own site-packages links to: a mu in
    # development. twistd is one of the scripts, which name their interpreter.
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    pip += ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*pip, *map(str, packages)], check=True, cwd=folder)
    ours = Path(sys.executable).with_name("twistd").read_text()
    twistd = python.with_name("twistd")
    twistd.write_text(f"#!{python}\n" + ours.partition("\n")[2])
    twistd.chmod(0o755)
    return python
