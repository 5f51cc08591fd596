"""The loop: one thread, one selector, and nothing in it that waits for anything else."""

import os
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable
from selectors import EVENT_READ, DefaultSelector
from time import monotonic

from mu.messages import BadMessage
from mu_worker.commands import Commands, Tools
from mu_worker.connection import Connection, dial
from mu_worker.event import Event
from mu_worker.livelog import LiveLog
from mu_worker.neighbour import Neighbour
from mu_worker.programs import Programs
from mu_worker.session import Order, Session, SessionOver
from mu_worker.store import Store
from mu_worker.threads import Threads
from mu_worker.variables import Variables

TRANSFERS = 8
"""How many S3 transfers run side by side; further ones wait."""
FLUSH_S = 2.0
"""How long a worker that was told to quit tries to get its last replies out."""
UNSENT_LIMIT = 4 * 2**20
"""With so many bytes waiting for a slow coordinator, no further command is started."""
LOG_UNSENT_LIMIT = 2**20
"""And with so many, live output is skipped: it is the first thing that can be done without."""
QUEUE_BYTES = 64 * 2**20
"""With so many bytes of commands waiting behind a blocking one, no more are read."""


class Worker:
    """Obeys one coordinator over `connection` until it is told to quit, or loses it."""

    def __init__(
        self,
        event: Event,
        session: Session,
        connection: Connection,
        context: ssl.SSLContext | None,
        folder: str,
        root: str,
        packaged: str,
    ) -> None:
        self.variables = Variables(event, folder)
        self._event = event
        self._session = session
        self._connection = connection
        self._context = context
        self._selector = DefaultSelector()
        self._live = LiveLog()
        self._threads = Threads(TRANSFERS)
        self._store = Store(TRANSFERS)
        self._programs = Programs(self._selector, root, event.output_limit)
        self._neighbour = Neighbour(self._selector)
        self._waiting: deque[Order] = deque()
        self._waiting_bytes = 0
        self._watched = 0
        self._outcome: dict[str, object] | None = None
        tools = Tools(
            event=event,
            variables=self.variables,
            packaged=packaged,
            root=root,
            programs=self._programs,
            threads=self._threads,
            store=self._store,
            neighbour=self._neighbour,
            dial=self._dial,
            shared_tmp=os.environ.get("MU_SHARED_TMP") == "1",
        )
        self._commands = Commands(tools, self._reply, self._print_live)

    def work(self) -> dict[str, object]:
        """Run until the end, end everything that was started, and return how it ended."""
        try:
            self._selector.register(self._threads, EVENT_READ, lambda _: self._threads.deliver())
            if self._event.bucket:  # a job with a bucket will use it: import boto3 meanwhile
                self._threads.start(self._warm_store)
            while self._outcome is None:
                self._turn()
            return self._outcome | {
                "session": self._session.name,
                "received": self._session.received,
                "sent": self._session.sent,
            }
        finally:
            self._end()

    # ------------------------------------------------ one turn

    def _turn(self) -> None:
        self._obey()
        self._watch_coordinator()
        for key, mask in self._selector.select(self._patience_s()):
            if self._outcome is not None:
                return
            key.data(mask)
        self._programs.poll()
        if self._live.due is not None and self._live.due <= monotonic():
            for number, output in self._live.take_all():
                self._session.log(number, output)

    def _obey(self) -> None:
        """Start all that may be started now, and send all that may be sent."""
        while True:
            while self._may_start:
                order = self._waiting.popleft()
                self._waiting_bytes -= len(order.command.text)
                self._commands.perform(order)
            self._send()
            if not self._may_start:  # what was sent may have made room
                return

    @property
    def _may_start(self) -> bool:
        return (
            bool(self._waiting)
            and not self._commands.busy
            and not self._session.full
            and self._connection.unsent < UNSENT_LIMIT
            and not self._connection.lost
        )

    def _send(self) -> None:
        for payload in self._session.outgoing():
            self._connection.send(payload)
        self._connection.flush()
        if self._connection.lost:
            self._lose(self._connection.lost)

    def _patience_s(self) -> float | None:
        """How long to wait for something to happen; None: until it does."""
        if self._outcome is not None:
            return 0
        patience = self._programs.patience_s
        if self._live.due is not None:
            until_due = max(0.0, self._live.due - monotonic())
            patience = until_due if patience is None else min(patience, until_due)
        return patience

    # ------------------------------------------------ the coordinator

    def _watch_coordinator(self) -> None:
        interest = self._connection.interest
        if self._waiting_bytes > QUEUE_BYTES:
            interest &= ~EVENT_READ
        if interest == self._watched:
            return
        if self._watched:
            self._selector.unregister(self._connection)
        if interest:
            self._selector.register(self._connection, interest, self._on_coordinator)
        self._watched = interest

    def _on_coordinator(self, _: int) -> None:
        try:
            for payload in self._connection.receive():
                order = self._session.receive(payload)
                if order is None:
                    continue
                if order.is_quit:
                    self._obey()  # what came before it and need not wait for anything
                    self._outcome = {"status": "quit"}
                    return
                self._waiting.append(order)
                self._waiting_bytes += len(order.command.text)
        except (BadMessage, SessionOver) as error:
            self._lose(str(error))
        else:
            if self._connection.lost:
                self._lose(self._connection.lost)

    def _lose(self, reason: str) -> None:
        """The connection is lost, and with it, as long as nothing resumes it, the worker."""
        if self._outcome is None:
            print(f"mu worker: lost the coordinator: {reason}", file=sys.stderr, flush=True)
            self._outcome = {"status": "lost", "reason": reason}

    # ------------------------------------------------ what the commands need

    def _reply(self, number: int, text: str) -> None:
        if last_words := self._live.take(number):
            self._session.log(number, last_words)
        self._session.reply(number, text)

    def _print_live(self, number: int, output: bytes) -> None:
        slow = self._connection.unsent > LOG_UNSENT_LIMIT
        (self._live.skip if slow else self._live.add)(number, output, monotonic())

    def _dial(self, host: str, port: int) -> socket.socket:
        return dial(host, port, self._context, self._event.server_name)

    def _warm_store(self) -> Callable[[], None]:
        self._store.warm(self._event.region)
        return lambda: None

    # ------------------------------------------------ the end

    def _end(self) -> None:
        self._store.cancel()
        self._programs.stop()
        self._threads.stop(wait_s=1.0)
        self._neighbour.close(flush_s=FLUSH_S)
        self._connection.close(flush_s=FLUSH_S)
        self._selector.close()
