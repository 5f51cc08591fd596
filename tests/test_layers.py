"""Data walks one way, so imports do too; and the pure core stays pure."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = ["wire", "messages", "events", "machine", "states", "pipelines", "parameters", "templates"]
OUTSIDE = {"twisted", "OpenSSL", "boto3", "botocore", "klein", "time", "random", "secrets"}
OUTSIDE |= {"socket", "ssl", "logging", "threading", "asyncio", "subprocess", "uuid"}

# A module may import those to its left in its row, and what those may import.
WALK = ["wire", "messages", "events", "machine", "states", "pipelines", "session", "protocol"]
SIDE_BY_SIDE = ["control", "launch", "engines", "relay"]


def imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(part: str) -> list[Path]:
    package = ROOT / "mu" / part
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def parts_of_mu(part: str) -> set[str]:
    names = {name for path in files(part) for name in imported(path) if name.startswith("mu.")}
    return {name.split(".")[1] for name in names} - {part}


@pytest.mark.parametrize("part", PURE)
def test_the_pure_core_imports_no_network_clock_or_chance(part):
    for path in files(part):
        outside = {name.split(".")[0] for name in imported(path)} & OUTSIDE
        assert not outside, f"{path.name} imports {outside}"


@pytest.mark.parametrize("part", ["wire", "messages"])
def test_what_workers_ship_needs_the_standard_library_and_wire_only(part):
    assert parts_of_mu(part) <= {"wire"}


@pytest.mark.parametrize("place", range(len(WALK)))
def test_no_part_of_the_walk_imports_what_comes_after_it(place):
    assert not parts_of_mu(WALK[place]) & {*WALK[place + 1 :], "service", *SIDE_BY_SIDE}


@pytest.mark.parametrize("part", [part for part in SIDE_BY_SIDE if files(part)[0].exists()])
def test_what_hangs_from_the_service_knows_neither_it_nor_its_neighbours(part):
    assert not parts_of_mu(part) & {"service", "conductor", *SIDE_BY_SIDE}


def test_nothing_but_the_plugin_imports_the_service():
    others = [path for path in (ROOT / "mu").rglob("*.py") if path.name != "service.py"]
    assert not [path for path in others if "mu.service" in str(imported(path))]


@pytest.mark.parametrize("part", ["elf", "bundle", "aws", "deploy", "policies", "doctor"])
def test_what_makes_functions_knows_little_of_the_daemon(part):
    assert parts_of_mu(part) <= {"elf", "bundle", "aws", "deploy", "policies", "config", "tls"}


def test_recorded_courses_are_for_the_command_line_only():
    others = [path for path in (ROOT / "mu").rglob("*.py") if path.parent.name != "cli"]
    assert not [path for path in others if "mu.courses" in str(imported(path))]


def test_the_command_line_takes_little_from_the_daemon_and_gives_it_nothing():
    lazily = {"aws", "bundle", "deploy", "doctor", "policies", "tls"}
    assert parts_of_mu("cli") <= {"config", "parameters", "courses"} | lazily
    others = [path for path in (ROOT / "mu").rglob("*.py") if path.parent.name != "cli"]
    assert not [path for path in others if "mu.cli" in str(imported(path))]
