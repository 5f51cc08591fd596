"""Reading ELF files and finding their libraries, without running them."""

from pathlib import Path

import pytest
from kit.elves import (
    ARM64,
    I386,
    INNER,
    MAIN,
    OUTER,
    X86_64,
    compiled,
    fake_elf,
    needs_gcc,
    program_with_libraries,
)

from mu.functions import elf as elf_module
from mu.functions.elf import BadElf, Elf, find_libraries, machine_of, read_elf


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return program_with_libraries(tmp_path_factory.mktemp("built"))


@pytest.mark.parametrize(
    ("machine", "bits", "name"),
    [
        (X86_64, 64, "x86_64"),
        (ARM64, 64, "arm64"),
        (I386, 32, "i386"),
        (8, 32, "machine 8 (32 bits)"),
    ],
)
def test_the_architecture_has_lambdas_name(tmp_path, machine, bits, name):
    path = fake_elf(tmp_path / "x", machine, bits=bits)
    assert machine_of(path.read_bytes()) == name
    assert read_elf(path) == Elf(path, name)


@pytest.mark.parametrize(
    "content", [b"", b"\x7fEL", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF" + bytes(15)]
)
def test_a_file_that_is_not_a_program_gives_none(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert read_elf(tmp_path / "x") is None


def test_an_object_file_is_not_a_program(tmp_path):
    assert read_elf(fake_elf(tmp_path / "x.o", ARM64, kind=1)) is None


def test_a_damaged_file_is_named(tmp_path):
    whole = Path("/bin/sh").resolve().read_bytes()
    (tmp_path / "cut").write_bytes(whole[:40])
    with pytest.raises(BadElf, match=r"/cut is a damaged ELF file"):
        read_elf(tmp_path / "cut")
    for cut in range(20, 3000, 97):  # never another exception
        (tmp_path / "cut").write_bytes(whole[:cut])
        try:
            read_elf(tmp_path / "cut")
        except BadElf:
            continue


def test_a_program_of_the_system_says_what_it_needs():
    shell = read_elf(Path("/bin/sh"))
    assert shell.interpreter.startswith("/lib")
    assert "libc.so.6" in shell.needed
    assert (2, 2) < shell.glibc < (3, 0)
    assert find_libraries([shell]).missing == {}


@needs_gcc
def test_a_static_program_needs_nothing(tmp_path):
    source = "int main(void) { return 0; }"
    found = read_elf(compiled(tmp_path / "still", source, "-static"))
    assert (found.interpreter, found.needed, found.glibc) == ("", (), ())


@needs_gcc
def test_libraries_of_libraries_are_found_in_a_given_folder(built):
    found = find_libraries([read_elf(built)], [built.parent / "libs"])
    assert sorted(found.found) == ["libinner.so", "libouter.so"]
    assert found.missing == {}


@needs_gcc
def test_a_missing_library_is_listed_with_a_file_that_needs_it(built, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert find_libraries([read_elf(built)]).missing == {"libouter.so": built}
    monkeypatch.setenv("LD_LIBRARY_PATH", str(built.parent / "libs"))
    assert sorted(find_libraries([read_elf(built)]).found) == ["libinner.so", "libouter.so"]


@needs_gcc
@pytest.mark.parametrize("tags", ["--disable-new-dtags", "--enable-new-dtags"])
def test_rpath_and_runpath_count_as_for_the_loader(tmp_path, tags):
    libs = tmp_path / "lib"
    libs.mkdir()
    link = ["-shared", "-fPIC", f"-L{libs}"]
    compiled(libs / "libinner.so", INNER, *link)
    compiled(libs / "libouter.so", OUTER, *link, "-linner")
    options = [f"-L{libs}", "-louter", f"-Wl,-rpath-link={libs}"]
    options += [f"-Wl,{tags},-rpath,$ORIGIN/lib"]
    program = compiled(tmp_path / "answer", MAIN, *options)
    found = find_libraries([read_elf(program)])
    assert found.found["libouter.so"].path == libs / "libouter.so"
    # RPATH is for the libraries' own libraries, too; RUNPATH is not.
    inner = "found" if tags == "--disable-new-dtags" else "missing"
    assert "libinner.so" in getattr(found, inner)


def test_a_library_for_another_processor_is_skipped(tmp_path):
    for name, machine in (("first", ARM64), ("second", X86_64)):
        (tmp_path / name).mkdir()
        fake_elf(tmp_path / name / "libx.so.1", machine, kind=3)
    program = Elf(tmp_path / "p", "x86_64", needed=("libx.so.1",))
    found = find_libraries([program], [tmp_path / "first", tmp_path / "second"])
    assert found.found["libx.so.1"].path == tmp_path / "second" / "libx.so.1"


def test_glibc_is_not_included(tmp_path):
    program = Elf(tmp_path / "p", "x86_64", needed=("libc.so.6", "libm.so.6", "libpthread.so.0"))
    found = find_libraries([program])
    assert (found.found, found.missing) == ({}, {})


def test_folders_in_the_systems_configuration_are_searched(tmp_path, monkeypatch):
    for folder in ("conf.d", "odd"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ld.so.conf").write_text(f"# folders\ninclude {tmp_path}/conf.d/*.conf\n")
    (tmp_path / "conf.d" / "odd.conf").write_text(f"{tmp_path}/odd  # here\n")
    fake_elf(tmp_path / "odd" / "libodd.so", X86_64, kind=3)
    monkeypatch.setattr(elf_module, "SYSTEM_CONFIG", tmp_path / "ld.so.conf")
    found = find_libraries([Elf(tmp_path / "p", "x86_64", needed=("libodd.so",))])
    assert found.found["libodd.so"].path == tmp_path / "odd" / "libodd.so"
