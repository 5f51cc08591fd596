"""All names and the frames waiting for them: which stay in memory, go to disk or are dropped.

It is a part of the switchboard, and pure as well: it appends effects to the list `effects`.
"""

from collections import Counter

from mu.relay.effects import Drop, Forget, Give, RelayEffect, ReportLoss, Store
from mu.relay.limits import BLOB, LARGE, OVERHEAD, SMALL, JobLookup, RelayLimits
from mu.relay.parties import Frame, Name, Party

FORGET_S = 86400.0
"""How long the counts of an unused name are kept when its job is not known."""


class Mailboxes:
    """The parties by name, and how much they hold."""

    def __init__(self, limits: RelayLimits, jobs: JobLookup, effects: list[RelayEffect]) -> None:
        self.limits = limits
        self.parties: dict[Name, Party] = {}
        self.memory = 0
        """How much the frames in memory count, in bytes."""
        self.total = 0
        """How much all frames count, in memory and on disk, in bytes."""
        self.counts: Counter[str] = Counter()
        """How many frames were `lost`, and how many `repeated`: they arrived a second time."""
        self._jobs = jobs
        self._effects = effects
        self._soft = limits.memory * 3 // 4  # above this, frames are written to disk

    # ------------------------------------------------ names

    def party(self, name: Name) -> Party:
        party = self.parties.get(name)
        if party is None:
            party = self.parties[name] = Party(name)
        return party

    def tidy(self, party: Party) -> None:
        """Forget a name at once if nothing about it can matter any more."""
        if party.unused and not (party.durable or party.top):
            self.parties.pop(party.name, None)

    def restore_name(self, name: Name, held: int, count: int, given: int) -> None:
        party = self.party(name)
        party.held = party.disk = held
        party.count, party.given = count, given
        party.durable = True

    def restore_frame(self, name: Name, number: int, size: int, at: float) -> Frame:
        """Put a frame that is on disk into its mailbox; call this in numerical order."""
        party = self.party(name)
        frame = Frame(size, at, party)
        frame.number, frame.stored = number, True
        party.put(frame)
        party.bytes += frame.cost
        self.total += frame.cost
        return frame

    # ------------------------------------------------ frames arrive

    def reserve(self, party: Party, size: int, now: float, durable: bool) -> Frame:
        """Return a new, arriving frame; `durable`: it must be on disk before it is passed on."""
        file = size > SMALL and (
            size > LARGE or self.memory + size > self._soft or (durable and size > BLOB)
        )
        frame = Frame(size, now, party)
        frame.file, frame.in_memory = file, not file
        party.bytes += frame.cost
        self.total += frame.cost
        if not file:
            self.memory += frame.cost
        return frame

    def append(self, frame: Frame) -> None:
        """Put a complete frame into its mailbox."""
        party = frame.party
        frame.number = party.count + 1
        last = next(reversed(party.frames.values()), None)
        spilled = self.memory > self._soft or (last and (last.storing or last.stored))
        party.put(frame)
        party.loose[frame.number] = frame
        if frame.sender is not None or frame.file or party.extended:
            self.store(frame)
        elif spilled:
            self.store_all(party)
        receiver = party.receiver
        if frame.storing and receiver is not None and not receiver.extended:
            self.give(party, frame.number)

    def store(self, frame: Frame) -> None:
        if not (frame.storing or frame.stored):
            frame.storing = frame.party.durable = True
            frame.party.loose.pop(frame.number, None)
            if frame.sender is not None:
                frame.sender.durable = True
            self._effects.append(Store(frame))

    def store_all(self, party: Party) -> None:
        for frame in list(party.loose.values()):
            self.store(frame)

    def give(self, party: Party, number: int) -> None:
        """Record that frames up to this number count as delivered."""
        party.given = number
        party.giving += 1
        self._effects.append(Give(party.name, number))

    # ------------------------------------------------ frames are dropped

    def unload(self, frame: Frame) -> None:
        """Count a frame as no longer in memory."""
        frame.in_memory = False
        self.memory -= frame.cost

    def release(self, frame: Frame) -> None:
        """Drop a frame that is no longer needed."""
        if frame.dropped or frame.skipped:
            return
        frame.dropped = True
        party = frame.party
        if frame.number:
            party.frames.pop(frame.number, None)
            party.loose.pop(frame.number, None)
        party.bytes -= frame.cost
        self.total -= frame.cost
        if frame.in_memory:
            self.memory -= frame.cost
        self._effects.append(Drop(frame))

    def confirm(self, party: Party, received: int) -> None:
        """Drop the frames that an extended peer has confirmed, unless its job keeps them."""
        if not self._jobs.keeps(party.name.job):
            while party.frames and party.first <= received:
                self.release(party.frames[party.first])

    def age(self, now: float) -> None:
        """Drop frames that were kept long enough, and names that were unused for long enough."""
        ended: dict[str, bool] = {}
        for party in list(self.parties.values()):
            job = party.name.job
            if job not in ended:
                ended[job] = self._jobs.ended(job)
            if party.frames:
                self._age_frames(party, now, ended[job])
            if party.unused:
                party.idle_since = now if party.idle_since is None else party.idle_since
                if ended[job] or now - party.idle_since >= FORGET_S:
                    self._forget(party)

    def _age_frames(self, party: Party, now: float, ended: bool) -> None:
        keep_s = max(self.limits.keep_s, self._jobs.keeps(party.name.job))
        lost = size = 0
        while party.frames:
            frame = party.frames[party.first]
            old = ended or now - frame.at >= keep_s
            if not old or party.is_out(frame):
                break
            if not frame.delivered:
                if party.current is not None and not ended:
                    break
                lost, size = lost + 1, size + frame.size
            self.release(frame)
        if lost and not ended:
            self.counts["lost"] += lost
            reason = f"no worker fetched them within {keep_s:g} s"
            self._effects.append(ReportLoss(party.name, lost, size, reason))

    def _forget(self, party: Party) -> None:
        del self.parties[party.name]
        if party.durable:
            self._effects.append(Forget(party.name))

    # ------------------------------------------------ space

    def fits(self, party: Party, size: int) -> bool:
        """Return whether there is space for a frame; drop delivered ones if that helps."""
        cost = size + OVERHEAD
        full = size <= SMALL and self.memory and self.memory + cost > self.limits.memory
        return not full and self._make_space(party, cost)

    def _make_space(self, party: Party, size: int) -> bool:
        limits = self.limits
        if party.bytes + size > limits.mailbox:
            self._drop_delivered(party, party.bytes + size - limits.mailbox)
        if party.bytes + size <= limits.mailbox and self.total + size > limits.total:
            begun = [one for one in self.parties.values() if one.frames]
            for other in sorted(begun, key=lambda one: one.frames[one.first].at):
                if self.total + size <= limits.total:
                    break
                self._drop_delivered(other, self.total + size - limits.total)
        return party.bytes + size <= limits.mailbox and self.total + size <= limits.total

    def _drop_delivered(self, party: Party, size: int) -> None:
        """Drop at least `size` bytes of delivered frames, if there are as many, oldest first."""
        if self._jobs.keeps(party.name.job):
            return
        while party.frames:
            frame = party.frames[party.first]
            if size <= 0 or not frame.delivered or party.is_out(frame):
                return
            size -= frame.cost
            self.release(frame)
