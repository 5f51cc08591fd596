"""Compiled by mypyc, the core passes the tests that it passes in Python."""

import os
import shutil
import subprocess
import sys
from zipfile import ZipFile

import pytest
from kit.install import ROOT

TESTS = (
    *("unit/test_machine.py", "unit/test_session.py", "unit/test_session_effects.py"),
    *("unit/test_driver.py", "unit/test_outbox.py", "unit/test_wire.py", "unit/test_replay.py"),
    *("unit/test_states.py", "unit/test_states_together.py", "unit/test_script.py"),
)

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture(scope="module")
def compiled(mu_source, tmp_path_factory):
    """Where a wheel with the compiled core is unpacked; the C compiler does not optimize it."""
    folder = tmp_path_factory.mktemp("compiled")
    build = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", mu_source]
    made = subprocess.run(
        [*build, "-q", "-w", folder],
        env={**os.environ, "MU_COMPILED": "1", "MYPYC_OPT_LEVEL": "0"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = folder.glob("mu-*.whl")
    ZipFile(wheel).extractall(folder / "mu")
    return folder / "mu"


def run(compiled, *arguments):
    env = {**os.environ, "PYTHONPATH": str(compiled), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=ROOT, capture_output=True, text=True
    )


def passes(compiled, *tests):
    paths = f"pythonpath={ROOT / 'lambda'} {ROOT / 'demo'} {ROOT / 'tests'}"
    options = ["-q", "-m", "not soak and not interpreted", "-o", paths]
    tried = run(compiled, "-m", "pytest", *options, *tests)
    assert tried.returncode == 0, tried.stdout


def test_the_compiled_core_passes_the_same_tests(compiled):
    told = run(compiled, "-c", "import mu.session; print(mu.session.__file__)")
    assert told.stdout.startswith(str(compiled)), told
    assert told.stdout.endswith(".so\n")
    passes(compiled, *[str(ROOT / "tests" / name) for name in TESTS])


@pytest.mark.soak
def test_the_rules_of_sessions_hold_in_the_compiled_core(compiled):
    passes(compiled, "-k", "the_rules_hold", str(ROOT / "tests/model/test_session_model.py"))
