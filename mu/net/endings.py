"""Describes how a connection ended, for logs and error messages."""

import ssl

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
    if isinstance(error, ssl.SSLError):
        why = (error.reason or "the handshake failed").replace("_", " ").lower()
        more = getattr(error, "verify_message", "")
        return f"TLS: {why}: {more}" if more else f"TLS: {why}"
    return f"it sent no hello: {loss(reason)}"
