import json
import os
import re
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
from kit.cli import inside
from kit.elves import ARM64, I386, X86_64, compiled, fake_elf, needs_gcc, program_with_libraries
from kit.workers import coordinator

import mu
from mu.functions import contents, programs
from mu.functions.bundle import BundleError, bundle, look_into, worker_sources
from mu.functions.elf import read_elf


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\necho tool says $1\n")
    return path


def unzip(archive: Path, folder: Path) -> Path:
    """Unzip with the modes stored in the archive, as Lambda does."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            path = Path(opened.extract(info, folder))
            path.chmod(stat.S_IMODE(info.external_attr >> 16))
    return folder


def modes(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as opened:
        return {i.filename: oct(i.external_attr >> 16) for i in opened.infolist()}


def test_a_bundle_runs_as_a_worker_without_anything_else(tmp_path, tool):
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


def test_without_a_task_root_commands_run_in_the_folder_of_the_bundle(tmp_path, tool):
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


def test_programs_are_executable_and_other_files_keep_their_mode(tmp_path, tool):
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


def test_files_can_be_renamed(tmp_path, tool):
    made = bundle(tmp_path / "f.zip", executables={"bin/ffmpeg": tool})
    assert modes(made.path)["bin/ffmpeg"] == "0o100755"


def test_a_folder_is_added_with_all_its_files(tmp_path):
    folder = tmp_path / "models"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_text("a")
    (folder / "deep" / "b").write_text("b")
    made = bundle(tmp_path / "f.zip", files=[folder])
    assert {"models/a", "models/deep/b"} < set(made.names)


@pytest.mark.parametrize(
    "name", ["lambda_function.py", "mu_command.json", "mu", "mu_worker", "mu/x", "mu_worker/x"]
)
def test_a_name_that_the_worker_uses_is_refused(tmp_path, tool, name):
    with pytest.raises(BundleError, match=r"cannot bundle \S+ as \S+: the worker uses this name"):
        bundle(tmp_path / "f.zip", executables={name: tool})


@pytest.mark.parametrize("name", ["ssl.py", "json/__init__.py"])
def test_a_name_that_would_shadow_a_python_module_is_refused(tmp_path, tool, name):
    with pytest.raises(BundleError, match="instead of Python's own module"):
        bundle(tmp_path / "f.zip", files={name: tool})


@pytest.mark.parametrize("name", ["profile", "test/data.json", "my.py"])
def test_a_name_that_shadows_no_python_module_is_accepted(tmp_path, tool, name):
    assert name in bundle(tmp_path / "f.zip", files={name: tool}).names


@pytest.mark.parametrize("name", ["/abs", "../up", "a/../b", "", "a//b", "."])
def test_a_name_that_is_not_a_relative_path_is_refused(tmp_path, tool, name):
    with pytest.raises(BundleError, match="the name must be a relative path"):
        bundle(tmp_path / "f.zip", files={name: tool})


def test_two_files_with_one_name_are_refused(tmp_path, tool):
    other = tmp_path / "other"
    other.mkdir()
    (other / "tool").write_text("x")
    with pytest.raises(BundleError, match="would both be bundled as tool"):
        bundle(tmp_path / "f.zip", executables=[tool], files=[other / "tool"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"cannot bundle .*/none: No such file"):
        bundle(tmp_path / "f.zip", executables=[tmp_path / "none"])


def test_anything_but_a_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BundleError, match="it is not a regular file"):
        bundle(tmp_path / "f.zip", files=[tmp_path / "fifo"])


def test_an_unreadable_file_is_refused(tmp_path, tool, monkeypatch):
    if os.geteuid() == 0:  # root may read everything: let the system say otherwise
        monkeypatch.setattr(contents.os, "access", lambda path, mode: path != tool)  # type: ignore[attr-defined]
    tool.chmod(0)
    with pytest.raises(BundleError, match=r"cannot bundle .*/tool: it is not readable"):
        bundle(tmp_path / "f.zip", executables=[tool])


def test_a_zip_above_the_limit_is_refused_and_not_left_behind(tmp_path):
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(2**20))
    with pytest.raises(
        BundleError, match=r"the bundle has 1\.\d MiB; Lambda accepts 1\.0 MiB directly"
    ):
        bundle(tmp_path / "f.zip", files=[noise], zip_limit=2**20)
    assert [path.name for path in tmp_path.iterdir()] == ["noise"]


def test_an_unzipped_size_above_the_limit_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("mu.functions.bundle.UNZIPPED_LIMIT", 2**20)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(2 * 2**20)
    (made,) = bundle(tmp_path / "f.zip", files=[huge]).warnings
    assert re.match(r".* has 2\.\d MiB; .* 1\.0 MiB in .*\. The largest file is huge \(", made)
    (known,) = look_into(tmp_path / "f.zip").warnings
    assert re.match(r".*f\.zip has 2\.\d MiB unzipped; Lambda's limit was 1\.0 MiB in ", known)


def test_a_missing_output_folder_is_named(tmp_path):
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
    monkeypatch.setattr(mu, "__file__", str(package / "__init__.py"))
    assert [name for name, _ in worker_sources()] == here
    assert all(path.is_relative_to(package) for _, path in worker_sources())


def test_a_missing_worker_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mu, "__file__", str(tmp_path / "mu" / "__init__.py"))
    with pytest.raises(
        BundleError, match=r"the worker's code is missing: it is neither in .*worker_code"
    ):
        worker_sources()


# ---------------------------------------------------------------- programs and their libraries


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    return program_with_libraries(tmp_path_factory.mktemp("dynamic"))


@needs_gcc
def test_a_dynamic_program_brings_its_libraries_and_finds_them(tmp_path, dynamic):
    libs = dynamic.parent / "libs"
    made = bundle(tmp_path / "f.zip", executables=[dynamic], library_folders=[libs])
    assert made.libraries == ("libinner.so", "libouter.so")
    assert made.architecture == read_elf(dynamic).architecture
    assert {"answer", "lib/libinner.so", "lib/libouter.so", "lib/programs/answer"} < set(made.names)
    home = unzip(made.path, tmp_path / "with space")
    for command, folder in (
        ("./answer 'a b'", home),
        (f"'{home}/answer' 'a b'", "/"),
        (f"PATH='{home}' answer 'a b'", "/"),
    ):
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("42 a b\n", ""), command


@needs_gcc
def test_a_program_in_a_folder_finds_them_too(tmp_path, dynamic):
    folders = [dynamic.parent / "libs"]
    made = bundle(tmp_path / "f.zip", executables={"a/b/run": dynamic}, library_folders=folders)
    home = unzip(made.path, tmp_path / "task")
    done = subprocess.run(["a/b/run"], cwd=home, capture_output=True, text=True)
    assert done.stdout == "42 \n"


@needs_gcc
def test_a_library_can_be_added_as_a_file(tmp_path, dynamic):
    given = {f"lib/{path.name}": path for path in (dynamic.parent / "libs").iterdir()}
    made = bundle(tmp_path / "f.zip", executables=[dynamic], files=given)
    assert made.libraries == ()
    home = unzip(made.path, tmp_path / "task")
    assert subprocess.run(["./answer"], cwd=home, capture_output=True).stdout == b"42 \n"


@needs_gcc
def test_a_missing_library_is_named_with_who_needs_it(tmp_path, dynamic, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    says = r"answer needs the shared library libouter\.so, which is not on .* with --lib-dir"
    with pytest.raises(BundleError, match=says):
        bundle(tmp_path / "f.zip", executables=[dynamic])
    made = bundle(tmp_path / "f.zip", files=[dynamic])  # no program that is started: its matter
    assert "libouter.so" in made.warnings[0]


def test_a_program_that_needs_only_glibc_is_added_unchanged(tmp_path):
    program = Path("/bin/sh").resolve()
    made = bundle(tmp_path / "f.zip", executables={"shell": program})
    if made.libraries:
        pytest.skip("this system's shell needs libraries of its own")
    with zipfile.ZipFile(made.path) as opened:
        assert opened.read("shell") == program.read_bytes()


def test_programs_of_two_architectures_are_refused(tmp_path):
    one, other = fake_elf(tmp_path / "one", X86_64), fake_elf(tmp_path / "other", ARM64)
    with pytest.raises(BundleError, match=r"other is built for arm64, but \S+/one for x86_64"):
        bundle(tmp_path / "f.zip", executables=[one], files=[other])


def test_a_program_of_another_architecture_than_the_functions_is_refused(tmp_path):
    program = fake_elf(tmp_path / "program", X86_64)
    assert bundle(tmp_path / "f.zip", executables=[program]).architecture == "x86_64"
    with pytest.raises(BundleError, match=r"built for x86_64, but the function is for arm64"):
        bundle(tmp_path / "f.zip", executables=[program], architecture="arm64")


def test_a_program_that_lambda_cannot_run_is_refused(tmp_path):
    program = fake_elf(tmp_path / "program", I386, bits=32)
    with pytest.raises(BundleError, match="is built for i386; Lambda runs x86_64 and arm64"):
        bundle(tmp_path / "f.zip", executables=[program])


@needs_gcc
def test_a_program_for_another_libc_is_refused(tmp_path):
    source = "int main(void) { return 0; }"
    loader = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
    program = compiled(tmp_path / "program", source, loader)
    with pytest.raises(
        BundleError, match=r"needs the loader /lib/ld-musl-x86_64\.so\.1, but Lambda"
    ):
        bundle(tmp_path / "f.zip", executables=[program])


def test_a_newer_glibc_than_lambdas_gives_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "LAMBDA_GLIBC", (2, 3))
    (warning,) = bundle(tmp_path / "f.zip", executables={"shell": Path("/bin/sh")}).warnings
    assert re.match(
        r"\S+ needs glibc 2\.\d+.* on Lambda, whose python3.12 to 3.14 have 2\.3:", warning
    )


def test_scripts_that_may_not_run_give_a_warning(tmp_path, tool):
    odd, none = tmp_path / "odd", tmp_path / "none"
    odd.write_text("#!/opt/perl\n")
    none.write_text("echo\n")
    made = bundle(tmp_path / "f.zip", executables=[tool, odd, none])
    assert [warning.partition(" is ")[0] for warning in made.warnings] == [str(odd), str(none)]


@needs_gcc
def test_with_libraries_the_same_input_gives_the_same_bytes_too(tmp_path, dynamic):
    folders = [dynamic.parent / "libs"]
    first, second = (
        bundle(tmp_path / f"{n}.zip", executables=[dynamic], library_folders=folders).path
        for n in (1, 2)
    )
    assert first.read_bytes() == second.read_bytes()


# ---------------------------------------------------------------- looking into one


def test_a_bundle_can_be_read_back(tmp_path):
    program = fake_elf(tmp_path / "program", ARM64)
    made = bundle(tmp_path / "f.zip", executables=[program])
    again = look_into(made.path)
    assert (again.architecture, again.zipped, again.unzipped) == (
        "arm64",
        made.zipped,
        made.unzipped,
    )
    assert sorted(again.names) == sorted(made.names)


def test_a_zip_that_is_not_a_bundle_is_refused(tmp_path, tool):
    with pytest.raises(BundleError, match=r"cannot read \S+/tool as a zip"):
        look_into(tool)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as opened:
        opened.writestr("lambda_function.py", "")
    with pytest.raises(BundleError, match=r"other\.zip is not a bundle of mu: .* mu bundle"):
        look_into(tmp_path / "other.zip")


# ---------------------------------------------------------------- names, links and first lines

ODD = [
    "two words",
    "it's",
    'a "b"',
    "$(x) `y` $HOME",
    "ü 日本",
    "semi;colon&",
    "##INFILE##",
    "back\\slash",
    "-x",
]


@pytest.mark.parametrize("name", ODD)
def test_a_program_runs_whatever_its_name(tmp_path, name):
    program = tmp_path / name
    program.write_text("#!/bin/sh\necho it says $1\n")
    made = inside("bundle", program, "--post", "##INFILE##", "-o", tmp_path / "f.zip", "--json")
    assert (made.exit_code, made.stderr) == (0, "")
    home = unzip(tmp_path / "f.zip", tmp_path / "task")
    with coordinator(home) as boss:
        worker = boss.start({"mode": 0, "infile": "hi"}, path=str(home))
        ended = worker.ending()
    assert (ended["retval"], ended["output"]) == (0, "it says hi\n")


@needs_gcc
def test_a_program_with_libraries_runs_whatever_its_name(tmp_path, dynamic):
    libs = dynamic.parent / "libs"
    programs = dict.fromkeys(ODD, dynamic)
    made = bundle(tmp_path / "f.zip", executables=programs, library_folders=[libs])
    home = unzip(made.path, tmp_path / "home")
    for name in ODD:
        done = subprocess.run([f"./{name}", "a b"], cwd=home, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("42 a b\n", ""), name


def test_a_folder_is_added_with_what_lies_behind_its_links(tmp_path):
    folder, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    for path in (folder, elsewhere / "deep"):
        path.mkdir(parents=True)
    (folder / "own").write_text("own")
    (elsewhere / "deep" / "far").write_text("far")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to("linked")
    (folder / "file").symlink_to(elsewhere / "deep" / "far")
    (tmp_path / "top").symlink_to(folder)
    made = bundle(tmp_path / "f.zip", files=[tmp_path / "top"])
    names = {"again/deep/far", "file", "linked/deep/far", "own"}
    assert {name for name in made.names if name.startswith("top")} == {f"top/{n}" for n in names}
    home = unzip(made.path, tmp_path / "home")
    assert (home / "top" / "again" / "deep" / "far").read_text() == "far"


def test_links_that_lead_nowhere_or_in_circles_are_refused(tmp_path):
    folder = tmp_path / "models"
    (folder / "deep").mkdir(parents=True)
    link = folder / "deep" / "link"
    for target, says in [
        ("none", r"deep/link: No such file or directory"),
        ("link", r"deep/link: Too many levels of symbolic links"),
        ("..", r"deep/link: it is a link to a folder that contains it"),
    ]:
        link.symlink_to(target)
        with pytest.raises(BundleError, match=says):
            bundle(tmp_path / "f.zip", files=[folder])
        link.unlink()


def test_a_folder_without_files_is_refused(tmp_path):
    (tmp_path / "models" / "deep").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"models: there are no files in this folder"):
        bundle(tmp_path / "f.zip", files=[tmp_path / "models"])


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "models" / "secret").mkdir(parents=True)
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "secret":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(BundleError, match=r"models/secret: Permission denied"):
        bundle(tmp_path / "f.zip", files=[tmp_path / "models"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("line\nbreak", "must not contain line breaks or other control characters"),
        ("esc\x1b", "must not contain line breaks or other control characters"),
        ("caf\udce9", "must be valid UTF-8"),
    ],
)
def test_a_name_that_does_not_unzip_everywhere_is_refused(tmp_path, name, says):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / name).write_text("#!/bin/sh\n")
    for given in ({"files": [tmp_path / "models"]}, {"executables": [tmp_path / "models" / name]}):
        with pytest.raises(BundleError, match=says) as refused:
            bundle(tmp_path / "f.zip", **given)
        assert str(refused.value).isprintable()
    assert not (tmp_path / "f.zip").exists()


def test_a_name_that_is_too_long_for_a_file_is_refused(tmp_path, tool):
    bundle(tmp_path / "f.zip", executables={f"{'ü' * 127}/{'x' * 255}": tool})
    with pytest.raises(BundleError, match="at most 255 bytes, got 256"):
        bundle(tmp_path / "f.zip", executables={f"d/{'ü' * 128}": tool})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"#!/bin/sh\r\necho\r\n",
            r"has Windows line ends.* '/bin/sh\\r': convert it, as with sed -i 's/\\r\$//' p.sh",
        ),
        (b"#!/usr/bin/env perl\r\n", r"Windows line ends"),
        (b"#!/bin/sh\r", r"Windows line ends"),
        (b"\xef\xbb\xbf#!/bin/sh\n", r"begins with a byte order mark"),
        (b"#!/bin/sh\0\n", r"NUL in its first line"),
        (b"#!/bin/sh " + b"x" * 300 + b"\n", r"reads only 255 bytes of the first line"),
    ],
)
def test_a_script_whose_first_line_linux_does_not_take_is_refused(tmp_path, content, says):
    (tmp_path / "p.sh").write_bytes(content)
    with pytest.raises(BundleError, match=says):
        bundle(tmp_path / "f.zip", executables=[tmp_path / "p.sh"])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("x" * 131_072, "at most 131071 bytes.* got 131072: put it into a script"),
        ("a\0b", "must not contain a NUL"),
        ("caf\udce9", "must be valid UTF-8"),
    ],
)
def test_a_packaged_command_that_no_shell_can_be_given_is_refused(tmp_path, tool, command, says):
    with pytest.raises(BundleError, match=says):
        bundle(tmp_path / "f.zip", executables=[tool], command=command)


def test_odd_modes_become_those_that_run(tmp_path, tool):
    for name, mode in [("suid", 0o4700), ("group", 0o610), ("world", 0o646), ("none", 0o600)]:
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
    made = bundle(
        tmp_path / "f.zip", files=[tmp_path / n for n in ("suid", "group", "world", "none")]
    )
    found = modes(made.path)
    assert {n: found[n] for n in ("suid", "group")} == {"suid": "0o100755", "group": "0o100755"}
    assert {n: found[n] for n in ("world", "none")} == {"world": "0o100644", "none": "0o100644"}


# ---------------------------------------------------------------- the command


def test_the_command_is_pre_program_post(tmp_path, tool):
    words = [tool, "--pre", "nice -n 5", "--post", "-o ##OUTFILE## ##INFILE##"]
    told = json.loads(inside("bundle", *words, "--json", "-o", tmp_path / "f.zip").stdout)
    assert told["command"] == "nice -n 5 ./tool -o ##OUTFILE## ##INFILE##"
    with zipfile.ZipFile(tmp_path / "f.zip") as opened:
        assert json.loads(opened.read("mu_command.json")) == {"command": told["command"]}


def test_extra_files_and_folders_keep_their_names_or_get_new_ones(tmp_path, tool):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a").write_text("a")
    words = [f"bin/t={tool}", "--with", tmp_path / "models", "--with", f"my.sh={tool}"]
    told = json.loads(inside("bundle", *words, "--json", "-o", tmp_path / "f.zip").stdout)
    assert {"bin/t", "models/a", "my.sh"} < set(told["names"])
    assert told["command"] == "./bin/t"


def test_bundle_says_what_it_wrote_and_what_to_do_next(tmp_path, tool, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = inside("bundle", "tool")
    assert re.match(
        r"Wrote tool\.zip: \d+ KiB, unzipped \d+ KiB\.\nPackaged command: \./tool\n", done.stdout
    )
    assert done.stdout.endswith("Next: mu deploy --zip tool.zip\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "a bundle without a program needs a name: -o FILE"),
        (["--post", "x", "-o", "f.zip"], "--pre and --post need a PROGRAM"),
        (["/none", "-o", "f.zip"], "cannot bundle /none: No such file or directory"),
        (["a=/bin/sh", "a=/bin/ls", "-o", "f.zip"], "would both be bundled as a; rename one"),
    ],
)
def test_an_invalid_bundle_is_refused_with_a_sentence(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    done = inside("bundle", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
