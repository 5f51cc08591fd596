"""One worker's conversation about one attempt at an actor, over any number of connections.

It performs no I/O: each method takes an input (a frame, a connection, a timer, records on disk) and
the time, and returns effects. The driver performs all effects of one call, in order, before the
next call. A received frame becomes an event for the machine, the machine's effects become the
session's, and every event goes to the journal.

The rules are the "Extensions" of the protocol. In short:

- Commands are numbered, and kept until the worker confirms them with a reply.
- The effects of a reply are sent at once. Those of any other event (a timer, the start, a loss)
  wait until that event is on disk, and so does everything this machine sends after it. The welcome
  waits until the assignment is on disk, and quit waits until everything is.
- An attempt ends when its events exceed their limit in the journal; that event has no effects.
- After a welcome, the worker's count and CRC of the commands it has received must agree with the
  machine's. After a restart the machine may have to receive some replies again first.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Generic, Protocol, TypeVar

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
from mu.journal.allowance import Allowance, size_of
from mu.journal.records import (
    Disconnected,
    Happened,
    Reconnected,
    Resumed,
    write_event,
    write_record,
)
from mu.journal.replay import step
from mu.machine import Machine
from mu.messages import (
    HELLO,
    STARTED,
    Ack,
    BadMessage,
    Hello,
    Log,
    Ping,
    Pong,
    Reply,
    Use,
    Welcome,
    encode,
    from_worker,
    parse_info,
)
from mu.outbox import CommandOutbox
from mu.session_effects import (
    Append,
    AwaitDisk,
    Crashed,
    DiskStep,
    End,
    Fault,
    Goodbye,
    ReadOn,
    SessionEffect,
    Supersede,
    Write,
)
from mu.wire import frame

QUIT = "quit:"
ACK_REPLIES, ACK_BYTES, ACK_S = 64, 2**20, 5.0
"""After how many replies, bytes or seconds a worker is told which of its replies are on disk."""
LOG_LAG_S = 5.0
"""What was printed so shortly before a daemon was killed may not be in the logs."""
RESTART_HOLD_S = 5.0
"""The shortest hold after a restart: a worker may be in its longest pause before reconnecting."""
MOST_HELD_COMMANDS = 64
"""If more commands than this wait for the disk, the worker's replies wait as well."""

WORKER_TIMER = "(worker)"  # names that no timer of a machine has
HOLD_TIMER = "(hold)"
ACK_TIMER = "(ack)"


class ReplyKind(Enum):
    """How a reply came."""

    NUMBERED = "numbered"
    """Its worker says which command it is of, and prints output before."""
    PLAIN = "plain"
    """It is of a worker of the original mu, which does neither."""
    REPLAYED = "replayed"
    """It is such a one from the journal: what it printed may be known already."""


class Part(Protocol):
    """The attempt at an actor that a session drives (mu.jobs.actors.Attempt)."""

    number: int
    machine: Machine

    @property
    def answered(self) -> Callable[[str, str, float], None]: ...
    @property
    def job_id(self) -> str: ...
    @property
    def pipeline_name(self) -> str: ...
    @property
    def actor_number(self) -> int: ...
    @property
    def timeout_s(self) -> float: ...
    def heard(self, text: str, at: float) -> None: ...
    def used(self, use: Use) -> None: ...
    def touched(self) -> None: ...
    def printed(self, command: int, output: bytes, at: float) -> None: ...
    def replied(self, command: int, text: str, at: float, kind: ReplyKind) -> None: ...
    def reconnected(self, received: int, at: float) -> None: ...
    def ended(self, finish: Finish, at: float, charged: bool) -> None: ...


class Disk(Protocol):
    """The journal's progress. A session only reads it (mu.journal.ledger.Ledger)."""

    keeps: bool
    """Whether there is a journal at all."""
    written: int
    """How many records were written; a record's position is this count just after its writing."""
    synced: int
    """How many of them are on disk."""


L = TypeVar("L")
"""A connection. A session only compares connections."""


class Session(Generic[L]):
    """Drives one attempt's machine with the frames of one worker.

    `name` is the worker's session id; an original worker has none, and cannot reconnect.
    """

    __slots__ = (
        *("away_since", "line", "name", "over", "part", "received"),
        *("_ack_timer", "_acked", "_actor", "_agreed", "_allowance", "_appended", "_asked"),
        "_assigned",
        *(
            "_attempt",
            "_claim",
            "_connections",
            "_disk",
            "_effects",
            "_hold_reason",
            "_hold_s",
            "_kept",
        ),
        *("_machine", "_outbox", "_preface", "_quits", "_stopped", "_stopped_at"),
        *("_unacked_bytes", "_welcomed"),
    )

    def __init__(
        self, part: Part, name: str, disk: Disk, hold_s: float, allowance: Allowance
    ) -> None:
        self.part = part
        self.name = name
        self.line: L | None = None
        """The current connection."""
        self.received = 0
        """How many replies were received."""
        self.over = False
        self.away_since: float | None = None
        """When the worker's connection was lost; None while it has one."""
        self._disk = disk
        self._hold_s = hold_s
        self._allowance = allowance
        self._machine: Machine | None = part.machine
        self._actor, self._attempt = part.actor_number, part.number
        self._assigned = disk.written  # the position of the assignment
        self._outbox = CommandOutbox(barrier=disk.written)
        self._quits = False  # whether the last command is quit
        self._connections = 0  # so far; the number of the current one
        self._claim = (0, 0, 0)  # the hello's counts: commands received, their CRC, replies sent
        self._welcomed = False  # on the current connection
        self._agreed = False  # on the current connection
        self._preface = b""  # sent before the next commands
        self._kept = 0  # replies that are on disk, so the worker may drop them
        self._acked = 0  # replies whose ack was sent, or waits for the disk
        self._unacked_bytes = 0
        self._ack_timer = False
        self._hold_reason = ""
        self._stopped: dict[str, float] | None = None  # while timers are stopped: when each is due
        self._stopped_at = 0.0
        self._asked: dict[int, tuple[str, float]] = {}  # commands without their last reply: when
        self._effects: list[SessionEffect] = []
        self._appended = 0  # Append effects among those

    # ------------------------------------------------ beginning

    def begin(self, now: float) -> list[SessionEffect]:
        """Enter the machine, and give it the worker's hello as the first reply."""
        self._begin(now)
        return self._take()

    def _begin(self, now: float) -> None:
        self._set_timer(WORKER_TIMER, self.part.timeout_s, now)
        self._handle(Entered(now, numbered=bool(self.name)))
        self._handle(Answered(now, HELLO))

    def restore(
        self, records: Iterable[Happened | Resumed], began: float, stopped_at: float, now: float
    ) -> list[SessionEffect]:
        """Replay all events in the journal.

        Timers stay stopped until the worker has agreed. They then continue with the time left at
        `stopped_at`, when the previous coordinator is last known to have run.
        Raises Diverged, and ValueError for a broken record.
        """
        self._stopped, self._stopped_at = {}, stopped_at
        self._set_timer(WORKER_TIMER, self.part.timeout_s, began)
        machine = self.part.machine
        position = replies = confirmed = size = 0
        sent: list[tuple[str, float]] = []
        heard: tuple[str, float] | None = None
        finish: Finish | None = None
        for one in records:
            if isinstance(one, Resumed):
                downtime = one.at - one.stopped_at
                self._stopped = {name: due + downtime for name, due in self._stopped.items()}
                continue
            run = self._first_run()
            event, effects = step(machine, one, position)
            position += 1
            size += size_of(event)
            at = event.at
            if isinstance(event, Answered):
                replies += 1
                heard = event.text, at
                confirmed = max(confirmed, event.command)
                if at >= stopped_at - LOG_LAG_S:
                    command = event.command or run
                    kind = ReplyKind.NUMBERED if event.command else ReplyKind.REPLAYED
                    self.part.replied(command, event.text, at, kind)
            elif isinstance(event, Informed):
                replies += 1
                heard = f"INFO:{event.key}", at
            elif isinstance(event, Elapsed):
                self._stopped.pop(event.timer, None)
            for effect in effects:
                if isinstance(effect, Send):
                    sent.append((effect.command, at))
                elif isinstance(effect, Finish):
                    finish = effect
                else:
                    self._note([effect], at)
        if heard is not None:
            self.part.heard(*heard)
        self._allowance.left -= size
        self.received = max(0, replies - 1)  # the first is the hello
        self._outbox.restore([command for command, _ in sent], confirmed)
        if sent:
            self._quits = sent[-1][0].startswith(QUIT)
        if self.name:
            self._asked = {number: sent[number - 1] for number in machine.worker.outstanding}
        self._kept = self._acked = self.received
        if not position:
            self._begin(now)
        elif not replies and finish is None:
            self._handle(Answered(now, HELLO))
        if finish is not None:  # the record of the attempt's end was lost in the crash
            self._finish(finish, stopped_at)
        elif not self.over:
            hold_s = max(self._hold_s, RESTART_HOLD_S)
            self._hold(
                f"its worker did not come back within {hold_s:g} s of the coordinator's restart",
                hold_s,
                now,
            )
        return self._take()

    # ------------------------------------------------ connections

    def attach(self, line: L, hello: Hello, now: float) -> list[SessionEffect]:
        """Continue over a connection that has just said hello."""
        if hello.received < self._outbox.confirmed:
            return [Supersede(line, "its hello is out of date")]
        before, self.line = self.line, line
        if before is not None and before is not line:
            self._effects.append(Supersede(before, "its worker has a newer connection"))
        if self._connections or self.away_since is not None:
            self._record(Reconnected(now, self._actor, self._attempt))
        if not self.over and (before is not None or self.away_since is not None):
            self.part.reconnected(hello.received, now)
        self._stop_hold()
        self._claim = hello.received, hello.crc, hello.sent
        self._welcomed = self._agreed = False
        self._preface = b""
        self._connections += 1
        if self._disk.synced >= self._assigned:
            self._welcome(self._connections, now)
        else:
            self._effects.append(AwaitDisk("welcome", self._connections))
        return self._take()

    def detach(self, line: L, reason: str, now: float) -> list[SessionEffect]:
        """Handle a lost connection; if it was the current one, wait for the worker to reconnect."""
        if line is not self.line:
            return []
        self.line = None
        self._welcomed = self._agreed = False
        if not self.over:
            if self.name and self._hold_s:
                words = f"{reason}; it did not come back within {self._hold_s:g} s"
                self._hold(words, self._hold_s, now)
                # This comes last: if there is no room for it, the attempt ends, and nothing is held.
                self._record(Disconnected(now, self._actor, self._attempt, reason))
            else:
                self._handle(Lost(now, reason))
        return self._take()

    def _hold(self, reason: str, hold_s: float, now: float) -> None:
        """Wait for the worker; give it up for this reason if it does not reconnect in time."""
        self.away_since = now
        self._hold_reason = reason
        self._effects.append(SetTimer(HOLD_TIMER, hold_s))

    def _stop_hold(self) -> None:
        if self.away_since is not None:
            self.away_since = None
            self._effects.append(CancelTimer(HOLD_TIMER))

    def _welcome(self, connection: int, now: float) -> None:
        """Welcome the worker if its connection is still current; the assignment is on disk."""
        if connection != self._connections or self.line is None or self.over:
            return
        self._welcomed = True
        if self.name:
            welcome = Welcome(self._actor, self._attempt, self.received)
            self._preface = frame(welcome.payload())
            if self._kept:
                self._preface += frame(Ack(self._kept).payload())
        self._judge(now)
        if not self.over:
            self._flush()
        self._effects.append(ReadOn())

    def _judge(self, now: float) -> None:
        """As soon as possible, compare what the worker received with what the machine sent."""
        received, crc, said = self._claim
        outbox = self._outbox
        if received > outbox.produced:
            if self.received < said and not self.part.machine.finished:
                return  # the machine may still produce them
            agreed = False
        else:
            agreed = crc == outbox.crc(received)
        if not agreed:
            self._fence(
                f"its worker received {received} commands that do not match the"
                f" {outbox.produced} that the machine sent",
                now,
                charged=False,
            )
            return
        self._agreed = True
        outbox.sent = received
        self._restart_timers()

    # ------------------------------------------------ frames

    @property
    def full(self) -> bool:
        """Whether frames must wait: for the welcome, or because too much waits for the disk."""
        outbox = self._outbox
        waiting = outbox.produced - outbox.free
        return not self.over and (not self._welcomed or waiting > MOST_HELD_COMMANDS)

    def receive(self, payload: bytes, now: float) -> list[SessionEffect]:
        """Handle a frame from the worker. Raises BadMessage; the caller must end the connection."""
        said = from_worker(payload, bool(self.name))
        if isinstance(said, Reply):
            if not self.over:
                self._reply(said, len(payload), now)
        elif isinstance(said, Log):
            if not self.over:
                self.part.printed(said.command, said.output, now)
        elif isinstance(said, Use):
            self.part.used(said)
        elif isinstance(said, Ping):
            self._write(frame(Pong(said.text).payload()))
        return self._take()

    def _first_run(self) -> int:
        """Return the run that a worker of the original mu replies to; 0: there is none."""
        if self.name or self._machine is None:
            return 0
        commands = self._machine.worker.outstanding
        return next((number for number, one in commands.items() if one.startswith("run:")), 0)

    def _reply(self, reply: Reply, size: int, now: float) -> None:
        text = reply.text
        self.received += 1
        self.part.heard(text, now)
        kind = ReplyKind.NUMBERED if reply.command else ReplyKind.PLAIN
        self.part.replied(reply.command or self._first_run(), text, now, kind)
        if self._agreed:
            self._outbox.confirm(reply.command)
        try:
            info = parse_info(text)
        except BadMessage as error:
            self._handle(Lost(now, str(error)))
            return
        if info:
            self._handle(Informed(now, *info, reply.command), is_reply=True)
        else:
            asked = self._asked.get(reply.command)
            if asked is not None and not text.startswith(STARTED):
                del self._asked[reply.command]
                self.part.answered(asked[0], text, now - asked[1])
            self._handle(Answered(now, text, reply.command), is_reply=True)
        if self.name and not self.over:
            self._acknowledge(size)

    def _acknowledge(self, size: int) -> None:
        """Tell the worker, from time to time, to drop replies that are on disk."""
        self._unacked_bytes += size
        if self.received - self._acked >= ACK_REPLIES or self._unacked_bytes >= ACK_BYTES:
            self._ask_for_ack()
        elif not self._ack_timer:
            self._ack_timer = True
            self._effects.append(SetTimer(ACK_TIMER, ACK_S))

    def _ask_for_ack(self, soon: bool = True) -> None:
        if self._ack_timer:
            self._ack_timer = False
            self._effects.append(CancelTimer(ACK_TIMER))
        self._acked, self._unacked_bytes = self.received, 0
        self._effects.append(AwaitDisk("ack", self.received, soon))

    def _ack(self, replies: int) -> None:
        self._kept = replies
        if self._welcomed and not self.over:
            self._write(frame(Ack(replies).payload()))

    # ------------------------------------------------ the disk, and time

    def on_disk(self, step: DiskStep, value: int, now: float) -> list[SessionEffect]:
        """Continue after an AwaitDisk: what it waited for is on disk."""
        if step == "welcome":
            self._welcome(value, now)
        elif step == "send":
            self._outbox.free_first(value)
            self._flush()
            self._effects.append(ReadOn())
        elif step == "ack":
            self._ack(value)
        else:
            self._leave()
        return self._take()

    def elapsed(self, timer: str, now: float) -> list[SessionEffect]:
        """Handle a timer that has expired."""
        if timer == WORKER_TIMER:
            self._handle(Lost(now, f"its worker took longer than {self.part.timeout_s:g} s"))
        elif timer == HOLD_TIMER:
            self._handle(Lost(now, self._hold_reason))
        elif timer == ACK_TIMER:
            self._ack_timer = False
            self._ask_for_ack(soon=False)
        else:
            self._handle(Elapsed(now, timer))
        return self._take()

    def _set_timer(self, timer: str, seconds: float, at: float) -> None:
        if self._stopped is None:
            self._effects.append(SetTimer(timer, seconds))
        else:  # a timer set after the restart has all its time left
            self._stopped[timer] = min(at, self._stopped_at) + seconds

    def _cancel_timer(self, timer: str) -> None:
        if self._stopped is None:
            self._effects.append(CancelTimer(timer))
        else:
            self._stopped.pop(timer, None)

    def _restart_timers(self) -> None:
        """Restart the stopped timers with the time that each had left."""
        stopped, self._stopped = self._stopped or {}, None
        for name, due in stopped.items():
            self._effects.append(SetTimer(name, max(0.0, due - self._stopped_at)))

    # ------------------------------------------------ the machine

    def give_up(self, reason: str, now: float) -> list[SessionEffect]:
        """Fail the attempt; `reason` is a sentence. A connected worker is told to quit."""
        self._handle(Lost(now, reason))
        return self._take()

    def fence(
        self, reason: str, now: float, charged: bool = True, final: bool = False
    ) -> list[SessionEffect]:
        """End the attempt without asking its machine; nothing from it counts after this."""
        self._fence(reason, now, charged, final)
        return self._take()

    def _fence(self, reason: str, now: float, charged: bool = True, final: bool = False) -> None:
        if not self.over:
            self._finish(Finish(reason, final=final), now, charged)

    def _handle(self, event: Event, is_reply: bool = False) -> None:
        """Give the machine an event. `is_reply`: its effects need not wait for the disk."""
        machine = self._machine
        if machine is None:
            return
        try:
            states = machine.worker.stateinfo
            before = len(states)
            effects = machine.receive(event)
            if self._disk.keeps:
                line = write_event(self._actor, self._attempt, event, effects, states[before:])
                if not self._append(line, event.at):
                    return
            if not is_reply:
                self._outbox.barrier = self._position
            if effects:
                self._perform(effects, event)
            elif self._welcomed and not self._agreed:
                self._judge(event.at)
                self._flush()
        except Exception as error:  # a fault in mu must not leave the actor without an end
            self._effects.append(Fault(error, event))
            self._fence(f"a fault in mu: {type(error).__name__}: {error}", event.at)

    def _record(self, record: Disconnected | Reconnected) -> None:
        """Record what happens to the connection, for users: no machine depends on it."""
        if self._disk.keeps and not self.over:
            self._append(write_record(record), record.at)

    def _append(self, line: str, at: float) -> bool:
        """Append a record; return False if that exceeds a limit, which ends the attempt."""
        if not self._allowance.take(len(line)):
            self._fence(self._allowance.excess, at)
            return False
        self._effects.append(Append(line))
        self._appended += 1
        return True

    @property
    def _position(self) -> int:
        """The journal's position after everything that this session has appended."""
        return self._disk.written + self._appended

    def _perform(self, effects: list[Effect], event: Event) -> None:
        """Turn the machine's effects into the session's, with one write for everything it sends."""
        finish = self._note(effects, event.at)
        outbox = self._outbox
        if outbox.release(self._disk.synced):
            self._effects.append(AwaitDisk("send", outbox.produced))
        if self._agreed:
            self._flush()
        elif self._welcomed and not isinstance(event, Lost):
            self._judge(event.at)  # nothing finishes before agreement
            self._flush()
        if finish is not None and not self.over:
            self._finish(finish, event.at)

    def _note(self, effects: list[Effect], at: float) -> Finish | None:
        """Number the commands, pass on the timers; return the Finish, if there is one."""
        for effect in effects:
            match effect:
                case Send(command=command):
                    self._quits = command.startswith(QUIT)
                    if self._quits:
                        self._outbox.barrier = self._position
                    self._outbox.add(command)
                    if self.name:  # others do not say which command they answer
                        self._asked[self._outbox.produced] = command, at
                case SetTimer(timer=timer, seconds=seconds):
                    self._set_timer(timer, seconds, at)
                case CancelTimer(timer=timer):
                    self._cancel_timer(timer)
                case _:
                    return effect
        return None

    def _flush(self) -> None:
        """Send the free commands that have not been sent on this connection."""
        if self.line is None:
            return
        data, self._preface = self._preface, b""
        if self._agreed:
            data += self._outbox.take()
        if data:
            self._effects.append(Write(data))
        if not self.name:  # an original worker confirms nothing and cannot reconnect
            self._outbox.confirm(self._outbox.sent)

    def _write(self, data: bytes) -> None:
        if self.line is not None:
            self._effects.append(Write(data))

    def _finish(self, finish: Finish, at: float, charged: bool = True) -> None:
        self.over = True
        self.away_since = None
        self._machine = None
        self._asked.clear()
        crash = self.part.machine.crash
        if crash is not None:
            self._effects.append(Crashed(crash))
        self._effects += [End(finish, at, charged), AwaitDisk("leave")]

    def _leave(self) -> None:
        """Tell the worker to quit, now that the end is on disk."""
        if self.line is None:
            return
        if self._agreed:
            self._outbox.free_first(self._outbox.produced)
            self._flush()
        if not (self._agreed and self._quits):
            self._write(frame(encode(QUIT)))
        self._effects += [Goodbye(), ReadOn()]

    def _take(self) -> list[SessionEffect]:
        effects, self._effects, self._appended = self._effects, [], 0
        return effects
