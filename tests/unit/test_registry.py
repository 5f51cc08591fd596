"""The registry: what is installed, what is refused and why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from zope.interface import implementer

from mu.interfaces import IPipeline
from mu.parameters import Parameter
from mu.registry import Registry


@implementer(IPipeline)
class Good:
    name = "good"
    description = "It is."
    parameters = ()

    def plan(self, params): ...
    def begin(self, worker): ...
    def finish(self, job, outcomes): ...


@implementer(IPipeline)
class Lacking:
    name = "lacking"
    description = "It has no plan."
    parameters = ()


def test_the_projects_own_pipelines_are_found_the_way_a_strangers_are():
    registry = Registry.installed()
    assert "png2y4m" in registry.pipelines
    assert registry.broken == []


def test_a_duplicate_is_refused_and_both_owners_are_named():
    registry = Registry()
    registry.add(IPipeline, Good(), "the first")
    registry.add(IPipeline, Good(), "the second")
    (broken,) = registry.broken
    assert (broken.name, broken.owner) == ("good", "the second")
    assert broken.reason == "the name is taken by the first"


@pytest.mark.parametrize(("plugin", "says"), [(Lacking(), "plan"), (object(), "IPipeline")])
def test_what_does_not_keep_the_interface_is_reported(plugin, says):
    registry = Registry()
    registry.add(IPipeline, plugin, "somebody")
    assert registry.pipelines == {}
    assert says in registry.broken[0].reason


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (5, "its parameters must be a sequence of mu.parameters.Parameter"),
        (["frames"], "its parameters must be a sequence of mu.parameters.Parameter"),
        ([Parameter("a", int, ""), Parameter("a", str, "")], "two of its parameters are named 'a'"),
        ([Parameter("workers", int, "")], "no parameter may be named 'workers'"),
    ],
)
def test_parameters_that_are_none_are_reported(parameters, says):
    registry = Registry()
    plugin = Good()
    plugin.parameters = parameters
    registry.add(IPipeline, plugin, "somebody")
    assert registry.pipelines == {}
    assert says in registry.broken[0].reason


def test_a_name_must_be_text():
    registry = Registry()
    plugin = Good()
    plugin.name = ""
    registry.add(IPipeline, plugin, "somebody")
    assert "its name must be a str" in registry.broken[0].reason


PLUGIN = """
from zope.interface import implementer
from mu.interfaces import IPipeline

@implementer(IPipeline)
class Pipeline:
    description = "A stranger's."
    parameters = ()
    def __init__(self, name): self.name = name
    def plan(self, params): ...
    def begin(self, worker): ...
    def finish(self, job, outcomes): ...
"""
SHOW = """
import json
from mu.registry import Registry
installed = Registry.installed()
print(json.dumps([sorted(installed.pipelines), [[b.name, b.owner, b.reason] for b in installed.broken]]))
"""


def installed_with(folder, modules, entry_points):
    """Return what a Python sees that has a stranger's package in this folder."""
    for name, text in modules.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mu.pipelines]\n" + entry_points)
    checkout = str(Path(__file__).parents[2])
    shown = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), checkout])},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(shown.stdout)


def test_a_strangers_package_is_found_by_its_entry_points(tmp_path):
    modules = {"stranger.py": PLUGIN + "pipeline = Pipeline('strange')\n"}
    pipelines, broken = installed_with(tmp_path, modules, "strange = stranger:pipeline\n")
    assert {"strange", "png2y4m"} <= set(pipelines)
    assert broken == []


def test_a_dropin_is_found_in_twisted_plugins(tmp_path):
    modules = {
        "stranger.py": PLUGIN,
        "twisted/plugins/stranger_dropin.py": (
            "from twisted.plugin import IPlugin\nfrom zope.interface import alsoProvides\n"
            "from stranger import Pipeline\n"
            "dropped = Pipeline('dropped')\nalsoProvides(dropped, IPlugin)\n"
        ),
    }
    pipelines, broken = installed_with(tmp_path, modules, "")
    assert "dropped" in pipelines
    assert broken == []


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("import nothing_like_this\n", "ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("raise RuntimeError('no luck')\n", "RuntimeError: no luck"),
        ("pipeline = 5\n", "has failed to implement interface"),
        (PLUGIN + "pipeline = Pipeline('png2y4m')\n", "the name is taken by"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_plugin_is_reported_with_its_reason_and_nothing_else_stops(tmp_path, module, says):
    pipelines, broken = installed_with(
        tmp_path, {"stranger.py": module}, "zz_strange = stranger:pipeline\n"
    )
    assert "png2y4m" in pipelines
    ((name, owner, reason),) = broken
    assert name in ("zz_strange", "png2y4m")
    assert owner == "stranger:pipeline of stranger"
    assert says in reason
