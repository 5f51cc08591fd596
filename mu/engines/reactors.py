"""What engines need from a reactor, as types."""

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)

from mu.net.proxy import IProxyReactor


class IClientReactor(IProxyReactor):
    """Connects and has timers."""


class ILocalReactor(IReactorCore, IReactorProcess, IReactorTCP, IReactorThreads, IReactorTime):
    """Also starts processes, listens, and runs blocking calls in threads."""
