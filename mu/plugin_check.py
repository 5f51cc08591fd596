"""Why a plugin is refused, and what its author has to add."""

import re
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

from zope.interface import Interface
from zope.interface.exceptions import BrokenImplementation, BrokenMethodImplementation, Invalid
from zope.interface.interface import Attribute, Method
from zope.interface.verify import verifyObject

from mu.interfaces import IEngine, IPipeline
from mu.parameters import Parameter

_EXAMPLES = {"name": '"mine"', "description": '"One sentence for users."', "parameters": "()"}


def why_not(interface: type[Interface], plugin: object) -> str:
    """Return why a plugin is refused; empty: it is not."""
    base, kind = ("Engine", "engine") if interface is IEngine else ("Pipeline", "pipeline")
    if not interface.providedBy(plugin):
        if isinstance(plugin, ModuleType):
            called = plugin.__name__
            return f"it is the module {called}: name an object in it, as in `{called}:{kind}`"
        if isinstance(plugin, type):
            called = plugin.__name__
            return (
                f"it is the class {called}: register an object of it, as in `{kind} = {called}()`"
            )
        return (
            f"it must be an object of a class derived from mu.plugins.{base}, as in `class Mine({base})`"
            f" and `{kind} = Mine()`, or provide mu.interfaces.{interface.__name__}, got"
            f" {plugin!r:.200}"
        )
    try:
        verifyObject(interface, plugin)
    except Invalid as error:
        return "; ".join(map(_to_add, getattr(error, "exceptions", None) or [error]))
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not name:
        return f'name must be a non-empty str, got {name!r:.200}: write `name = "mine"`'
    return _wrong_parameters(getattr(plugin, "parameters", ())) if interface is IPipeline else ""


def why_not_loaded(entry: EntryPoint, error: Exception) -> str:
    """Return why an entry point could not be loaded."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{entry.module}.".startswith(f"{error.name}."):
            return (
                f"{reason}, so the package was installed without it: add it to its pyproject.toml, as in"
                f' `[tool.setuptools]` and `py-modules = ["{error.name}"]`, or `packages`'
            )
        return f"{reason}: add it to the package's dependencies, and install it"
    module = sys.modules.get(entry.module)
    if isinstance(error, AttributeError) and module is not None and error.obj is module:
        return f"{reason}: add `{entry.attr} = Mine()` with your class, or correct the entry point"
    return why_not_imported(error)


def why_not_imported(error: BaseException) -> str:
    """Return why a plugin's module could not be imported."""
    reason = f"{type(error).__name__}: {error}"
    abstract = isinstance(error, TypeError) and re.search(r"abstract methods? (.*)", str(error))
    if abstract:
        methods = [
            described
            for name in re.findall(r"\w+", abstract[1])
            for interface in (IPipeline, IEngine)
            if isinstance(described := interface.get(name), Method)
        ]
        return f"{reason}: add " + " and ".join(map(_line, methods)) if methods else reason
    return reason


def _to_add(error: Invalid) -> str:
    """Return what one violation of an interface asks for."""
    if isinstance(error, BrokenMethodImplementation):
        method = error.method
        return f"its {method.getName()} must be {_line(method)}: {error.mess}"
    if isinstance(error, BrokenImplementation) and isinstance(error.name, Attribute):
        return f"it lacks {error.name.getName()}: add {_line(error.name)}"
    return " ".join(str(error).split())


def _line(described: Attribute) -> str:
    """Return an example of a line that defines a member."""
    name = described.getName()
    if not isinstance(described, Method):
        return f"`{name} = {_EXAMPLES.get(name, '...')}`"
    arguments = ", ".join(["self", *described.positional])
    return f"`def {name}({arguments}): ...`"


def _wrong_parameters(parameters: object) -> str:
    if not isinstance(parameters, list | tuple) or not all(
        isinstance(parameter, Parameter) for parameter in parameters
    ):
        return (
            "parameters must be a sequence of mu.parameters.Parameter, as in `parameters ="
            f' (Parameter("bucket", str, "the S3 bucket"),)`, got {parameters!r:.200}'
        )
    names = [parameter.name for parameter in parameters]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"two parameters are named {twice[0]!r}"
    if "workers" in names:
        return (
            "no parameter may be named 'workers': params.workers is the number of workers ordered"
        )
    return ""
