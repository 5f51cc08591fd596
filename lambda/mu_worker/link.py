"""The link to the coordinator: one connection at a time, replaced when it is lost."""

import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from math import inf
from selectors import EVENT_READ, BaseSelector
from time import monotonic

from mu.messages import BadMessage
from mu_worker.connection import Connection, DialError
from mu_worker.retry import Retry
from mu_worker.session import NumberedCommand, SessionOver, WorkerSession
from mu_worker.threads import Threads

ASK_S = 15.0
"""How long a coordinator that sent a welcome may be silent before the worker pings it."""
ANSWER_S = 30.0
"""How long the coordinator may be silent after the ping before the connection counts as lost."""
WELCOME_S = 30.0
"""How long to wait for the first frame before the connection counts as lost, if the worker may
reconnect. This is long, because thousands of workers may connect at once."""


class CoordinatorLink:
    """Sends the session's frames to the coordinator, and passes its commands to `take`.

    After a lost connection, it reconnects until `reconnect_s` seconds have passed without a
    welcome; 0: never. `dial` blocks and raises DialError; it is called in a thread. Once `over`
    is set, to the reason, there is no further connection.
    """

    def __init__(
        self,
        session: WorkerSession,
        connection: Connection | None,
        reconnect_s: float,
        selector: BaseSelector,
        dial: Callable[[], socket.socket],
        take: Callable[[NumberedCommand], None],
    ) -> None:
        """`connection`: the one on which the hello was sent; None: it could not be made."""
        self._session = session
        self._connection: Connection | None = None
        self._reconnect_s = reconnect_s
        self._selector = selector
        self._dial = dial
        self._take = take
        self._retry = Retry(reconnect_s, _chance)
        self._threads = Threads(1)  # its own, so that connecting does not wait for transfers
        self._watched = 0
        self._try_at = self._ask_at = self._lost_at = inf
        self._reason = ""
        self._closed = False
        self.over = ""
        selector.register(self._threads, EVENT_READ, lambda _: self._threads.deliver())
        if connection is not None:
            self._adopt(connection)
        else:
            self._miss("it could not be reached")

    @property
    def unsent(self) -> int:
        """Bytes that could not be written yet."""
        return 0 if self._connection is None else self._connection.unsent

    @property
    def due(self) -> float:
        """When to call `tick`, in monotonic seconds; inf: never."""
        return min(self._try_at, self._ask_at, self._lost_at, self._retry.until)

    def tick(self) -> None:
        """Do what is due: ping a silent coordinator, drop the connection, reconnect, give up."""
        now = monotonic()
        if now >= self._lost_at:
            self._lose(
                f"the coordinator was silent for {ASK_S + ANSWER_S:g} s"
                if self._session.answered
                else f"no welcome within {WELCOME_S:g} s"
            )
        elif now >= self._ask_at:
            self._session.ping()
            self._ask_at, self._lost_at = inf, now + ANSWER_S
        if now >= self._retry.until:
            self.over = f"could not reconnect within {self._reconnect_s:g} s: {self._reason}"
            _log(f"gave up: {self.over}")
        elif now >= self._try_at:
            self._try_at = inf
            self._threads.start(self._reach)

    def send(self) -> None:
        """Write as many of the session's outgoing frames as possible without blocking."""
        if self._connection is None:
            return
        for payload in self._session.outgoing():
            self._connection.send(payload)
        self._connection.flush()
        if self._connection.lost:
            self._lose(self._connection.lost)

    def watch(self, read: bool) -> None:
        """Register the connection with the selector, for reading only if `read` is true."""
        if self._connection is None:
            return
        interest = self._connection.interest
        if not read and self._session.answered:
            interest &= ~EVENT_READ
            self._heard()  # while nothing is read, silence means nothing
        self._register(self._connection, interest)

    def close(self, flush_s: float) -> None:
        """Close, after trying for at most `flush_s` seconds to write the unsent bytes."""
        self._closed = True
        self._threads.stop(wait_s=0)
        if self._connection is not None:
            self._connection.close(flush_s)

    def _on_ready(self, mask: int) -> None:
        connection = self._connection
        if connection is None:  # lost earlier in the same turn
            return
        lost = ""
        try:
            for payload in connection.receive():
                numbered = self._session.receive(payload)
                if numbered is not None:
                    self._take(numbered)
                    if numbered.is_quit:
                        return  # frames after it are ignored
        except BadMessage as error:
            lost = str(error)
        except SessionOver as error:
            self.over = str(error)
            _log(f"lost the coordinator: {error}")
            return
        if mask & EVENT_READ:
            self._heard()
        if lost := lost or connection.lost:
            self._lose(lost)

    def _heard(self) -> None:
        """Note that the coordinator sent something; this counts only after its first frame."""
        if not self._session.answered:
            return
        now = monotonic()
        self._ask_at = inf if self._session.original else now + ASK_S
        self._lost_at = inf
        if self._retry.until < inf:
            self._retry.found(now)
            _log("reconnected to the coordinator")

    # ------------------------------------------------ reconnecting

    def _lose(self, reason: str) -> None:
        """Drop the connection with all partial frames; the session keeps the counts."""
        _log(f"lost the coordinator: {reason}")
        if self._session.original or not self._reconnect_s:
            self.over = reason
        if self._connection is not None:
            self._register(self._connection, 0)
            self._connection.close()
            self._connection = None
        self._session.part()
        self._ask_at = self._lost_at = inf
        if not self.over:
            self._miss(reason)

    def _miss(self, reason: str) -> None:
        self._reason = reason
        self._try_at = self._retry.lost(monotonic())

    def _reach(self) -> Callable[[], None]:
        """Connect, in a thread; return a function for the loop to call."""
        try:
            sock = self._dial()
        except DialError as error:
            return partial(self._miss, str(error))
        if self._closed:  # the worker has ended in the meantime
            sock.close()
        return partial(self._greet, sock)

    def _greet(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        connection.send(self._session.greet())
        self._adopt(connection)

    def _adopt(self, connection: Connection) -> None:
        self._connection = connection
        self._lost_at = monotonic() + WELCOME_S if self._reconnect_s else inf

    def _register(self, connection: Connection, interest: int) -> None:
        if interest == self._watched:
            return
        if self._watched:
            self._selector.unregister(connection)
        if interest:
            self._selector.register(connection, interest, self._on_ready)
        self._watched = interest


def _chance() -> float:
    return os.urandom(1)[0] / 255


def _log(text: str) -> None:
    print(f"mu worker: {text}", file=sys.stderr, flush=True)
