"""One worker's conversation: a frame becomes an event, the machine's effects are performed.

A session is not its connection: it numbers commands, drives the machine and keeps the timers,
and only `write`s to whatever connection it has.
"""

import traceback
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from mu.events import (
    Answered,
    CancelTimer,
    Effect,
    Elapsed,
    Entered,
    Event,
    Finish,
    Informed,
    Lost,
    Send,
    SetTimer,
)
from mu.machine import Machine
from mu.messages import (
    HELLO,
    Ack,
    BadMessage,
    Hello,
    Log,
    Ping,
    Pong,
    Reply,
    Welcome,
    encode,
    from_worker,
    parse_info,
)
from mu.wire import frame

QUIT = "quit:"
ACK_REPLIES, ACK_BYTES = 64, 2**20
"""After so many replies a worker hears that it may drop them. Well below what it keeps."""
WORKER_TIMER = "(worker)"  # beside the machine's own


class Role(Protocol):
    """What a session needs of the actor that it plays (a mu.jobs.Actor)."""

    number: int
    attempt: int
    output: Any

    @property
    def timeout_s(self) -> float: ...
    def begin(self, session: Any, at: float) -> Machine: ...
    def replied(self, text: str, at: float) -> None: ...
    def finished(self, finish: Finish, at: float) -> None: ...


class Session:
    """Drives one actor's machine with what one worker says.

    `write` takes bytes for the worker, `leave` is called once the worker was told to quit, and
    `clock` is an IReactorTime.
    """

    log = Logger()

    def __init__(
        self,
        role: Role,
        hello: Hello,
        write: Callable[[bytes], Any],
        leave: Callable[[], Any],
        clock: Any,
    ) -> None:
        self.role = role
        self.welcomed = bool(hello.session)
        self.sent = 0
        """Commands sent; a command's number is this count just after it was sent."""
        self.received = 0
        """Replies received."""
        self._acked = 0
        self._unacked_bytes = 0
        self.over = False
        self._write = write
        self._leave = leave
        self._clock = clock
        self._timers: dict[str, Any] = {}
        self._last_command = ""
        self._machine: Machine | None = None

    def begin(self) -> None:
        """Welcome the worker and enter the machine; its hello is what the first state expects."""
        now = self._clock.seconds()
        self._machine = self.role.begin(self, now)
        seconds = self.role.timeout_s
        self._timers[WORKER_TIMER] = self._clock.callLater(
            seconds, self.give_up, f"its worker took longer than {seconds:g} s"
        )
        if self.welcomed:
            welcome = Welcome(self.role.number, self.role.attempt, self.received)
            self._write(frame(welcome.payload()))
        self._handle(Entered(now))
        self._handle(Answered(now, HELLO))

    def receive(self, payload: bytes) -> None:
        """Handle a frame of the worker's. Raises BadMessage, which must end the connection."""
        match from_worker(payload, self.welcomed):
            case Reply() as reply:
                self._reply(reply, len(payload))
            case Log(output=output):
                if not self.over:
                    self.role.output.write(output)
            case Ping(text=text):
                self._write(frame(Pong(text).payload()))

    def give_up(self, reason: str) -> None:
        """Fail the actor, for a reason that is a sentence; if the worker is there, it quits."""
        self._handle(Lost(self._clock.seconds(), reason))

    def _reply(self, reply: Reply, size: int) -> None:
        now = self._clock.seconds()
        self.received += 1
        if self.over:
            return
        self.role.replied(reply.text, now)
        try:
            info = parse_info(reply.text)
        except BadMessage as error:
            self._handle(Lost(now, str(error)))
            return
        if info:
            self._handle(Informed(now, *info, reply.command))
        else:
            self._handle(Answered(now, reply.text, reply.command))
        self._acknowledge(size)

    def _acknowledge(self, size: int) -> None:
        """Let the worker drop what it said, now and then. Nothing is kept on disk yet."""
        self._unacked_bytes += size
        enough = self.received - self._acked >= ACK_REPLIES or self._unacked_bytes >= ACK_BYTES
        if enough and self.welcomed and not self.over:
            self._acked, self._unacked_bytes = self.received, 0
            self._write(frame(Ack(self.received).payload()))

    def _handle(self, event: Event) -> None:
        if self.over or self._machine is None:
            return
        try:
            effects = self._machine.receive(event)
            if effects:
                self._perform(effects, event.at)
        except Exception as error:  # a fault of ours must not leave the actor without an end
            self.log.failure("actor {actor}: {event}", actor=self.role.number, event=event)
            self._write(frame(encode(QUIT)))
            self._finish(Finish(f"a fault in mu: {type(error).__name__}: {error}"), event.at)

    def _perform(self, effects: list[Effect], at: float) -> None:
        """Do what the machine ordered, with one write for all that it sends."""
        frames = []
        for effect in effects:
            match effect:
                case Send(command=command):
                    self.sent += 1
                    self._last_command = command
                    frames.append(frame(encode(command)))
                case SetTimer(timer=timer, seconds=seconds):
                    self._cancel(timer)
                    self._timers[timer] = self._clock.callLater(seconds, self._elapse, timer)
                case CancelTimer(timer=timer):
                    self._cancel(timer)
                case Finish():
                    if self._last_command != QUIT:
                        frames.append(frame(encode(QUIT)))
                    self._write(b"".join(frames))
                    self._finish(effect, at)
                    return
        if frames:
            self._write(b"".join(frames))

    def _finish(self, finish: Finish, at: float) -> None:
        self.over = True
        for timer in list(self._timers):
            self._cancel(timer)
        crash = self._machine.crash if self._machine else None
        self._machine = None
        if crash is not None:
            self.log.error(
                "actor {actor} failed: {trace}",
                actor=self.role.number,
                trace="".join(traceback.format_exception(crash)),
            )
        self.role.finished(finish, at)
        self._leave()

    def _elapse(self, timer: str) -> None:
        self._timers.pop(timer, None)
        self._handle(Elapsed(self._clock.seconds(), timer))

    def _cancel(self, timer: str) -> None:
        call = self._timers.pop(timer, None)
        if call is not None and call.active():
            call.cancel()
