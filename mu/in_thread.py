"""The type of what runs blocking calls outside the reactor's thread."""

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

P = ParamSpec("P")
T = TypeVar("T")


class InThread(Protocol):
    """Runs a call in a thread, and returns a Deferred of its result or exception."""

    def __call__(
        self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...
