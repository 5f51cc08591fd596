"""The worker's loop: one thread, one selector, and no call that blocks."""

import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from selectors import EVENT_READ, DefaultSelector
from time import monotonic

from mu_worker.commands import CommandRunner, Tools
from mu_worker.connection import Connection, dial
from mu_worker.event import WorkerEvent
from mu_worker.init import function_memory_mb
from mu_worker.link import CoordinatorLink
from mu_worker.livelog import LiveLog
from mu_worker.neighbour import Neighbour
from mu_worker.programs import Programs
from mu_worker.session import NumberedCommand, WorkerSession
from mu_worker.store import ObjectStore
from mu_worker.threads import Threads
from mu_worker.usage import UsageMeter
from mu_worker.variables import Variables

TRANSFERS = 8
"""How many S3 transfers may run at the same time; further ones wait."""
FLUSH_S = 2.0
"""How long a worker that was told to quit tries to send its last replies, in seconds."""
UNSENT_LIMIT = 4 * 2**20
"""While this many bytes are unsent, no further command is started."""
LOG_UNSENT_LIMIT = 2**20
"""While this many bytes are unsent, live output is skipped, since it matters least."""
QUEUE_BYTES = 64 * 2**20
"""While this many bytes of commands wait for a blocking one, no more are read."""


class Worker:
    """Executes the commands of one coordinator, until it is told to quit or cannot reconnect.

    `connection` is the one on which the session's hello was sent; None: it could not be made.
    Without a connection, the commands received so far continue.
    """

    def __init__(
        self,
        event: WorkerEvent,
        session: WorkerSession,
        connection: Connection | None,
        context: ssl.SSLContext | None,
        folder: str,
        root: str,
        packaged: str,
    ) -> None:
        self.variables = Variables(event, folder)
        self._event = event
        self._session = session
        self._context = context
        self._selector = DefaultSelector()
        self._live = LiveLog()
        self._meter = UsageMeter(bool(event.usage_ext), function_memory_mb())
        self._threads = Threads(TRANSFERS)
        self._store = ObjectStore(TRANSFERS)
        self._programs = Programs(self._selector, root, event.output_limit)
        self._neighbour = Neighbour(
            self._selector,
            self._dial,
            extended=bool(event.relay_ext),
            attempt=lambda: session.attempt,
            folder=lambda: self.variables.text("_tmpdir") or folder,
            arrived=lambda iteration, error: self._commands.state_arrived(iteration, error),
        )
        self._link = CoordinatorLink(
            session,
            connection,
            event.reconnect_s,
            self._selector,
            partial(self._dial, event.addr, event.port),
            self._take,
        )
        self._waiting: deque[NumberedCommand] = deque()
        self._waiting_bytes = 0
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
            meter=self._meter,
            dial=self._dial,
            shared_tmp=os.environ.get("MU_SHARED_TMP") == "1",
            has_runner=os.environ.get("MU_RUNNER") == "1",
        )
        self._commands = CommandRunner(tools, self._reply, self._print_live)

    def work(self) -> dict[str, object]:
        """Run until the end, stop everything that was started, and return why it ended."""
        try:
            self._selector.register(self._threads, EVENT_READ, lambda _: self._threads.deliver())
            if self._event.bucket:  # boto3 will be needed: import it meanwhile
                self._threads.start(self._warm_store)
            while not self._ended:
                self._turn()
            outcome = self._outcome or {"status": "lost", "reason": self._link.over}
            return outcome | {
                "session": self._session.name,
                "received": self._session.received,
                "sent": self._session.sent,
            }
        finally:
            self._end()

    # ------------------------------------------------ one turn

    @property
    def _ended(self) -> bool:
        return self._outcome is not None or bool(self._link.over)

    def _turn(self) -> None:
        self._advance()
        self._link.watch(read=self._waiting_bytes <= QUEUE_BYTES)
        for key, mask in self._selector.select(self._timeout_s()):
            if self._ended:
                return
            key.data(mask)
        self._programs.poll()
        self._link.tick()
        self._neighbour.tick()
        self._meter.tick()
        self._commands.tick()
        if self._live.due is not None and self._live.due <= monotonic():
            for number, output in self._live.take_all():
                self._session.log(number, output)

    def _advance(self) -> None:
        """Start every command that may start now, and send everything that may be sent."""
        while True:
            while self._may_start:
                numbered = self._waiting.popleft()
                self._waiting_bytes -= len(numbered.command.text)
                self._commands.perform(numbered)
            self._link.send()
            if not self._may_start:  # sending may have freed space
                return

    @property
    def _may_start(self) -> bool:
        return (
            bool(self._waiting)
            and not self._ended
            and not self._commands.busy
            and not self._session.full
            and self._link.unsent < UNSENT_LIMIT
        )

    def _timeout_s(self) -> float | None:
        """The selector's timeout; None: no limit."""
        if self._ended:
            return 0
        due = min(
            self._link.due,
            self._neighbour.due,
            self._meter.due,
            self._commands.due,
            inf if self._live.due is None else self._live.due,
        )
        until_due = None if due == inf else max(0.0, due - monotonic())
        waits = (until_due, self._programs.timeout_s)
        return min((wait for wait in waits if wait is not None), default=None)

    def _take(self, numbered: NumberedCommand) -> None:
        """Queue a command from the coordinator; quit: overtakes waiting commands."""
        if numbered.is_quit:
            self._session.tell_use(self._meter.tmp())
            self._advance()
            self._outcome = {"status": "quit"}
        else:
            self._waiting.append(numbered)
            self._waiting_bytes += len(numbered.command.text)

    # ------------------------------------------------ for the commands

    def _reply(self, number: int, text: str, used: dict[str, float]) -> None:
        if last_words := self._live.take(number):
            self._session.log(number, last_words)
        self._session.reply(number, text, used)

    def _print_live(self, number: int, output: bytes) -> None:
        slow = self._link.unsent > LOG_UNSENT_LIMIT
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
        self._link.close(flush_s=FLUSH_S)
        self._selector.close()
