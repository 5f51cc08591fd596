"""Who gets which frame: the relay's rules, without bytes, sockets, disk or clock.

Events in, orders out. Peers are opaque; a Frame's body is the caller's business. The rules for
extended peers (those that say AT) are those of the protocol page, where a model checks them; on
top of them an extended receiver gets only what is on disk, so that the order in which several
senders' frames reached a mailbox outlives the process.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

KIB, MIB = 2**10, 2**20
SMALL = 64 * KIB
"""Frames up to this size always pass through memory."""
BLOB = 256 * KIB
"""A frame that must be on disk, and is longer, goes there as it comes."""
LARGE = 4 * MIB
"""A frame that is longer goes to disk as it comes, in any case."""
WINDOW_FRAMES, WINDOW_BYTES = 64, MIB
"""What one receiver is being given at a time: so many frames, or one that is larger."""
GIVEN_AHEAD = 64
FORGET_S = 86400.0
"""The counts of a name that nobody uses are forgotten after so long, where its job is not known."""

Peer = Hashable


class Refused(Exception):
    """A peer that cannot be served any more; the text says why."""


class Name(NamedTuple):
    """Whom a worker is for its neighbours. The job comes from its certificate."""

    job: str
    uniq: str
    number: str

    def __str__(self) -> str:
        return f"{self.uniq}_{self.number} of job {self.job}"


class Jobs(Protocol):
    """What the relay asks about jobs."""

    def keeps(self, job: str) -> float:
        """For how many seconds all of a job's frames are kept, even when they were confirmed.

        0 without the job's switch `relay_keep`; with it, infinite: until the job ends.
        """

    def ended(self, job: str) -> bool:
        """Whether the job is known to have ended."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds."""

    keep_s: float = 600.0
    memory: int = 64 * MIB
    """For frames that wait, all together; what is more goes to disk."""
    mailbox: int = 2**30
    """For one name, in memory and on disk."""
    total: int = 2**33


class Frame:
    """One frame on its way, or in a mailbox."""

    __slots__ = (
        *("at", "body", "delivered", "dropped", "file", "in_memory", "number", "party"),
        *("place", "sender", "sender_number", "size", "skipped", "stored", "storing", "via"),
    )

    def __init__(self, size: int, at: float, party: "_Party") -> None:
        self.size = size
        self.at = at
        self.party = party
        """Whose mailbox it is for."""
        self.number = 0
        """In that mailbox, from 1."""
        self.sender: _Party | None = None
        """An extended sender, and the frame's number among those that are from it."""
        self.sender_number = 0
        self.via: _Party | None = None
        """Who sent it, if it goes over a link."""
        self.file = False
        """Its body is written to a file as it comes."""
        self.in_memory = False
        self.skipped = False
        """It is held already: its body is to be dropped."""
        self.storing = self.stored = False
        self.delivered = False
        """Some extended receiver was given it."""
        self.dropped = False
        self.body: Any = None
        self.place: Any = None

    @property
    def name(self) -> Name:
        return self.party.name


# ---------------------------------------------------------------- orders


@dataclass(frozen=True, slots=True)
class Link:
    """Pass each whole frame of a sender straight to a receiver, in the same form."""

    sender: Any
    receiver: Any


@dataclass(frozen=True, slots=True)
class Hold:
    """A sender's link is in doubt: take no more from it until the next Link or Unlink."""

    sender: Any


@dataclass(frozen=True, slots=True)
class Unlink:
    """Hand each frame of a sender to the switchboard again."""

    sender: Any


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give a receiver this frame, and say `delivered` when that is done."""

    receiver: Any
    frame: Frame
    prefixed: bool
    """As F:<frame>."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Say AT:<count>."""

    peer: Any
    count: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection, and say `gone`."""

    peer: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """A sender that was told to wait may announce its frame again."""

    sender: Any


@dataclass(frozen=True, slots=True)
class Store:
    """Put a frame on disk with its sender's count, and say `stored`: in the order of these orders."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Give:
    """Note on disk that frames up to this number count as given away, and say `gave`."""

    name: Name
    number: int


@dataclass(frozen=True, slots=True)
class Unload:
    """A frame that is on disk need not be in memory as well."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Drop:
    """A frame is not needed any more, wherever it is."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is to be known about this name any more."""

    name: Name


@dataclass(frozen=True, slots=True)
class Lost:
    """People should know: frames were dropped that nobody got."""

    name: Name
    frames: int
    size: int
    reason: str


Order = (Link | Hold | Unlink | Deliver | Tell | Close | Resume | Store | Give | Unload | Drop) | (
    Forget | Lost
)


# ---------------------------------------------------------------- what is known


class _Party:
    """A name: what came from it, what waits for it, who speaks as it."""

    __slots__ = (
        *("bytes", "candidates", "count", "current", "disk", "doubt", "durable", "frames"),
        *("given", "giving", "heir", "held", "idle_since", "links", "name", "passing"),
        *("senders", "top"),
    )

    def __init__(self, name: Name) -> None:
        self.name = name
        # as a sender
        self.held = 0  # frames of it that were taken, once it said AT ...
        self.disk = 0  # ... and that are on disk
        self.top = 0  # the highest attempt that was let in
        # as a receiver
        self.frames: dict[int, Frame] = {}  # its mailbox, by number
        self.count = 0  # the last number in it so far
        self.bytes = 0  # of it, and of what comes for it
        self.given = 0  # of what is on disk, frames up to here may go to a plain peer ...
        self.giving = 0  # ... once so many notes of that are on disk, too
        self.durable = False  # whether something about it is on disk
        self.senders: dict[Peer, _Peer] = {}
        self.links: dict[Peer, _Peer] = {}  # those of them that are linked to `current`
        self.passing: Counter[_Party] = Counter()  # frames that are on links, by who sent them
        self.doubt = False  # whether these links are on hold
        # who speaks as it
        self.current: _Peer | None = None
        self.heir: _Peer | None = None  # let in, as soon as `current` is gone
        self.candidates: dict[Peer, _Peer] = {}  # what they are is not known yet
        self.idle_since: float | None = None

    @property
    def first(self) -> int:
        """The lowest number that can still be had."""
        return next(iter(self.frames), self.count + 1)

    @property
    def receiver(self) -> "_Peer | None":
        """Who may be given frames now."""
        peer = self.current
        return None if peer is None or peer.closing or self.candidates else peer

    @property
    def unused(self) -> bool:
        return not (
            self.frames
            or self.current
            or self.heir
            or self.candidates
            or self.senders
            or self.bytes
            or self.giving
            or self.passing
        )


class _Peer:
    """One connection."""

    __slots__ = (
        *("arriving", "closing", "extended", "id", "next", "next_in", "out", "out_bytes"),
        *("partner", "party", "received", "seated", "sent"),
    )

    def __init__(self, peer: Peer, party: _Party, partner: _Party) -> None:
        self.id = peer
        self.party = party
        self.partner = partner
        self.extended = False
        self.sent = self.received = 0  # as its AT said
        self.seated = False  # it speaks as its name: `party.current` is it
        self.closing = False
        self.next_in = 1  # extended: the number of the next frame that comes from it
        self.next = 1  # the number in its mailbox of the next frame that it gets
        self.out: dict[Frame, None] = {}  # what it is being given
        self.out_bytes = 0
        self.arriving: Frame | None = None


class Switchboard:
    """All names, mailboxes and peers of a relay. `jobs` knows about relay_keep."""

    def __init__(self, limits: Limits, jobs: Jobs) -> None:
        self._limits = limits
        self._jobs = jobs
        self._soft = limits.memory * 3 // 4  # from here on frames are put on disk ...
        self._parties: dict[Name, _Party] = {}
        self._peers: dict[Peer, _Peer] = {}
        self._waiting: dict[Peer, tuple[int, float]] = {}  # by who asked first: size, since when
        self._orders: list[Order] = []
        self.memory = 0
        """Bytes of frames that are in memory."""
        self.total = 0
        """Bytes of all frames, wherever they are."""
        self.counts: Counter[str] = Counter()
        """Frames that were `lost`, or held already when they came (`repeated`)."""

    # ------------------------------------------------ after a restart

    def restore_name(self, name: Name, held: int, count: int, given: int) -> None:
        party = self._party(name)
        party.held = party.disk = held
        party.count, party.given = count, given
        party.durable = True

    def restore_frame(self, name: Name, number: int, size: int, at: float) -> Frame:
        """Take a frame that is on disk into its mailbox; they come in the order of their numbers."""
        party = self._party(name)
        frame = Frame(size, at, party)
        frame.number, frame.stored = number, True
        party.frames[number] = frame
        party.count = max(party.count, number)
        party.bytes += size
        self.total += size
        return frame

    # ------------------------------------------------ events: who comes and goes

    def hello(self, peer: Peer, name: Name, partner: str) -> list[Order]:
        """A connection says who it is; what it is, `plain` or `extended` will say."""
        party, other = self._party(name), self._party(name._replace(number=partner))
        known = self._peers[peer] = _Peer(peer, party, other)
        party.candidates[peer] = other.senders[peer] = known
        party.idle_since = other.idle_since = None
        if not party.doubt:
            party.doubt = True
            self._orders += [Hold(sender) for sender in party.links]
        return self._take()

    def plain(self, peer: Peer) -> list[Order]:
        """A peer knows nothing of AT."""
        self._let_in(self._peers[peer])
        return self._take()

    def extended(self, peer: Peer, attempt: int, sent: int, received: int) -> list[Order]:
        """A peer said AT. One that was taken for plain may still say it, if it was given nothing."""
        known = self._peers[peer]
        party = known.party
        if attempt < party.top:
            self._close(known, f"its attempt {attempt} was replaced by attempt {party.top}")
        elif received + 1 < party.first:
            self._close(
                known,
                f"it lacks frame {received + 1} of those for {party.name}, which is no longer"
                f" held: they begin with {party.first} (see relay_keep, keep_s, mailbox_bytes)",
            )
        else:
            party.top = attempt
            known.extended, known.sent, known.received = True, sent, received
            if not self._jobs.keeps(party.name.job):
                for number in [number for number in party.frames if number <= received]:
                    self._release(party.frames[number])
            self._let_in(known)
        return self._take()

    def gone(self, peer: Peer, undelivered: Iterable[Frame] = ()) -> list[Order]:
        """A connection ended; `undelivered` are frames of its links that it did not get whole."""
        known = self._peers.pop(peer)
        party, partner = known.party, known.partner
        known.closing = True
        self._waiting.pop(peer, None)
        partner.senders.pop(peer)
        partner.links.pop(peer, None)
        party.candidates.pop(peer, None)
        if known.arriving is not None:
            self._release(known.arriving)
        if party.heir is known:
            party.heir = None
        if party.current is known:
            party.current = None
            if not known.extended and party.given >= party.first:
                self._give(party, party.first - 1)
            for frame in undelivered:
                self._append(frame)
            if party.passing:
                party.passing.clear()
                self._orders += [Resume(one) for one in party.senders if one not in party.links]
            self._orders += [Unlink(sender) for sender in party.links]
            party.links.clear()
        if party.current is None and party.heir is not None:
            heir, party.heir = party.heir, None
            self._seat(heir)
        else:
            self._pump(party)
            self._relink(party)
        for one in (party, partner):
            self._tidy(one)
        self._retry()
        return self._take()

    # ------------------------------------------------ events: frames

    def announce(self, peer: Peer, size: int, now: float) -> Frame | None:
        """A peer begins a frame: return it, or None if it has to wait for Resume. Raises Refused."""
        known = self._peers[peer]
        party = known.partner
        if known.party in party.passing and peer not in party.links:
            return None  # what came before it in its name has yet to arrive, or to come back
        if known.extended and known.next_in <= known.party.held:
            frame = known.arriving = Frame(size, now, party)
            frame.skipped = True
            return frame
        if size > min(self._limits.mailbox, self._limits.total):
            raise Refused(
                f"a frame of {size} bytes cannot be held here: see mailbox_bytes and total_bytes"
            )
        durable = known.extended or self._is_extended(party)
        file = size > SMALL and (
            size > LARGE or self.memory + size > self._soft or (durable and size > BLOB)
        )
        if not self._fits(party, size):
            self._waiting.setdefault(peer, (size, now))
            return None
        self._waiting.pop(peer, None)
        frame = known.arriving = Frame(size, now, party)
        frame.file, frame.in_memory = file, not file
        party.bytes += size
        self.total += size
        self.memory += 0 if file else size
        return frame

    def arrived(self, peer: Peer, frame: Frame) -> list[Order]:
        """A frame that was announced has come whole, and did not go over a link."""
        known = self._peers[peer]
        assert peer not in known.partner.links
        known.arriving = None
        if known.extended:
            number = known.next_in
            known.next_in += 1
            if frame.skipped:
                self.counts["repeated"] += 1
                return []
            frame.sender, frame.sender_number = known.party, number
            known.party.held = number
        self._append(frame)
        self._pump(frame.party)
        return self._take()

    def linked(self, peer: Peer, frame: Frame) -> None:
        """A frame that was announced has come whole, and goes over the link."""
        known = self._peers[peer]
        assert peer in known.partner.links
        known.arriving = None
        frame.via = known.party
        frame.party.passing[known.party] += 1

    def passed(self, frame: Frame) -> list[Order]:
        """A frame has gone over a link whole."""
        party, via = frame.party, frame.via
        assert via is not None
        party.passing[via] -= 1
        if not party.passing[via]:
            del party.passing[via]
            for sender in party.senders.values():
                if sender.party is via and sender.id not in party.links:
                    self._orders.append(Resume(sender.id))
        self._release(frame)
        self._retry()
        return self._take()

    def delivered(self, peer: Peer, frame: Frame) -> list[Order]:
        """A receiver was given all of a frame."""
        known = self._peers[peer]
        del known.out[frame]
        known.out_bytes -= frame.size
        if known.extended:
            frame.delivered = True
        else:
            self._release(frame)
        self._retry()
        self._pump(known.party)
        if not known.extended:
            self._relink(known.party)
        return self._take()

    # ------------------------------------------------ events: the disk, time

    def stored(self, frames: Iterable[Frame]) -> list[Order]:
        """These are on disk."""
        parties: dict[_Party, None] = {}
        senders: dict[_Party, None] = {}
        for frame in frames:
            frame.storing, frame.stored = False, True
            if frame.sender is not None:
                frame.sender.disk = frame.sender_number
                senders[frame.sender] = None
            parties[frame.party] = None
        for party in senders:
            if party.current is not None and party.current.extended and not party.current.closing:
                self._orders.append(Tell(party.current.id, party.disk))
        for party in parties:
            self._pump(party)
        for frame in frames:
            if frame.in_memory and not frame.dropped:
                frame.in_memory = False
                self.memory -= frame.size
                self._orders.append(Unload(frame))
        self._retry()
        return self._take()

    def gave(self, name: Name) -> list[Order]:
        """A Give is on disk."""
        party = self._parties.get(name)
        if party is not None:
            party.giving -= 1
            self._pump(party)
        return self._take()

    def tick(self, now: float) -> list[Order]:
        """Drop what is too old, and close who has waited too long. To be called now and then."""
        ended: dict[str, bool] = {}
        for party in list(self._parties.values()):
            job = party.name.job
            if job not in ended:
                ended[job] = self._jobs.ended(job)
            if party.frames:
                self._age(party, now, ended[job])
            if party.unused:
                party.idle_since = now if party.idle_since is None else party.idle_since
                if ended[job] or now - party.idle_since >= FORGET_S:
                    self._forget(party)
        for peer, (size, since) in list(self._waiting.items()):
            known = self._peers[peer]
            if now - since > self._limits.keep_s and not self._fits(known.partner, size):
                waited = f"for {now - since:.0f} s there was no room for its {size} bytes"
                self._close(known, f"{waited} for {known.partner.name}, or in all")
        self._retry()
        return self._take()

    # ------------------------------------------------ inside: who speaks as a name

    def _let_in(self, peer: _Peer) -> None:
        party = peer.party
        party.candidates.pop(peer.id, None)
        if party.heir is not None:
            self._close(party.heir, "a newer connection has come in its name")
        old = party.current
        if old is not None and old is not peer:
            party.heir = peer
            self._close(old, "a newer connection has come in its name")
        else:
            self._seat(peer)

    def _seat(self, peer: _Peer) -> None:
        party = peer.party
        party.current = peer
        peer.seated = True
        if peer.extended:
            self._orders += [Unlink(sender) for sender in party.links]
            party.links.clear()
            if peer.partner.links.pop(peer.id, None):
                self._orders.append(Unlink(peer.id))
            peer.next_in = min(peer.sent, party.disk) + 1
            peer.next = peer.received + 1
            self._orders.append(Tell(peer.id, party.disk))
        else:
            peer.next = party.first
        self._pump(party)
        self._relink(party)
        self._relink(peer.partner)

    def _relink(self, party: _Party) -> None:
        """Let plain senders speak to their plain partner directly, where nothing waits for it."""
        receiver = party.receiver
        if receiver is None or receiver.extended:
            return
        if party.doubt:
            party.doubt = False
            self._orders += [Link(sender, receiver.id) for sender in party.links]
        if party.frames:
            return
        for sender in party.senders.values():
            plain = sender.seated and not (sender.extended or sender.closing)
            if plain and sender.id not in party.links:
                party.links[sender.id] = sender
                self._orders.append(Link(sender.id, receiver.id))

    def _close(self, peer: _Peer, reason: str) -> None:
        if not peer.closing:
            peer.closing = True
            self._orders.append(Close(peer.id, reason))

    # ------------------------------------------------ inside: mailboxes

    @staticmethod
    def _is_extended(party: _Party) -> bool:
        """Whether who gets the frames of this mailbox numbers them."""
        return party.top > 0 if party.current is None else party.current.extended

    def _append(self, frame: Frame) -> None:
        party = frame.party
        party.count += 1
        frame.number = party.count
        last = next(reversed(party.frames.values()), None)
        spilled = self.memory > self._soft or (last and (last.storing or last.stored))
        party.frames[frame.number] = frame
        if frame.sender is not None or frame.file or self._is_extended(party):
            self._store(frame)
        elif spilled:
            for one in party.frames.values():
                self._store(one)
        receiver = party.receiver
        if frame.storing and receiver is not None and not receiver.extended:
            self._give(party, frame.number)

    def _store(self, frame: Frame) -> None:
        if not (frame.storing or frame.stored):
            frame.storing = frame.party.durable = True
            if frame.sender is not None:
                frame.sender.durable = True
            self._orders.append(Store(frame))

    def _give(self, party: _Party, number: int) -> None:
        party.given = number
        party.giving += 1
        self._orders.append(Give(party.name, number))

    def _pump(self, party: _Party) -> None:
        """Give the receiver what it may be given now."""
        receiver = party.receiver
        if receiver is None:
            return
        while receiver.next <= party.count:
            number = receiver.next
            frame = party.frames.get(number)
            if frame is None:
                if receiver.extended:
                    self._close(receiver, f"frame {number} for it was dropped")
                    return
                receiver.next += 1
                continue
            if receiver.extended:
                if not frame.stored:
                    if not frame.storing:
                        for one in party.frames.values():
                            self._store(one)
                    return
            elif frame.storing:
                return
            elif frame.stored and (party.giving or number > party.given):
                if not party.giving:
                    self._give(party, min(party.count, number + GIVEN_AHEAD))
                return
            if receiver.out and (
                len(receiver.out) >= WINDOW_FRAMES or receiver.out_bytes + frame.size > WINDOW_BYTES
            ):
                return
            receiver.next += 1
            receiver.out[frame] = None
            receiver.out_bytes += frame.size
            self._orders.append(Deliver(receiver.id, frame, receiver.extended))

    def _release(self, frame: Frame) -> None:
        """A frame is not needed any more."""
        if frame.dropped or frame.skipped:
            return
        frame.dropped = True
        party = frame.party
        if frame.number:
            party.frames.pop(frame.number, None)
        party.bytes -= frame.size
        self.total -= frame.size
        if frame.in_memory:
            self.memory -= frame.size
        self._orders.append(Drop(frame))

    def _make_room(self, party: _Party, size: int) -> bool:
        """Return whether there is room for a frame; what was delivered already makes room."""
        limits = self._limits
        if party.bytes + size > limits.mailbox:
            self._drop_delivered(party, party.bytes + size - limits.mailbox)
        if party.bytes + size <= limits.mailbox and self.total + size > limits.total:
            begun = [one for one in self._parties.values() if one.frames]
            for other in sorted(begun, key=lambda one: one.frames[one.first].at):
                if self.total + size <= limits.total:
                    break
                self._drop_delivered(other, self.total + size - limits.total)
        return party.bytes + size <= limits.mailbox and self.total + size <= limits.total

    def _drop_delivered(self, party: _Party, size: int) -> None:
        """Drop so many bytes of what was delivered, the oldest first."""
        if self._jobs.keeps(party.name.job):
            return
        for frame in list(party.frames.values()):
            if size <= 0 or not frame.delivered or self._is_out(frame):
                return
            size -= frame.size
            self._release(frame)

    @staticmethod
    def _is_out(frame: Frame) -> bool:
        current = frame.party.current
        return current is not None and frame in current.out

    def _age(self, party: _Party, now: float, ended: bool) -> None:
        """Drop what has been kept long enough."""
        keep_s = max(self._limits.keep_s, self._jobs.keeps(party.name.job))
        lost = size = 0
        for frame in list(party.frames.values()):
            old = ended or now - frame.at >= keep_s
            if not old or self._is_out(frame):
                break
            if not frame.delivered:
                if party.current is not None and not ended:
                    break
                lost, size = lost + 1, size + frame.size
            self._release(frame)
        if lost and not ended:
            self.counts["lost"] += lost
            reason = f"nobody came for them in {keep_s:g} s"
            self._orders.append(Lost(party.name, lost, size, reason))

    def _retry(self) -> None:
        """Let senders that wait try again, where there is room now."""
        self._orders += [
            Resume(peer)
            for peer, (size, _) in self._waiting.items()
            if self._fits(self._peers[peer].partner, size)
        ]

    def _fits(self, party: _Party, size: int) -> bool:
        full = size <= SMALL and self.memory and self.memory + size > self._limits.memory
        return not full and self._make_room(party, size)

    # ------------------------------------------------ inside: names

    def _party(self, name: Name) -> _Party:
        party = self._parties.get(name)
        if party is None:
            party = self._parties[name] = _Party(name)
        return party

    def _tidy(self, party: _Party) -> None:
        """Forget a name at once, if nothing of it matters to anyone."""
        if party.unused and not (party.durable or party.top):
            self._parties.pop(party.name, None)

    def _forget(self, party: _Party) -> None:
        del self._parties[party.name]
        if party.durable:
            self._orders.append(Forget(party.name))

    def _take(self) -> list[Order]:
        orders, self._orders = self._orders, []
        return orders
