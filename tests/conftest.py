"""Real parts, shared by the end-to-end tests: an S3 server, a daemon, a function of a shell script."""

import gc
import shutil
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import stage
from hypothesis import settings
from imageio_ffmpeg import get_ffmpeg_exe
from kit.film import COMMAND, JOIN, Files
from kit.install import ROOT, build, copy_of
from kit.nursery import popen_daemon, read_models_once
from stage import Daemon, S3Server, StageError, free_ports_conf

from mu.functions.bundle import bundle

gc.disable()  # until all tests are collected, of which nothing is garbage
# In the background of a shell SIGINT is ignored, which the daemons of the tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
read_models_once()
# The same examples in each run, however slow the machine is; `make soak` tries others, and more.
settings.register_profile("soak", database=None, deadline=None, max_examples=500)
settings.register_profile("mu", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("mu")


# fmt: off
SLOWEST = (
    "film", "install", "program", "data", "restart", "daemon", "pipelines_real", "chains_real",
    "originals", "launch_faults", "xcenc", "page", "local", "cli", "scripts", "aws_page",
    "worker_relay", "waves", "clock_real", "openapi", "deploy", "worker", "relay_real", "edges",
    "nothing_lost", "chain",
)
# fmt: on
"""The files of tests/real that take longest; they begin first, so that none of them ends alone."""


def pytest_collection_modifyitems(items):
    """Order the files: slow ones first, then those of real processes, then the others."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(SLOWEST)}

    def rank(item):
        path = item.path
        return path.parent.name != "real", ranks.get(path.stem, len(ranks))

    items.sort(key=rank)


def pytest_collection_finish():
    """Spare the garbage collector all modules and tests, which live until the end."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _daemons_are_forked():
    """Have all daemons forked by a process that has imported their modules, which saves much time."""
    stage.Daemon.popen = staticmethod(popen_daemon)


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    try:
        server = S3Server(folder / "data", folder / "s3.log")
    except StageError as error:
        pytest.skip(str(error))
    server.client().create_bucket(Bucket="films")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    try:
        server = Files(folder / "data", folder / "s3.log")
    except StageError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mu_source(tmp_path_factory) -> Path:
    """A copy of the checkout, in which things are built."""
    return copy_of(ROOT, tmp_path_factory.mktemp("source") / "mu")


@pytest.fixture(scope="session")
def mu_wheel(mu_source, tmp_path_factory) -> Path:
    return build(mu_source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def joiner(tmp_path_factory) -> Path:
    """A real bundle that is small: its command is the script above."""
    folder = tmp_path_factory.mktemp("bundle")
    script = folder / "join"
    script.write_text(JOIN)
    return bundle(folder / "join.zip", executables=[script], command=COMMAND).path


@pytest.fixture(scope="session")
def light_ffmpeg():
    """A script that runs the real ffmpeg, of which a bundle is made seconds sooner."""
    with TemporaryDirectory(dir="/var/tmp") as visible:  # /tmp is the sandbox's own
        real, script = Path(visible, "real"), Path(visible, "ffmpeg")
        shutil.copy(get_ffmpeg_exe(), real)
        script.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
        script.chmod(0o755)
        yield script


@pytest.fixture(scope="session")
def daemon(tmp_path_factory, s3, joiner):
    """A daemon for the tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("daemon")
    running = Daemon(folder, s3.env, free_ports_conf(worker="hold_s = 1"))
    running.create_function("png2y4m", joiner)
    yield running
    running.stop()


@pytest.fixture
def own_daemon(tmp_path, s3, joiner):
    """A daemon for a test that stops or kills it; a clean stop cancels its jobs."""
    running = Daemon(tmp_path, s3.env, free_ports_conf(mu="on_stop = cancel"))
    running.create_function("png2y4m", joiner)
    yield running
    running.stop()
