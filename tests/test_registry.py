"""The registry: what is installed, what is refused and why."""

import pytest
from zope.interface import implementer

from mu.interfaces import IPipeline
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


def test_a_name_must_be_text():
    registry = Registry()
    plugin = Good()
    plugin.name = ""
    registry.add(IPipeline, plugin, "somebody")
    assert "its name must be a str" in registry.broken[0].reason
