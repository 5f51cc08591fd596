"""The public modules: docs/api.md names what they offer, and their examples run."""

import ast
import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


def modules_with_public_names():
    """Return the modules that have an __all__."""
    found = set()
    for path in sorted((ROOT / "mu").rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        assigned = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)
        ]
        if any(
            isinstance(to, ast.Name) and to.id == "__all__" for a in assigned for to in a.targets
        ):
            found.add(".".join(names).removesuffix(".__init__"))
    return found


def test_the_page_has_every_public_module():
    assert set(SECTIONS) == modules_with_public_names()


@pytest.mark.parametrize("module", sorted(SECTIONS))
def test_the_page_names_what_a_module_offers(module):
    first_cells = re.findall(r"^\| (`.*?) \|", SECTIONS[module], re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(first_cells))
    public = import_module(module)
    assert sorted(named) == sorted(public.__all__)
    assert all(hasattr(public, name) for name in named)


@pytest.mark.parametrize("module", sorted(SECTIONS))
def test_the_examples_in_a_modules_docstrings_run(module):
    assert doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize(
    "module", ["mu.parameters", "mu.pipelines.templates", "mu.states", "mu.testing"]
)
def test_what_authors_see_first_has_an_example(module):
    assert doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS).attempted
