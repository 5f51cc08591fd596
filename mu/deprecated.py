"""Old import paths of public names. Each still works, with a DeprecationWarning.

CONTRIBUTING.md says how long they stay.
"""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` for names that have moved: old name to `new.module:name`."""

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new = names[name].partition(":")
        warnings.warn(
            f"{module}.{name} is deprecated: import {new} from {place}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(place), new)

    return __getattr__
