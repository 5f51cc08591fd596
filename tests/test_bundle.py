import json
import os
import re
import stat
import zipfile
from pathlib import Path

import pytest
from worker_support import coordinator

from mu import bundle as bundle_module
from mu.bundle import BundleError, bundle, worker_sources


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\necho tool says $1\n")
    return path


def unzip(archive: Path, folder: Path) -> Path:
    """Unzip with the modes that the archive says, as Lambda does."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            path = Path(opened.extract(info, folder))
            path.chmod(stat.S_IMODE(info.external_attr >> 16))
    return folder


def modes(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as opened:
        return {i.filename: oct(i.external_attr >> 16) for i in opened.infolist()}


def test_a_bundle_runs_by_itself_as_a_worker(tmp_path, tool):
    made = bundle(tmp_path / "f.zip", executables=[tool], command="./tool ##INFILE##")
    home = unzip(made.path, tmp_path / "task")
    with coordinator(home) as boss:
        worker = boss.start({"infile": "hi"}, path=str(home), environ={"PYTHONNOUSERSITE": "1"})
        peer = boss.accept().welcome()
        assert peer.ask("run:") == "OK:RETVAL(0):OUTPUT(tool says hi\n):COMMAND(./tool hi)"
        loaded = peer.ask(f"run:readlink /proc/{worker.process.pid}/cwd")
        assert f"OUTPUT({home}\n)" in loaded
        peer.say("quit:")
        assert worker.ending()["status"] == "quit"


def test_without_a_task_root_commands_run_where_the_bundle_lies(tmp_path, tool):
    made = bundle(tmp_path / "f.zip", executables=[tool], command="./tool hello")
    home = unzip(made.path, tmp_path / "task")
    with coordinator(tmp_path) as boss:
        worker = boss.start({"mode": 0}, path=str(home), environ={"LAMBDA_TASK_ROOT": ""})
        assert worker.ending()["output"] == "tool says hello\n"


def test_the_zip_holds_the_worker_the_users_files_and_the_command(tmp_path, tool):
    model = tmp_path / "model.bin"
    model.write_bytes(b"\0" * 1000)
    made = bundle(tmp_path / "f.zip", executables=[tool], files=[model], command="./tool")
    with zipfile.ZipFile(made.path) as opened:
        names = opened.namelist()
        assert opened.testzip() is None
        assert json.loads(opened.read("mu_command.json")) == {"command": "./tool"}
    assert tuple(sorted(names)) == made.names
    assert {"lambda_function.py", "mu/__init__.py", "mu/wire.py", "mu/messages.py"} < set(names)
    assert {"mu_worker/start.py", "tool", "model.bin"} < set(names)
    assert not [name for name in names if "pyc" in name]
    assert made.zipped == made.path.stat().st_size
    assert made.unzipped > 1000


def test_without_a_packaged_command_there_is_no_file_for_it(tmp_path):
    made = bundle(tmp_path / "f.zip")
    assert "mu_command.json" not in made.names
    assert "mu_command.json" not in modes(made.path)


def test_executables_can_be_executed_and_other_files_keep_whether_they_can(tmp_path, tool):
    tool.chmod(0o600)
    script, plain = tmp_path / "script", tmp_path / "plain"
    script.write_text("x")
    script.chmod(0o700)
    plain.write_text("x")
    plain.chmod(0o640)
    made = bundle(tmp_path / "f.zip", executables=[tool], files=[script, plain])
    found = modes(made.path)
    assert (found["tool"], found["script"], found["plain"]) == ("0o100755", "0o100755", "0o100644")


def test_the_same_input_gives_the_same_bytes(tmp_path, tool):
    first = bundle(tmp_path / "1.zip", executables=[tool], command="c").path.read_bytes()
    os.utime(tool, (1, 1))
    second = bundle(tmp_path / "2.zip", executables=[tool], command="c").path.read_bytes()
    assert first == second


def test_files_may_be_given_another_name(tmp_path, tool):
    made = bundle(tmp_path / "f.zip", executables={"bin/ffmpeg": tool})
    assert modes(made.path)["bin/ffmpeg"] == "0o100755"


def test_a_folder_is_taken_with_all_that_is_in_it(tmp_path):
    folder = tmp_path / "models"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_text("a")
    (folder / "deep" / "b").write_text("b")
    made = bundle(tmp_path / "f.zip", files=[folder])
    assert {"models/a", "models/deep/b"} < set(made.names)


@pytest.mark.parametrize(
    "name", ["lambda_function.py", "mu_command.json", "mu", "mu_worker", "mu/x", "mu_worker/x"]
)
def test_a_name_of_the_workers_own_is_refused(tmp_path, tool, name):
    with pytest.raises(BundleError, match=r"cannot be bundled as \S+: the worker's own is named"):
        bundle(tmp_path / "f.zip", executables={name: tool})


@pytest.mark.parametrize("name", ["ssl.py", "json/__init__.py"])
def test_a_name_that_would_hide_a_module_of_python_is_refused(tmp_path, tool, name):
    with pytest.raises(BundleError, match="in place of Python's own module"):
        bundle(tmp_path / "f.zip", files={name: tool})


@pytest.mark.parametrize("name", ["profile", "test/data.json", "my.py"])
def test_a_name_that_hides_no_module_of_python_is_taken(tmp_path, tool, name):
    assert name in bundle(tmp_path / "f.zip", files={name: tool}).names


@pytest.mark.parametrize("name", ["/abs", "../up", "a/../b", "", "a//b", "."])
def test_a_name_that_is_no_relative_path_is_refused(tmp_path, tool, name):
    with pytest.raises(BundleError, match="a relative path is expected"):
        bundle(tmp_path / "f.zip", files={name: tool})


def test_two_files_of_one_name_are_refused(tmp_path, tool):
    other = tmp_path / "other"
    other.mkdir()
    (other / "tool").write_text("x")
    with pytest.raises(BundleError, match="would both be tool"):
        bundle(tmp_path / "f.zip", executables=[tool], files=[other / "tool"])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"cannot bundle .*/none: No such file"):
        bundle(tmp_path / "f.zip", executables=[tmp_path / "none"])


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BundleError, match="it is no regular file"):
        bundle(tmp_path / "f.zip", files=[tmp_path / "fifo"])


def test_a_file_that_may_not_be_read_is_refused(tmp_path, tool, monkeypatch):
    if os.geteuid() == 0:  # root may read everything: let the system say otherwise
        monkeypatch.setattr(bundle_module.os, "access", lambda path, mode: path != tool)
    tool.chmod(0)
    with pytest.raises(BundleError, match=r"cannot bundle .*/tool: it is not readable"):
        bundle(tmp_path / "f.zip", executables=[tool])


def test_too_large_a_zip_is_refused_and_not_left_behind(tmp_path):
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(2**20))
    with pytest.raises(BundleError, match=r"the bundle has 1\.\d MiB; .* 1\.0 MiB at most"):
        bundle(tmp_path / "f.zip", files=[noise], zip_limit=2**20)
    assert [path.name for path in tmp_path.iterdir()] == ["noise"]


def test_too_much_to_unzip_is_refused_before_anything_is_written(tmp_path):
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(251 * 2**20)  # sparse
    with pytest.raises(BundleError, match=r"251\.\d MiB; .* 250\.0 MiB at most.* is huge"):
        bundle(tmp_path / "f.zip", files=[huge])
    assert [path.name for path in tmp_path.iterdir()] == ["huge"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(BundleError, match=re.escape(f"cannot write {tmp_path}/none/f.zip")):
        bundle(tmp_path / "none" / "f.zip")


def test_an_installed_mu_has_the_workers_code_inside_the_package(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "mu"
    for name, path in worker_sources():
        inside = package / name.removeprefix("mu/")
        if not name.startswith("mu/"):
            inside = package / "worker_code" / name
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_bytes(path.read_bytes())
    here = [name for name, _ in worker_sources()]
    monkeypatch.setattr(bundle_module, "__file__", str(package / "bundle.py"))
    assert [name for name, _ in worker_sources()] == here
    assert all(path.is_relative_to(package) for _, path in worker_sources())


def test_a_missing_worker_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "__file__", str(tmp_path / "mu" / "bundle.py"))
    with pytest.raises(BundleError, match=r"the worker's code is missing: neither .*worker_code"):
        worker_sources()
