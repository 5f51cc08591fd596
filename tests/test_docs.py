"""The configuration reference is made from etc/mu.conf, and the pages' links lead somewhere."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def reference() -> str:
    """Return docs/configuration.md as it follows from etc/mu.conf."""
    told = [
        "# Configuration",
        "",
        "Made from [etc/mu.conf](../etc/mu.conf), which has every option at its",
    ]
    told += ["default, by tests/test_docs.py.", ""]
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
    assert page.read_text() == reference(), "write it anew: python tests/test_docs.py"


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


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(reference())
