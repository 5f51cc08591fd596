"""The example package: installed beside mu, its tests and types pass, and its pipelines run a job."""

import subprocess
import sys

import pytest
from kit.install import ROOT, make_venv

TRY = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stage import Daemon
from mu.functions.bundle import bundle
daemon = Daemon(Path("daemon"), {"AWS_ENDPOINT_URL_S3": os.environ["AWS_ENDPOINT_URL_S3"]})
try:
    daemon.create_function("hello", bundle(Path("hello.zip")).path)
    for name in ("wordcount-states", "wordcount-script"):
        order = {"pipeline": name, "function": "hello"}
        order["params"] = {"bucket": "films", "texts": ["a.txt", "b.txt", "c.txt"]}
        job = daemon.wait(daemon.ask("/jobs", order)["id"])
        print(job["state"], json.dumps(job["result"]), job["error"])
finally:
    daemon.stop()
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory, mu_source, mu_wheel):
    folder = tmp_path_factory.mktemp("example")
    return make_venv(folder / "venv", mu_wheel, mu_source / "examples" / "mu-example-pipeline")


def test_its_own_tests_pass(python, mu_source):
    tests = mu_source / "examples" / "mu-example-pipeline" / "tests"
    tried = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=tests,
        capture_output=True,
        text=True,
    )
    assert tried.returncode == 0, tried.stdout
    assert "5 passed" in tried.stdout


def test_its_types_fit_those_of_the_installed_mu(python, mu_source, tmp_path):
    package = mu_source / "examples" / "mu-example-pipeline" / "mu_example"
    strictly = ["--strict", "--config-file=", "--cache-dir", tmp_path]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *strictly, "--python-executable", python, package],
        cwd=tmp_path,  # not a checkout of mu
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout == "Success: no issues found in 4 source files\n"


def test_its_pipelines_run_on_real_workers(python, s3, tmp_path, monkeypatch):
    for name, text in (("a", "one two"), ("b", "three\nfour\n"), ("c", "")):
        s3.client().put_object(Bucket="films", Key=f"{name}.txt", Body=text.encode())
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "try.py").write_text(TRY)
    tried = subprocess.run(
        [python, "try.py", ROOT / "demo"], cwd=tmp_path, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.splitlines() == ['done {"words": 4} None'] * 2
