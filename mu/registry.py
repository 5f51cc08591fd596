"""What is installed: pipelines and engines, the project's own and strangers' alike.

They register as importlib entry points (groups `mu.pipelines` and `mu.engines`, each naming an
object) or as dropins in twisted.plugins.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface import Interface
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from mu.interfaces import IEngine, IPipeline
from mu.parameters import Parameter

log = Logger()


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that could not be taken, and why."""

    name: str
    owner: str
    reason: str


@dataclass(slots=True)
class Registry:
    """Name to plugin, for each kind; and the plugins that could not be taken."""

    pipelines: dict[str, Any] = field(default_factory=dict)
    engines: dict[str, Any] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    _owners: dict[tuple[Any, str], str] = field(default_factory=dict)

    @classmethod
    def installed(cls) -> "Registry":
        """Read all that is installed. A broken plugin is kept in `broken` and stops nothing."""
        registry = cls()
        for interface, group in ((IPipeline, "mu.pipelines"), (IEngine, "mu.engines")):
            for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
                owner = (
                    f"{entry.value} of {entry.dist.name if entry.dist else 'an unknown package'}"
                )
                try:
                    plugin = entry.load()
                except Exception as error:  # a stranger's import may raise anything
                    registry._refuse(entry.name, owner, f"{type(error).__name__}: {error}")
                else:
                    registry.add(interface, plugin, owner, entry.name)
            for plugin in _dropins(interface):
                registry.add(interface, plugin, f"a dropin of {type(plugin).__module__}")
        return registry

    def add(self, interface: type[Interface], plugin: Any, owner: str, called: str = "") -> None:
        """Take a plugin, or note why not; `called` is what to name one without a name."""
        name = getattr(plugin, "name", None)
        reason = _why_not(interface, plugin)
        taken = self._owners.get((interface, str(name)))
        if not reason and taken is not None:
            reason = f"the name is taken by {taken}"
        if reason:
            self._refuse(str(name or called or owner), owner, reason)
            return
        self._owners[interface, plugin.name] = owner
        (self.pipelines if interface is IPipeline else self.engines)[plugin.name] = plugin

    def _refuse(self, name: str, owner: str, reason: str) -> None:
        self.broken.append(Broken(name, owner, reason))
        log.error("plugin {name} ({owner}): {reason}", name=name, owner=owner, reason=reason)


def _why_not(interface: type[Interface], plugin: Any) -> str:
    """Return why a plugin cannot be taken; empty: it can."""
    try:
        verifyObject(interface, plugin)
    except Invalid as error:
        return " ".join(str(error).split())
    if not isinstance(plugin.name, str) or not plugin.name:
        return f"its name must be a str, and not empty; it is {plugin.name!r}"
    return _wrong_parameters(plugin.parameters) if interface is IPipeline else ""


def _wrong_parameters(parameters: Any) -> str:
    if not isinstance(parameters, list | tuple) or not all(
        isinstance(parameter, Parameter) for parameter in parameters
    ):
        return f"its parameters must be a sequence of mu.parameters.Parameter, not {parameters!r}"
    names = [parameter.name for parameter in parameters]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"two of its parameters are named {twice[0]!r}"
    if "workers" in names:
        return "no parameter may be named 'workers': params.workers is how many were asked for"
    return ""


def _dropins(interface: type[Interface]) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from getPlugins(interface)
