"""`pip install .` into a venv of its own: the daemon starts, with the worker's code inside."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TRY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stage import Daemon
from mu.bundle import bundle
import mu
assert "site-packages" in mu.__file__, mu.__file__
daemon = Daemon(Path("daemon"))
try:
    daemon.create_function("hello", bundle(Path("hello.zip")).path)
    job = daemon.wait(daemon.ask("/jobs", {"pipeline": "hello", "workers": 3})["id"])
    print(job["state"], job["result"])
finally:
    daemon.stop()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The Python of a venv with mu installed; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    shutil.copytree(
        ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info")
    )
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(site, "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", source]
    subprocess.run(pip, check=True, cwd=folder)
    shutil.copy(shutil.which("twistd", path=str(Path(sys.executable).parent)), python.parent)
    twistd = python.parent / "twistd"
    twistd.write_text(f"#!{python}\n" + twistd.read_text().partition("\n")[2])
    return python


def test_an_installed_mu_runs_a_job_from_any_directory(installed, tmp_path):
    script = tmp_path / "try.py"
    script.write_text(TRY)
    tried = subprocess.run(
        [installed, script, ROOT / "demo"], cwd=tmp_path, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.strip() == "done {'said_hello': 3}"
