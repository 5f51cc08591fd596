"""Decides which connection gets which frame, without bytes, sockets, disk or clock.

It turns events into effects. Plain peers are original workers; extended peers say AT. A model of
the protocol checks the rules for extended peers. In addition, an extended receiver gets only frames
that are on disk, so that the order in which frames of several senders reached a mailbox survives a
restart.
"""

from collections.abc import Iterable

from mu.relay.effects import (
    Close,
    Deliver,
    Hold,
    Link,
    RelayEffect,
    Resume,
    Tell,
    Unlink,
    Unload,
)
from mu.relay.limits import MIB, OVERHEAD, FrameTooLarge, JobLookup, RelayLimits
from mu.relay.mailboxes import Mailboxes
from mu.relay.parties import Frame, Name, Party, Peer, PeerState

WINDOW_FRAMES, WINDOW_BYTES = 64, MIB
"""How much may be in transit to one receiver: this many frames or bytes, or one larger frame."""
GIVEN_AHEAD = 64
"""How many frames are recorded as delivered at once, before a plain peer gets the first of them."""


class Switchboard:
    """All names, mailboxes and connections of a relay."""

    def __init__(self, limits: RelayLimits, jobs: JobLookup) -> None:
        self._effects: list[RelayEffect] = []
        self.mailboxes = Mailboxes(limits, jobs, self._effects)
        self.peers: dict[Peer, PeerState] = {}
        self._waiting: dict[Peer, tuple[int, float]] = {}  # size, since when; in order of asking

    # ------------------------------------------------ events: connections

    def hello(self, peer: Peer, name: Name, partner: str) -> list[RelayEffect]:
        """A connection has sent its hello; `plain` or `extended` follows."""
        mailboxes = self.mailboxes
        party, other = mailboxes.party(name), mailboxes.party(name._replace(number=partner))
        known = self.peers[peer] = PeerState(peer, party, other)
        party.candidates[peer] = other.senders[peer] = known
        party.idle_since = other.idle_since = None
        if not party.doubt:
            party.doubt = True
            self._effects += [Hold(sender) for sender in party.links]
        return self._take()

    def plain(self, peer: Peer) -> list[RelayEffect]:
        """A peer is plain: it sent no AT."""
        self._admit(self.peers[peer])
        return self._take()

    def extended(self, peer: Peer, attempt: int, sent: int, received: int) -> list[RelayEffect]:
        """A peer sent AT. One taken for plain may still do that, if nothing was sent to it."""
        known = self.peers[peer]
        party = known.party
        if attempt < party.top:
            self._close(known, f"its attempt {attempt} was replaced by attempt {party.top}")
        elif received + 1 < party.first:
            self._close(
                known,
                f"it needs frame {received + 1} for {party.name}, but the relay no longer has it:"
                f" its frames start at {party.first} (see relay_keep, keep_s, mailbox_bytes)",
            )
        else:
            party.top = attempt
            known.extended, known.sent, known.received = True, sent, received
            self.mailboxes.confirm(party, received)
            self._admit(known)
        return self._take()

    def gone(self, peer: Peer, undelivered: Iterable[Frame] = ()) -> list[RelayEffect]:
        """A connection ended; `undelivered`: frames of its links that it did not fully receive."""
        known = self.peers.pop(peer)
        party, partner = known.party, known.partner
        known.closing = True
        self._waiting.pop(peer, None)
        partner.senders.pop(peer)
        partner.links.pop(peer, None)
        party.candidates.pop(peer, None)
        if known.arriving is not None:
            self.mailboxes.release(known.arriving)
        if party.heir is known:
            party.heir = None
        if party.current is known:
            party.current = None
            if not known.extended and party.given >= party.first:
                self.mailboxes.give(party, party.first - 1)
            for frame in undelivered:
                self.mailboxes.append(frame)
            if party.passing:
                party.passing.clear()
                self._effects += [Resume(one) for one in party.senders if one not in party.links]
            self._effects += [Unlink(sender) for sender in party.links]
            party.links.clear()
        if party.current is None and party.heir is not None:
            heir, party.heir = party.heir, None
            self._seat(heir)
        else:
            self._pump(party)
            self._relink(party)
        for one in (party, partner):
            self.mailboxes.tidy(one)
        self._retry()
        return self._take()

    # ------------------------------------------------ events: frames

    def announce(self, peer: Peer, size: int, now: float) -> Frame | None:
        """A peer begins to send a frame: return it, or None if the peer must wait for Resume.

        Raises FrameTooLarge.
        """
        known = self.peers[peer]
        party = known.partner
        if known.party in party.passing and peer not in party.links:
            return None  # an earlier frame of the same name is on a link and may be returned
        if known.extended and known.next_in <= known.party.held:
            frame = known.arriving = Frame(size, now, party)
            frame.skipped = True
            return frame
        limits = self.mailboxes.limits
        if size + OVERHEAD > min(limits.mailbox, limits.total):
            raise FrameTooLarge(
                f"its frame of {size} bytes exceeds what the relay may hold"
                " (see mailbox_bytes and total_bytes)"
            )
        if not self.mailboxes.fits(party, size):
            self._waiting.setdefault(peer, (size, now))
            return None
        self._waiting.pop(peer, None)
        durable = known.extended or party.extended
        frame = known.arriving = self.mailboxes.reserve(party, size, now, durable)
        return frame

    def arrived(self, peer: Peer, frame: Frame) -> list[RelayEffect]:
        """An announced frame is complete, and its sender is not linked."""
        known = self.peers[peer]
        assert peer not in known.partner.links
        known.arriving = None
        if known.extended:
            number = known.next_in
            known.next_in += 1
            if frame.skipped:
                self.mailboxes.counts["repeated"] += 1
                return []
            frame.sender, frame.sender_number = known.party, number
            known.party.held = number
        self.mailboxes.append(frame)
        self._pump(frame.party)
        return self._take()

    def linked(self, peer: Peer, frame: Frame) -> None:
        """An announced frame is complete, and its sender is linked."""
        known = self.peers[peer]
        assert peer in known.partner.links
        known.arriving = None
        frame.via = known.party
        frame.party.passing[known.party] += 1

    def passed(self, frame: Frame) -> list[RelayEffect]:
        """A frame was written to the other end of its link."""
        party, via = frame.party, frame.via
        assert via is not None
        party.passing[via] -= 1
        if not party.passing[via]:
            del party.passing[via]
            for sender in party.senders.values():
                if sender.party is via and sender.id not in party.links:
                    self._effects.append(Resume(sender.id))
        self.mailboxes.release(frame)
        self._retry()
        return self._take()

    def delivered(self, peer: Peer, frame: Frame) -> list[RelayEffect]:
        """A frame was written to its receiver."""
        known = self.peers[peer]
        del known.out[frame]
        known.out_bytes -= frame.size
        if known.extended:
            frame.delivered = True
        else:
            self.mailboxes.release(frame)
        self._retry()
        self._pump(known.party)
        if not known.extended:
            self._relink(known.party)
        return self._take()

    # ------------------------------------------------ events: disk and time

    def stored(self, frames: Iterable[Frame]) -> list[RelayEffect]:
        """These frames are on disk."""
        parties: dict[Party, None] = {}
        senders: dict[Party, None] = {}
        for frame in frames:
            frame.storing, frame.stored = False, True
            if frame.sender is not None:
                frame.sender.disk = frame.sender_number
                senders[frame.sender] = None
            parties[frame.party] = None
        for party in senders:
            if party.current is not None and party.current.extended and not party.current.closing:
                self._effects.append(Tell(party.current.id, party.disk))
        for party in parties:
            self._pump(party)
        for frame in frames:
            if frame.in_memory and not frame.dropped:
                self.mailboxes.unload(frame)
                self._effects.append(Unload(frame))
        self._retry()
        return self._take()

    def gave(self, name: Name) -> list[RelayEffect]:
        """A Give is on disk."""
        party = self.mailboxes.parties[name]
        party.giving -= 1
        self._pump(party)
        return self._take()

    def tick(self, now: float) -> list[RelayEffect]:
        """Drop old frames, and close senders that waited too long. Call this regularly."""
        self.mailboxes.age(now)
        for peer, (size, since) in list(self._waiting.items()):
            known = self.peers[peer]
            if now - since > self.mailboxes.limits.keep_s and not self._fits(peer, size):
                waited = f"for {now - since:.0f} s there was no space for its frame of {size} bytes"
                self._close(known, f"{waited} for {known.partner.name}")
        self._retry()
        return self._take()

    # ------------------------------------------------ inside: who holds a name

    def _admit(self, peer: PeerState) -> None:
        party = peer.party
        party.candidates.pop(peer.id, None)
        if party.heir is not None:
            self._close(party.heir, "a newer connection took over its name")
        old = party.current
        if old is not None and old is not peer:
            party.heir = peer
            self._close(old, "a newer connection took over its name")
        else:
            self._seat(peer)

    def _seat(self, peer: PeerState) -> None:
        party = peer.party
        party.current = peer
        peer.seated = True
        if peer.extended:
            self._effects += [Unlink(sender) for sender in party.links]
            party.links.clear()
            if peer.partner.links.pop(peer.id, None):
                self._effects.append(Unlink(peer.id))
            peer.next_in = min(peer.sent, party.disk) + 1
            peer.next = peer.received + 1
            for frame in party.frames.values():  # it gets all, even if another got them before
                frame.delivered = frame.delivered and frame.number <= peer.received
            self._effects.append(Tell(peer.id, party.disk))
        else:
            peer.next = party.first
        self._pump(party)
        self._relink(party)
        self._relink(peer.partner)

    def _relink(self, party: Party) -> None:
        """Link plain senders directly to their plain partner if no frames are waiting for it."""
        receiver = party.receiver
        if receiver is None or receiver.extended:
            return
        if party.doubt:
            party.doubt = False
            self._effects += [Link(sender, receiver.id) for sender in party.links]
        if party.frames:
            return
        for sender in party.senders.values():
            plain = sender.seated and not (sender.extended or sender.closing)
            if plain and sender.id not in party.links:
                party.links[sender.id] = sender
                self._effects.append(Link(sender.id, receiver.id))

    def _close(self, peer: PeerState, reason: str) -> None:
        if not peer.closing:
            peer.closing = True
            self._effects.append(Close(peer.id, reason))

    # ------------------------------------------------ inside: delivery

    def _pump(self, party: Party) -> None:
        """Deliver the frames that may be delivered now."""
        receiver = party.receiver
        if receiver is None:
            return
        while receiver.next <= party.count:
            number = receiver.next
            frame = party.frames.get(number)
            if frame is None:
                if receiver.extended:
                    self._close(receiver, f"the relay dropped frame {number}, which it needs")
                    return
                receiver.next += 1
                continue
            if receiver.extended:
                if not frame.stored:
                    if not frame.storing:
                        self.mailboxes.store_all(party)
                    return
            elif frame.storing:
                return
            elif frame.stored and (party.giving or number > party.given):
                if not party.giving:
                    self.mailboxes.give(party, min(party.count, number + GIVEN_AHEAD))
                return
            if receiver.out and (
                len(receiver.out) >= WINDOW_FRAMES or receiver.out_bytes + frame.size > WINDOW_BYTES
            ):
                return
            receiver.next += 1
            receiver.out[frame] = None
            receiver.out_bytes += frame.size
            self._effects.append(Deliver(receiver.id, frame, receiver.extended))

    def _retry(self) -> None:
        """Let waiting senders try again if there is space now."""
        for peer, (size, _) in self._waiting.items():
            if self._fits(peer, size):
                self._effects.append(Resume(peer))

    def _fits(self, peer: Peer, size: int) -> bool:
        return self.mailboxes.fits(self.peers[peer].partner, size)

    def _take(self) -> list[RelayEffect]:
        effects = self._effects.copy()
        self._effects.clear()
        return effects
