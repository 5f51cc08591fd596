"""Finds class attributes of states that look like misspelt ones, which would have no effect."""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from mu.states.base import MachineState

CLOSE = 0.85
"""How similar two names are, from 0 to 1, if one looks like the other."""


def package_of(plugin: object) -> str:
    """Return the package of a pipeline, or its module; of mu's own, their modules."""
    module = type(plugin).__module__
    package, _, rest = module.partition(".")
    return module if package == "mu" or not rest else package


def misspelt(package: str) -> list[str]:
    """Return a sentence for each suspicious attribute of the state classes in a package or module."""
    below = f"{package}."
    classes: dict[Any, None] = {
        state: None
        for state in _subclasses(MachineState)
        if f"{state.__module__}.".startswith(below) and not _is_ours(state)
    }
    return [sentence for state in classes for sentence in suspicious(state)]


@lru_cache(4096)
def suspicious(state: Any) -> tuple[str, ...]:
    """Return a sentence for each attribute of this class of states that looks like one that mu uses.

    >>> from mu.states import OnePassState
    >>> class Greet(OnePassState):
    ...     nextstate = OnePassState
    >>> suspicious(Greet)
    ('Greet.nextstate is not used by mu: did you mean nextState?',)
    """
    bases = state.__mro__[1:]
    known = {name for base in bases if _is_ours(base) for name in _names(base)}
    inherited = {name for base in bases for name in dir(base)}
    sentences = []
    for name in _names(state):
        if name in inherited or name in known:
            continue
        meant = _closest(name, known)
        if meant:
            sentences.append(
                f"{state.__qualname__}.{name} is not used by mu: did you mean {meant}?"
            )
    return tuple(sentences)


def _closest(name: str, known: set[str]) -> str:
    """Return the known name that a name looks like, if there is one."""
    plain = {_plain(one): one for one in sorted(known)}
    if _plain(name) in plain:
        return plain[_plain(name)]
    near = get_close_matches(name, sorted(known), 1, CLOSE)
    return near[0] if near and not name[-1].isdigit() else ""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _names(state: type) -> list[str]:
    """Return the public names that a class itself has."""
    names = {**vars(state), **vars(state).get("__annotations__", {})}
    return [name for name in names if not name.startswith("_")]


def _is_ours(base: type) -> bool:
    return base.__module__.startswith("mu.states")


def _subclasses(base: type[MachineState]) -> Iterator[type[MachineState]]:
    """Yield all subclasses, however indirect; some more than once."""
    for state in base.__subclasses__():
        yield state
        yield from _subclasses(state)
