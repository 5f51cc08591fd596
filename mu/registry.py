"""The registry of installed pipelines and engines, those of mu and of other packages alike.

They register as importlib entry points (groups `mu.pipelines` and `mu.engines`, each naming an
object) or as dropins in twisted.plugins.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from traceback import extract_tb
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.plugin import getPlugins
from zope.interface import Interface, implementer

from mu.config import Config, read_engine_options
from mu.findings import Finding
from mu.interfaces import IEngine, IPipeline
from mu.plugin_check import why_not, why_not_imported, why_not_loaded
from mu.plugins import Engine, EngineSite, Pipeline
from mu.states.spelling import misspelt, package_of

log = Logger()


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that was rejected, and why."""

    name: str
    owner: str
    reason: str


@dataclass(slots=True)
class Registry:
    """The plugins of each kind by name, and those that were rejected."""

    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What is suspicious in pipelines, by their names."""
    _owners: dict[tuple[type[Interface], str], str] = field(default_factory=dict)

    @classmethod
    def installed(cls) -> "Registry":
        """Load all installed plugins. A broken one is listed in `broken`; the others still load."""
        registry, failures = cls(), dict[Path, BaseException]()
        entries = entry_points()
        name_of = cache(lambda package: package.name if package else "an unknown package")
        for interface, group in ((IPipeline, "mu.pipelines"), (IEngine, "mu.engines")):
            for entry in sorted(entries.select(group=group), key=lambda entry: entry.name):
                owner = f"{entry.value} of {name_of(entry.dist)}"
                try:
                    plugin = entry.load()
                except Exception as error:  # foreign code may raise anything on import
                    registry._refuse(entry.name, owner, why_not_loaded(entry, error))
                else:
                    registry.add(interface, plugin, owner, entry.name)
            dropins, failed = _dropins(interface)
            failures |= failed
            for plugin in dropins:
                registry.add(interface, plugin, f"a dropin of {type(plugin).__module__}")
        for path, failure in failures.items():
            registry._refuse(path.stem, f"a dropin in {path.parent}", why_not_imported(failure))
        return registry

    def add(self, interface: type[Interface], plugin: object, owner: str, called: str = "") -> None:
        """Add a plugin, or note why it is rejected; `called` is what to call one without a name."""
        name = getattr(plugin, "name", None)
        reason = why_not(interface, plugin)
        taken = self._owners.get((interface, str(name)))
        if not reason and taken is not None:
            reason = f"the name is taken by {taken}"
        if reason:
            self._refuse(str(name or called or owner), owner, reason)
            return
        self._owners[interface, str(name)] = owner
        if interface is IPipeline:
            self.pipelines[str(name)] = _with_defaults(Pipeline, plugin)
            self._warn(str(name), owner, misspelt(package_of(plugin)))
        else:
            self.engines[str(name)] = _with_defaults(Engine, plugin)

    def _warn(self, name: str, owner: str, sentences: list[str]) -> None:
        if sentences:
            self.warnings[name] = sentences
        for said in sentences:
            log.warn("plugin {name} ({owner}): {said}", name=name, owner=owner, said=said)

    def _refuse(self, name: str, owner: str, reason: str) -> None:
        self.broken.append(Broken(name, owner, reason))
        log.error("plugin {name} ({owner}): {reason}", name=name, owner=owner, reason=reason)


def engine_site(engine: Engine, config: Config, port: int) -> EngineSite:
    """Return what a plugin's engine starts with; workers connect to `port`. Raises ConfigError."""
    options = read_engine_options(engine, config)
    folder = config.home / "engines" / engine.name
    return EngineSite(options, folder, config.launch.public_host, port)


def examiners_of(
    registry: Registry, config: Config, port: int = 0
) -> dict[str, Callable[[Sequence[str]], Iterable[Finding]]]:
    """Return what finds whether jobs can run on each plugin's engine, given names of functions.

    Workers connect to `port`; 0: it is unknown.
    """

    def examiner(engine: Engine) -> Callable[[Sequence[str]], Iterable[Finding]]:
        return lambda functions: engine.examine(engine_site(engine, config, port), functions)

    return {name: examiner(engine) for name, engine in registry.engines.items()}


def _with_defaults(base: type, plugin: object) -> Any:
    """Return the plugin; if it is not derived from `base`, `base` provides the members it lacks."""
    if isinstance(plugin, base):
        return plugin
    own = {}
    for name in {*base.__annotations__, *vars(base)}:
        if not name.startswith("_") and hasattr(plugin, name):
            member = getattr(plugin, name)
            own[name] = staticmethod(member) if callable(member) else member
    return type(base)(type(plugin).__name__, (base,), own)()


def _dropins(interface: type[Interface]) -> tuple[list[object], dict[Path, BaseException]]:
    """Return the dropins, and the exceptions of files in twisted/plugins that cannot be imported.

    Twisted only logs the latter.
    """
    failures: dict[Path, BaseException] = {}

    @implementer(ILogObserver)
    def note(event: LogEvent) -> None:
        failure = event.get("failure")
        if failure is None:
            return
        places = [frame.filename for frame in extract_tb(failure.value.__traceback__)]
        places.append(getattr(failure.value, "filename", None) or "")  # a SyntaxError's
        for path in map(Path, places):
            if path.parent.parts[-2:] == ("twisted", "plugins"):
                failures[path] = failure.value

    globalLogPublisher.addObserver(note)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(getPlugins(interface)), failures
    finally:
        globalLogPublisher.removeObserver(note)
