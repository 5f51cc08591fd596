"""The configuration reference is made from etc/mu.conf, examples run, links lead somewhere."""

import configparser
import re
import textwrap
from pathlib import Path

import pytest

from mu.events import Finish
from mu.testing import FakeWorker, machine, play

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def reference() -> str:
    """Return docs/configuration.md as it follows from etc/mu.conf."""
    told = [
        "# Configuration",
        "",
        "Made from [etc/mu.conf](../etc/mu.conf), which has every option at its",
    ]
    told += ["default, by tests/unit/test_docs.py.", ""]
    words: list[str] = []
    for line in (ROOT / "etc" / "mu.conf").read_text().splitlines()[3:]:
        if line.startswith("#"):
            words.append(line.removeprefix("# "))
        elif line.startswith("["):
            told += ["", f"## {line}", "", "| option | default | |", "|---|---|---|"]
        elif " = " in line:
            name, _, default = line.partition(" = ")
            told.append(f"| `{name}` | `{default}` | {' '.join(words)} |")
            words = []
    return "\n".join(told) + "\n"


def test_the_configuration_reference_is_what_etc_mu_conf_says():
    page = ROOT / "docs" / "configuration.md"
    assert page.read_text() == reference(), "write it anew: python tests/unit/test_docs.py"


def test_the_reference_has_every_option():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "etc" / "mu.conf")
    rows = re.findall(r"^\| `(\w+)` \|", reference(), re.MULTILINE)
    assert rows == [option for section in parser.sections() for option in parser[section]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def examples(heading: str) -> dict:
    """Run the first indented block under a heading of docs/pipelines.md; return what it defines."""
    section = (ROOT / "docs" / "pipelines.md").read_text().split(f"## {heading}\n")[1]
    block = re.search(r"(?:^    .*\n|^\n)+", section[section.index("\n    ") + 1 :], re.MULTILINE)
    defined: dict = {}
    exec(compile(textwrap.dedent(block[0]), "docs/pipelines.md", "exec"), defined)
    return defined


def test_the_script_of_the_page_runs():
    script = examples("As a script")["convert"]
    given = {"in_keys": ["a.png", "b.png"], "out_key": "out.y4m"}
    played = play(machine(script, given=given))
    assert played.finish == Finish(result={"key": "out.y4m"})
    assert played.commands[1] == "retrieve:a.png\0##TMPDIR##/00000000.png"
    assert played.commands[-1] == "upload:out.y4m\0##TMPDIR##/out.y4m"


def test_the_states_of_the_page_run():
    first = examples("As states")["Fetch"]
    answers = {"run:": "OK:RETVAL(0):OUTPUT(7):COMMAND(wc)"}
    played = play(machine(first, given={"key": "k"}), FakeWorker(answers))
    assert played.finish == Finish(result={"said": answers["run:"]})
    assert played.commands == ["retrieve:k\0##TMPDIR##/text", "run:wc -w < ##TMPDIR##/text"]


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(reference())
