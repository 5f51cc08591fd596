"""Imports point one way, and the pure core stays pure."""

import ast
import configparser
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = ["wire", "messages", "events", "machine", "states", "parameters", "pipelines", "interfaces"]
PURE += ["outbox", "session", "session_effects", "totals"]
PURE += ["relay.switchboard", "relay.mailboxes", "relay.parties", "relay.effects", "relay.limits"]
PURE += [
    "relay.framing",
    "journal.records",
    "journal.ledger",
    "journal.replay",
    "journal.allowance",
    "timeline",
    "output.pieces",
    "output.completion",
    "output.transcript",
    "jobs.stages",
    "net.proxy_header",
]
OUTSIDE = {"twisted", "OpenSSL", "boto3", "botocore", "klein", "time", "random", "secrets"}
OUTSIDE |= {"socket", "ssl", "logging", "threading", "asyncio", "subprocess", "uuid"}

# A part may import those to its left in its row, and what those may import.
DATA_FLOW = [
    "wire",
    "messages",
    "events",
    "states",
    "machine",
    "outbox",
    "session_effects",
    "session",
]
DATA_FLOW += ["protocol"]
SIDE_BY_SIDE = ["control", "launch", "engines", "relay"]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> frozenset[str]:
    """Return the dotted names that a file imports."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if "film_program" in path.parts:  # a package of its own where it runs
                continue
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def files(part: str) -> list[Path]:
    """Return the files of a module or package of mu."""
    package = ROOT / "mu" / part.replace(".", "/")
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def parts_of_mu(part: str) -> set[str]:
    """Return the top-level modules and packages of mu that a part imports."""
    names = {name for path in files(part) for name in imported(path) if name.startswith("mu.")}
    return {name.split(".")[1] for name in names} - {part.split(".")[0]}


@pytest.mark.parametrize("part", PURE)
def test_the_pure_core_imports_no_network_clock_or_chance(part):
    for path in files(part):
        if path == ROOT / "mu" / "pipelines" / "s3.py":  # for plans, which may do I/O
            continue
        if "_program" in str(path):  # sent to workers as a text, and run there
            continue
        outside = {name.split(".")[0] for name in imported(path)} & OUTSIDE
        assert not outside, f"{path.name} imports {outside}"


@pytest.mark.parametrize("part", ["wire", "messages"])
def test_what_workers_ship_needs_the_standard_library_and_wire_only(part):
    assert parts_of_mu(part) <= {"wire"}


@pytest.mark.parametrize("place", range(len(DATA_FLOW)))
def test_no_part_of_the_data_flow_imports_what_comes_after_it(place):
    assert not parts_of_mu(DATA_FLOW[place]) & {*DATA_FLOW[place + 1 :], "service", *SIDE_BY_SIDE}


def test_a_session_knows_nothing_of_jobs_or_connections():
    known = {"wire", "messages", "events", "machine", "journal", "outbox", "session_effects"}
    assert parts_of_mu("session") <= known


def test_pipelines_know_states_only():
    known = {"wire", "messages", "events", "states", "parameters", "plugins", "aws"}
    assert parts_of_mu("pipelines") <= known


@pytest.mark.parametrize("part", SIDE_BY_SIDE)
def test_what_hangs_from_the_service_knows_neither_it_nor_its_neighbours(part):
    assert not parts_of_mu(part) & {"service", *SIDE_BY_SIDE}


def test_the_local_engine_knows_nothing_of_the_daemon():
    assert parts_of_mu("engines.local") <= {"aws", "clock", "home_watch", "logs", "net"}


def test_what_is_known_about_aws_needs_nothing_else_of_mu():
    assert parts_of_mu("aws") == set()


def test_nothing_but_the_plugin_imports_the_service():
    others = [path for path in (ROOT / "mu").rglob("*.py") if path.name != "service.py"]
    assert not [path for path in others if "mu.service" in str(imported(path))]


@pytest.mark.parametrize("part", ["functions", "doctor"])
def test_what_makes_functions_knows_little_of_the_daemon(part):
    known = {"functions", "config", "net", "aws", "hosts", "parameters"}
    known |= {"findings", "journal", "home", "wire"} if part == "doctor" else set()
    assert parts_of_mu(part) <= known


def test_a_timeline_needs_the_records_of_its_job_and_nothing_else():
    assert parts_of_mu("timeline") <= {"messages", "journal", "strict_json"}


def test_recorded_courses_are_for_the_command_line_only():
    others = [path for path in (ROOT / "mu").rglob("*.py") if path.parent.name != "cli"]
    assert not [path for path in others if "mu.jobs.history" in str(imported(path))]


def test_the_command_line_takes_little_from_the_daemon_and_gives_it_nothing():
    lazily = {"functions", "doctor", "net", "engines", "home", "aws", "launch", "invocations"}
    lazily |= {
        "findings",
        "registry",
    }  # without a daemon, mu doctor examines engines of plugins itself
    assert (
        parts_of_mu("cli")
        <= {"client", "config", "parameters", "jobs", "strict_json", "timeline", "page"} | lazily
    )
    assert {name for path in files("cli") for name in imported(path) if "mu.jobs" in name} <= {
        "mu.jobs.history.replay_job",
        "mu.jobs.history.NoHistory",
        "mu.jobs.overview.Glance",
        "mu.jobs.overview.overview",
    }
    of_page = {name for path in files("cli") for name in imported(path) if "mu.page" in name}
    assert of_page == {"mu.page.bundle.script", "mu.page.bundle.style"}
    others = set((ROOT / "mu").rglob("*.py")) - set(files("cli"))
    assert not [path for path in others if "mu.cli." in str(imported(path))]


def test_a_client_knows_the_control_port_and_how_to_deploy_and_nothing_of_the_daemon():
    lazily = {"functions", "engines", "aws"}
    assert parts_of_mu("client") <= {"config", "timeline", "wire"} | lazily


def test_what_pipelines_import_does_not_load_twisted():
    program = (
        "import sys, mu.plugins, mu.testing, mu.pipelines.map; print('twisted' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert told.stdout == "False\n"


def test_the_commands_are_put_together_in_one_module_that_no_other_imports():
    inside = [path for path in files("cli") if "mu.cli.commands" in str(imported(path))]
    assert [path.name for path in inside] == ["__main__.py"]


# ---------------------------------------------------------------- names

TWICE = {"Job"}
"""What two classes are: a job in the daemon, and what a program has of one (mu.client)."""


def test_a_class_name_means_one_thing():
    places: dict[str, list[str]] = {}
    for path in [*(ROOT / "mu").rglob("*.py"), *(ROOT / "lambda").rglob("*.py")]:
        if "worker_code" in path.parts:  # a link to lambda
            continue
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    clashes = {name: where for name, where in places.items() if len(where) > 1}
    assert clashes.keys() == TWICE, clashes


@pytest.mark.parametrize("folder", ["mu", "demo", "bench", "tests", "examples"])
def test_no_file_imports_a_deprecated_name(folder):
    """What mu.deprecated keeps alive is for plugins only."""
    names = {
        (path.name, name)
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "test_deprecated.py" and "data" not in path.parts
        for name in imported(path)
        if name.startswith("mu.")
    }
    assert [one for one in names if is_deprecated(one[1])] == []


def test_a_deprecated_name_is_recognized():
    assert is_deprecated("mu.machine.Worker")
    assert not is_deprecated("mu.machine.Machine")


@cache
def is_deprecated(name: str) -> bool:
    """Whether only the `__getattr__` of a module, made by mu.deprecated, knows the name."""
    module, _, attribute = name.rpartition(".")
    found = vars(sys.modules.get(module) or import_module(module))
    if "__getattr__" not in found or attribute in found:
        return False
    return "__path__" not in found or find_spec(name) is None


def test_every_package_is_installed():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = set(parser["options"]["packages"].split())
    found = {path.parent.relative_to(ROOT) for path in (ROOT / "mu").rglob("__init__.py")}
    assert {".".join(path.parts) for path in found} <= listed


def test_the_daemon_starts_without_what_only_the_engine_lambda_needs():
    code = "import sys, mu.service; sys.exit(bool({'botocore', 'boto3'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
