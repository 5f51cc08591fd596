"""Installed in each way that pip knows, `twistd mu` and `mu` run a job from any directory."""

import subprocess
import sys
from pathlib import Path

import pytest
from kit.install import ROOT, copy_of, make_venv

TRY = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stage import Daemon
from mu.functions.bundle import bundle
import mu
assert str(Path(mu.__file__).resolve()).startswith(sys.argv[2]), mu.__file__
daemon = Daemon(Path("daemon"))
try:
    daemon.create_function("hello", bundle(Path("hello.zip")).path)
    mu = Path(sys.executable).with_name("mu")
    order = [mu, "--home", daemon.home, "launch", "hello", "-n", "3", "--watch"]
    sys.exit(subprocess.run(order).returncode)
finally:
    daemon.stop()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return copy_of(ROOT, tmp_path_factory.mktemp("install") / "source")


def wheel(source: Path, folder: Path) -> Path:
    """Build a source distribution, and a wheel from it; return the wheel."""
    build = [sys.executable, "-m", "build", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.parametrize("way", ["source", "editable", "wheel"])
def test_an_installed_mu_runs_a_job_from_any_directory(source, way, tmp_path):
    venv = tmp_path / "venv"
    packages = {
        "source": lambda: [source],
        "editable": lambda: ["-e", source],
        "wheel": lambda: [wheel(source, tmp_path / "dist")],
    }[way]()
    python = make_venv(venv, *packages)
    script = tmp_path / "try.py"
    script.write_text(TRY)
    where = source if way == "editable" else venv
    tried = subprocess.run(
        [python, script, ROOT / "demo", where], cwd=tmp_path, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr
