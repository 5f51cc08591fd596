"""Venvs of their own, in which mu is installed as a user would."""

import os
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


def make_venv(folder: Path, *packages: object) -> Path:
    """Return the Python of a new venv with these packages; their dependencies are ours."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # A .pth shows our dependencies, and not what our own site-packages links to: a mu in
    # development. twistd is one of the scripts, which name their interpreter.
    Path(site, "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip_install(python, *packages)
    ours = Path(sys.executable).with_name("twistd").read_text()
    twistd = python.with_name("twistd")
    twistd.write_text(f"#!{python}\n" + ours.partition("\n")[2])
    twistd.chmod(0o755)
    return python


def pip_install(python: Path, *packages: object) -> None:
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", *map(str, packages)]
    subprocess.run(pip, check=True, cwd=python.parent, env={**os.environ, "PYTHONPATH": ""})
