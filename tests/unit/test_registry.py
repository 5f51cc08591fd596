"""The registry: what is installed, what is refused and why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from zope.interface import implementer

from mu.interfaces import IEngine, IPipeline
from mu.parameters import Parameter, Params
from mu.plugins import Engine, Pipeline
from mu.registry import Registry
from mu.states import JobFacts


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


def test_the_projects_own_pipelines_are_found_like_any_others():
    registry = Registry.installed()
    assert "png2y4m" in registry.pipelines
    assert registry.broken == []


class Derived(Pipeline):
    name = "derived"

    def begin(self, worker): ...


class Scripted(Engine):
    name = "scripted"

    def launch(self, invocation): ...


@implementer(IEngine)
class Bare:
    name = "bare"

    def launch(self, invocation):
        return "launched"

    def cancel(self, job_id):
        return "cancelled"


def test_a_pipeline_that_derives_from_the_base_has_its_defaults():
    registry = Registry()
    pipeline = Derived()
    registry.add(IPipeline, pipeline, "somebody")
    assert registry.broken == []
    assert registry.pipelines["derived"] is pipeline
    params = Params(workers=3)
    assert pipeline.check(params) is None
    assert pipeline.plan(params) == [{}, {}, {}]
    assert pipeline.order(params, 3) == [0, 1, 2]
    assert pipeline.finish(JobFacts("j1", params), []) is None
    assert (pipeline.may_run_twice, pipeline.relay_keep) == (True, False)


def test_a_pipeline_without_a_first_state_cannot_be_made():
    with pytest.raises(TypeError, match="begin"):
        type("Lacking", (Pipeline,), {"name": "lacking"})()


def test_an_engine_that_derives_from_the_base_has_its_defaults():
    registry = Registry()
    engine = Scripted()
    registry.add(IEngine, engine, "somebody")
    assert registry.engines == {"scripted": engine}
    answers = []
    engine.cancel("j1").addCallback(answers.append)
    engine.size("f", "us-east-1").addCallback(answers.append)
    assert answers == [None, "engine scripted does not report the size of its functions"]


def test_a_pipeline_that_only_provides_the_interface_gets_the_defaults_for_what_it_lacks():
    class Own(Good):
        relay_keep = True

        def order(self, params, actors):
            return [1, 0]

    registry = Registry()
    registry.add(IPipeline, Own(), "somebody")
    pipeline = registry.pipelines["good"]
    assert (pipeline.name, pipeline.description) == ("good", "It is.")
    assert (pipeline.may_run_twice, pipeline.relay_keep) == (True, True)
    assert pipeline.order(Params(), 2) == [1, 0]
    assert pipeline.check(Params()) is None
    assert pipeline.plan(Params(workers=1)) is None  # its own, not the default


def test_an_engine_that_only_provides_the_interface_gets_the_defaults_for_what_it_lacks():
    registry = Registry()
    registry.add(IEngine, Bare(), "somebody")
    engine = registry.engines["bare"]
    assert (engine.launch(None), engine.cancel("j1")) == ("launched", "cancelled")
    answers = []
    engine.size("f", "us-east-1").addCallback(answers.append)
    assert answers == ["engine bare does not report the size of its functions"]


def test_a_duplicate_is_refused_and_both_owners_are_named():
    registry = Registry()
    registry.add(IPipeline, Good(), "the first")
    registry.add(IPipeline, Good(), "the second")
    (broken,) = registry.broken
    assert (broken.name, broken.owner) == ("good", "the second")
    assert broken.reason == "the name is taken by the first"


class Nameless(Pipeline):
    def begin(self, worker): ...


class Crooked(Good):
    def begin(self): ...  # type: ignore[override]


DERIVE = "an object of a class derived from mu.plugins.Pipeline, as in `class Mine(Pipeline)`"


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        (Lacking(), "it lacks plan: add `def plan(self, params): ...`; it lacks begin: add `def"),
        (Nameless(), 'it lacks name: add `name = "mine"`'),
        (Crooked(), "its begin must be `def begin(self, worker): ...`: implementation doesn't"),
        (Good, "it is the class Good: register an object of it, as in `pipeline = Good()`"),
        (json, "it is the module json: name an object in it, as in `json:pipeline`"),
        (object(), DERIVE),
        (5, DERIVE),
    ],
)
def test_what_is_no_pipeline_is_refused_and_told_what_to_add(plugin, says):
    registry = Registry()
    registry.add(IPipeline, plugin, "somebody")
    assert registry.pipelines == {}
    assert says in registry.broken[0].reason


def test_an_engine_is_told_what_to_add_too():
    registry = Registry()
    registry.add(IEngine, Scripted, "somebody")
    registry.add(IEngine, Good(), "somebody")
    derived, provided = [broken.reason for broken in registry.broken]
    assert "as in `engine = Scripted()`" in derived
    assert "derived from mu.plugins.Engine" in provided


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (5, "parameters must be a sequence of mu.parameters.Parameter"),
        (["frames"], "parameters must be a sequence of mu.parameters.Parameter"),
        ([Parameter("a", int, ""), Parameter("a", str, "")], "two parameters are named 'a'"),
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
    assert "name must be a non-empty str, got ''" in registry.broken[0].reason


PLUGIN = """
from zope.interface import implementer
from mu.interfaces import IPipeline

@implementer(IPipeline)
class Pipeline:
    description = "From another package."
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
    """Return what a Python with another package, in this folder, finds."""
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


def test_another_package_is_found_by_its_entry_points(tmp_path):
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


DROPINS = {
    "import nothing_like_this\n": "No module named 'nothing_like_this'",
    "def (\n": "SyntaxError: invalid syntax",
    "from mu.plugins import Pipeline\nclass Mine(Pipeline): name = 'm'\nmine = Mine()\n": (
        "abstract method begin: add `def begin(self, worker): ...`"
    ),
}


def test_a_dropin_that_cannot_be_imported_is_reported_once(tmp_path):
    names = [f"strange{number}" for number in range(len(DROPINS))]
    modules = {
        f"twisted/plugins/{name}.py": text for name, text in zip(names, DROPINS, strict=True)
    }
    pipelines, broken = installed_with(tmp_path, modules, "")
    assert "png2y4m" in pipelines
    assert sorted(name for name, _, _ in broken) == names
    for (_, owner, reason), says in zip(sorted(broken), DROPINS.values(), strict=True):
        assert owner == f"a dropin in {tmp_path}/twisted/plugins"
        assert says in reason


ABSTRACT = """
from mu.plugins import Pipeline
class Mine(Pipeline): name = 'mine'
pipeline = Mine()
"""
BROKEN = {
    "import nothing_like_this\n": "No module named 'nothing_like_this': add it to the package's",
    "import {module}.nothing\n": "add it to the package's dependencies",
    "raise RuntimeError('no luck')\n": "RuntimeError: no luck",
    "pipeline = 5\n": DERIVE,
    PLUGIN + "pipeline = Pipeline('png2y4m')\n": "the name is taken by",
    "": "AttributeError: module '{module}' has no attribute 'pipeline': add `pipeline = Mine()`",
    "raise AttributeError('no luck')\n": "AttributeError: no luck",
    "import json\njson.nothing\n": "AttributeError: module 'json' has no attribute 'nothing'",
    ABSTRACT: "add `def begin(self, worker): ...`",
}


def test_a_broken_plugin_is_reported_with_its_reason_and_nothing_else_stops(tmp_path):
    names = [f"stranger{number}" for number in range(len(BROKEN))]
    modules = {
        f"{name}.py": text.replace("{module}", name)
        for name, text in zip(names, BROKEN, strict=True)
    }
    entry_points = "".join(f"zz_{name} = {name}:pipeline\n" for name in names)
    pipelines, broken = installed_with(tmp_path, modules, entry_points)
    assert "png2y4m" in pipelines
    reasons = {owner: (name, reason) for name, owner, reason in broken}
    assert len(reasons) == len(broken) == len(BROKEN)
    for module, says in zip(names, BROKEN.values(), strict=True):
        name, reason = reasons[f"{module}:pipeline of stranger"]
        assert name in (f"zz_{module}", "png2y4m")
        assert says.replace("{module}", module) in reason


def test_a_package_that_was_installed_without_its_module_says_so(tmp_path):
    _, ((name, _, reason),) = installed_with(tmp_path, {}, "strange = stranger:pipeline\n")
    assert name == "strange"
    assert "No module named 'stranger', so the package was installed without it" in reason
    assert 'py-modules = ["stranger"]' in reason
