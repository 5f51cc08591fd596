"""Installed in each way that pip knows, `twistd mu` and `mu` run a job from any directory."""

import subprocess
import sys
from zipfile import ZipFile

import pytest
from kit.install import ROOT, make_venv

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


@pytest.mark.parametrize("way", ["wheel", "editable"])
def test_an_installed_mu_runs_a_job_from_any_directory(mu_source, mu_wheel, way, tmp_path):
    venv = tmp_path / "venv"
    packages = [mu_wheel] if way == "wheel" else ["-e", mu_source]
    python = make_venv(venv, *packages)
    script = tmp_path / "try.py"
    script.write_text(TRY)
    where = mu_source if way == "editable" else venv
    tried = subprocess.run(
        [python, script, ROOT / "demo", where], cwd=tmp_path, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_pip_installs_from_the_source_what_it_installs_from_the_wheel(
    mu_source, mu_wheel, tmp_path
):
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*words, "--wheel-dir", tmp_path, mu_source], check=True)
    (direct,) = tmp_path.glob("*.whl")
    with ZipFile(direct) as one, ZipFile(mu_wheel) as other:
        assert {(info.filename, info.CRC) for info in one.infolist()} == {
            (info.filename, info.CRC) for info in other.infolist()
        }
