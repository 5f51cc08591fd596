"""What a function was made from, as it is remembered."""

import pytest

from mu.functions.contents import BundleError
from mu.functions.recipes import Recipe
from mu.functions.requirements import Requirements


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(folder, text="shouting==1.0\n", function="local-f", bundle="aa", runtime="python3.12"):
    (folder / "requirements.txt").write_text(text)
    return Recipe.of(function, bundle, Requirements(folder / "requirements.txt", runtime), None)


def test_the_same_recipe_is_known_until_another_is_kept_for_its_function(tmp_path):
    assert recipe(tmp_path).known() is None
    recipe(tmp_path).keep("zip1")
    assert recipe(tmp_path).known() == "zip1"
    assert recipe(tmp_path, "# loudly\nshouting==1.0 # really\n").known() == "zip1"
    assert recipe(tmp_path, function="lambda-f").known() is None
    recipe(tmp_path, "shouting==2.0\n").keep("zip2")
    assert recipe(tmp_path).known() is None


@pytest.mark.parametrize(
    "change",
    [{"text": "shouting==1.1"}, {"bundle": "bb"}, {"runtime": "python3.13"}, {"runtime": ""}],
)
def test_another_program_requirement_or_python_is_another_recipe(tmp_path, change):
    recipe(tmp_path).keep("zip1")
    assert recipe(tmp_path, **change).known() is None


def test_pips_variables_are_a_part_of_it(tmp_path, monkeypatch):
    recipe(tmp_path).keep("zip1")
    monkeypatch.setenv("PIP_PRE", "1")
    assert recipe(tmp_path).known() is None


@pytest.mark.parametrize(
    "line",
    [
        "-r more.txt",
        "--pre",
        "s-1.0-py3-none-any.whl ; python_version > '3'",
        "./shouting.whl",
        "a @ https://example.org/a.whl",
        "a==${ONE}",
    ],
)
def test_requirements_that_depend_on_something_unseen_are_never_known(tmp_path, line):
    recipe(tmp_path, f"shouting\n{line}\n").keep("zip1")
    assert recipe(tmp_path, f"shouting\n{line}\n").known() is None


def test_a_cache_that_cannot_be_used_is_not_used(tmp_path, cache):
    cache.write_text("a file, where a folder should be")
    recipe(tmp_path).keep("zip1")
    assert recipe(tmp_path).known() is None


def test_requirements_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "requirements.txt").write_bytes(b"\xff")
    with pytest.raises(BundleError, match="cannot read .*requirements.txt: 'utf-8'"):
        Recipe.of("f", "aa", Requirements(tmp_path / "requirements.txt"), None)
