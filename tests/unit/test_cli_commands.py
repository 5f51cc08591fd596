"""The commands as a whole: their help, how fast they start, and those that need no daemon."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit.cli import inside, refusal

from mu.cli.commands import cli

ROOT = Path(__file__).parents[2]


def test_an_unknown_command_suggests_a_similar_one():
    assert "Did you mean 'launch'?" in refusal("lanch")


def test_init_writes_the_shipped_configuration_and_a_unit(tmp_path):
    folder = tmp_path / "a b" / "100%"
    made = inside("init", folder)
    assert made.exit_code == 0, made.output
    assert (folder / "mu.conf").read_bytes() == (ROOT / "etc" / "mu.conf").read_bytes()
    unit = (folder / "mu.service").read_text()
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    escaped = str(folder / "mu.conf").replace("%", "%%")
    assert start.endswith(f'/twistd -n --pidfile= mu --config "{escaped}"')
    assert f"/twistd -n --pidfile= mu --config '{folder}/mu.conf'" in made.stdout
    assert f"EnvironmentFile=-{folder.parent}/100%%/mu.env" in unit.splitlines()


def test_init_overwrites_nothing_unless_forced(tmp_path):
    (tmp_path / "mu.service").write_text("mine")
    says = refusal("init", tmp_path)
    assert f"will not overwrite {tmp_path}/mu.service: use --force" in says
    assert os.listdir(tmp_path) == ["mu.service"]
    assert inside("init", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "mu.service").read_text() != "mine"
    (tmp_path / "file").touch()
    assert "cannot write " in refusal("init", tmp_path / "file" / "x")


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_commands_help_has_examples(command):
    told = inside(command, "--help").stdout
    assert "Examples:\n    mu " in told
    assert max(map(len, told.splitlines())) <= 80


def test_the_exit_statuses_are_in_the_help_and_the_docs():
    told = inside("--help").stdout
    for status in ("0  success", "1  the job failed", "2  ", "3  the job was cancelled", "4  "):
        assert f"    {status}" in told
    docs = (ROOT / "docs" / "cli.md").read_text()
    assert [row for row in "01234" if f"| {row} |" not in docs] == []


def test_the_command_line_loads_nothing_that_only_the_daemon_needs():
    heavy = {"twisted", "boto3", "botocore", "klein", "cryptography", "OpenSSL", "rich"}
    asked = "import sys, mu.cli.commands; print(*{name.partition('.')[0] for name in sys.modules})"
    ended = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert not heavy & set(ended.stdout.split())
    asked = (
        "import mu.client.control_port, mu.cli.watch, mu.cli.display.tables, mu.cli.display.attempts, "
        + asked.removeprefix("import ")
    )
    ended = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert heavy & set(ended.stdout.split()) == {"rich"}
