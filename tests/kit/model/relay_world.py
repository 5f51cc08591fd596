"""A world for the switchboard: workers, connections, a disk; random steps, and what must hold.

Frames are labels: (sender, number). A worker of one attempt makes the same frames as another. What
is checked is what relay_model.py checks exhaustively for one small world, here for larger ones:
R1 an attempt receives each frame once, and those of one sender in order; R2 the relay holds frame i
as frame i; R3 once faults stop, everything arrives; R4 an attempt that was replaced receives
nothing once the newer one was let in. For original peers: in order, and at most once.
"""

# The switchboard knows its peers as values that can be compared; here they are connections.
# mypy: disable-error-code="attr-defined"

import random
from collections import defaultdict, deque

from kit.relay import Jobs
from mu.relay.effects import (
    Close,
    Deliver,
    Drop,
    Forget,
    Give,
    Hold,
    Link,
    ReportLoss,
    Resume,
    Store,
    Tell,
    Unlink,
    Unload,
)
from mu.relay.limits import RelayLimits
from mu.relay.parties import Name
from mu.relay.switchboard import Switchboard

SIZES = (0, 1, 1000, 60_000, 70_000, 300_000, 5_000_000)


class Conn:
    """A connection: what is on its way, and the relay's side of it."""

    def __init__(self, worker):
        self.worker = worker
        self.up, self.down = deque(), deque()
        self.broken = False  # nothing passes any more
        self.relay_open = self.worker_open = True
        self.known = False  # the relay read its hello
        self.heard = False  # the worker got its AT
        # the relay's protocol
        self.link = None
        self.doubt = False
        self.blocked = False
        self.whole = None
        self.box = deque()  # (frame, sender's Conn or None)

    def __repr__(self):
        return f"{self.worker}"


class Worker:
    """One attempt of a name."""

    def __init__(self, number, partner, attempt, extended, frames):
        self.number, self.partner, self.attempt = number, partner, attempt
        self.extended = extended
        self.frames = frames
        self.made = 0
        self.acked = 0
        self.received = []
        self.alive = True
        self.conn = None
        self.let_in = False

    @property
    def connected(self):
        return self.conn is not None and self.conn.worker_open

    def __repr__(self):
        return f"{self.number}.{self.attempt}"


class RelayWorld:
    """`plan`: number -> (partner, extended, frames it makes)."""

    def __init__(self, seed, plan, keep_s=float("inf"), memory=2**20, mailbox=2**30):
        self.random = random.Random(seed)
        self.plan = plan
        self.limits = RelayLimits(keep_s=1e9, memory=memory, mailbox=mailbox, total=2**33)
        self.jobs = Jobs(keep_s)
        self.names = {}
        self.rows = {}  # what is on disk: (name, number) -> (size, label, sender, its number)
        self.pending = []
        self.sizes = {}
        self.workers = {}
        self.conns = []
        self.top_in = defaultdict(int)
        self.given = defaultdict(list)  # to original peers: name -> labels, over all connections
        self.lost = set()  # labels that original peers may have lost
        self.trace = []
        self.most_memory = 0
        self.woken = {}
        self.waking = False
        for number, (partner, extended, frames) in plan.items():
            self.workers[number] = [Worker(number, partner, 1, extended, frames)]
        self.start_relay()

    # ------------------------------------------------ the relay

    def start_relay(self):
        self.board = Switchboard(self.limits, self.jobs)
        for name, counts in self.names.items():
            self.board.mailboxes.restore_name(name, *counts)
        for (name, number), (size, label, *_) in sorted(self.rows.items()):
            if number <= self.names[name][2]:
                del self.rows[name, number]
            else:
                self.board.mailboxes.restore_frame(name, number, size, 0.0).place = label
        self.pending.clear()

    def perform(self, effects):
        queue = getattr(self, "_queue", None)
        if queue is not None:
            queue.extend(effects)
            return
        self._queue = deque(effects)
        while self._queue:
            self.do(self._queue.popleft())
        self._queue = None
        while self.woken and not self.waking:
            self.waking = True
            self.go_on(self.woken.popitem()[0])
            self.waking = False
        self.most_memory = max(self.most_memory, self.board.mailboxes.memory)

    def do(self, effect):
        match effect:
            case Deliver(receiver=conn, frame=frame, prefixed=prefixed):
                assert prefixed == conn.worker.extended
                assert not prefixed or frame.stored
                if conn.relay_open:
                    conn.box.append((frame, None))
            case Tell(peer=conn, count=count):
                assert count <= self.names.get(self.name(conn.worker), (0,))[0]
                if not conn.worker.let_in:
                    conn.worker.let_in = True
                    top = self.top_in[conn.worker.number]
                    assert conn.worker.attempt >= top, "R4"
                    self.top_in[conn.worker.number] = conn.worker.attempt
                conn.down.append(("AT", count))
            case Close(peer=conn):
                self.relay_closes(conn)
            case Resume(sender=conn):
                self.woken[conn] = None
            case Link(sender=conn, receiver=other):
                conn.link, conn.doubt = other, False
                self.woken[conn] = None
            case Unlink(sender=conn):
                conn.link, conn.doubt = None, False
                self.woken[conn] = None
            case Hold(sender=conn):
                conn.doubt = True
            case Store() | Give() | Forget():
                self.pending.append(effect)
            case Drop(frame=frame):
                if frame.stored or frame.storing:
                    self.pending.append(effect)
            case Unload(frame=frame):
                assert frame.stored
                frame.body = None
            case ReportLoss():
                raise AssertionError(effect)

    def sync(self, some=None):
        """Commit the first `some` pending changes (None: all), as one transaction."""
        group, self.pending = self.pending[:some], self.pending[some:]
        stored = []
        for one in group:
            match one:
                case Store(frame=frame):
                    stored.append(frame)
                    counts = self.names.setdefault(frame.name, [0, 0, 0])
                    counts[1] = max(counts[1], frame.number)
                    sender = frame.sender and frame.sender.name
                    self.rows[frame.name, frame.number] = (
                        *(frame.size, frame.body),
                        *(sender, frame.sender_number),
                    )
                    frame.place = frame.body
                    if sender:
                        counts = self.names.setdefault(sender, [0, 0, 0])
                        counts[0] = frame.sender_number
                        # R2
                        assert frame.body == (int(sender.number), frame.sender_number), frame.body
                case Give(name=name, number=number):
                    self.names.setdefault(name, [0, 0, 0])[2] = number
                case Drop(frame=frame):
                    self.rows.pop((frame.name, frame.number), None)
        if stored:
            self.perform(self.board.stored(stored))
        for one in group:
            if isinstance(one, Give):
                self.perform(self.board.gave(one.name))

    def relay_closes(self, conn):
        if conn.relay_open:
            conn.relay_open, conn.broken = False, True
            conn.up.clear()
            left = [frame for frame, sender in conn.box if sender is not None]
            conn.box.clear()
            if conn.known:
                conn.known = False
                self.perform(self.board.gone(conn, left))

    def name(self, worker):
        return Name("j", "u", str(worker.number))

    def read(self, conn):
        """The relay takes what comes next on a connection."""
        said = conn.up[0]
        worker = conn.worker
        if said == "hello":
            conn.up.popleft()
            conn.known = True
            self.perform(self.board.hello(conn, self.name(worker), str(worker.partner)))
            return
        if said == "plain":
            conn.up.popleft()
            self.perform(self.board.plain(conn))
            return
        if said[0] == "AT":
            conn.up.popleft()
            self.perform(self.board.extended(conn, *said[1:]))
            return
        self.go_on(conn)

    def go_on(self, conn):
        """Do with a connection's next frame what can be done."""
        conn.blocked = False
        while conn.relay_open and conn.known and not conn.blocked:
            if conn.whole is None:
                if not conn.up or not isinstance(conn.up[0][0], int):
                    return
                label = conn.up[0]
                if conn.doubt:
                    conn.blocked = True
                    return
                frame = self.board.announce(conn, self.size(label), 0.0)
                if frame is None:
                    conn.blocked = True
                    return
                frame.body = label
                conn.up.popleft()
                conn.whole = frame
                if self.random.random() < 0.3:
                    conn.blocked = True  # the rest comes later; see step
                    return
            if conn.doubt:
                conn.blocked = True
                return
            frame, conn.whole = conn.whole, None
            if conn.link is None:
                self.perform(self.board.arrived(conn, frame))
            else:
                self.board.linked(conn, frame)
                conn.link.box.append((frame, conn))

    def size(self, label):
        return self.sizes.setdefault(label, self.random.choice(SIZES))

    def drain(self, conn):
        """A receiver is given one frame whole."""
        frame, sender = conn.box.popleft()
        label = frame.body or frame.place
        assert label is not None
        if conn.worker.extended:
            assert conn.worker.attempt >= self.top_in[conn.worker.number], "R4"
        else:
            assert label not in self.given[conn.worker.number], f"{label} twice"
            self.given[conn.worker.number].append(label)
        if conn.broken:
            self.lost.add(label)
        else:
            conn.down.append(label)
        if sender is None:
            self.perform(self.board.delivered(conn, frame))
        else:
            self.perform(self.board.passed(frame))

    # ------------------------------------------------ workers

    def worker_reads(self, conn):
        said = conn.down.popleft()
        worker = conn.worker
        if said[0] == "AT":
            worker.acked = max(worker.acked, said[1])
            if not conn.heard:
                conn.heard = True
                conn.up += [
                    (worker.number, n) for n in range(min(conn.sent, said[1]) + 1, worker.made + 1)
                ]
            return
        assert said not in worker.received, f"R1 {worker} receives {said} twice"
        before = [label for label in worker.received if label[0] == said[0]]
        if worker.extended:
            assert conn.heard, "quiet"
            if self.plan[said[0]][1]:
                assert said[1] == len(before) + 1, f"R1 {worker} has {before}, receives {said}"
        if not worker.extended or not self.plan[said[0]][1]:
            assert not before or said[1] > before[-1][1], f"order {before} {said}"
        worker.received.append(said)

    def make(self, worker):
        worker.made += 1
        conn = worker.conn
        if conn and conn.worker_open and (conn.heard or not worker.extended):
            if conn.broken or not conn.relay_open:
                self.lost.add((worker.number, worker.made))
            else:
                conn.up.append((worker.number, worker.made))
        elif not worker.extended:
            self.lost.add((worker.number, worker.made))

    def connect(self, worker):
        conn = worker.conn = Conn(worker)
        self.conns.append(conn)
        conn.sent = worker.made
        if worker.extended:
            conn.up += ["hello", ("AT", worker.attempt, worker.made, len(worker.received))]
        else:
            conn.up += ["hello", "plain"]

    # ------------------------------------------------ chance

    def steps(self, faults):
        """Return what can happen now: (weight, call)."""
        can = []
        if self.pending:
            can.append((4, lambda: self.sync(self.random.randint(1, len(self.pending)))))
        for conn in self.conns:
            if conn.relay_open and conn.up and not conn.blocked and not conn.whole:
                can.append((4, lambda c=conn: self.read(c)))
            if conn.relay_open and conn.known and (conn.whole is not None):
                can.append((4, lambda c=conn: self.go_on(c)))
            if conn.relay_open and conn.box:
                can.append((4, lambda c=conn: self.drain(c)))
            if conn.relay_open and (conn.broken or not conn.worker_open):
                can.append((2, lambda c=conn: self.relay_closes(c)))
            if conn.worker_open and conn.worker.alive and conn.down:
                can.append((4, lambda c=conn: self.worker_reads(c)))
            ended = conn.broken or (not conn.relay_open and not conn.down)
            if conn.worker_open and ended and not (conn.down and not conn.broken):
                can.append((2, lambda c=conn: self.worker_notices(c)))
            if faults and not conn.broken and conn.worker_open:
                can.append((0.15, lambda c=conn: self.cut(c)))
        for attempts in self.workers.values():
            worker = attempts[-1]
            for one in attempts:
                if one.alive and not (one.conn and one.conn.worker_open):
                    can.append((2, lambda w=one: self.connect(w)))
                if one.alive and one.made < one.frames and (one.extended or one.connected):
                    can.append((2, lambda w=one: self.make(w)))
            if faults and len(attempts) < 3 and worker.extended:
                can.append((0.05, lambda w=worker: self.replace(w)))
            if len(attempts) > 1 and attempts[-2].alive:
                can.append((0.5, lambda w=attempts[-2]: self.die(w)))
        if faults:
            can.append((0.1, self.crash))
        return can

    def cut(self, conn):
        conn.broken = True
        self.lost |= {one for one in (*conn.up, *conn.down) if isinstance(one[0], int)}
        if conn.whole is not None:
            self.lost.add(conn.whole.body)
        conn.up.clear()
        conn.down.clear()

    def worker_notices(self, conn):
        self.lost |= {one for one in conn.down if isinstance(one[0], int)}
        conn.worker_open, conn.broken = False, True

    def replace(self, worker):
        again = Worker(
            worker.number, worker.partner, worker.attempt + 1, worker.extended, worker.frames
        )
        self.workers[worker.number].append(again)

    def die(self, worker):
        worker.alive = False
        if worker.conn:
            worker.conn.worker_open, worker.conn.broken = False, True

    def crash(self):
        for conn in self.conns:
            if conn.relay_open:
                self.cut(conn)
                self.lost |= {frame.body or frame.place for frame, _ in conn.box}
            conn.relay_open = conn.known = False
            conn.broken = True
            conn.box.clear()
        waiting = [
            frame.body or frame.place
            for party in self.board.mailboxes.parties.values()
            for frame in party.frames.values()
        ]
        self.start_relay()
        self.lost |= set(waiting) - {label for _, label, *_ in self.rows.values()}
        self.top_in.clear()
        for attempts in self.workers.values():
            for worker in attempts:
                worker.let_in = False

    def run(self, steps, faults=True):
        for _ in range(steps):
            can = self.steps(faults)
            if not can:
                return
            ((_, call),) = self.random.choices(can, [weight for weight, _ in can])
            call()
            self.check()

    def check(self):
        for (_, _), (_, label, sender, number) in self.rows.items():
            assert sender is None or label == (int(sender.number), number), "R2"
        held = sum(1 for party in self.board.mailboxes.parties.values() for _ in party.frames)
        assert self.board.mailboxes.total >= 0
        assert held >= 0

    def settle(self):
        """No faults any more: let everything happen that can."""
        for attempts in self.workers.values():
            for worker in attempts[:-1]:
                self.die(worker)
        for _ in range(100_000):
            can = [step for step in self.steps(False) if step]
            if not can:
                return
            ((_, call),) = self.random.choices(can, [weight for weight, _ in can])
            call()
        raise AssertionError("it never settles")
