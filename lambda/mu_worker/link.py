"""The link to the coordinator: one connection at a time, and another when it is lost."""

import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from math import inf
from selectors import EVENT_READ, BaseSelector
from time import monotonic

from mu.messages import BadMessage
from mu_worker.connection import Connection, Unreachable
from mu_worker.retry import Retry
from mu_worker.session import Order, Session, SessionOver
from mu_worker.threads import Threads

ASK_S = 15.0
"""After so long without a word from a coordinator that welcomed it, a worker asks: ping."""
ANSWER_S = 30.0
"""With no word for so long after that, the connection counts as lost."""
WELCOME_S = 30.0
"""So does one without a first word for so long, where another may be tried. Generous: thousands
of workers may come at once."""


class Link:
    """Carries what the session says to the coordinator, and hands the orders that come to `take`.

    A lost connection is tried again until `reconnect_s` seconds have passed without a welcome;
    0: never. `dial` blocks and raises Unreachable: it is called in a thread. Only once `over` is
    not empty will no coordinator be heard any more; it says why.
    """

    def __init__(
        self,
        session: Session,
        connection: Connection | None,
        reconnect_s: float,
        selector: BaseSelector,
        dial: Callable[[], socket.socket],
        take: Callable[[Order], None],
    ) -> None:
        """`connection`: one on which the hello was said; None: no first one could be made."""
        self._session = session
        self._connection: Connection | None = None
        self._reconnect_s = reconnect_s
        self._selector = selector
        self._dial = dial
        self._take = take
        self._retry = Retry(reconnect_s, _chance)
        self._threads = Threads(1)  # its own: a dial does not queue behind transfers
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
        """Bytes that the coordinator or the network was not ready to take yet."""
        return 0 if self._connection is None else self._connection.unsent

    @property
    def due(self) -> float:
        """When `tick` has something to do, in monotonic seconds; inf: never."""
        return min(self._try_at, self._ask_at, self._lost_at, self._retry.until)

    def tick(self) -> None:
        """Do what is due: ask a silent coordinator, lose it, try again, give up."""
        now = monotonic()
        if now >= self._lost_at:
            self._lose(
                f"nothing was heard for {ASK_S + ANSWER_S:g} s"
                if self._session.answered
                else f"no welcome came within {WELCOME_S:g} s"
            )
        elif now >= self._ask_at:
            self._session.ping()
            self._ask_at, self._lost_at = inf, now + ANSWER_S
        if now >= self._retry.until:
            self.over = f"not back within {self._reconnect_s:g} s: {self._reason}"
            _say(f"gave the coordinator up: {self.over}")
        elif now >= self._try_at:
            self._try_at = inf
            self._threads.start(self._reach)

    def send(self) -> None:
        """Write what the session has to say, as far as that can be written without waiting."""
        if self._connection is None:
            return
        for payload in self._session.outgoing():
            self._connection.send(payload)
        self._connection.flush()
        if self._connection.lost:
            self._lose(self._connection.lost)

    def watch(self, read: bool) -> None:
        """Have the selector watch for what is awaited; for no commands unless `read`."""
        if self._connection is None:
            return
        interest = self._connection.interest
        if not read and self._session.answered:
            interest &= ~EVENT_READ
            self._heard()  # to what is not listened for, silence is no sign
        self._register(self._connection, interest)

    def close(self, flush_s: float) -> None:
        """Close, after at most `flush_s` seconds of writing what is still unsent."""
        self._closed = True
        self._threads.stop(wait_s=0)
        if self._connection is not None:
            self._connection.close(flush_s)

    def _on_ready(self, mask: int) -> None:
        connection = self._connection
        if connection is None:  # lost by what was handled before, in the same turn
            return
        lost = ""
        try:
            for payload in connection.receive():
                order = self._session.receive(payload)
                if order is not None:
                    self._take(order)
                    if order.is_quit:
                        return  # what comes after it does not count
        except BadMessage as error:
            lost = str(error)
        except SessionOver as error:
            self.over = str(error)
            _say(f"lost the coordinator: {error}")
            return
        if mask & EVENT_READ:
            self._heard()
        if lost := lost or connection.lost:
            self._lose(lost)

    def _heard(self) -> None:
        """The coordinator is alive; before its first word, that alone is not enough."""
        if not self._session.answered:
            return
        now = monotonic()
        self._ask_at = inf if self._session.original else now + ASK_S
        self._lost_at = inf
        if self._retry.until < inf:
            self._retry.found(now)
            _say("the coordinator is back")

    # ------------------------------------------------ lost and found

    def _lose(self, reason: str) -> None:
        """Forget the connection, with what came or went in part; what counts is the session's."""
        _say(f"lost the coordinator: {reason}")
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
        """Make a connection; this is called in a thread, and what it returns in the loop."""
        try:
            sock = self._dial()
        except Unreachable as error:
            return partial(self._miss, str(error))
        if self._closed:  # nobody will take it any more
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


def _say(text: str) -> None:
    print(f"mu worker: {text}", file=sys.stderr, flush=True)
