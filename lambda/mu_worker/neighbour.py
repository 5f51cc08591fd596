"""The connection to the relay, over which states will go to and from a neighbour."""

import socket
import sys
from selectors import BaseSelector

from mu.messages import encode
from mu_worker.connection import Connection

RELAY_FRAME_LIMIT = 256 * 2**20


class Neighbour:
    """At most one relay connection, watched by the loop's selector.

    What arrives on it is dropped: passing states is still to come.
    """

    def __init__(self, selector: BaseSelector) -> None:
        self._selector = selector
        self._connection: Connection | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def adopt(self, sock: socket.socket, hello: str) -> None:
        """Take a connected socket and say `hello` on it; an empty one is not said."""
        self._connection = Connection(sock, RELAY_FRAME_LIMIT)
        if hello:
            self._connection.send(encode(hello))
            self._connection.flush()
        self._selector.register(
            self._connection, self._connection.interest, lambda _: self._on_ready()
        )

    def close(self, flush_s: float = 0.0) -> None:
        if self._connection is not None:
            self._selector.unregister(self._connection)
            self._connection.close(flush_s)
            self._connection = None

    def _on_ready(self) -> None:
        connection = self._connection
        if connection is None:  # closed by what was handled before, in the same turn
            return
        for _ in connection.receive():
            pass
        connection.flush()
        if connection.lost:
            print(f"mu worker: lost the relay: {connection.lost}", file=sys.stderr, flush=True)
            self.close()
        else:
            self._selector.modify(connection, connection.interest, lambda _: self._on_ready())
