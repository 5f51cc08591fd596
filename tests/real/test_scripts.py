"""Python scripts in bundles: the worker's Python runs them, with the packages that they require."""

import json
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from kit.cli import inside
from kit.elves import ARM64, X86_64, fake_elf
from kit.wheels import make_wheel, requirements

from mu.functions.bundle import BundleError, bundle
from mu.functions.requirements import Requirements

PRINTS = """\
import json, sys
from pathlib import Path
beside = Path(__file__).with_name("data.txt").read_text()
print(json.dumps([sys.executable, sys.flags.dev_mode, beside, sys.argv[1:], Path(sys.argv[0]).name]))
"""


def unzip(archive, folder):
    """Unzip with the modes stored in the archive, as Lambda does."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            path = Path(opened.extract(info, folder))
            path.chmod(stat.S_IMODE(info.external_attr >> 16))
    return folder


def said(program, *words, cwd="/", python=sys.executable):
    env = {"MU_PYTHON": python, "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([program, *words], env=env, cwd=cwd, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tool.py", PRINTS),
        ("tool.py", "#!/no/such/python3.7\n" + PRINTS),
        ("tool.py", "#!/usr/bin/env python3\r\n" + PRINTS.replace("\n", "\r\n")),
        ("tool", "#!/usr/bin/env python3\n" + PRINTS),
        ("my tool's.py", "\ufeff" + PRINTS),
        ("bin/tool.py", PRINTS),
    ],
)
def test_a_python_script_is_run_by_the_workers_python_whatever_its_first_line_says(
    tmp_path, name, text
):
    script, beside = tmp_path / "script.py", tmp_path / "data.txt"
    if not name.endswith(".py"):
        script = tmp_path / "script"
    script.write_bytes(text.encode())
    beside.write_text("hello")
    with_data = {str(Path(name).with_name("data.txt")): beside}
    made = bundle(tmp_path / "f.zip", executables={name: script}, files=with_data)
    assert (made.warnings, made.architecture) == ((), None)
    home = unzip(made.path, tmp_path / "a task")
    told = json.loads(said(home / name, "a b", "*"))
    assert told == [sys.executable, False, "hello", ["a b", "*"], Path(name).name]
    assert json.loads(said(f"./{name}", cwd=home))[2] == "hello"


def test_pythons_options_in_a_scripts_first_line_are_kept(tmp_path):
    script = tmp_path / "tool"
    script.write_text("#!/usr/bin/env -S python3 -X dev\n" + PRINTS)
    (tmp_path / "data.txt").write_text("x")
    made = bundle(tmp_path / "f.zip", executables=[script], files=[tmp_path / "data.txt"])
    home = unzip(made.path, tmp_path / "task")
    assert json.loads(said(home / "tool"))[1] is True


def test_a_script_for_another_interpreter_stays_as_it_is(tmp_path):
    script = tmp_path / "tool"
    script.write_text("#!/usr/bin/env perl\nprint 'python3';\n")
    made = bundle(tmp_path / "f.zip", executables=[script])
    assert (unzip(made.path, tmp_path / "task") / "tool").read_text() == script.read_text()


# ---------------------------------------------------------------- requirements


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "tool.py"
    path.write_text("import need\nprint(need.TAG)\n")
    return path


def test_packages_come_with_the_script_and_the_same_input_gives_the_same_bytes(tmp_path, script):
    make_wheel(tmp_path / "w", "need", body="import more\n")
    make_wheel(tmp_path / "w", "more")
    lines = requirements(tmp_path / "w", "need", "more")
    ours = Requirements(lines)
    made = [bundle(tmp_path / f"{n}.zip", executables=[script], requirements=ours) for n in "ab"]
    assert made[0].path.read_bytes() == made[1].path.read_bytes()
    assert {"lib/python/need.py", "lib/python/more.py"} < set(made[0].names)
    assert not [name for name in made[0].names if "bin/" in name or "pyc" in name]
    home = unzip(made[0].path, tmp_path / "task")
    assert said(home / "tool.py") == "py3-none-any\n"


@pytest.mark.parametrize(
    ("runtime", "architecture", "tag"),
    [
        pytest.param(
            "python3.13", "x86_64", "cp313-cp313-manylinux_2_34_x86_64", marks=pytest.mark.soak
        ),
        ("python3.12", "arm64", "cp312-cp312-manylinux_2_28_aarch64"),
        pytest.param(
            "python3.11", "x86_64", "cp311-cp311-manylinux2014_x86_64", marks=pytest.mark.soak
        ),
        ("python3.12", "x86_64", "cp38-abi3-manylinux_2_17_x86_64"),
    ],
)
def test_wheels_are_those_of_the_functions_python_architecture_and_glibc(
    tmp_path, script, runtime, architecture, tag
):
    wheels = tmp_path / "w"
    for other in ("cp310-cp310-manylinux_2_17_x86_64", "cp312-cp312-musllinux_1_2_x86_64"):
        make_wheel(wheels, "need", "2.0", other)
    machine = "aarch64" if architecture == "arm64" else architecture
    newer = f"{tag.rpartition('-')[0]}-manylinux_2_35_{machine}"  # than the glibc there
    make_wheel(wheels, "need", "3.0", newer)
    make_wheel(wheels, "need", "1.0", tag)
    ours = Requirements(requirements(wheels, "need"), runtime, architecture)
    made = bundle(tmp_path / "f.zip", executables=[script], requirements=ours)
    with zipfile.ZipFile(made.path) as opened:
        assert opened.read("lib/python/need.py") == f"TAG = {tag!r}\n".encode()


def test_a_package_without_a_wheel_for_the_function_is_named(tmp_path, script):
    make_wheel(tmp_path / "w", "need", "1.0", "cp39-cp39-manylinux2014_x86_64")
    lines = requirements(tmp_path / "w", "need==1.0")
    done = inside("bundle", script, "-o", tmp_path / "f.zip", "--requirements", lines)
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        f"Installing {lines} for Python 3.12 on x86_64 ...",
        "mu: there is no wheel of need==1.0 for Python 3.12 on x86_64, or pip cannot find it;"
        f" {lines} may name another version, or a wheel that you built",
    ]
    assert not (tmp_path / "f.zip").exists()


def test_packages_with_code_for_a_machine_give_the_function_its_architecture(tmp_path, script):
    wheel = make_wheel(tmp_path / "w", "need", "1.0", "cp312-cp312-manylinux2014_x86_64")
    with zipfile.ZipFile(wheel, "a") as opened:
        opened.writestr("need_fast.so", fake_elf(tmp_path / "so", X86_64).read_bytes())
    lines = requirements(tmp_path / "w", "need")
    made = bundle(
        tmp_path / "f.zip", executables=[script], requirements=Requirements(lines, "python3.12")
    )
    assert made.architecture == "x86_64"


def test_packages_are_for_the_architecture_of_the_other_programs(tmp_path, script):
    other = fake_elf(tmp_path / "other", ARM64)
    make_wheel(tmp_path / "w", "need", "1.0", "cp312-cp312-manylinux2014_x86_64")
    ours = Requirements(requirements(tmp_path / "w", "need"), "python3.12")
    with pytest.raises(BundleError, match="no wheel of need for Python 3.12 on arm64"):
        bundle(tmp_path / "f.zip", executables=[script, other], requirements=ours)


def test_what_pip_says_about_a_bad_file_is_passed_on(tmp_path, script):
    lines = tmp_path / "requirements.txt"
    lines.write_text("need ==== 1\n")
    with pytest.raises(
        BundleError, match=r"pip cannot install .*: Invalid requirement: 'need ===="
    ):
        bundle(tmp_path / "f.zip", executables=[script], requirements=Requirements(lines))


def test_a_file_that_requires_nothing_adds_nothing(tmp_path, script):
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    ours = Requirements(tmp_path / "requirements.txt")
    made = bundle(tmp_path / "f.zip", executables=[script], requirements=ours)
    assert not [name for name in made.names if name.startswith("lib/")]


def test_requirements_without_a_python_script_are_refused(tmp_path):
    program = fake_elf(tmp_path / "program", X86_64)
    ours = Requirements(tmp_path / "requirements.txt")
    with pytest.raises(BundleError, match="is for Python scripts, but none of the programs is one"):
        bundle(tmp_path / "f.zip", executables=[program], requirements=ours)
