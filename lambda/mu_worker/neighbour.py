"""The connection to the relay, which carries states to one neighbour and from another."""

import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from selectors import EVENT_READ, BaseSelector
from time import monotonic

from mu.messages import encode
from mu.wire import FrameError, frame
from mu_worker.arrival import Arrival
from mu_worker.connection import CLOSED, Channel, DialError
from mu_worker.ledger import FrameLedger, LedgerError
from mu_worker.pieces import Pieces
from mu_worker.retry import Retry
from mu_worker.statefiles import StateError, StateSpool, pack, tidy
from mu_worker.threads import Threads

RELAY_FRAME_LIMIT = 256 * 2**20
CLOSE_S = 10.0
"""How long close_connect waits while the relay accepts nothing, in seconds."""
ANSWER_S = 30.0
"""How long a connection waits for the relay's first frame, in seconds."""

_NAME = r"HELLO_STATE:(.+):(-?\d+):-?\d+"
_FOREVER_S = 1e9

Done = Callable[[str], None]
"""Called with "" for success, otherwise with the reason for the failure."""


@dataclass(slots=True)
class _Name:
    """One name's counts, and the callbacks that wait for the relay to hold a frame."""

    ledger: FrameLedger[StateSpool] = field(default_factory=FrameLedger)
    awaited: dict[int, Done] = field(default_factory=dict)


class Neighbour:
    """At most one relay connection at a time, and the states that are sent over it.

    With `extended` (the relay knows AT), it reconnects until close_connect, and a state counts as
    sent once the relay holds it. Otherwise it behaves like the original: a frame is lost with its
    connection. `arrived` is called for each state from the neighbour, with its number and "" or
    the reason why it could not be kept. `dial` blocks and raises DialError.
    """

    def __init__(
        self,
        selector: BaseSelector,
        dial: Callable[[str, int], socket.socket],
        extended: bool,
        attempt: Callable[[], int],
        folder: Callable[[], str],
        arrived: Callable[[int, str], None],
    ) -> None:
        self._selector = selector
        self._dial = dial
        self._extended = extended
        self._attempt = attempt
        self._folder = folder
        self._arrived = arrived
        self._files = Threads(1)  # one: states are sent in the order in which they are made
        self._dials = Threads(1)
        self._names: dict[str, _Name] = {}
        self._where: tuple[str, int, str] | None = None  # host, port, hello; None: not connected
        self._channel: Channel | None = None
        self._pieces = Pieces(0)
        self._arrival = self._new_arrival()
        self._watched = 0
        self._connections = 0
        self._packing = 0  # states being compressed to disk, to be sent from there
        self._retry = Retry(_FOREVER_S, _chance)
        self._try_at = self._answer_at = self._end_at = inf
        self._ended: Callable[[], None] | None = None
        for threads in (self._files, self._dials):
            selector.register(threads, EVENT_READ, lambda _, t=threads: t.deliver())

    @property
    def connected(self) -> bool:
        """Whether there is a connection, or one is being made again."""
        return self._where is not None

    @property
    def due(self) -> float:
        """When to call `tick`, in monotonic seconds; inf: never."""
        return min(self._try_at, self._answer_at, self._end_at)

    def tick(self) -> None:
        """Do whatever is due: reconnect, drop a relay that does not answer, end."""
        now = monotonic()
        if now >= self._end_at:
            self._end()
        if now >= self._answer_at:
            self._lose(f"no answer within {ANSWER_S:g} s")
        if now >= self._try_at:
            self._try_at = inf
            self._dials.start(self._reach)

    # ------------------------------------------------ commands

    def adopt(self, sock: socket.socket, host: str, port: int, hello: str) -> None:
        """Use a connected socket, and send `hello` on it unless that is empty."""
        self._where = (host, port, hello)
        self._greet(sock)

    def end(self, ended: Callable[[], None]) -> None:
        """Close once everything is sent, or after CLOSE_S without progress; then call `ended`."""
        self._ended = ended
        self._end_at = monotonic() + CLOSE_S
        self._end_if_idle()

    def after_run(self, iteration: int, minimal: bool, send: bool, done: Done) -> None:
        """After a run: rotate the state files, and send final.state if `send`.

        `done` is called afterwards, or with `extended`, when the relay holds the frame.
        """
        folder = self._folder()
        both = _Both(done)

        def send_it() -> Callable[[], None]:
            try:
                spool = pack(folder, iteration, RELAY_FRAME_LIMIT) if send else None
            except StateError as error:
                return partial(self._packed, None, both.one, str(error))
            return partial(self._packed, spool, both.one, "")

        def rotate() -> Callable[[], None]:  # while the state is on its way
            try:
                tidy(folder, iteration, minimal)
            except StateError as error:
                return partial(both.one, str(error))
            return partial(both.one, "")

        self._packing += 1
        self._files.start(send_it)
        self._files.start(rotate)

    def close(self, flush_s: float) -> None:
        """Close for good, after writing the unsent bytes as long as there is progress."""
        self._arrival.close()
        self._dials.stop(wait_s=0)
        self._files.stop(wait_s=1.0)
        channel = self._channel
        if channel is not None:
            before = -1
            while channel.busy and not channel.lost and before < channel.written:
                before = channel.written
                _wait_to_write(channel, flush_s)
            channel.close()
        self._where = None

    # ------------------------------------------------ states to the neighbour

    def _packed(self, spool: StateSpool | None, done: Done, error: str) -> None:
        self._packing -= 1
        name = self._name
        if spool is None:
            done(error)
            self._end_if_idle()
        elif name is None:
            _log("a state was not sent: the connection was lost in the meantime")
            done("")
        elif self._extended:
            name.awaited[name.ledger.add(spool)] = done
            self._settle()
            self._tell_held(name)  # it may have this frame from an earlier attempt
        else:
            if self._channel is not None:
                self._channel.stream(spool.framed())
            self._settle()
            done("")

    @property
    def _name(self) -> _Name | None:
        """The name by which the worker is connected."""
        if self._where is None:
            return None
        hello = self._where[2]
        form = re.fullmatch(_NAME, hello)
        return self._names.setdefault(f"{form[1]}_{int(form[2])}" if form else hello, _Name())

    # ------------------------------------------------ states from the neighbour

    def _on_ready(self, connection: int) -> None:
        channel = self._channel
        if channel is None or connection != self._connections:  # lost earlier in the same turn
            return
        lost = ""
        try:
            for chunk in channel.chunks():
                for piece, last in self._pieces.feed(chunk):
                    self._arrival.add(piece, last)
                    if last:
                        arrival, self._arrival = self._arrival, self._new_arrival()
                        self._take(arrival)
        except (FrameError, _BadRelay) as error:
            lost = str(error)
        except LedgerError as error:
            self._give_up(str(error))
            return
        self._settle(lost)

    def _take(self, arrival: Arrival) -> None:
        name = self._name
        assert name is not None
        if arrival.answer is not None:
            name.ledger.answer(arrival.answer)
            self._answered(name)
            return
        if self._extended and not name.ledger.open:
            raise _BadRelay(f"its first frame must be AT:<n>, got {arrival.head!r}")
        name.ledger.received += arrival.is_frame
        if arrival.iteration < 0:
            _log(f"dropped a frame without a state: {arrival.head!r}")
        else:
            self._kept(arrival.iteration, arrival.error)

    def _kept(self, iteration: int, error: str) -> None:
        if error:
            _log(f"state {iteration} is unusable: {error}")
        self._arrived(iteration, error)

    def _answered(self, name: _Name) -> None:
        """Note how many frames the relay holds."""
        self._answer_at = inf
        if self._retry.until < inf:
            self._retry.found(monotonic())
            _log("reconnected")
        self._tell_held(name)

    def _tell_held(self, name: _Name) -> None:
        for number in sorted(name.awaited):
            if number <= name.ledger.held:
                name.awaited.pop(number)("")

    # ------------------------------------------------ the connection

    def _greet(self, sock: socket.socket) -> None:
        """Begin to use a connection."""
        assert self._where is not None
        name = self._name
        assert name is not None
        _keep_alive(sock, self._extended)
        self._channel = channel = Channel(sock)
        self._connections += 1
        self._pieces = Pieces(RELAY_FRAME_LIMIT + 2)  # plus 2 for the relay's F:
        self._arrival.close()
        self._arrival = self._new_arrival()
        hello = self._where[2]
        if hello:
            channel.write(frame(encode(hello)))
        if self._extended:
            channel.write(frame(name.ledger.greet(self._attempt())))
            self._answer_at = monotonic() + ANSWER_S
        self._settle()

    def _new_arrival(self) -> Arrival:
        return Arrival(self._folder, self._extended)

    def _settle(self, lost: str = "") -> None:
        """Write as much as possible, and register the connection with the selector."""
        channel, name = self._channel, self._name
        if channel is None or name is None:
            return
        if self._extended:
            for spool in name.ledger.outgoing():
                channel.stream(spool.framed())
        before = channel.written
        channel.flush()
        if channel.written > before and self._end_at < inf:
            self._end_at = monotonic() + CLOSE_S
        if lost or channel.lost:
            inside = (
                " in the middle of a frame"
                if channel.lost == CLOSED and self._pieces.partial
                else ""
            )
            self._lose(lost or channel.lost + inside)
        else:
            self._watch(channel.interest)
            self._end_if_idle()

    def _watch(self, interest: int) -> None:
        channel = self._channel
        if channel is None or interest == self._watched:
            return
        if self._watched:
            self._selector.unregister(channel)
        if interest:
            number = self._connections
            self._selector.register(channel, interest, lambda _: self._on_ready(number))
        self._watched = interest

    def _drop(self) -> None:
        """Drop the connection with all partial frames."""
        self._answer_at = inf
        name = self._name
        if name is not None:
            name.ledger.part()
        if self._channel is not None:
            self._watch(0)
            self._channel.close()
            self._channel = None

    def _lose(self, reason: str) -> None:
        _log(f"connection lost: {reason}")
        self._drop()
        if self._extended:
            self._miss()
        else:
            self._where = None
        if self._ended is not None:
            self._end_if_idle()

    def _miss(self) -> None:
        self._try_at = self._retry.lost(monotonic())

    def _reach(self) -> Callable[[], None]:
        """Connect, in a thread; return a function for the loop to call."""
        where = self._where
        if where is None:
            return lambda: None
        try:
            sock = self._dial(where[0], where[1])
        except DialError:
            return lambda: self._miss() if self._where is where else None
        return partial(self._regreet, sock, where)

    def _regreet(self, sock: socket.socket, where: tuple[str, int, str]) -> None:
        if self._where is where and self._channel is None:
            self._greet(sock)
        else:  # closed meanwhile
            sock.close()

    # ------------------------------------------------ the end

    def _end_if_idle(self) -> None:
        if self._ended is None:
            return
        name = self._name
        busy = self._channel is not None and self._channel.busy
        if name is None or not (busy or self._packing or name.awaited):
            self._end()

    def _end(self) -> None:
        self._fail_awaited("the connection to the relay was closed before it held the state")
        self._drop()
        self._where = None
        self._try_at = self._end_at = inf
        self._retry.found(-inf)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def _give_up(self, reason: str) -> None:
        _log(f"gave up: {reason}")
        self._fail_awaited(reason)
        self._end()

    def _fail_awaited(self, reason: str) -> None:
        name = self._name
        if name is not None:
            awaited, name.awaited = name.awaited, {}
            for done in awaited.values():
                done(reason)


class _Both:
    """Calls `done` once two things are done, with the first reason why one failed."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._left = 2
        self._error = ""

    def one(self, error: str) -> None:
        self._left -= 1
        self._error = self._error or error
        if not self._left:
            self._done(self._error)


class _BadRelay(Exception):
    """The relay violated the protocol."""


def _keep_alive(sock: socket.socket, again: bool) -> None:
    """Let the system detect within about a minute that the relay is gone.

    `again`: the worker reconnects, so it may also give up a connection that accepts nothing.
    """
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        if again:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000)


def _wait_to_write(channel: Channel, seconds: float) -> None:
    from select import select

    select([], [channel], [], seconds)
    channel.flush()


def _chance() -> float:
    return os.urandom(1)[0] / 255


def _log(text: str) -> None:
    print(f"mu worker: the relay: {text}", file=sys.stderr, flush=True)
