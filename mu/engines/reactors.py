"""What engines need of a reactor, as types."""

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)


class IClientReactor(IReactorTCP, IReactorTime):
    """Connects, and keeps time."""


class ILocalReactor(IReactorCore, IReactorProcess, IReactorTCP, IReactorThreads, IReactorTime):
    """Also starts processes, listens, and runs blocking calls in threads."""
