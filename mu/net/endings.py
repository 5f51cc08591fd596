"""Describes how a connection ended, for logs and error messages."""

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure


def loss(reason: Failure) -> str:
    """Return how a connection ended."""
    if reason.check(ConnectionDone):
        return "it closed the connection"
    return f"the connection broke ({reason.getErrorMessage()})"


def handshake_error(reason: Failure) -> str:
    """Return why a connection ended before the peer said hello."""
    error = reason.value
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return f"TLS: {', '.join(detail[-1] for detail in error.args[0])}"
    return f"it sent no hello: {loss(reason)}"
