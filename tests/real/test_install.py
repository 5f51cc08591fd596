"""Installed in each way that pip knows, mu runs a job from any directory, with packages beside it.

The example's tests and types pass, and its pipelines run a job. Those of docs/pipelines.md are made from nothing but the page, and its commands run as printed.
"""

import os
import re
import subprocess
import sys
import textwrap
from zipfile import ZipFile

import pytest
from kit.install import ROOT, make_venv
from stage import Daemon


@pytest.fixture(scope="module")
def python(tmp_path_factory, mu_source, mu_wheel):
    folder = tmp_path_factory.mktemp("example")
    return make_venv(folder / "venv", mu_wheel, mu_source / "examples" / "mu-example-pipeline")


@pytest.mark.soak
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


@pytest.mark.soak
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


PAGE = (ROOT / "docs" / "pipelines.md").read_text()


def blocks(heading):
    """Return the code blocks of a section of the page."""
    section = PAGE.split(f"## {heading}\n")[1].partition("\n## ")[0]
    return [
        textwrap.dedent(found) for found in re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.M)
    ]


def write_files(heading, folder):
    """Write the files of a section: the first line of each is a comment with its path."""
    for block in blocks(heading):
        named = re.match(r"\n*# (\S+/\S+\.\w+)\n", block)
        if named:
            file = folder / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block)


def commands(heading):
    """Return the command lines of a section, and the output that the page shows for each."""
    shown = "".join(block for block in blocks(heading) if "\n$ " in block)
    return [part.partition("\n")[::2] for part in re.split(r"^\$ ", shown, flags=re.M)[1:]]


class Shell:
    """Runs command lines as a user who has activated the venv."""

    def __init__(self, python, folder, env):
        self.folder = folder
        # The venv has no pip and no pytest of its own.
        for name, words in (
            ("pip", [sys.executable, "-m", "pip", "--python", python]),
            ("pytest", [python, "-m", "pytest", "-p", "no:cacheprovider"]),
        ):
            script = python.with_name(name)
            script.write_text(f'#!/bin/sh\nexec {" ".join(map(str, words))} "$@"\n')
            script.chmod(0o755)
        offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
        path = f"{python.parent}:{os.environ['PATH']}"
        self.env = {**os.environ, **offline, **env, "PATH": path}

    def run(self, line):
        """Return the exit status, and all that was printed."""
        words = ["bash", "-c", line]
        ran = subprocess.run(words, cwd=self.folder, env=self.env, capture_output=True, text=True)
        return ran.returncode, ran.stdout + ran.stderr


def test_the_page_leads_from_its_files_to_jobs_beside_an_installed_package(python, s3, tmp_path):
    class Installed(Daemon):
        @staticmethod
        def popen(command, **more):
            return subprocess.Popen([python.with_name("twistd"), *command[1:]], **more)

    s3.client().create_bucket(Bucket="books")
    for key, text in (("a.txt", "one two"), ("b.txt", "three\nfour five\n")):
        s3.client().put_object(Bucket="books", Key=key, Body=text.encode())
    package, dropin = "A package, from its files to a job", "A file, without a package"
    for heading in ("A whole pipeline", package, dropin):
        write_files(heading, tmp_path)
    install, test, show, deploy, launch = commands(package)
    ((shout, _),) = commands(dropin)
    shell = Shell(python, tmp_path, {**s3.env, "MU_HOME": str(tmp_path / "daemon" / "home")})
    daemon = Installed(tmp_path / "daemon", s3.env)
    try:
        for line, shown in (install, test):
            status, printed = shell.run(line)
            assert (status, shown in printed) == (0, True), printed
        status, printed = shell.run(launch[0])
        assert status == 2
        assert (
            "pipeline 'word-count' is installed (word_count:pipeline of word-count, in" in printed
        )
        assert "but not yet loaded by the running daemon: restart it" in printed
        daemon.stop()
        found = {"PYTHONPATH": str(tmp_path / "plugins")}
        daemon = Installed(tmp_path / "daemon", {**s3.env, **found})
        installed = ("python -c 'import mu; print(mu.__file__)'", str(python.parents[1]))
        for line, shown in (installed, show, deploy, launch, (shout, "")):
            status, printed = shell.run(line)
            assert (status, shown in printed) == (0, True), printed
        counted, greeted = daemon.ask("/jobs")
        assert (counted["state"], counted["result"]) == ("done", {"words": 5})
        rows = daemon.ask(f"/jobs/{greeted['id']}/workers")
        assert [row["result"] for row in rows] == ["HELLO"] * 3
        params = {"bucket": "books", "texts": ["a.txt", "b.txt"]}
        for name in ("wordcount-states", "wordcount-script"):
            order = {"pipeline": name, "function": greeted["function"], "params": params}
            job = daemon.wait(daemon.ask("/jobs", order)["id"])
            assert (job["state"], job["error"], job["result"]) == ("done", None, {"words": 5})
    finally:
        daemon.stop()


# ---------------------------------------------------------------- editable, and from the source

TRY_EDITABLE = """
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


def test_a_mu_in_development_runs_a_job_from_any_directory(mu_source, tmp_path):
    python = make_venv(tmp_path / "venv", "-e", mu_source)
    (tmp_path / "try.py").write_text(TRY_EDITABLE)
    tried = subprocess.run(
        [python, "try.py", ROOT / "demo", mu_source], cwd=tmp_path, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr


@pytest.mark.soak
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
