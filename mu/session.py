"""One worker's conversation about one attempt at an actor, over as many connections as it takes.

A frame becomes an event, the machine's effects are performed, and what happened goes to the
journal. The rules are those of the protocol's "Extensions"; in short:

- Commands are numbered, and kept until their worker has confirmed them by a reply.
- What a reply causes is sent at once. What anything else causes (a timer, the beginning, a loss)
  waits until that event is on disk, and so does all that this machine sends after it. So do the
  welcome, until the assignment is on disk, and quit, until everything is.
- After a welcome the worker's count and CRC of the commands that it received must agree with the
  machine's. After a restart the machine may have to hear some replies again before it has as many.
"""

import traceback
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
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
from mu.journal.ledger import Ledger
from mu.journal.records import Happened, Resumed, write_event
from mu.journal.replay import step
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
ACK_REPLIES, ACK_BYTES, ACK_S = 64, 2**20, 5.0
"""After so many replies, or so long, a worker hears that it may drop those that are on disk."""
RESTART_HOLD_S = 5.0
"""At least so long after a restart: workers may be in the longest pause between two tries."""
MOST_HELD_COMMANDS = 64
"""With so many that wait for the disk, a worker is not heard until fewer do."""
WORKER_TIMER = "(worker)"  # beside the machine's own


class Line(Protocol):
    """A connection, as a session needs it."""

    peer: str

    def write(self, data: bytes) -> None: ...
    def goodbye(self) -> None:
        """The worker was told to quit: it closes, or is cut after a while."""

    def go_on(self) -> None:
        """The session takes frames again: it is not `full` any more."""

    def supersede(self, reason: str) -> None:
        """Its worker has a newer connection: end, and bring nothing more of this one."""


class Part(Protocol):
    """What a session plays: an attempt at an actor (a mu.jobs.Attempt)."""

    number: int
    machine: Machine

    @property
    def job_id(self) -> str: ...
    @property
    def actor_number(self) -> int: ...
    @property
    def output(self) -> Any: ...
    @property
    def timeout_s(self) -> float: ...
    def heard(self, text: str, at: float) -> None: ...
    def ended(self, finish: Finish, at: float, charged: bool) -> None: ...


@dataclass(slots=True)
class _Timer:
    """When it is due, and the call that is scheduled, unless timers stand still."""

    due: float
    call: Any = None


class Session:
    """Drives one attempt's machine with what one worker says. `clock` is an IReactorTime.

    `name` is the worker's session; an original worker has none, and cannot come back.
    """

    log = Logger()

    def __init__(self, part: Part, name: str, ledger: Ledger, clock: Any, hold_s: float) -> None:
        self.part = part
        self.name = name
        self.line: Line | None = None
        self.received = 0
        """Replies received."""
        self.produced = 0
        """Commands that the machine has made; a command's number is this count just after."""
        self.over = False
        self.away_since: float | None = None
        """When its connection was lost, if it has none."""
        self._ledger = ledger
        self._clock = clock
        self._hold_s = hold_s
        self._machine: Machine | None = part.machine
        self._assigned = ledger.written  # a position in the journal, as the next one is
        self._barrier = ledger.written
        self._free = 0  # commands that need not wait for the disk
        self._sent = 0  # commands sent on this connection, or received before it
        self._confirmed = 0  # commands that the worker has answered
        self._confirmed_crc = 0
        self._quits = False  # whether the last command is quit
        self._frames: deque[bytes] = deque()  # of the commands after those
        self._crcs: deque[int] = deque()  # of all commands up to each
        self._claim: tuple[int, int, int] | None = None  # of a hello: commands, their CRC, replies
        self._welcomed = False  # on this connection
        self._preface = b""  # goes out before the next commands
        self._agreed = False  # likewise
        self._kept = 0  # replies that are on disk, so that the worker may drop them
        self._acked = 0  # replies up to which that is said, or will be
        self._unacked_bytes = 0
        self._ack_timer: Any = None
        self._hold: Any = None
        self._timers: dict[str, _Timer] = {}
        self._stopped_at: float | None = None  # when timers stopped, if they stand still

    # ------------------------------------------------ beginning

    def begin(self) -> None:
        """Enter the machine; the worker's hello is what the first state expects."""
        now = self._clock.seconds()
        self._set_timer(WORKER_TIMER, self.part.timeout_s, now)
        self._handle(Entered(now))
        self._handle(Answered(now, HELLO))

    def restore(
        self, records: Iterable[Happened | Resumed], began: float, stopped_at: float
    ) -> None:
        """Give the machine the events that the journal has, from the beginning on.

        Timers stand still until the worker has agreed; what is left of them is counted from
        `stopped_at`, when the last coordinator was last seen. Raises Diverged.
        """
        self._stopped_at = stopped_at
        self._set_timer(WORKER_TIMER, self.part.timeout_s, began)
        machine = self.part.machine
        begun, position = False, 0
        finish: Finish | None = None
        for one in records:
            if isinstance(one, Resumed):
                for timer in self._timers.values():
                    timer.due += one.at - one.stopped_at
                continue
            event, effects = step(machine, one, position)
            position += 1
            if isinstance(event, Answered | Informed):
                self.received += begun  # the first is the hello
                begun = True
                text = event.text if isinstance(event, Answered) else f"INFO:{event.key}"
                self.part.heard(text, event.at)
            elif isinstance(event, Elapsed):
                self._cancel(event.timer)
            finish = self._note(effects, event.at) or finish
        self._free = self.produced
        self._kept = self._acked = self.received
        if not position:
            self.begin()
        elif not begun and not machine.finished:
            self._handle(Answered(self._clock.seconds(), HELLO))
        if finish is not None:  # its record, which should have said so, is lost
            self._finish(finish, stopped_at)
        elif not self.over:
            hold_s = max(self._hold_s, RESTART_HOLD_S)
            self._await_return(
                f"its worker did not come back within {hold_s:g} s of the coordinator's restart",
                hold_s,
            )

    # ------------------------------------------------ connections

    def attach(self, line: Line, hello: Hello) -> None:
        """Go on over a connection that has just said hello."""
        if hello.received < self._confirmed:
            line.supersede("its hello is an old one")
            return
        before, self.line = self.line, line
        if before is not None and before is not line:
            before.supersede("its worker has connected anew")
        self._stop_hold()
        self._claim = hello.received, hello.crc, hello.sent
        self._welcomed = self._agreed = False
        self._preface = b""
        if self._ledger.synced >= self._assigned:
            self._welcome(line)
        else:
            self._ledger.on_disk(self._welcome, line)

    def detach(self, line: Line, reason: str) -> None:
        """A connection is lost; if it was the current one, wait for the worker to come back."""
        if line is not self.line:
            return
        self.line = None
        self._welcomed = self._agreed = False
        if not self.over:
            gone = f"its worker at {line.peer} is gone: {reason}"
            if self.name and self._hold_s:
                words = f"{gone}; it did not come back within {self._hold_s:g} s"
                self._await_return(words, self._hold_s)
            else:
                self.give_up(gone)

    def _await_return(self, reason: str, hold_s: float) -> None:
        self._stop_hold()
        self.away_since = self._clock.seconds()
        self._hold = self._clock.callLater(hold_s, self.give_up, reason)

    def _stop_hold(self) -> None:
        self.away_since = None
        _cancel(self._hold)

    def _welcome(self, line: Line) -> None:
        """The assignment is on disk."""
        if line is not self.line or self.over:
            return
        self._welcomed = True
        if self.name:
            welcome = Welcome(self.part.actor_number, self.part.number, self.received)
            self._preface = frame(welcome.payload())
            if self._kept:
                self._preface += frame(Ack(self._kept).payload())
        self._judge()
        if not self.over:
            self._flush()
        line.go_on()

    def _judge(self) -> None:
        """See whether the worker received what the machine sent, as soon as that can be said."""
        assert self._claim is not None
        received, crc, said = self._claim
        if received > self.produced:
            if self.received < said and not self.part.machine.finished:
                return  # it may make them yet
            agreed = False
        elif received == self._confirmed:
            agreed = crc == self._confirmed_crc
        else:
            agreed = crc == self._crcs[received - self._confirmed - 1]
        if not agreed:
            self.fence(
                f"its worker has received {received} commands that are not those which the machine"
                f" made ({self.produced}): it begins again",
                charged=False,
            )
            return
        self._agreed = True
        self._sent = received
        self._thaw()

    # ------------------------------------------------ what the worker says

    @property
    def full(self) -> bool:
        """Whether too much waits for the disk for any more to be heard."""
        return not self.over and (
            not self._welcomed or self.produced - self._free > MOST_HELD_COMMANDS
        )

    def receive(self, payload: bytes) -> None:
        """Handle a frame of the worker's. Raises BadMessage, which must end the connection."""
        match from_worker(payload, bool(self.name)):
            case Reply() as reply:
                self._reply(reply, len(payload))
            case Log(output=output):
                if not self.over:
                    self.part.output.write(output)
            case Ping(text=text):
                if self.line is not None:
                    self.line.write(frame(Pong(text).payload()))

    def _reply(self, reply: Reply, size: int) -> None:
        if self.over:
            return
        now = self._clock.seconds()
        self.received += 1
        self.part.heard(reply.text, now)
        if self._agreed:
            self._confirm(reply.command)
        try:
            info = parse_info(reply.text)
        except BadMessage as error:
            self._handle(Lost(now, str(error)))
            return
        if info:
            self._handle(Informed(now, *info, reply.command))
        else:
            self._handle(Answered(now, reply.text, reply.command))
        if self.name and not self.over:
            self._acknowledge(size)

    def _confirm(self, command: int) -> None:
        """The worker has that command, so its later hellos count it, too."""
        while self._confirmed < min(command, self._sent):
            self._frames.popleft()
            self._confirmed_crc = self._crcs.popleft()
            self._confirmed += 1

    def _acknowledge(self, size: int) -> None:
        """Let the worker drop what it said, now and then, once it is on disk."""
        self._unacked_bytes += size
        if self.received - self._acked >= ACK_REPLIES or self._unacked_bytes >= ACK_BYTES:
            self._ask_for_ack()
        elif self._ack_timer is None:
            self._ack_timer = self._clock.callLater(ACK_S, self._ask_for_ack)

    def _ask_for_ack(self) -> None:
        _cancel(self._ack_timer)
        self._ack_timer = None
        if self.received > self._acked:
            self._acked, self._unacked_bytes = self.received, 0
            self._ledger.on_disk(self._ack, self.received)

    def _ack(self, replies: int) -> None:
        self._kept = replies
        if self.line is not None and self._welcomed and not self.over:
            self.line.write(frame(Ack(replies).payload()))

    # ------------------------------------------------ the machine

    def give_up(self, reason: str) -> None:
        """Fail the attempt, for a reason that is a sentence; if the worker is there, it quits."""
        self._handle(Lost(self._clock.seconds(), reason))

    def fence(self, reason: str, charged: bool = True) -> None:
        """End the attempt without asking its machine; nothing of it counts any more."""
        if not self.over:
            self._finish(Finish(reason), self._clock.seconds(), charged)

    def _handle(self, event: Event) -> None:
        machine = self._machine
        if self.over or machine is None:
            return
        part = self.part
        try:
            effects = machine.receive(event)
            if self._ledger.keeps:
                line = write_event(part.actor_number, part.number, event, effects)
                self._ledger.write(part.job_id, line)
            is_reply = isinstance(event, Answered | Informed) and self.received
            if not is_reply:
                self._barrier = self._ledger.written
            if effects:
                self._perform(effects, event)
            elif self._welcomed and not self._agreed:
                self._judge()
                self._flush()
        except Exception as error:  # a fault of ours must not leave the actor without an end
            self.log.failure("actor {actor}: {event}", actor=part.actor_number, event=event)
            self.fence(f"a fault in mu: {type(error).__name__}: {error}")

    def _perform(self, effects: list[Effect], event: Event) -> None:
        """Do what the machine ordered, with one write for all that it sends."""
        finish = self._note(effects, event.at)
        if self._barrier <= self._ledger.synced:
            self._free = self.produced
        elif self._free < self.produced:
            self._ledger.on_disk(self._unblock, self.produced)
        if self._agreed:
            self._flush()
        elif self._welcomed and not isinstance(event, Lost):
            self._judge()  # nothing finishes before agreement
            self._flush()
        if finish is not None and not self.over:
            self._finish(finish, event.at)

    def _note(self, effects: list[Effect], at: float) -> Finish | None:
        """Number the commands, keep the timers; return the end, if this is it."""
        for effect in effects:
            match effect:
                case Send(command=command):
                    if command.startswith(QUIT):
                        self._barrier = self._ledger.written
                    self._keep(command)
                case SetTimer(timer=timer, seconds=seconds):
                    self._set_timer(timer, seconds, at)
                case CancelTimer(timer=timer):
                    self._cancel(timer)
                case Finish():
                    return effect
        return None

    def _keep(self, command: str) -> None:
        data = frame(encode(command))
        self.produced += 1
        self._quits = command.startswith(QUIT)
        self._frames.append(data)
        self._crcs.append(zlib.crc32(data, self._crcs[-1] if self._crcs else self._confirmed_crc))

    def _unblock(self, produced: int) -> None:
        self._free = max(self._free, produced)
        self._flush()
        if self.line is not None:
            self.line.go_on()

    def _flush(self) -> None:
        """Send what has not been sent on this connection, as far as the disk allows."""
        if self.line is None:
            return
        data, self._preface = self._preface, b""
        if self._agreed and self._sent < self._free:
            start = self._sent - self._confirmed
            data += b"".join(islice(self._frames, start, self._free - self._confirmed))
            self._sent = self._free
        if data:
            self.line.write(data)
        if not self.name:  # it confirms nothing, and cannot come back
            self._confirm(self._sent)

    def _finish(self, finish: Finish, at: float, charged: bool = True) -> None:
        self.over = True
        self._stop_hold()
        _cancel(self._ack_timer)
        self._ack_timer = None
        for timer in list(self._timers):
            self._cancel(timer)
        crash = self._machine.crash if self._machine else None
        self._machine = None
        if crash is not None:
            self.log.error(
                "actor {actor} failed: {trace}",
                actor=self.part.actor_number,
                trace="".join(traceback.format_exception(crash)),
            )
        self.part.ended(finish, at, charged)
        self._ledger.on_disk(self._leave)

    def _leave(self) -> None:
        """The end is on disk: tell the worker."""
        line = self.line
        if line is None:
            return
        if self._agreed:
            self._free = self.produced
            self._flush()
        if not (self._agreed and self._quits):
            line.write(frame(encode(QUIT)))
        line.goodbye()
        line.go_on()

    # ------------------------------------------------ timers

    def _set_timer(self, timer: str, seconds: float, at: float) -> None:
        self._cancel(timer)
        self._timers[timer] = _Timer(at + seconds)
        if self._stopped_at is None:
            self._timers[timer].call = self._clock.callLater(seconds, self._elapse, timer)

    def _thaw(self) -> None:
        """Let timers go on with what was left of them."""
        if self._stopped_at is None:
            return
        stopped_at, self._stopped_at = self._stopped_at, None
        for name, timer in self._timers.items():
            left = max(0.0, timer.due - stopped_at)
            timer.call = self._clock.callLater(left, self._elapse, name)

    def _elapse(self, timer: str) -> None:
        self._timers.pop(timer, None)
        if timer == WORKER_TIMER:
            self.give_up(f"its worker took longer than {self.part.timeout_s:g} s")
        else:
            self._handle(Elapsed(self._clock.seconds(), timer))

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            _cancel(timer.call)


def _cancel(call: Any) -> None:
    """Cancel a delayed call, if it is one that is still to come."""
    if call is not None and call.active():
        call.cancel()
